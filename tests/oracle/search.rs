//! `search`, with its counts and pages, `tx`, `report` and `export`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_postgres::Client;

use crate::asked::{Asked, FROM, same};
use crate::filters::{Columns, Filter};
use crate::history::{Told, about};
use crate::shop::Kind;

/// By position: the number of the version's line in the log.
type Lines = BTreeMap<String, i64>;

pub async fn ask(asked: &mut Asked<'_>, client: &Client) {
    let lines = export(asked);
    let tables = columns(client).await;
    let tables: Vec<(&str, Columns)> =
        tables.iter().map(|(table, columns)| (table.as_str(), columns.clone())).collect();
    for _ in 0..12 {
        let filter = Filter::random(&mut asked.dice, &tables, &asked.moments);
        search(asked, client, &filter, &lines).await;
    }
    for _ in 0..3 {
        tx(asked);
        report(asked, client).await;
    }
}

/// The columns of each table that had one name, which was never another's, and whose values are not protected.
async fn columns(client: &Client) -> BTreeMap<String, Columns> {
    let asked = "SELECT tab, name, bool_or(kind LIKE 'numeric%'), bool_or(kind = 'integer') FROM ( \
        SELECT DISTINCT tab, a.number, a.name, types ->> a.number AS kind FROM truth.log, jsonb_each_text(names) AS a (number, name)) l \
        WHERE name NOT IN ('id', 'item', 'line', 'part', 'ssn', 'email', 'card', 'pin', 'photo') AND kind IN ('text', 'integer', 'numeric(12,2)') \
        AND NOT EXISTS (SELECT FROM truth.log o, jsonb_each_text(o.names) AS b (number, name) \
            WHERE o.tab = l.tab AND (b.number = l.number) <> (b.name = l.name)) GROUP BY tab, name ORDER BY tab, name";
    let mut tables: BTreeMap<String, Columns> = BTreeMap::new();
    for row in client.query(asked, &[]).await.expect("the columns") {
        let kind = match (row.get(2), row.get(3)) {
            (true, _) => Kind::Money,
            (_, true) => Kind::Int,
            _ => Kind::Word,
        };
        let table: String = row.get(0);
        tables.entry(table.trim_start_matches("public.").to_owned()).or_default().push((row.get(1), kind));
    }
    tables
}

/// Exports everything, and finds out which line of the log each position is.
fn export(asked: &mut Asked<'_>) -> Lines {
    let tables: BTreeSet<&str> = asked.truth.records.iter().map(|record| record.table.as_str()).collect();
    let mut lines = Lines::new();
    let folders: Vec<_> = (0..FROM.len()).map(|at| asked.world.path(&format!("exported {at}"))).collect();
    for (from, folder) in FROM.iter().zip(&folders) {
        asked.world.succeed(&[&["export", "--to", folder.to_str().expect("a plain name")][..], from].concat());
    }
    for table in tables {
        let question = ["export", table];
        let files = folders.iter().map(|folder| std::fs::read_to_string(folder.join(format!("{table}.jsonl"))));
        let files: Vec<Vec<String>> = files.map(|file| file.expect("a file").lines().map(same).collect()).collect();
        asked.count("questions");
        for at in 1..files.len() {
            let differs = files[0].len() != files[at].len() || files[0] != files[at];
            let first = files[0].iter().zip(&files[at]).find(|(a, b)| a != b);
            asked.blame(&question, differs.then(|| format!("from {:?} it differs: {first:?}", FROM[at])));
        }
        let records: Vec<_> = asked.truth.records.iter().filter(|record| record.table == table).collect();
        if files[0].len() != records.len() {
            asked.blame(&question, [format!("{} versions and not {}", files[0].len(), records.len())]);
        }
        let mut wrong = Vec::new();
        for (line, record) in files[0].iter().zip(records) {
            let told: Told<'_> = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            wrong.extend(about(&told, record));
            lines.insert(told.position, record.n);
        }
        asked.blame(&question, wrong);
    }
    lines
}

async fn search(asked: &mut Asked<'_>, client: &Client, filter: &Filter, lines: &Lines) {
    let mut question = vec!["search", "--json", "--limit", "100000"];
    question.extend(filter.words.iter().map(String::as_str));
    let answer = asked.ask(&question);
    if answer.code != 0 {
        return asked.blame(&question, [format!("exit code {}: {}", answer.code, answer.err)]);
    }
    let found: Vec<i64> = positions(&answer.out).iter().filter_map(|position| lines.get(position).copied()).collect();
    let sql = format!("SELECT n, event, tab FROM truth.records WHERE {} ORDER BY n DESC", filter.sql);
    let expected = client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let mut wrong = Vec::new();
    let mut untold = 0;
    let mut expected_lines = Vec::new();
    for row in &expected {
        let (n, event, table): (i64, &str, &str) = (row.get(0), row.get(1), row.get(2));
        expected_lines.push(n);
        let may_be_untold = filter.about_columns && !asked.is_full(table) && matches!(event, "updated" | "deleted");
        match found.contains(&n) {
            true => asked.count("found"),
            false if may_be_untold => untold += 1,
            false => wrong.push(format!("line {n} ({event} of {table}) is not found")),
        }
    }
    let extra: Vec<&i64> = found.iter().filter(|n| !expected_lines.contains(n)).collect();
    wrong.extend((!extra.is_empty()).then(|| format!("lines {extra:?} are found, and are none of {sql}")));
    wrong.extend((!found.is_sorted_by(|a, b| a > b)).then(|| format!("not the newest first, or twice: {found:?}")));
    if untold > 0 {
        asked.count("untold");
        wrong.extend((!answer.err.contains("could not be told")).then(|| format!("{untold} are left out in silence")));
    }
    asked.blame(&question, wrong);
    if untold == 0 {
        counts(asked, client, filter).await;
    }
    pages(asked, filter, &positions(&answer.out));
}

fn positions(out: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Place {
        position: String,
    }
    out.lines().map(|line| serde_json::from_str::<Place>(line).expect("a record").position).collect()
}

/// The same question, counted.
async fn counts(asked: &mut Asked<'_>, client: &Client, filter: &Filter) {
    let words: Vec<&str> = filter.words.iter().map(String::as_str).collect();
    let question = [&["search", "--count", "--json"], words.as_slice()].concat();
    let told: Value = serde_json::from_str(&asked.ask(&question).out).unwrap_or_default();
    let sql = format!("SELECT count(*) FROM truth.records WHERE {}", filter.sql);
    let count: i64 = client.query_one(&sql, &[]).await.expect("a count").get(0);
    asked.blame(&question, (told["count"] != count).then(|| format!("{told} and not {count}")));

    let question = [&["search", "--group-by", "actor,event,table", "--json"], words.as_slice()].concat();
    let answer = asked.ask(&question);
    let told: BTreeSet<String> = answer.out.lines().map(str::to_owned).collect();
    let sql = format!("SELECT actor, event, tab, count(*) FROM truth.records WHERE {} GROUP BY 1, 2, 3", filter.sql);
    let rows = client.query(&sql, &[]).await.expect("counts");
    let line = |row: &tokio_postgres::Row| {
        let (actor, event, table, count): (Option<&str>, &str, &str, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        format!(
            r#"{{"actor_id":{},"event":"{event}","table_name":"{table}","count":{count}}}"#,
            actor.map_or_else(|| "null".to_owned(), |actor| format!("\"{actor}\""))
        )
    };
    let expected: BTreeSet<String> = rows.iter().map(line).collect();
    let differs = told != expected;
    asked.blame(&question, differs.then(|| format!("{told:?} and not {expected:?}")));
}

/// The same answer, page by page.
fn pages(asked: &mut Asked<'_>, filter: &Filter, whole: &[String]) {
    #[derive(Deserialize)]
    struct Page<'r> {
        #[serde(borrow)]
        items: Vec<&'r RawValue>,
        next: Option<String>,
    }
    let words: Vec<&str> = filter.words.iter().map(String::as_str).collect();
    let (mut paged, mut next): (Vec<String>, Option<String>) = (Vec::new(), None);
    let size = (whole.len() / 2 + 1).to_string();
    loop {
        let before: Vec<&str> = next.iter().flat_map(|next| ["--before", next]).collect();
        let question = [&["search", "--page", "--limit", &size][..], &before, &words].concat();
        let output = asked.world.command(&question);
        let page: Page<'_> = match serde_json::from_slice(&output.stdout) {
            Ok(page) => page,
            Err(error) => return asked.blame(&question, [format!("{error}: {output:?}")]),
        };
        let items = page.items.iter().map(|item| item.get().to_owned() + "\n").collect::<String>();
        paged.extend(positions(&items));
        next = page.next;
        if next.is_none() || paged.len() > whole.len() {
            break;
        }
    }
    asked.blame(&words, (paged != whole).then(|| format!("in pages it is {paged:?} and not {whole:?}")));
}

/// One transaction.
fn tx(asked: &mut Asked<'_>) {
    #[derive(Deserialize)]
    struct Transaction<'r> {
        #[serde(borrow)]
        versions: Vec<Told<'r>>,
        tables: Vec<BTreeMap<String, Value>>,
    }
    let xid = asked.dice.pick(&asked.truth.records).xid;
    let which = format!("xid:{xid}");
    let question = ["tx", &which, "--json"];
    // An update's row after it is not in hot, and the versions lie in one line.
    let answers = FROM.map(|from| asked.world.succeed(&[&question[..], from].concat()));
    asked.count("questions");
    for (from, answer) in FROM.iter().zip(&answers) {
        let told: Transaction<'_> = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        let expected: Vec<_> = asked.truth.records.iter().filter(|record| record.xid == xid).collect();
        let mut wrong = Vec::new();
        wrong.extend(
            (told.versions.len() != expected.len())
                .then(|| format!("{from:?}: {} versions and not {}", told.versions.len(), expected.len())),
        );
        wrong.extend(told.versions.iter().zip(&expected).flat_map(|(told, expected)| about(told, expected)));
        let mut totals: BTreeMap<&str, BTreeMap<String, Value>> = BTreeMap::new();
        for record in &expected {
            let table = totals.entry(&record.table).or_default();
            table.insert("table_name".to_owned(), record.table.clone().into());
            let count = table.get(&record.event).and_then(Value::as_u64).unwrap_or(0) + 1;
            table.insert(record.event.clone(), count.into());
        }
        let totals: Vec<_> = totals.into_values().collect();
        wrong.extend((told.tables != totals).then(|| format!("{:?} and not {totals:?}", told.tables)));
        asked.blame(&question, wrong);
    }
}

/// Totals of a span between two moments.
async fn report(asked: &mut Asked<'_>, client: &Client) {
    let mut moments = [asked.dice.pick(&asked.moments).clone(), asked.dice.pick(&asked.moments).clone()];
    moments.sort();
    let [(since, after), (until, last)] = &moments;
    let question = ["report", "--since", since, "--until", until, "--json"];
    let sql = |of: &str| {
        format!("SELECT coalesce({of}, ''), count(*) FROM truth.records WHERE n > {after} AND n <= {last} GROUP BY 1")
    };
    let mut expected: BTreeMap<&str, BTreeMap<String, i64>> = BTreeMap::new();
    for (name, of) in [("changes_by_actor", "actor"), ("changes_by_table", "tab"), ("changes_by_event", "event")] {
        let rows = client.query(&sql(of), &[]).await.expect("totals");
        expected.insert(name, rows.iter().map(|row| (row.get(0), row.get(1))).collect());
    }
    let nobody = expected.get_mut("changes_by_actor").and_then(|actors| actors.remove("")).unwrap_or(0);
    for from in FROM {
        let told: Value =
            serde_json::from_str(&asked.world.succeed(&[&question[..], from].concat())).expect("an object");
        asked.count("questions");
        let mut wrong = Vec::new();
        for (name, totals) in &expected {
            let differs = told[*name] != serde_json::json!(totals);
            wrong.extend(differs.then(|| format!("{from:?}: {name} {} and not {totals:?}", told[*name])));
        }
        let total: i64 = expected["changes_by_table"].values().sum();
        wrong.extend(
            (told["total_versions"] != total).then(|| format!("{from:?}: {} and not {total}", told["total_versions"])),
        );
        let without = &told["changes_without_actor"];
        wrong.extend((*without != nobody).then(|| format!("{from:?}: {without} without an actor and not {nobody}")));
        asked.blame(&question, wrong);
    }
}
