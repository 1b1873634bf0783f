//! Plays a workload that is written by hand and compares: at the end like every other one, and after each of its steps.

use std::collections::BTreeMap;

use audit_testkit::Postgres;

use crate::decoded::Name;
use crate::recorded::Recorded;
use crate::replay::State;
use crate::tables::Table;
use crate::trail::lsn;
use crate::world::World;

/// A written workload.
pub struct Script<'s> {
    /// SQL before capture: tables without rows. `{full NAME}` becomes REPLICA IDENTITY FULL in the runs that use it.
    pub before: &'s str,
    pub steps: &'s [Step<'s>],
    /// Tells which tables are captured. The publication is FOR ALL TABLES unless `before` makes another.
    pub published: fn(&Name) -> bool,
    /// True if all tables use `{full NAME}`, so that `before_known` can be predicted.
    pub uniform: bool,
}

/// A step between two reads of the tables.
#[derive(Clone, Copy)]
pub enum Step<'s> {
    /// Statements for `psql`, which commits each of them unless they say otherwise.
    Sql(&'s str),
    /// The next step renames a column, which makes no version.
    Renamed { table: &'s str, from: &'s str, to: &'s str },
    /// The next step drops or renames a table.
    Gone(&'s str),
}

impl Default for Script<'_> {
    fn default() -> Self {
        Script { before: "", steps: &[], published: |_| true, uniform: true }
    }
}

/// The time at which the daemon reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reads {
    /// The daemon reads while the script is played.
    Live,
    /// The daemon reads after the script was played, when the catalog shows a later state.
    Late,
}

enum Look {
    Tables { wal_end: u64, tables: BTreeMap<String, Table> },
    Renamed { table: String, from: String, to: String },
    Gone(String),
}

/// Plays a script in every way: with default identity and with FULL, read at once and late.
pub async fn play(server: &Postgres, script: &Script<'_>) {
    for full in [false, true] {
        for reads in [Reads::Live, Reads::Late] {
            eprintln!("PostgreSQL {}, {}, {reads:?}", server.major(), if full { "FULL" } else { "default identity" });
            play_once(server, script, full, reads).await;
        }
    }
}

pub async fn play_once(server: &Postgres, script: &Script<'_>, full: bool, reads: Reads) -> Recorded {
    let mut builder = World::on(server).keep_rows().sql(&with_identity(script.before, full));
    if script.uniform {
        builder = builder.full(full);
    }
    let world = builder.publish_all().build().await;
    let mut daemon = (reads == Reads::Live).then(|| world.launch().start());
    if let Some(daemon) = &mut daemon {
        daemon.wait_for_line("streaming");
    }
    let mut looks = Vec::new();
    for step in script.steps {
        looks.push(match *step {
            Step::Sql(sql) => {
                server.execute(&world.database, &with_identity(sql, full));
                let mut tables = world.tables().await;
                tables.retain(|name, _| (script.published)(&crate::world::split(name)));
                Look::Tables { wal_end: lsn(&world.wal_end().await), tables }
            }
            Step::Renamed { table, from, to } => {
                Look::Renamed { table: table.to_owned(), from: from.to_owned(), to: to.to_owned() }
            }
            Step::Gone(table) => Look::Gone(table.to_owned()),
        });
    }
    if let Some(mut daemon) = daemon {
        let status = daemon.stop();
        assert!(status.success(), "the daemon ended with {status}:\n{}", daemon.output());
    }
    world.catch_up().await;
    let recorded = world.recorded().await;
    for (name, trail) in [("hot", &recorded.hot), ("lake", &recorded.by_log)] {
        let mut state = State::default();
        let mut versions = trail.iter().peekable();
        for (number, look) in looks.iter().enumerate() {
            match look {
                Look::Tables { wal_end, tables } => {
                    while let Some(version) = versions.next_if(|version| version.commit_lsn < *wal_end) {
                        state.apply(version);
                    }
                    let wrong = state.differences(tables, &recorded.shapes);
                    assert!(wrong.is_empty(), "{name} after step {number}:\n{}", wrong.join("\n"));
                }
                Look::Renamed { table, from, to } => state.rename(table, from, to),
                Look::Gone(table) => state.forget(table),
            }
        }
    }
    let published = script.published;
    let history = world.history(Box::new(move |name, _| published(name))).await;
    world.check_changes(&recorded, &[&history]);
    recorded
}

/// Expands `{full NAME}`.
fn with_identity(sql: &str, full: bool) -> String {
    let mut expanded = String::new();
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once("{full ") {
        let (table, after) = after.split_once('}').expect("a name and a brace");
        expanded.push_str(before);
        if full {
            expanded.push_str(&format!("ALTER TABLE {table} REPLICA IDENTITY FULL"));
        }
        rest = after;
    }
    expanded + rest
}
