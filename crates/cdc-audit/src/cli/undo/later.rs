//! What was done later to rows that are undone, and to rows that belong to them.

use std::collections::{BTreeMap, BTreeSet};

use audit_core::position::Position;
use audit_core::stored::Record;
use audit_undo::{Dependents, Error, Request, fold, resolve, run};

use super::question::Question;
use super::show;
use super::task::Task;
use crate::cli::subject::KeyOf;
use crate::config::Config;
use crate::error::CliError;

/// Rows whose dependents are looked for one after the other.
const ROUNDS: usize = 1000;

/// What an undo can put back.
pub fn is_change(record: &Record) -> bool {
    matches!(record.event.as_str(), "created" | "updated" | "deleted" | "discarded" | "restored" | "truncated")
}

impl Task {
    /// The same with everything that was done later, and lists that.
    pub async fn with_later(self, config: &Config) -> Result<Task, CliError> {
        let own: BTreeSet<Position> = self.undone.iter().copied().collect();
        let since = self.since;
        let mut task = self;
        for _ in 0..ROUNDS {
            let mut records = task.question.later(&task.trail.records).await?;
            let known = records.len();
            if known > task.trail.records.len() {
                task = Task::new(task.how, task.question, records).await?;
                continue;
            }
            let Some(dependents) = task.dependents(config).await? else { break };
            task.question.add_dependents(config, &dependents, since, &mut records).await?;
            if records.len() == known {
                return Err(show::error(Error::Dependents(dependents)));
            }
            task = Task::new(task.how, task.question, records).await?;
        }
        show::later(task.trail.records.iter().filter(|record| !own.contains(&record.position)));
        Ok(task)
    }

    /// The rows that would be in the way, found by trying it. Whatever else is in the way is found by the undo itself.
    async fn dependents(&self, config: &Config) -> Result<Option<Dependents>, CliError> {
        let client = &self.question.client;
        let resolved = resolve(client, &self.trail, &config.rules()).await.map_err(show::error)?;
        let request = Request { apply: false, ..self.request(false, config)? };
        match run(client, &resolved, &fold(&resolved.changes), &request, |_| ()).await {
            Err(Error::Dependents(dependents)) => Ok(Some(dependents)),
            _ => Ok(None),
        }
    }
}

impl Question {
    /// These versions with all later ones of the same rows, and of rows that got a key of theirs.
    async fn later(&self, records: &[Record]) -> Result<Vec<Record>, CliError> {
        let mut found: BTreeMap<Position, Record> = BTreeMap::new();
        let mut rows = BTreeSet::new();
        for record in records {
            found.insert(record.position, record.clone());
            rows.extend(record.key.as_ref().map(|key| (record.table_name.as_str(), key.as_str())));
        }
        for (table, key) in rows {
            let is_undone = |record: &&Record| records.iter().any(|undone| undone.position == record.position);
            let all = self.history(table, key).await?;
            let Some(first) = all.iter().find(is_undone).map(|record| record.position) else { continue };
            let mut numbers: BTreeSet<u32> = BTreeSet::new();
            let versions = self.row(table, key, &[]).await?;
            for record in all.into_iter().filter(|record| record.position >= first && is_change(record)) {
                // A move between partitions is two records, and one version with the position of the second.
                let version = versions.iter().find(|version| version.record.position >= record.position);
                let row = version.map_or(0, |version| version.row);
                if record.key.as_deref() == Some(key) || is_undone(&&record) {
                    numbers.insert(row);
                }
                if numbers.contains(&row) {
                    found.entry(record.position).or_insert(record);
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// Adds what was done to these rows since they belong to the one that goes, after a position.
    async fn add_dependents(
        &self,
        config: &Config,
        dependents: &Dependents,
        since: Position,
        records: &mut Vec<Record>,
    ) -> Result<(), CliError> {
        let Dependents { table, sql, columns, .. } = dependents;
        let Some(shape) = self.store.shape(&self.source, table).await? else { return Ok(()) };
        let rule = config.rules().for_table(&shape.name()).rule;
        let names = rule.key.unwrap_or(shape.key);
        let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        let key = match names.as_slice() {
            [] => return Ok(()),
            [name] => format!("{name}::text"),
            names => format!("json_build_array({})::text", names.join(", ")),
        };
        let belongs: Vec<String> =
            columns.iter().enumerate().map(|(at, (name, _))| format!("{}::text = ${}", quoted(name), at + 1)).collect();
        let values: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
            columns.iter().map(|(_, value)| value as &(dyn tokio_postgres::types::ToSql + Sync)).collect();
        let asked = format!("SELECT {key} FROM {sql} WHERE {}", belongs.join(" AND "));
        let keys = KeyOf::table(config, &self.store, table).await?;
        for row in self.client.query(&asked, &values).await? {
            let history = self.history(table, &keys.stored(row.get(0))?).await?;
            let is_later = |record: &Record| record.position > since && is_change(record);
            let Some(from) = history.iter().rposition(|record| is_later(record) && may_set(record, columns)) else {
                continue;
            };
            let is_new = |record: &Record| !records.iter().any(|known| known.position == record.position);
            let new: Vec<Record> =
                history.into_iter().skip(from).filter(|record| is_change(record) && is_new(record)).collect();
            records.extend(new);
        }
        records.sort_by_key(|record| record.position);
        Ok(())
    }
}

/// Whether a version may have given one of the columns its value.
fn may_set(record: &Record, columns: &[(String, String)]) -> bool {
    let touches = |changed: &Vec<String>| columns.iter().any(|(name, _)| changed.contains(name));
    record.event == "created" || record.changed.as_ref().is_none_or(touches)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
