//! `cdc-audit check`: everything that would keep capture from starting, harm the application, or leave gaps in the
//! trail.
//!
//! The server is asked once for everything that matters. Functions of its answers decide what follows, one file for
//! each [`Area`]. A finding fails if `run` would not start or the source is being harmed. It warns if capture works but
//! knows less than it could. Otherwise it is fine, and says what was checked.

mod publication;
mod role;
mod rules;
mod server;
mod sinks;
mod slot;
mod stream;
mod tables;

use std::fmt;
use std::time::Duration;

use audit_config::Chain;
use audit_core::rules::{FormerNames, Rules, TableRules};
use audit_core::shape::TableName;
use tokio_postgres::Client;

use crate::catalog::{self, PublishedTable};
use crate::clock::Skew;
use crate::config::SourceConfig;
use crate::former_names;
use crate::query::{QueryError, major};
use crate::setup::{Found, MAJORS};

/// One line of the table that `check` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub area: Area,
    /// The name of the setting, role, table, slot or sink.
    pub subject: String,
    pub state: State,
    pub message: String,
    /// What to do about it; always set if the finding fails.
    pub fix: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Ok,
    Warn,
    /// `run` would not start, or the application is harmed.
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    Server,
    Role,
    Publication,
    Table,
    Slot,
    Protection,
    Sink,
}

impl Area {
    pub fn name(self) -> &'static str {
        match self {
            Area::Server => "server",
            Area::Role => "role",
            Area::Publication => "publication",
            Area::Table => "table",
            Area::Slot => "slot",
            Area::Protection => "protection",
            Area::Sink => "sink",
        }
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the configuration asks for, as far as it concerns the source and its tables.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    pub source: &'a SourceConfig,
    pub rules: &'a Rules,
    /// Whether `protection.row_key` is configured.
    pub row_key: bool,
    /// Whether `protection.hash_key` is configured.
    pub hash_key: bool,
    pub sinks: &'a [SinkProbe],
}

/// The result of writing, reading and removing something in a sink.
#[derive(Clone, Debug)]
pub struct SinkProbe {
    /// The sink's configured name.
    pub name: String,
    /// What was seen, or why the sink cannot be used and what to do about it.
    pub outcome: Result<String, ProbeError>,
    /// Set for a lake.
    pub pace: Option<Pace>,
}

/// How often a lake writes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The age at which a file is committed; not zero.
    pub file_age: Duration,
    /// The age at which fresh files are rolled; `None` if there are no fresh files, or if rolling takes no time.
    pub roll_age: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct ProbeError {
    pub message: String,
    pub hint: Option<String>,
}

/// Whether `run` would start.
pub fn would_start(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state < State::Fail)
}

/// Checks everything. `application_name` is that of the session.
pub async fn check(input: &Input<'_>, application_name: &str) -> Vec<Finding> {
    let mut report = Report::default();
    match audit_connect::connect(&input.source.endpoint, application_name).await {
        Err(error) => {
            report.fail(
                Area::Server,
                input.source.endpoint.describe(),
                Chain(&error).to_string(),
                error.hint().unwrap_or_default(),
            );
            sinks::check(&mut report, input.sinks, None);
        }
        Ok(client) => match Seen::read(&client, input.source).await {
            Ok(seen) => seen.judge(&mut report, input),
            Err(Unreadable::TooOld(major)) => {
                let oldest = MAJORS.start();
                let message = format!("PostgreSQL {major} is too old");
                report.fail(Area::Server, "version", message, format!("upgrade to {oldest} or later"));
            }
            Err(Unreadable::Query(error)) => {
                let hint = error.hint().unwrap_or("look into the server's log");
                report.fail(Area::Server, input.source.endpoint.describe(), Chain(&error).to_string(), hint);
                sinks::check(&mut report, input.sinks, None);
            }
        },
    }
    report.findings
}

/// Everything that the server answered.
struct Seen {
    found: Found,
    published: Vec<PublishedTable>,
    names: FormerNames,
    skew: Skew,
    stream: stream::Stream,
    /// Whether the slot is at a position before the publication existed.
    slot_is_older: bool,
}

enum Unreadable {
    TooOld(u32),
    Query(QueryError),
}

impl From<QueryError> for Unreadable {
    fn from(error: QueryError) -> Unreadable {
        Unreadable::Query(error)
    }
}

impl Seen {
    async fn read(client: &Client, source: &SourceConfig) -> Result<Seen, Unreadable> {
        let major = major(client).await?;
        if major < *MAJORS.start() {
            return Err(Unreadable::TooOld(major));
        }
        let skew = Skew::measure(client).await?;
        let role = crate::facts::session_role(client).await?.name;
        let found = Found::read(client, source, &role, None).await?;
        let published = catalog::published(client, &source.publication).await?;
        // Under FOR ALL TABLES the daemon's own tables are published too; the daemon skips them.
        let published = published.into_iter().filter(|table| table.name.schema != "cdc_audit").collect();
        let names = former_names::known(client, &source.name).await?;
        let stream = stream::Stream::look(client, source, &found).await;
        let slot_is_older = crate::slot::is_older_than(client, &source.slot, &source.publication).await?;
        Ok(Seen { found, published, names, skew, stream, slot_is_older })
    }

    /// The rules that the daemon finds for a table.
    fn rules(&self, input: &Input<'_>, name: &TableName, oid: u32) -> TableRules {
        self.names.rules_now(input.rules, name, oid)
    }

    fn judge(&self, report: &mut Report, input: &Input<'_>) {
        server::check(report, self, input);
        stream::check(report, self);
        role::check(report, self, input);
        publication::check(report, self, input);
        tables::check(report, self, input);
        rules::check(report, input.rules, &self.published);
        slot::check(report, self, input);
        sinks::check(report, input.sinks, Some(self.published.len()));
    }
}

/// Collects the findings.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
}

impl Report {
    fn push(
        &mut self,
        area: Area,
        subject: impl Into<String>,
        state: State,
        message: impl Into<String>,
        fix: Option<String>,
    ) {
        self.findings.push(Finding { area, subject: subject.into(), state, message: message.into(), fix });
    }

    fn ok(&mut self, area: Area, subject: impl Into<String>, message: impl Into<String>) {
        self.push(area, subject, State::Ok, message, None);
    }

    fn warn(&mut self, area: Area, subject: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) {
        self.push(area, subject, State::Warn, message, Some(fix.into()));
    }

    fn fail(&mut self, area: Area, subject: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) {
        self.push(area, subject, State::Fail, message, Some(fix.into()));
    }
}

/// A list such as `a, b, c and 9 more`.
fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN_MAX: usize = 5;
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    let shown = items.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A number of bytes in a readable unit: `1.5 GiB`.
fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| count >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", count as f64 / *unit as f64),
        None => format!("{count} B"),
    }
}
