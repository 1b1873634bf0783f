//! Searching: versions of all tables, newest first.
//!
//! Rows are read in pages, so that a search can stop when it has enough, and the session is free for the next statement.

use std::collections::HashMap;

use audit_core::position::Micros;
use audit_core::search::{Commit, Matches, Moment, Newest, Wanted};
use audit_core::stored::Record;
use futures::{StreamExt, pin_mut};
use tokio_postgres::types::ToSql;

use super::places::{Places, Whose};
use super::row::{Time, record};
use super::session::Session;
use super::{ReadError, failed};
use crate::layout::VERSIONS;

/// Number of rows of the first page, and of later ones: a search that finds little of what it reads goes on in larger steps.
const FIRST_PAGE: usize = 200;
const PAGE_MAX: usize = 5_000;

pub(super) async fn search(
    client: &Session,
    whose: &Whose,
    wanted: &Wanted,
    matches: Matches<'_>,
    limit: usize,
) -> Result<Vec<Record>, ReadError> {
    let places = Places::of(client, whose, &wanted.source, &wanted.tables).await?;
    let mut newest = Newest::new(limit);
    for place in places.parts() {
        for wanted in by_table(wanted) {
            let mut page = Page { wanted, rows: FIRST_PAGE };
            while page.read(client, &place, matches, &mut newest).await? {}
        }
    }
    Ok(newest.into_records())
}

/// ⚠ Each table by itself, because the index gives the newest versions of one table. Of several at once the server would
/// read everything to find those of a table that seldom changes. Other conditions have an index that finds few versions.
fn by_table(wanted: &Wanted) -> Vec<Wanted> {
    let few = !wanted.actors.is_empty() || !wanted.xids.is_empty() || wanted.commit.is_some();
    if few || wanted.tables.len() < 2 {
        return vec![wanted.clone()];
    }
    let of = |table: &String| Wanted { tables: vec![table.clone()], ..wanted.clone() };
    wanted.tables.iter().map(of).collect()
}

/// The number of versions of each transaction, of which the commit times are known.
pub(super) async fn commit_sizes(
    client: &Session,
    whose: &Whose,
    source: &str,
    commits: &[(Commit, Micros)],
) -> Result<HashMap<(Commit, String), u64>, ReadError> {
    let places = Places::of(client, whose, source, &[]).await?;
    let times: Vec<Time> = commits.iter().map(|(_, at)| Time(*at)).collect();
    let heads: HashMap<String, Commit> = commits.iter().map(|(commit, _)| (head(*commit), *commit)).collect();
    let wanted: Vec<&String> = heads.keys().collect();
    let mut sizes = HashMap::new();
    for place in places.parts() {
        let statement = format!(
            "SELECT left(position, {HEAD}), table_name, count(*) FROM {place} WHERE source = $1 AND committed_at = ANY ($2) \
             AND left(position, {HEAD}) = ANY ($3) GROUP BY 1, 2"
        );
        let rows = client.read("counting versions of transactions", &statement, &[&source, &times, &wanted]).await?;
        for row in rows {
            if let Some(commit) = heads.get(row.get::<_, &str>(0)) {
                *sizes.entry((*commit, row.get(1))).or_default() += row.get::<_, i64>(2) as u64;
            }
        }
    }
    Ok(sizes)
}

/// Number of characters of a position that name its transaction.
const HEAD: usize = 21;

fn head(commit: Commit) -> String {
    let mut text = commit.bounds().0.to_string();
    text.truncate(HEAD);
    text
}

struct Page {
    wanted: Wanted,
    rows: usize,
}

impl Page {
    /// Reads the next page. Returns false if nothing more can be found.
    async fn read(
        &mut self,
        client: &Session,
        place: &str,
        matches: Matches<'_>,
        newest: &mut Newest,
    ) -> Result<bool, ReadError> {
        let mut condition = Condition::of(&self.wanted);
        if let Some(oldest) = newest.oldest() {
            condition.add("committed_at >= ?", Time(oldest));
        }
        let statement = format!(
            "SELECT {} FROM {place} WHERE {} ORDER BY committed_at DESC, position DESC LIMIT {}",
            VERSIONS.names(),
            condition.text,
            self.rows
        );
        let parameters = condition.parameters.iter().map(|parameter| &**parameter as &(dyn ToSql + Sync));
        let parameters: Vec<_> = parameters.collect();
        client.begin("searching", &statement, &parameters).await?;
        let rows = client.query_raw(&statement, parameters).await.map_err(failed("searching"))?;
        pin_mut!(rows);
        let mut count = 0;
        while let Some(row) = rows.next().await {
            let record = record(&row.map_err(failed("searching"))?)?;
            count += 1;
            let moment = Moment::of(&record);
            self.wanted.before = Some(moment);
            if !newest.takes(moment) {
                client.count("searching", count);
                return Ok(false);
            }
            if matches(&record) {
                newest.add(record);
            }
        }
        client.count("searching", count);
        let full = count == self.rows;
        self.rows = (self.rows * 2).min(PAGE_MAX);
        Ok(full)
    }
}

/// A WHERE condition with its parameters.
struct Condition {
    text: String,
    parameters: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Condition {
    fn of(wanted: &Wanted) -> Condition {
        let mut condition = Condition { text: String::new(), parameters: Vec::new() };
        condition.add("source = ?", wanted.source.clone());
        match wanted.tables.as_slice() {
            [] => {}
            [table] => condition.add("table_name = ?", table.clone()),
            tables => condition.add("table_name = ANY (?)", tables.to_vec()),
        }
        let lists = [("event = ANY (?)", &wanted.events), ("actor_id = ANY (?)", &wanted.actors)];
        for (text, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            condition.add(text, list.clone());
        }
        if !wanted.keys.is_empty() {
            let heads: Vec<String> = wanted.keys.iter().map(|key| key.chars().take(200).collect()).collect();
            condition.add("left(key, 200) = ANY (?)", heads);
            condition.add("key = ANY (?)", wanted.keys.clone());
        }
        if !wanted.xids.is_empty() {
            condition.add("xid = ANY (?)", wanted.xids.iter().copied().map(i64::from).collect::<Vec<i64>>());
        }
        if let Some((first, last)) = wanted.commit.map(|commit| commit.bounds()) {
            condition.add("position >= ?", first.to_string());
            condition.add("position <= ?", last.to_string());
        }
        if let Some(from) = wanted.window.from {
            condition.add("position >= ?", from.to_string());
        }
        if let Some(to) = wanted.window.to {
            condition.add("position < ?", to.to_string());
        }
        for column in &wanted.changed {
            condition.add("(changed IS NULL OR ? = ANY (changed))", column.clone());
        }
        condition.add_span(wanted);
        condition
    }

    fn add_span(&mut self, wanted: &Wanted) {
        if let Some(since) = wanted.since {
            self.add("committed_at >= ?", Time(since));
        }
        if let Some(until) = wanted.until {
            self.add("committed_at < ?", Time(until));
        }
        if let Some(before) = wanted.before {
            // An index serves the first condition, and not the comparison of two columns at once.
            self.add("committed_at <= ?", Time(before.committed_at));
            let at = self.parameters.len();
            self.add(&format!("(committed_at < ${at} OR position < ?)"), before.position.to_string());
        }
    }

    /// Adds a condition, in which `?` stands for the parameter.
    fn add(&mut self, text: &str, parameter: impl ToSql + Sync + Send + 'static) {
        self.parameters.push(Box::new(parameter));
        let separator = if self.text.is_empty() { "" } else { " AND " };
        self.text += separator;
        self.text += &text.replace('?', &format!("${}", self.parameters.len()));
    }
}
