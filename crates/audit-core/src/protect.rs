//! The one place where raw values become values that may leave memory.
//!
//! Sinks take a [`Batch`], and only [`Policy::seal`] can put a version into one: the compiler keeps raw values from every sink.
//! Whatever is derived from values (key, actor, reason, tenant) is derived here, from what protection left.

use std::sync::Arc;

use crate::batch::{ActorSource, Batch, Entry, Span};
use crate::change::{Cell, Value};
use crate::context::Context;
pub use crate::mac::MacKey;
use crate::mac::write_sha256;
use crate::mask;
use crate::method::{Algorithm, Method};
use crate::position::{Lsn, Position};
use crate::table::{Column, KeyColumn, Protection, Table};
use crate::value::{write_json_string, write_json_value};
use crate::version::{Event, RawVersion};

/// What `full` leaves of a value.
pub const REDACTED: &str = "[REDACTED]";

/// The keys that protection needs, and what it does with a version.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// For method `hash`.
    pub hash_key: Option<MacKey>,
    /// For protected columns inside `key`; never rotated, for a row's key must stay the same for ever.
    pub row_key: Option<MacKey>,
}

/// A change that cannot become a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("table {table}, column {column}: the value is not valid UTF-8")]
    NotUtf8 { table: String, column: String },
    #[error("table {table}, column {column}: there is no key for the method `hash`")]
    NoHashKey { table: String, column: String },
    #[error("table {table}, column {column}: there are no keys for the method `{method}`")]
    NoKeys { table: String, column: String, method: &'static str },
    #[error("the batch is full")]
    TooLarge,
}

/// Where a version stands in its transaction.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub position: Position,
    /// Start of the change's own WAL record.
    pub lsn: Lsn,
}

impl Policy {
    /// Protects a version and appends it to `batch`. The transaction is the batch's current one ([`Batch::transaction`]).
    /// On an error the batch is as before.
    pub fn seal(
        &self,
        batch: &mut Batch,
        table: &Arc<Table>,
        raw: &RawVersion<'_>,
        place: Place,
        context: Option<&Arc<Context>>,
    ) -> Result<(), SealError> {
        let mark = batch.mark();
        let entry = self.entry(batch, table, raw, place, context);
        match entry {
            Ok(entry) => batch.push_attributed(entry),
            Err(_) => batch.rewind(mark),
        }
        entry.map(|_| ())
    }

    fn entry(
        &self,
        batch: &mut Batch,
        table: &Arc<Table>,
        raw: &RawVersion<'_>,
        place: Place,
        context: Option<&Arc<Context>>,
    ) -> Result<Entry, SealError> {
        let (key, old_key) = self.keys(batch, table, raw)?;
        let after = match raw.after {
            Some(_) => Some(self.row(batch, table, |source| raw.after(table, source))?),
            None => None,
        };
        let before = match (raw.before, after, raw.changed) {
            (None, ..) => None,
            // Most columns of an update are as they were: the row before shares their cells.
            (Some(_), Some(after), Some(changed)) => Some(self.row_before(batch, table, raw, after, changed)?),
            (Some(_), ..) => Some(self.row(batch, table, |source| raw.before(table, source))?),
        };
        let table_index = batch.table(table);
        let mut entry = Entry {
            table: table_index,
            transaction: batch.current_transaction(),
            context: context.map(|context| batch.context(context)),
            position: place.position,
            lsn: place.lsn,
            event: raw.event,
            key,
            old_key,
            before,
            after,
            before_known: raw.before_known,
            changed: raw.changed.map(|changed| batch.changed(changed)),
            actor_source: None,
        };
        entry.actor_source = actor_source(batch, table, &entry, raw, context);
        Ok(entry)
    }

    /// The key after, or of a deleted row the key before; and the key before where it differs.
    fn keys(
        &self,
        batch: &mut Batch,
        table: &Table,
        raw: &RawVersion<'_>,
    ) -> Result<(Option<Span>, Option<Span>), SealError> {
        match raw.event {
            Event::Deleted => Ok((self.key(batch, table, |source| raw.before(table, source))?, None)),
            Event::Truncated => Ok((None, None)),
            _ => {
                let key = self.key(batch, table, |source| raw.after(table, source))?;
                let old = raw.key_changed.then(|| self.key(batch, table, |source| raw.before(table, source)));
                Ok((key, old.transpose()?.flatten()))
            }
        }
    }

    fn key<'a>(
        &self,
        batch: &mut Batch,
        table: &Table,
        value: impl Fn(usize) -> Value<&'a [u8]>,
    ) -> Result<Option<Span>, SealError> {
        let part = |column: &KeyColumn| match value(column.source) {
            Value::Text(bytes) => text(table, &column.name, bytes).map(Some),
            Value::Null | Value::Unknown => Ok(None),
        };
        match table.key.as_slice() {
            [] => Ok(None),
            [column] => match part(column)? {
                Some(text) if column.protected => Ok(Some(batch.append(&self.row_hash(table, column, text)?)?)),
                Some(text) => Ok(Some(batch.append(text)?)),
                None => Ok(None),
            },
            columns => {
                let mut json = vec![b'['];
                for (i, column) in columns.iter().enumerate() {
                    let Some(text) = part(column)? else { return Ok(None) };
                    if i > 0 {
                        json.push(b',');
                    }
                    if column.protected {
                        write_json_string(&mut json, &self.row_hash(table, column, text)?);
                    } else {
                        write_json_value(&mut json, &column.kind, text);
                    }
                }
                json.push(b']');
                let json = String::from_utf8(json).map_err(|_| SealError::TooLarge)?;
                Ok(Some(batch.append(&json)?))
            }
        }
    }

    fn row_hash(&self, table: &Table, column: &KeyColumn, value: &str) -> Result<String, SealError> {
        let missing = || SealError::NoHashKey { table: table.name.to_string(), column: column.name.clone() };
        let mut hash = String::new();
        self.row_key.as_ref().ok_or_else(missing)?.write(&column.space, value.as_bytes(), &mut hash);
        Ok(hash)
    }

    fn row<'a>(
        &self,
        batch: &mut Batch,
        table: &Table,
        value: impl Fn(usize) -> Value<&'a [u8]>,
    ) -> Result<u32, SealError> {
        let start = batch.cells.len();
        for index in 0..table.columns.len() {
            let cell = self.cell(batch, table, index, value(table.columns[index].source))?;
            batch.cells.push(cell);
        }
        u32::try_from(start).map_err(|_| SealError::TooLarge)
    }

    fn row_before(
        &self,
        batch: &mut Batch,
        table: &Table,
        raw: &RawVersion<'_>,
        after: u32,
        changed: &[bool],
    ) -> Result<u32, SealError> {
        let start = batch.cells.len();
        for (index, changed) in changed.iter().enumerate() {
            let column = &table.columns[index];
            // Columns that are kept but not tracked are not compared.
            let cell = if *changed || !column.tracked {
                self.cell(batch, table, index, raw.before(table, column.source))?
            } else {
                batch.cells[after as usize + index]
            };
            batch.cells.push(cell);
        }
        u32::try_from(start).map_err(|_| SealError::TooLarge)
    }

    fn cell(&self, batch: &mut Batch, table: &Table, index: usize, value: Value<&[u8]>) -> Result<Cell, SealError> {
        let column = &table.columns[index];
        match (&column.protection, value) {
            (Some(Protection { rule, .. }), _) if rule.method == Method::Full => batch.append_cell(REDACTED),
            (_, Value::Null) => Ok(Cell::NULL),
            (_, Value::Unknown) => Ok(Cell::UNKNOWN),
            (None, Value::Text(bytes)) => batch.append_cell(text(table, &column.name, bytes)?),
            (Some(protection), Value::Text(bytes)) => self.protected(batch, table, column, protection, bytes),
        }
    }

    fn protected(
        &self,
        batch: &mut Batch,
        table: &Table,
        column: &Column,
        protection: &Protection,
        bytes: &[u8],
    ) -> Result<Cell, SealError> {
        let place = || (table.name.to_string(), column.name.clone());
        let rule = &protection.rule;
        match (rule.method, rule.algorithm()) {
            (Method::Full, _) => batch.append_cell(REDACTED),
            (Method::Partial, _) => {
                let text = text(table, &column.name, bytes)?;
                batch.append_with(|out| match &rule.pattern {
                    Some(pattern) => pattern.apply(text, out),
                    None => mask::partial(text, out),
                })
            }
            (Method::Hash, Algorithm::Sha256) => batch.append_with(|out| write_sha256(bytes, out)),
            (Method::Hash, Algorithm::HmacSha256) => {
                let key = self.hash_key.as_ref().ok_or_else(|| {
                    let (table, column) = place();
                    SealError::NoHashKey { table, column }
                })?;
                batch.append_with(|out| key.write(&protection.space, bytes, out))
            }
            (method @ (Method::Token | Method::Encrypt), _) => {
                let (table, column) = place();
                Err(SealError::NoKeys { table, column, method: method.name() })
            }
            // Dropped columns are no columns of the table; nothing of one is written if that should ever change.
            (Method::Drop, _) => Ok(Cell::NULL),
        }
    }
}

fn text<'a>(table: &Table, column: &str, bytes: &'a [u8]) -> Result<&'a str, SealError> {
    std::str::from_utf8(bytes)
        .map_err(|_| SealError::NotUtf8 { table: table.name.to_string(), column: column.to_string() })
}

/// Context comes first. A row's own columns are taken never for deletions, and with a caution where this change did not set them:
/// they may name an earlier editor.
fn actor_source(
    batch: &Batch,
    table: &Table,
    entry: &Entry,
    raw: &RawVersion<'_>,
    context: Option<&Arc<Context>>,
) -> Option<ActorSource> {
    if context.is_some_and(|context| context.actor_id.is_some() || context.actor.is_some()) {
        return Some(ActorSource::Context);
    }
    let (column, after) = (table.actor?, entry.after?);
    let named =
        matches!(batch.cells.get(after as usize + column), Some(cell) if *cell != Cell::NULL && *cell != Cell::UNKNOWN);
    if !named {
        return None;
    }
    let source = table.columns[column].source;
    let set_here = match raw.event {
        Event::Created => true,
        event if event.is_update() => raw.before_known && raw.before(table, source) != raw.after(table, source),
        _ => false,
    };
    Some(if set_here { ActorSource::Row } else { ActorSource::RowUnchanged })
}
