//! Undoes and redoes random transactions, over tables with foreign keys of every kind, triggers, generated and identity
//! columns: the database is what it was, or the refusal names what is in the way, and nothing was written.
//!
//! `CDC_AUDIT_UNDO_ROUNDS` sets the number of transactions, `CDC_AUDIT_SEED` the random choices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod transactions;

use std::process::{Command, Output};

use audit_testkit::{Daemon, shared};
use cdc_audit_tests::dice::Dice;
use cdc_audit_tests::trail::lsn;
use cdc_audit_tests::world::{SOURCE, World};
use serde_json::Value;
use tokio_postgres::{Client, Row};

use transactions::{DUMPED, EVERY_TABLE, SCHEMA, transaction};

/// A transaction that committed, and the tables around it.
struct Done {
    xid: u32,
    before: String,
    statements: Vec<String>,
}

struct Bench {
    world: World,
    client: Client,
    login: String,
    dice: Dice,
    _daemon: Daemon,
}

/// How an undo ended.
enum Ended {
    /// The number of its transaction.
    Undone(u32),
    /// What it said.
    Refused(String),
}

/// A constraint of the tables.
struct Constraint {
    name: String,
    table: String,
    kind: String,
    definition: String,
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned()).concat()
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

impl Bench {
    async fn new(seed: u64) -> Bench {
        let server = shared(17).await;
        let rules = "[[tables]]\nname = \"*\"\nignore_alone = [\"touched\"]\nbaseline = false\n";
        let world = World::on(server).full(true).without_lake().unwitnessed().tables(rules).sql(SCHEMA).build().await;
        let login = audit_testkit::unique("ann");
        let grants = format!(
            "CREATE ROLE {login} LOGIN; GRANT USAGE ON SCHEMA cdc_audit TO {login}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {login}"
        );
        server.execute(&world.database, &grants);
        let daemon = world.launch().start();
        let client = world.client().await;
        // Every table has versions, so that every one can be named.
        client.batch_execute(&format!("SET search_path TO public; {EVERY_TABLE}")).await.expect("rows");
        Bench { client, world, login, dice: Dice::new(seed), _daemon: daemon }
    }

    /// All tables.
    async fn dump(&self) -> String {
        self.client.query_one(DUMPED, &[]).await.expect("the tables").get(0)
    }

    /// Runs random statements in one transaction; `None` if nothing was committed.
    async fn transact(&mut self) -> Option<Done> {
        let before = self.dump().await;
        let statements = transaction(&mut self.dice);
        self.client.batch_execute("BEGIN").await.expect("a transaction");
        let mut taken = Vec::new();
        for statement in &statements {
            self.client.batch_execute("SAVEPOINT s").await.expect("a savepoint");
            match self.client.execute(statement, &[]).await {
                Ok(1..) => taken.push(statement.clone()),
                Ok(0) => {}
                Err(_) => self.client.batch_execute("ROLLBACK TO s").await.expect("a savepoint"),
            }
        }
        let xid = self.client.query_one("SELECT pg_current_xact_id()::text", &[]).await.expect("a number");
        let xid = xid.get::<_, String>(0).parse::<u64>().expect("a number") as u32;
        let committed = self.client.batch_execute("COMMIT").await;
        (committed.is_ok() && self.dump().await != before).then_some(Done { xid, before, statements: taken })
    }

    /// Runs the program to undo a transaction.
    fn run(&self, xid: u32, options: &[&str]) -> Output {
        let (_, place) = self.world.url.split_once('@').expect("a role and a place");
        let login = format!("postgres://{}@{place}", self.login);
        let mut command = Command::new(audit_testkit::program());
        command.args(["undo", &format!("xid:{xid}"), "--as", &login, "--actor", "boss", "--reason", "random"]);
        command
            .args(["--accept-triggers", "--json", "--wait", "600s", "--config"])
            .arg(&self.world.config)
            .args(options);
        for table in ["regions", "people", "tasks", "pairs", "strict"] {
            command.args(["--table", table]);
        }
        command.output().expect("the program runs")
    }

    /// Undoes a transaction by the program, and checks that a refusal is one.
    async fn undo(&self, xid: u32) -> Ended {
        let before = self.dump().await;
        let output = self.run(xid, &["--yes"]);
        let said = said(&output);
        match output.status.code() {
            Some(0) => {
                let told: Value =
                    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
                assert_eq!(told["applied"], Value::from(true), "{said}");
                let xid: u64 = told["xid"].as_str().expect("a number").parse().expect("a number");
                Ended::Undone(xid as u32)
            }
            Some(11) => {
                assert_eq!(self.dump().await, before, "a refused undo wrote something: {said}");
                match serde_json::from_slice::<Value>(&output.stdout) {
                    Ok(told) => self.check_conflicts(&told, &said).await,
                    Err(_) => self.check_refusal(xid, &said).await,
                }
                Ended::Refused(said)
            }
            code => {
                let tx = self.world.command(&["tx", &format!("xid:{xid}")]);
                panic!("undo of {xid} ended with {code:?}: {said}\n{}", self::said(&tx))
            }
        }
    }

    /// Conflicts are told as they are: a row is there or not, and the value that it has now is not the one that it had.
    async fn check_conflicts(&self, told: &Value, said: &str) {
        let conflicts = told["conflicts"].as_array().expect("conflicts");
        assert!(!conflicts.is_empty(), "a refusal that names nothing: {said}");
        for conflict in conflicts {
            let text = |name: &str| conflict[name].as_str();
            let (table, key) = (text("table").expect("a table"), text("key").expect("a key"));
            let at = match serde_json::from_str::<Vec<i64>>(key) {
                Ok(parts) => format!("person = {} AND n = {}", parts[0], parts[1]),
                Err(_) => format!("id = {key}"),
            };
            let column =
                text("column").map_or_else(|| "''".to_owned(), |name| format!("\"{}\"", name.replace('"', "\"\"")));
            let rows = self.client.query(&format!("SELECT {column}::text FROM {table} WHERE {at}"), &[]).await;
            let rows = rows.expect("a row");
            match text("what").expect("a reason") {
                "another row has this key now" => assert_eq!(rows.len(), 1, "{said}"),
                "the value was changed later" => {
                    let now: Option<String> = rows[0].get(0);
                    assert_eq!(now.as_deref(), text("now"), "{said}");
                    assert_ne!(text("now"), text("then"), "{said}");
                }
                _ => assert!(rows.is_empty() && said.contains("the row is not there any more"), "{said}"),
            }
        }
    }

    /// The constraint that is named is the one that was in the way: without it, it is not.
    async fn check_refusal(&self, xid: u32, said: &str) {
        let all = "SELECT conname::text, conrelid::regclass::text, contype::text, pg_get_constraintdef(oid) FROM pg_constraint \
            WHERE connamespace = 'public'::regnamespace AND conrelid <> 0 ORDER BY conname";
        let rows = self.client.query(all, &[]).await.expect("constraints");
        let constraint =
            |row: &Row| Constraint { name: row.get(0), table: row.get(1), kind: row.get(2), definition: row.get(3) };
        let named: Vec<Constraint> = rows.iter().map(constraint).filter(|one| said.contains(&one.name)).collect();
        if named.is_empty() {
            let rules = ["GENERATED ALWAYS AS IDENTITY", "the value was changed between the versions"];
            assert!(rules.iter().any(|rule| said.contains(rule)), "a refusal that names nothing: {said}");
            return;
        }
        // Rows could not be found without primary keys.
        let free: Vec<&Constraint> = named.iter().filter(|one| one.kind != "p").collect();
        for Constraint { name, table, .. } in &free {
            self.alter(&format!("ALTER TABLE {table} DROP CONSTRAINT {name}")).await;
        }
        let output = self.run(xid, &[]);
        for Constraint { name, table, definition, .. } in &free {
            assert!(!self::said(&output).contains(name), "{name} was not what stood in the way: {said}");
            self.alter(&format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")).await;
        }
    }

    async fn alter(&self, statement: &str) {
        self.client.batch_execute(statement).await.expect(statement);
    }

    /// Waits until the trail has everything that was committed.
    async fn caught_up(&self) {
        let (hot, end) = (self.world.hot().await, lsn(&self.world.wal_end().await));
        audit_testkit::eventually_async("the last transaction in the trail", async || {
            cdc_audit_tests::hot::flushed(&hot, SOURCE).await >= end
        })
        .await;
    }
}

/// Undone in any order and redone, the tables are what they were; undone from the last to the first, they are empty again.
#[tokio::test(flavor = "multi_thread")]
async fn random_transactions_are_undone_and_redone() {
    let seed = cdc_audit_tests::seed();
    let rounds = from_environment("CDC_AUDIT_UNDO_ROUNDS").unwrap_or(if audit_testkit::thorough() { 150 } else { 24 });
    println!("CDC_AUDIT_UNDO_ROUNDS={rounds}");
    let mut bench = Bench::new(seed).await;
    let mut done: Vec<Done> = Vec::new();
    while (done.len() as u64) < rounds {
        done.extend(bench.transact().await);
    }
    bench.caught_up().await;
    let mut redone = 0;
    for _ in 0..rounds / 2 {
        // Mostly a late one, because later changes of the same rows are in the way of others.
        let among = if bench.dice.one_in(4) { done.len() } else { 4 };
        let at = done.len() - 1 - bench.dice.below(among.min(done.len()) as u64) as usize;
        let before = bench.dump().await;
        let Ended::Undone(undo) = bench.undo(done[at].xid).await else { continue };
        match bench.undo(undo).await {
            Ended::Undone(redo) => {
                assert_eq!(bench.dump().await, before, "{:?} undone and redone", done[at].statements);
                redone += 1;
                // From now on it is the redo that made these rows.
                done[at].xid = redo;
            }
            Ended::Refused(said) => panic!("an undo cannot be undone: {said}\n{:?}", done[at].statements),
        }
    }
    let mut undone = 0;
    while let Some(Done { xid, before, statements }) = done.pop() {
        match bench.undo(xid).await {
            Ended::Undone(_) => assert_eq!(bench.dump().await, before, "{statements:?} undone"),
            // Nothing but what cannot be undone at all stands in the way of the last transaction.
            Ended::Refused(said) => {
                let alone = ["strict_mate_fkey", "_pkey", "GENERATED ALWAYS AS IDENTITY"];
                assert!(alone.iter().any(|name| said.contains(name)), "{said}\n{statements:?}");
                break;
            }
        }
        undone += 1;
    }
    eprintln!("{redone} redone, {undone} undone from the last");
    assert!(redone > 0 && undone > 0);
}
