//! Counts versions by event, actor and time: a few columns of the files that the log's statistics do not exclude.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::TimestampMicrosecondType;
use audit_core::position::{Micros, Window};
use audit_core::totals::{Bounds, QUARTER, Totals};
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::files::{self, DataFile, Logs};
use super::history::TRIES_MAX;
use crate::encode::on_cpu;
use crate::error::LakeError;

/// Number of files that are read at a time.
const CONCURRENT: usize = 4;

const BATCH_ROWS: usize = 8192;

const POSITION: &str = "cdc_position";
const EVENT: &str = "cdc_event";
const ACTOR: &str = "cdc_actor_id";
const CONTEXT: &str = "cdc_context";
const COMMITTED_AT: &str = "cdc_committed_at";

/// Counts a table's versions. If a file was replaced and removed in the meantime, all is counted again.
pub(super) async fn totals(mut logs: Arc<Logs>, table: &str, bounds: &Bounds) -> Result<Totals, LakeError> {
    let mut tries = 1;
    loop {
        match count(&logs, table, *bounds).await {
            Err(error) if error.is_gone() && tries < TRIES_MAX => {
                tries += 1;
                logs = Arc::new(logs.again().await?);
            }
            done => return done,
        }
    }
}

async fn count(logs: &Logs, table: &str, bounds: Bounds) -> Result<Totals, LakeError> {
    let in_span = |stats: &files::Stats| stats.may_be_committed(bounds.since, bounds.until);
    let mut files = logs.select(Window::ALL, in_span).await?;
    files.retain(|file| bounds.meets(file.name.first, file.name.last));
    let table: Arc<str> = table.into();
    let counted = futures::stream::iter(files).map(move |file| count_file(file, table.clone(), bounds));
    let add = |mut all: Totals, one: Totals| async move {
        all.add(one);
        Ok(all)
    };
    counted.buffer_unordered(CONCURRENT).try_fold(Totals::default(), add).await
}

async fn count_file(file: DataFile, table: Arc<str>, bounds: Bounds) -> Result<Totals, LakeError> {
    let failed = |source| LakeError::Read { path: file.shown(), source };
    let builder = files::open(&file).await?;
    file.meter.row_groups(builder.metadata().num_row_groups(), builder.metadata().num_row_groups());
    let is_inside = bounds.has_position(file.name.first) && bounds.has_position(file.name.last);
    let mut columns = vec![EVENT, ACTOR, CONTEXT, COMMITTED_AT];
    columns.extend((!is_inside).then_some(POSITION));
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let mut batches = builder.with_batch_size(BATCH_ROWS).with_projection(mask).build().map_err(failed)?;
    let mut totals = Totals::default();
    while let Some(batch) = batches.try_next().await.map_err(failed)? {
        let counted = on_cpu(|| count_batch(&batch, &bounds));
        let counted = counted.ok_or_else(|| LakeError::altered(file.shown(), "it lacks columns of the record"))?;
        totals.add(counted);
    }
    if totals.versions > 0 {
        totals.by_table.insert(table.to_string(), totals.versions);
    }
    Ok(totals)
}

/// `None` if a column is missing.
fn count_batch(batch: &RecordBatch, bounds: &Bounds) -> Option<Totals> {
    let texts = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
    let (events, actors, contexts) = (texts(EVENT)?, texts(ACTOR)?, texts(CONTEXT)?);
    let times = batch.column_by_name(COMMITTED_AT)?.as_primitive_opt::<TimestampMicrosecondType>()?;
    let positions = texts(POSITION);
    let text = |column: &'_ StringArray, row: usize| column.is_valid(row).then(|| column.value(row).to_owned());
    let mut totals = Totals::default();
    // Most of a batch has few different values, so they are looked up by reference and copied once.
    let (mut by_event, mut by_actor) = (HashMap::<&str, u64>::new(), HashMap::<Option<&str>, u64>::new());
    let mut by_quarter = BTreeMap::<i64, u64>::new();
    for row in 0..batch.num_rows() {
        let at = Micros(times.value(row));
        let position = positions.and_then(|positions| text(positions, row)?.parse().ok());
        if !bounds.has_time(at) || position.is_some_and(|position| !bounds.has_position(position)) {
            continue;
        }
        totals.versions += 1;
        *by_event.entry(events.value(row)).or_default() += 1;
        *by_actor.entry(actors.is_valid(row).then(|| actors.value(row))).or_default() += 1;
        *by_quarter.entry(at.0.div_euclid(QUARTER)).or_default() += 1;
        if contexts.is_valid(row) {
            count_context(&mut totals, contexts.value(row));
        }
    }
    totals.by_event = by_event.into_iter().map(|(event, count)| (event.to_owned(), count)).collect();
    totals.by_quarter = by_quarter;
    by_actor.into_iter().for_each(|(actor, count)| totals.count_actor(actor, count));
    Some(totals)
}

fn count_context(totals: &mut Totals, context: &str) {
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        missing: Vec<String>,
        undo_of: Option<IgnoredAny>,
    }
    if !context.contains("\"missing\"") && !context.contains("\"undo_of\"") {
        return;
    }
    let Ok(said) = serde_json::from_str::<Said>(context) else { return };
    totals.without_actor += u64::from(said.missing.iter().any(|what| what == "actor"));
    totals.without_reason += u64::from(said.missing.iter().any(|what| what == "reason"));
    totals.undoing += u64::from(said.undo_of.is_some());
}
