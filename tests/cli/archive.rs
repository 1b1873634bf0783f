use std::path::PathBuf;
use std::process::Output;

use audit_core::batch::Batch;
use audit_core::position::Lsn;
use audit_core::sink::{Identity, Sink};
use audit_hot::{HotConfig, HotSink, SetupOptions, setup_statements};
use audit_lake::{LakeConfig, LakeSink};
use audit_testkit::{Database, Fixture, command, shared_db};
use cdc_audit_tests::dice::Dice;
use serde_json::Value;
use tempfile::TempDir;

/// Versions of February, March and April 2026, in two tables; March has rows of a baseline, and a lost stretch.
const CHANGES: &str = r#"
table public.users (id int4 key, name text, born date, score float8, about jsonb) full
table public.orders (id int4 key, state text)
begin at=2026-02-10T00:00:00Z
insert public.users [1, "Ann", "1990-01-01", 1.5, "{\"a\": [1, 2.0]}"]
insert public.orders [1, "open"]
commit
begin at=2026-03-05T10:00:00Z
context {"actor_id": "31", "reason": "she married"}
update public.users [1, "Ann", "1990-01-01", 1.5, "{\"a\": [1, 2.0]}"] -> [1, "Bea", "1990-01-01", 0.5, "{\"a\": []}"]
insert public.users [2, "Cid", null, null, null]
update public.orders -> [1, "paid"]
commit
begin at=2026-03-31T23:59:59.999999Z
delete public.users [2, "Cid", null, null, null]
insert public.orders [2, "open"]
commit
begin at=2026-04-01T00:00:00Z
insert public.orders [3, "open"]
commit
idle 0/990000
"#;

struct Ground {
    database: Database,
    folder: TempDir,
    batches: Vec<Batch>,
}

impl Ground {
    /// A hot database and a lake with everything, and a configuration that lets orders and users go after a month.
    async fn new() -> Ground {
        let ground = Ground::empty("hot = \"1 mo\"").await;
        ground.fill(ground.lake(), &ground.batches).await;
        ground.fill(ground.hot(), &ground.batches).await;
        ground
    }

    async fn empty(rule: &str) -> Ground {
        let database = shared_db(15).await;
        let options = SetupOptions { source: "shop".into(), sinks: vec!["hot".into()], ..SetupOptions::default() };
        let all: String = setup_statements(&options).iter().map(|statement| format!("{};\n", statement.sql)).collect();
        database.execute(&format!("BEGIN; {all} COMMIT;"));
        let folder = tempfile::tempdir().unwrap();
        let ground = Ground { database, folder, batches: Fixture::of(CHANGES) };
        ground.configure(rule);
        ground
    }

    fn configure(&self, rule: &str) {
        let config = format!(
            "[source]\nname = \"shop\"\nurl = \"postgres://nobody@127.0.0.1:1/none\"\n\n[[tables]]\nname = \"public.*\"\n{rule}\n\n\
             [sinks.hot]\ntype = \"hot\"\nurl = \"{}\"\n\n[sinks.archive]\ntype = \"lake\"\nurl = \"{}\"\n",
            self.database.url,
            self.folder.path().join("lake").display()
        );
        std::fs::write(self.config(), config).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    fn hot(&self) -> HotSink {
        HotSink::new("hot", &HotConfig::new(&self.database.url))
    }

    fn lake(&self) -> LakeSink {
        let config = LakeConfig::at(self.folder.path().join("lake").to_str().unwrap());
        LakeSink::new("archive", &config, 64 << 20).unwrap()
    }

    async fn fill(&self, mut sink: impl Sink, batches: &[Batch]) {
        let identity = Identity { source: "shop".into(), system_id: 7, timeline: 1, timeline_start: Lsn::ZERO };
        let stored = sink.take(&identity).await.unwrap();
        let start = stored.checkpoint.as_ref().map(|checkpoint| checkpoint.progress()).unwrap_or_default();
        sink.begin(start).await.unwrap();
        let batches: Vec<&Batch> = batches.iter().collect();
        sink.write(&batches).await.unwrap();
        sink.flush(true).await.unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Output {
        let config = self.config().display().to_string();
        command(arguments.iter().copied().chain(["--config", &config]))
    }

    /// What a command prints, if it ends with this code.
    #[track_caller]
    fn said(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}:\n{stdout}{stderr}");
        stdout.into_owned()
    }

    /// What `archive` says of each month.
    #[track_caller]
    fn months(&self, code: i32, arguments: &[&str]) -> Vec<Value> {
        let said = self.said(code, &[&["archive"], arguments, &["--json"]].concat());
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn hot_positions(&self) -> String {
        self.database.execute("SELECT position FROM cdc_audit.versions ORDER BY position")
    }

    /// What questions answer, without what each store has of its own: whole rows and the time of storing.
    fn answers(&self) -> Vec<Vec<Value>> {
        let questions: [&[&str]; 4] = [
            &["history", "public.users", "1", "--json"],
            &["history", "public.orders", "2", "--json"],
            &["search", "actor:31", "--json"],
            &["search", "--since", "2026-01-01", "--count"],
        ];
        let record = |line: &str| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            if let Value::Object(fields) = &mut record {
                fields.retain(|name, _| !["before", "after", "recorded_at"].contains(&name.as_str()));
            }
            record
        };
        questions.iter().map(|question| self.said(0, question).lines().map(record).collect()).collect()
    }
}

/// Reads a value of each month.
fn each<'v>(months: &'v [Value], name: &str) -> Vec<&'v str> {
    months.iter().map(|month| month[name].as_str().unwrap_or_default()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn months_leave_and_questions_notice_nothing() {
    let ground = Ground::new().await;
    let answers = ground.answers();
    let before = ground.hot_positions();
    let tried = ground.months(0, &["--dry-run"]);
    assert_eq!(each(&tried, "month"), ["2026-02", "2026-03", "2026-04"]);
    assert_eq!(each(&tried, "result"), ["equal"; 3]);
    assert_eq!(ground.hot_positions(), before);

    let left = ground.months(0, &["--month", "2026-03"]);
    assert_eq!((each(&left, "result")[0], &left[0]["versions"]), ("taken_out", &Value::from(5)), "{left:?}");
    assert_eq!(ground.answers(), answers);
    // Without the lake an answer says what it lacks.
    let alone = ground.command(&["history", "public.users", "1", "--from", "hot", "--strict"]);
    let said = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert_eq!(alone.status.code(), Some(9), "{said}");
    assert!(said.contains("have left hot: lake archive has them"), "{said}");
    let listed = ground.said(0, &["archive", "list"]);
    assert!(listed.contains("taken out, kept until") && listed.contains("hot; due"), "{listed}");

    let id = left[0]["id"].to_string();
    ground.said(0, &["archive", "undo", &id]);
    assert_eq!(ground.hot_positions(), before);
    assert_eq!(ground.answers(), answers);

    let left = ground.months(0, &[]);
    assert_eq!(each(&left, "result"), ["taken_out"; 3], "{left:?}");
    assert_eq!(each(&ground.months(0, &[]), "result"), ["dropped"; 3]);
    assert_eq!(ground.hot_positions(), "");
    assert_eq!(ground.answers(), answers);
    assert!(ground.months(0, &[]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_rules_let_go_leaves() {
    let ground = Ground::new().await;
    let before = ground.hot_positions();
    for rule in ["", "hot = \"120 y\"", "hot = \"1 mo\"\n\n[[tables]]\nname = \"public.orders\"\nhot = \"120 y\""] {
        ground.configure(rule);
        assert!(ground.months(0, &[]).is_empty(), "{rule}");
        assert_eq!(ground.hot_positions(), before, "{rule}");
    }
    ground.configure("hot = \"1 month\"");
    let refused = ground.command(&["archive"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("not a number of months"), "{said}");
}

/// A lake that is behind, or lacks what came before it began, has not what would leave.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_lake_lacks_stays() {
    let ground = Ground::empty("hot = \"1 mo\"").await;
    let parts = CHANGES.split_once("begin at=2026-03-31").map(|(before, _)| Fixture::of(before)).unwrap();
    ground.fill(ground.lake(), &parts).await;
    ground.fill(ground.hot(), &ground.batches).await;
    let found = ground.months(10, &[]);
    assert_eq!(each(&found, "result"), ["taken_out", "different", "different"], "{found:?}");
    assert_eq!(found[1]["differences"][0]["what"], "missing");
    assert_eq!(found[1]["behind"], true);
    assert_eq!(ground.hot_positions().lines().count(), 6);
    let answers = ground.said(0, &["history", "public.users", "1", "--json"]);
    assert_eq!(answers.lines().count(), 2, "{answers}");
}

/// What a hot sink of another name left in the tables, before the sink of today began, is compared too.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_the_sink_began_is_compared() {
    let ground = Ground::new().await;
    let began = "UPDATE cdc_audit.checkpoints SET began = (SELECT min(position) FROM cdc_audit.versions_2026_04)";
    ground.database.execute(began);
    assert_eq!(each(&ground.months(0, &["--dry-run"]), "result"), ["equal"; 3]);
    ground.database.execute("UPDATE cdc_audit.versions_2026_03 SET actor_id = '32' WHERE table_name = 'public.users'");
    let before = ground.hot_positions();
    let found = ground.months(10, &["--month", "2026-03"]);
    assert_eq!(each(&found, "result"), ["different"], "{found:?}");
    assert_eq!(ground.hot_positions(), before);
}

/// Whatever is changed in a month of the hot tables is named, and keeps the month there.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_tampered_with_is_named_and_stays() {
    let ground = Ground::new().await;
    let positions = ground.hot_positions();
    let march: Vec<&str> = positions.lines().skip(2).take(5).collect();
    let seed = std::env::var("CDC_AUDIT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4_711);
    let rounds = std::env::var("CDC_AUDIT_TAMPERS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(14);
    let mut dice = Dice::new(seed);
    let table = "cdc_audit.versions_2026_03";
    ground.database.execute(&format!("CREATE TABLE saved AS TABLE {table}"));
    const FIELDS: [&str; 12] = [
        "actor_id = '32'",
        "reason = NULL",
        "xid = xid + 1",
        "seq = seq + 7",
        "key = '99'",
        "event = 'discarded'",
        "committed_at = committed_at - interval '1 us'",
        "context = '{\"actor_id\": \"33\"}'",
        "item_type = 'other'",
        "before_known = NOT before_known",
        "lsn = lsn - 1",
        "schema_version = schema_version + 1",
    ];
    for round in 0..rounds {
        let position = *dice.pick(&march);
        let only = format!("WHERE position = '{position}'");
        let (statement, what) = match dice.below(FIELDS.len() as u64 + 2) as usize {
            0 => (format!("DELETE FROM {table} {only}"), "extra"),
            1 => {
                let other = format!("{}99", &position[..position.len() - 2]);
                let copy = format!(
                    "INSERT INTO {table} SELECT * FROM saved {only}; UPDATE {table} SET position = '{other}', seq = 99"
                );
                (format!("{copy} WHERE ctid = (SELECT max(ctid) FROM {table})"), "missing")
            }
            at => (format!("UPDATE {table} SET {} {only}", FIELDS[at - 2]), "altered"),
        };
        let unchanged = format!("SELECT count(*) FROM (TABLE saved EXCEPT TABLE {table}) AS gone");
        ground.database.execute(&statement);
        let changes_something = what == "missing" || ground.database.execute(&unchanged) != "0";
        let found = ground.months(if changes_something { 10 } else { 0 }, &["--dry-run", "--month", "2026-03"]);
        if changes_something {
            let seen: Vec<&Value> = found[0]["differences"].as_array().unwrap().iter().collect();
            let named =
                seen.iter().any(|one| one["what"] == what && (what == "missing" || one["position"] == position));
            assert!(named, "seed {seed}, round {round}: {statement}\n{found:?}");
        }
        ground.database.execute(&format!("TRUNCATE {table}; INSERT INTO {table} TABLE saved"));
    }
    assert_eq!(each(&ground.months(0, &["--dry-run", "--month", "2026-03"]), "result"), ["equal"]);
}
