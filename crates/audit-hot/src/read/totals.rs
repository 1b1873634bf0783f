//! Counts versions by table, event, actor and time, in one statement, which sees one state of the database.

use std::pin::pin;

use audit_core::totals::{Bounds, Totals};
use futures::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::places::{Places, Whose};
use super::row::Time;
use super::session::Session;
use super::{ReadError, failed};

/// What `GROUPING` gives for each of the sets: a bit is 1 if the column is not in the set.
const ALL: i32 = 0b1111;
const TABLE: i32 = 0b0111;
const EVENT: i32 = 0b1011;
const ACTOR: i32 = 0b1101;

const COUNTED: &str = "SELECT GROUPING(table_name, event, actor_id, quarter), table_name, event, actor_id, quarter, count(*), \
    count(*) FILTER (WHERE no_actor), count(*) FILTER (WHERE no_reason), count(*) FILTER (WHERE undoing)";

const ROWS: &str = "SELECT table_name, event, actor_id, floor(extract(epoch FROM committed_at) / 900)::bigint AS quarter, \
    jsonb_exists(context->'missing', 'actor') AS no_actor, jsonb_exists(context->'missing', 'reason') AS no_reason, \
    jsonb_exists(context, 'undo_of') AS undoing";

pub(super) async fn totals(
    client: &Session,
    whose: &Whose,
    (source, tables): (&str, &[String]),
    bounds: &Bounds,
) -> Result<Totals, ReadError> {
    if tables.is_empty() {
        return Ok(Totals::default());
    }
    let places = Places::of(client, whose, source, tables).await?.all();
    let (since, until) = (bounds.since.map(Time), bounds.until.map(Time));
    let (after, up_to) = (bounds.after.map(|at| at.to_string()), bounds.up_to.map(|at| at.to_string()));
    let mut conditions = "source = $1 AND table_name = ANY ($2)".to_owned();
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&source, &tables];
    let mut add = |text: &str, parameter| {
        parameters.push(parameter);
        conditions += &format!(" AND {text} ${}", parameters.len());
    };
    since.iter().for_each(|at| add("committed_at >=", at));
    until.iter().for_each(|at| add("committed_at <", at));
    after.iter().for_each(|at| add("position >", at));
    up_to.iter().for_each(|at| add("position <=", at));
    let statement = format!(
        "{COUNTED} FROM ({ROWS} FROM {places} WHERE {conditions}) AS counted \
         GROUP BY GROUPING SETS ((), (table_name), (event), (actor_id), (quarter))"
    );
    client.begin("counting", &statement, &parameters).await?;
    let rows = client.query_raw(&statement, parameters).await.map_err(failed("counting"))?;
    let mut rows = pin!(rows);
    let mut totals = Totals::default();
    while let Some(row) = rows.try_next().await.map_err(failed("counting"))? {
        client.count("counting", 1);
        add_row(&mut totals, &row);
    }
    Ok(totals)
}

fn add_row(totals: &mut Totals, row: &Row) {
    let count = |column: usize| row.get::<_, i64>(column) as u64;
    let text = |column: usize| row.get::<_, Option<String>>(column);
    match row.get::<_, i32>(0) {
        ALL => {
            totals.versions = count(5);
            totals.without_actor = count(6);
            totals.without_reason = count(7);
            totals.undoing = count(8);
        }
        TABLE => drop(totals.by_table.insert(text(1).unwrap_or_default(), count(5))),
        EVENT => drop(totals.by_event.insert(text(2).unwrap_or_default(), count(5))),
        ACTOR => totals.count_actor(text(3).as_deref(), count(5)),
        _ => drop(totals.by_quarter.insert(row.get::<_, Option<i64>>(4).unwrap_or_default(), count(5))),
    }
}
