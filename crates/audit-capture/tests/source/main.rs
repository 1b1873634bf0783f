//! The source's side against real servers, in every major version that is installed.
//!
//! - `catalog`: what the catalog says is what the stream sends
//! - `check`: what keeps capture from starting is found, with its fix
//! - `context`: what `cdc_audit.set_context` writes
//! - `filter`: which rows are captured
//! - `setup`: what is created, and by whom
//! - `slot`: states of a slot
//! - `teardown`: what is dropped, and what stays
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod catalog;
mod check;
mod context;
mod filter;
mod setup;
mod slot;
mod teardown;

use std::process::{Child, Command, Stdio};

use audit_capture::setup::Wanted;
use audit_capture::{Plan, SourceConfig, Step};

use audit_connect::PgEndpoint;
use audit_core::rules::{Rules, TableRule};
use audit_testkit::{Database, Postgres, install, unique};
use tokio_postgres::Client;

/// The major versions to test; 15 is always among them.
fn majors() -> impl Iterator<Item = u16> {
    install::MAJORS.into_iter().filter(|&major| major == 15 || Postgres::installed(major))
}

/// A session as the program opens it.
async fn session(db: &Database) -> Client {
    open(&db.url).await
}

async fn open(url: &str) -> Client {
    audit_connect::connect(&PgEndpoint::new(url), "test").await.unwrap()
}

/// A source with a slot of its own in the shared cluster.
fn source(url: &str) -> SourceConfig {
    SourceConfig { slot: unique("slot"), ..SourceConfig::new("shop", PgEndpoint::new(url)) }
}

/// The same address for another role.
fn url_as(role: &str, url: &str) -> String {
    url.replace("postgres@", &format!("{role}@"))
}

fn rules(names: &[&str]) -> Rules {
    let rule = |name: &&str| match name.strip_prefix('-') {
        Some(name) => TableRule { name: name.to_owned(), capture: Some(false), ..TableRule::default() },
        None => TableRule { name: (*name).to_owned(), capture: Some(true), ..TableRule::default() },
    };
    Rules { tables: names.iter().map(rule).collect(), ..Rules::default() }
}

/// Sets a source up as the superuser, which is also the daemon's role.
async fn set_up(source: &SourceConfig, rules: &Rules, full: Option<&[String]>) -> Plan {
    let client = open(&source.endpoint.url).await;
    let wanted = Wanted { source, rules, daemon_role: "postgres", owner: None, replica_identity_full: full };
    let plan = audit_capture::setup::plan(&client, &wanted).await.unwrap();
    assert_eq!(plan.refusals, []);
    audit_capture::apply(&plan, &client, None, |_| {}).await.unwrap();
    plan
}

/// The statements that the plan runs.
fn statements(plan: &Plan) -> Vec<&str> {
    let sql = plan.steps.iter().filter_map(|step| match step {
        Step::Run(statement) => Some(statement.sql.as_str()),
        _ => None,
    });
    sql.collect()
}

/// The plan's notes, which run nothing.
fn notes(plan: &Plan) -> Vec<&str> {
    let notes = plan.steps.iter().filter_map(|step| match step {
        Step::Note { message, .. } => Some(message.as_str()),
        _ => None,
    });
    notes.collect()
}

/// Another program that reads from a slot, until dropped.
struct Holding(Child);

fn hold(url: &str, slot: &str, plugin: &str, application_name: &str) -> Holding {
    let mut command = Command::new(install::client_program("pg_recvlogical"));
    command.args(["-d", url, "--slot", slot, "--start", "-f", "-"]).env("PGAPPNAME", application_name);
    if plugin == "pgoutput" {
        command.args(["-o", "proto_version=1", "-o", "publication_names=cdc_audit"]);
    }
    Holding(command.stdout(Stdio::null()).spawn().unwrap())
}

impl Drop for Holding {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
