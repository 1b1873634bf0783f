//! The transaction in which rows are put back: [`run`].

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use audit_core::position::Position;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::approval::{approved_by, plan};
use crate::catalog::{Catalog, Table, name};
use crate::effects::{self, Counts};
use crate::error::refused;
use crate::goal::{Goal, Kind, Wanted, goal};
use crate::look::{Look, look};
use crate::net::Net;
use crate::order::{Row, order};
use crate::report::{Estimate, Later, Outcome, Report, Request};
use crate::write::{Written, write};
use crate::{Conflict, Error, Refusal, Resolved};

/// Puts the rows back in one transaction, and commits it if that was asked for. `told`: what there is to do, before it is
/// done.
///
/// # Errors
/// Fails if anything is in the way; then nothing was written, except after [`Error::Unknown`].
pub async fn run(
    client: &Client,
    resolved: &Resolved,
    nets: &[Net],
    request: &Request,
    told: impl Fn(Estimate),
) -> Result<Report, Error> {
    let mut report = Report::default();
    let catalog = &resolved.catalog;
    let goals = goals(resolved, nets, request, &mut report)?;
    let tables: BTreeSet<usize> = goals.iter().map(|goal| goal.table).collect();
    told(Estimate::Rows { rows: goals.len(), tables: tables.len() });
    begin(client).await?;
    let result = tried(client, catalog, &goals, request, &mut report, told).await;
    let bent = report.effects.iter().any(|effect| !effect.is_usual) && !request.accept_triggers;
    report.outcome = match (&result, request.apply, bent) {
        (Ok(()), true, false) => Outcome::Committed,
        (Ok(()), true, true) => Outcome::Bent,
        _ => Outcome::Tried,
    };
    if report.outcome != Outcome::Committed {
        // A session that is lost here has rolled back too.
        let _ = client.batch_execute("ROLLBACK").await;
        return result.map(|()| report);
    }
    commit(client, &report.xid).await?;
    Ok(report)
}

fn goals(
    Resolved { catalog, dropped, .. }: &Resolved,
    nets: &[Net],
    request: &Request,
    report: &mut Report,
) -> Result<Vec<Goal>, Refusal> {
    if nets.len() > request.max_rows {
        return Err(Refusal::new(format!("{} rows would be put back, more than {}", nets.len(), request.max_rows))
            .hint(format!("if that is meant: --max-rows {}", nets.len())));
    }
    let wanted = Wanted { fields: request.fields.clone(), force: request.later == Later::Force };
    if let Some(unknown) = unknown_field(catalog, nets, request) {
        return Err(unknown);
    }
    let mut goals = Vec::new();
    for net in nets {
        let table = &catalog.tables[net.table];
        match (between(net, table), request.later) {
            (Some(column), Later::Keep) => {
                report.kept.push(Conflict::of_row(&table.name, net.key(), CHANGED_BETWEEN).on(column));
                continue;
            }
            (Some(column), Later::Refuse | Later::With) => {
                let what = format!("{column} of {}: {CHANGED_BETWEEN}", name(table, net.key()));
                return Err(Refusal::new(what).hint("name the versions between them too, or --keep-later, or --force"));
            }
            (_, Later::Force) | (None, _) => goals.push(goal(net, table, &wanted, &mut report.left_alone)?),
        }
    }
    goals.retain(|goal| goal.kind != Kind::Update(Default::default()));
    if goals.is_empty() && !report.kept.is_empty() {
        return Err(all_kept());
    }
    if goals.is_empty() {
        let left = report.left_alone.iter().map(|left| format!("{}.{}: {}", left.table, left.column, left.why));
        let gone = dropped.iter().flat_map(|(table, columns)| {
            columns.iter().map(move |column| format!("{table}.{column}: not there any more"))
        });
        return Err(Refusal::new("there is nothing to put back").details(left.chain(gone)));
    }
    // Rows are locked in an order that two undos share, and those that are not there come last.
    goals.sort_by(|a, b| (a.is_insert(), a.table, &a.key).cmp(&(b.is_insert(), b.table, &b.key)));
    Ok(goals)
}

const CHANGED_BETWEEN: &str = "the value was changed between the versions";

/// A column that others changed between the versions.
fn between<'n>(net: &'n Net, table: &Table) -> Option<&'n String> {
    let counts = |name: &&String| table.column(name).is_none_or(|column| !column.accompanies);
    net.between.iter().find(counts)
}

fn all_kept() -> Refusal {
    Refusal::new("all rows were changed later, and are kept")
}

fn unknown_field(catalog: &Catalog, nets: &[Net], request: &Request) -> Option<Refusal> {
    let known = |name: &String| nets.iter().any(|net| catalog.tables[net.table].column(name).is_some());
    let unknown = request.fields.iter().flatten().find(|name| !known(name))?;
    Some(Refusal::new(format!("--fields: no column is called {unknown}")))
}

/// ⚠ The search path is the role's own again, because functions of triggers rely on it. Foreign keys and triggers stay on.
const BEGIN: &str = "BEGIN; SET LOCAL search_path TO DEFAULT; SET LOCAL lock_timeout TO '2s'; \
    SET LOCAL statement_timeout TO '60s'; SET LOCAL idle_in_transaction_session_timeout TO '60s'; \
    SET CONSTRAINTS ALL DEFERRED";

async fn begin(client: &Client) -> Result<(), Error> {
    let role: String = client.query_one("SELECT current_setting('session_replication_role')", &[]).await?.get(0);
    if role != "origin" {
        return Err(Refusal::new(format!(
            "session_replication_role of your login is {role}, which switches constraints off"
        ))
        .hint("log in with a role that does not set it")
        .into());
    }
    Ok(client.batch_execute(BEGIN).await?)
}

async fn tried(
    client: &Client,
    catalog: &Catalog,
    goals: &[Goal],
    request: &Request,
    report: &mut Report,
    told: impl Fn(Estimate),
) -> Result<(), Error> {
    let (goals, rows) = looked(client, catalog, goals, request, report, told).await?;
    let ordered = order(catalog, &rows)?;
    let mut written = Written::new(client, catalog, &rows, &goals, request.later);
    let undone = undone(&goals);
    report.plan = plan(request, &undone, &written.planned(&ordered.steps));
    let by = match request.apply && !request.approvers.is_empty() {
        true => Some(approved_by(client, &report.plan, &request.approvers).await?),
        false => None,
    };
    report.context = context(request, &undone, report, by);
    say(client, &report.context).await?;
    let before = Counts::read(client).await?;
    write(&mut written, &ordered.steps).await?;
    checked(client).await?;
    report.statements = std::mem::take(&mut written.statements);
    let expected = written.counts(&ordered);
    report.effects = effects::of_rows(client, catalog, &rows, &goals).await?;
    report.effects.extend(effects::of_tables(client, before, &expected).await?);
    report.warnings.extend(effects::sequences(client, catalog, &rows).await?);
    report.xid = client.query_one("SELECT pg_current_xact_id()::text", &[]).await?.get(0);
    Ok(())
}

/// Checks what was deferred until the commit.
async fn checked(client: &Client) -> Result<(), Error> {
    let checked = client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await;
    checked.map_err(|error| match error.as_db_error() {
        Some(db) => refused("checking deferred constraints", db).into(),
        None => error.into(),
    })
}

/// The positions of what is put back.
fn undone(goals: &[&Goal]) -> Vec<String> {
    let positions: BTreeSet<Position> = goals.iter().flat_map(|goal| &goal.versions).copied().collect();
    positions.iter().map(Position::to_string).collect()
}

/// More positions than these do not fit into a context; the others are counted.
const NAMED: usize = 100;

/// ⚠ It names what is put back, and nothing that stays as it is.
fn context(request: &Request, undone: &[String], report: &Report, approved_by: Option<String>) -> String {
    let mut context = request.context.clone();
    let mut add = |name: &str, value| drop(context.insert(name.to_owned(), value));
    add("undo_of", json!(undone.iter().take(NAMED).collect::<Vec<_>>()));
    if undone.len() > NAMED {
        add("undo_of_more", json!(undone.len() - NAMED));
    }
    if let Some((commit, xid)) = request.whole.filter(|_| request.fields.is_none() && report.kept.is_empty()) {
        add("undo_of_commit", json!(commit.to_string()));
        add("undo_of_xid", json!(xid));
    }
    add("plan", json!(report.plan));
    if let Some(by) = approved_by {
        add("approved_by", json!(by));
    }
    Value::Object(context).to_string()
}

/// ⚠ Before the first write, so that all versions of the undo say who and why.
async fn say(client: &Client, context: &str) -> Result<(), Error> {
    let said = client.query("SELECT cdc_audit.set_context($1::text::jsonb)", &[&context]).await;
    match said {
        Ok(_) => Ok(()),
        Err(error) => match error.as_db_error() {
            Some(db) => Err(refused("saying who undoes this, and why, by cdc_audit.set_context", db)
                .hint("run `cdc-audit setup`, and let your login use the schema cdc_audit: GRANT USAGE ON SCHEMA cdc_audit")
                .into()),
            None => Err(error.into()),
        },
    }
}

/// Rows after which it is known how long the others will take.
const MEASURED: usize = 100;

/// Locks and compares all rows.
async fn looked<'g>(
    client: &Client,
    catalog: &Catalog,
    goals: &'g [Goal],
    request: &Request,
    report: &mut Report,
    told: impl Fn(Estimate),
) -> Result<(Vec<&'g Goal>, Vec<Row>), Error> {
    let (mut kept, mut rows, mut conflicts) = (Vec::new(), Vec::new(), Vec::new());
    // ⚠ A key that another row of the undo gives up is free for the row that had it before.
    let mut free = BTreeSet::new();
    let began = Instant::now();
    for (done, goal) in goals.iter().enumerate() {
        if done == MEASURED {
            told(estimate(began.elapsed(), goals.len()));
        }
        let table = &catalog.tables[goal.table];
        let is_free = goal.is_insert() && free.contains(&(goal.table, &goal.key));
        let Look { row, conflicts: found } = look(client, table, goal, is_free, request.later).await?;
        match (found.is_empty(), request.later) {
            (true, _) => {
                if goal.leaves(table) {
                    free.insert((goal.table, &goal.key));
                }
                kept.push(goal);
                rows.push(row);
            }
            (false, Later::Keep) => report.kept.extend(found),
            (false, _) => conflicts.extend(found),
        }
    }
    if !conflicts.is_empty() {
        return Err(Error::Conflict(conflicts));
    }
    if rows.is_empty() {
        return Err(all_kept().into());
    }
    Ok((kept, rows))
}

/// To write a row and to read it again takes about as long as to compare it.
fn estimate(elapsed: Duration, rows: usize) -> Estimate {
    let each = elapsed.as_secs_f64() * 2.0 / MEASURED as f64;
    Estimate::Time { seconds: (each * rows as f64).ceil() as u64, rows_per_second: (1.0 / each) as u64 }
}

async fn commit(client: &Client, xid: &str) -> Result<(), Error> {
    match client.batch_execute("COMMIT").await {
        Ok(()) => Ok(()),
        Err(error) => match error.as_db_error() {
            // A server that ends the session may have committed before.
            Some(db) if !db.code().code().starts_with("57") => Err(refused("committing", db).into()),
            _ => Err(Error::Unknown { xid: xid.to_owned() }),
        },
    }
}
