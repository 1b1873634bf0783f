//! The transaction in which rows are put back: [`run`].

use tokio_postgres::Client;

use crate::catalog::Catalog;
use crate::effects::{self, Counts};
use crate::error::refused;
use crate::goal::{Goal, Kind, Wanted, goal};
use crate::look::{Look, look};
use crate::net::Net;
use crate::order::{Row, order};
use crate::report::{Later, Outcome, Report, Request};
use crate::write::{Written, write};
use crate::{Error, Refusal, Resolved};

/// Puts the rows back in one transaction, and commits it if that was asked for.
///
/// # Errors
/// Fails if anything is in the way; then nothing was written, except after [`Error::Unknown`].
pub async fn run(client: &Client, resolved: &Resolved, nets: &[Net], request: &Request) -> Result<Report, Error> {
    let mut report = Report::default();
    let catalog = &resolved.catalog;
    let goals = goals(resolved, nets, request, &mut report)?;
    begin(client).await?;
    let result = tried(client, catalog, &goals, request, &mut report).await;
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
        goals.push(goal(net, &catalog.tables[net.table], &wanted, &mut report.left_alone)?);
    }
    goals.retain(|goal| goal.kind != Kind::Update(Default::default()));
    if goals.is_empty() {
        let left = report.left_alone.iter().map(|left| format!("{}.{}: {}", left.table, left.column, left.why));
        let gone = dropped.iter().flat_map(|(table, columns)| {
            columns.iter().map(move |column| format!("{table}.{column}: not there any more"))
        });
        return Err(Refusal::new("there is nothing to put back").details(left.chain(gone)));
    }
    // Rows are locked in an order that two undos share.
    goals.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    Ok(goals)
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
) -> Result<(), Error> {
    say(client, &request.context).await?;
    let (goals, rows) = looked(client, catalog, goals, request, report).await?;
    let ordered = order(catalog, &rows)?;
    let before = Counts::read(client).await?;
    let compare = request.later != Later::Force;
    let mut written = Written::new(client, catalog, &rows, &goals, compare);
    write(&mut written, &ordered.steps).await?;
    let checked = client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await;
    if let Err(error) = checked {
        return Err(match error.as_db_error() {
            Some(db) => refused("checking deferred constraints", db).into(),
            None => error.into(),
        });
    }
    report.statements = std::mem::take(&mut written.statements);
    let expected = written.counts(&ordered);
    report.effects = effects::of_rows(client, catalog, &rows, &goals).await?;
    report.effects.extend(effects::of_tables(client, before, &expected).await?);
    report.warnings.extend(effects::sequences(client, catalog, &rows).await?);
    report.xid = client.query_one("SELECT pg_current_xact_id()::text", &[]).await?.get(0);
    Ok(())
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

/// Locks and compares all rows.
async fn looked<'g>(
    client: &Client,
    catalog: &Catalog,
    goals: &'g [Goal],
    request: &Request,
    report: &mut Report,
) -> Result<(Vec<&'g Goal>, Vec<Row>), Error> {
    let (mut kept, mut rows, mut conflicts) = (Vec::new(), Vec::new(), Vec::new());
    for goal in goals {
        let Look { row, conflicts: found } = look(client, &catalog.tables[goal.table], goal, request.later).await?;
        match (found.is_empty(), request.later) {
            (true, _) => {
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
        return Err(Refusal::new("all rows were changed later, and are kept").into());
    }
    Ok((kept, rows))
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
