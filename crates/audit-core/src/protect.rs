//! The only place where raw values become values that may leave memory.
//!
//! Sinks take a [`Batch`], and only [`Policy::seal`] can put a version into one: the compiler keeps raw values out of
//! every sink. Whatever is derived from values (key, actor, reason, tenant) is derived here, from what protection left.

use std::sync::Arc;

use audit_cipher::{Sealer, Wanted};

use crate::batch::{ActorSource, Batch, Entry, MemberCell, Span};
use crate::change::{Cell, Value};
use crate::context::{Context, fields};
use crate::expand::{self, Documents};
use crate::inside::Inside;
pub use crate::mac::MacKey;
use crate::mac::{Space, write_sha256};
use crate::mask;
use crate::method::{Algorithm, Method, MethodRule};
pub use crate::seal::SealError;
use crate::table::{KeyColumn, Protection, Table};
use crate::value::{write_json_string, write_json_value};
pub use crate::version::Place;
use crate::version::{Event, RawVersion, document};

use self::bound::At;
pub(crate) use self::bound::Bound;

mod bound;
mod inside;

/// The class of keys for columns that name no class.
pub const DEFAULT_CLASS: &str = "default";

/// The text that `full` puts in place of a value.
pub const REDACTED: &str = "[REDACTED]";

/// The keys that protection needs, and what it does with a version.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The key for the method `hash`.
    pub hash_key: Option<MacKey>,
    /// The key for protected columns inside `key`. It is never rotated, because a row's key must stay the same for
    /// ever.
    pub row_key: Option<MacKey>,
    /// The sealer for the methods `encrypt` and `token`.
    pub sealer: Option<Arc<Sealer>>,
}

/// A key that a method needs and that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    #[error("there is no key for the method `hash`")]
    HashKey,
    #[error("there are no keys for the method `{}`", .0.name())]
    Keys(Method),
    #[error("a key is not at hand")]
    Wanted(Wanted),
    #[error("the value is too long to be encrypted")]
    TooLong,
}

impl Missing {
    fn of(self, table: &str, column: &str) -> SealError {
        let (table, column) = (table.to_owned(), column.to_owned());
        match self {
            Missing::HashKey => SealError::NoHashKey { table, column },
            Missing::Keys(method) => SealError::NoKeys { table, column, method: method.name() },
            Missing::Wanted(wanted) => SealError::KeyWanted(wanted),
            Missing::TooLong => SealError::TooLarge,
        }
    }
}

impl Policy {
    /// Protects a version and appends it to `batch`. Its transaction is the current one of the batch
    /// ([`Batch::transaction`]).
    ///
    /// # Errors
    /// Returns a [`SealError`] if the change cannot become a version; the batch is then as before.
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

    /// Appends an `error` record in place of a version that could not be sealed, with the row's key if that could be
    /// sealed.
    pub fn quarantine(&self, batch: &mut Batch, table: &Arc<Table>, raw: &RawVersion<'_>, place: Place, note: Context) {
        let mark = batch.mark();
        let keys = self.keys(batch, table, raw);
        if keys.is_err() {
            batch.rewind(mark);
        }
        batch.note_of(Event::Error, table, keys.unwrap_or_default(), place, note);
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
            Some(_) => {
                self.bind(batch, table, key, place, |source| raw.after(source))?;
                Some(self.row(batch, table, |source| raw.after(source))?)
            }
            None => None,
        };
        let reseals = raw.reseals(table);
        if after.is_none() || reseals {
            self.bind(batch, table, key, place, |source| raw.before(source))?;
        }
        let before = match (raw.before, after, raw.changed) {
            (None, ..) => None,
            // Most columns of an update are unchanged, so the row before shares their cells.
            (Some(_), Some(after), Some(changed)) if !reseals => {
                Some(self.row_before(batch, table, raw, after, changed)?)
            }
            (Some(_), ..) => Some(self.row(batch, table, |source| raw.before(source))?),
        };
        let members = self.members(batch, table, raw, before, after)?;
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
            members,
            actor_source: None,
        };
        entry.actor_source = actor_source(batch, table, &entry, raw, context);
        Ok(entry)
    }

    /// The members that changed, for columns whose documents are taken apart. Changes are found in the raw documents.
    fn members(
        &self,
        batch: &mut Batch,
        table: &Table,
        raw: &RawVersion<'_>,
        before: Option<u32>,
        after: Option<u32>,
    ) -> Result<(u32, u32), SealError> {
        let start = batch.members.len();
        // If an update's row before is not known, its documents cannot be compared.
        let comparable = raw.changed.is_some() || before.is_none() || after.is_none();
        for (index, column) in table.columns.iter().enumerate().filter(|_| comparable) {
            let Some(expansion) = &column.expansion else { continue };
            if raw.changed.is_some_and(|changed| !changed[index]) {
                continue;
            }
            let old = before.map_or(Value::Null, |_| raw.before(column.source));
            let new = after.map_or(Value::Null, |_| raw.after(column.source));
            if old.is_unknown() || new.is_unknown() {
                continue;
            }
            let shown = |row: Option<u32>| row.and_then(|row| batch.text_of(batch.cells[row as usize + index]));
            let raw = Documents { old: document(old), new: document(new) };
            let found = expand::changed(expansion, raw, Documents { old: shown(before), new: shown(after) });
            for member in found {
                let side = |batch: &mut Batch, side: Option<String>| side.map(|text| batch.append(&text)).transpose();
                let cell = MemberCell {
                    column: index as u32,
                    name: batch.append(&member.name)?,
                    old: side(batch, member.old)?,
                    new: side(batch, member.new)?,
                };
                batch.members.push(cell);
            }
        }
        Ok((start as u32, (batch.members.len() - start) as u32))
    }

    /// The key after (for a deleted row the key before), and the key before if it differs.
    fn keys(
        &self,
        batch: &mut Batch,
        table: &Table,
        raw: &RawVersion<'_>,
    ) -> Result<(Option<Span>, Option<Span>), SealError> {
        match raw.event {
            Event::Deleted => Ok((self.key(batch, table, |source| raw.before(source))?, None)),
            Event::Truncated => Ok((None, None)),
            _ => {
                let key = self.key(batch, table, |source| raw.after(source))?;
                let old = raw.key_changed.then(|| self.key(batch, table, |source| raw.before(source)));
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
                Some(text) => match self.key_part(table, column, text)? {
                    Some(left) => Ok(Some(batch.append(&left)?)),
                    None => Ok(Some(batch.append(text)?)),
                },
                None => Ok(None),
            },
            columns => {
                let mut json = vec![b'['];
                for (i, column) in columns.iter().enumerate() {
                    let Some(text) = part(column)? else { return Ok(None) };
                    if i > 0 {
                        json.push(b',');
                    }
                    match self.key_part(table, column, text)? {
                        Some(left) => write_json_string(&mut json, &left),
                        None => write_json_value(&mut json, &column.kind, text),
                    }
                }
                json.push(b']');
                let json = String::from_utf8(json).map_err(|_| SealError::TooLarge)?;
                Ok(Some(batch.append(&json)?))
            }
        }
    }

    /// The text that is stored in `key` instead of a value that must not appear there: the HMAC of a protected column,
    /// or of an unprotected one in which sensitive content was found. If there is no row key, an unprotected column's
    /// masked text is stored instead, and two rows may share it. `None` if the value can be stored as it is.
    fn key_part(&self, table: &Table, column: &KeyColumn, text: &str) -> Result<Option<String>, SealError> {
        if column.protected {
            return self.row_hash(table, column, text).map(Some);
        }
        let Some(inside) = column.inside.as_ref().filter(|inside| inside.may_find(text)) else { return Ok(None) };
        let mut left = String::new();
        let at = At { table: &table.name, column: &column.name, bound: Bound::NOWHERE };
        self.inside(at, inside, text, &mut left).map_err(|missing| missing.of(at.table, at.column))?;
        match left == text {
            true => Ok(None),
            false if self.row_key.is_some() => self.row_hash(table, column, text).map(Some),
            false => Ok(Some(left)),
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
        let subject = table.subject.map_or(Value::Null, &value);
        for index in 0..table.columns.len() {
            let cell = self.cell(batch, table, index, value(table.columns[index].source), subject)?;
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
        let subject = table.subject.map_or(Value::Null, |source| raw.before(source));
        for (index, changed) in changed.iter().enumerate() {
            let column = &table.columns[index];
            // Columns that are kept but not tracked are not compared.
            let cell = if *changed || !column.tracked {
                self.cell(batch, table, index, raw.before(column.source), subject)?
            } else {
                batch.cells[after as usize + index]
            };
            batch.cells.push(cell);
        }
        u32::try_from(start).map_err(|_| SealError::TooLarge)
    }

    /// Protects one value. `subject` is the row's; see [`Bound::subject`].
    fn cell(
        &self,
        batch: &mut Batch,
        table: &Table,
        index: usize,
        value: Value<&[u8]>,
        subject: Value<&[u8]>,
    ) -> Result<Cell, SealError> {
        let column = &table.columns[index];
        match (&column.protection, value) {
            (Some(Protection { rule, .. }), _) if rule.method == Method::Full => batch.append_cell(REDACTED),
            (_, Value::Null) => Ok(Cell::NULL),
            (_, Value::Unknown) => Ok(Cell::UNKNOWN),
            (None, Value::Text(bytes)) => {
                let text = text(table, &column.name, bytes)?;
                let Some(inside) = &column.inside else { return batch.append_cell(text) };
                self.with_aad(batch, &column.name, |aad, batch| {
                    let at = At { table: &table.name, column: &column.name, bound: Bound { aad, subject } };
                    batch.append_with(|out| {
                        self.inside(at, inside, text, out).map_err(|missing| missing.of(at.table, at.column))
                    })
                })
            }
            (Some(protection), Value::Text(bytes)) => {
                let text = text(table, &column.name, bytes)?;
                self.with_aad(batch, &column.name, |aad, batch| {
                    batch.append_with(|out| {
                        let bound = Bound { aad, subject };
                        let left = self.leave(&protection.rule, &protection.space, bound, text, out);
                        left.map_err(|missing| missing.of(&table.name, &column.name))
                    })
                })
            }
        }
    }

    /// Appends what a method leaves of a value that is not NULL.
    pub(crate) fn leave(
        &self,
        rule: &MethodRule,
        space: &Space,
        bound: Bound<'_>,
        text: &str,
        out: &mut String,
    ) -> Result<(), Missing> {
        match (rule.method, rule.algorithm()) {
            (Method::Full, _) => out.push_str(REDACTED),
            (Method::Partial, _) => match &rule.pattern {
                Some(pattern) => pattern.apply(text, out),
                None => mask::partial(text, out),
            },
            (Method::Hash, Algorithm::Sha256) => write_sha256(text.as_bytes(), out),
            (Method::Hash, Algorithm::HmacSha256) => {
                self.hash_key.as_ref().ok_or(Missing::HashKey)?.write(space, text.as_bytes(), out)
            }
            (Method::Token | Method::Encrypt, _) => self.keyed(rule, space, bound, text, out)?,
            // A dropped column is not in the table, so this is not reached; and if that ever changes, nothing is
            // written.
            (Method::Drop, _) => {}
        }
        Ok(())
    }

    /// Protects what a context contains; actor and reason are then taken from what is left.
    ///
    /// # Errors
    /// Fails if a key is missing, or has to be fetched first ([`SealError::KeyWanted`]), or if a value is too long to
    /// be encrypted.
    pub fn context(&self, inside: &Inside, mut context: Context) -> Result<Context, SealError> {
        if inside.is_empty() {
            return Ok(context);
        }
        let mut json = String::new();
        let at = At { table: "context", column: "context", bound: Bound::NOWHERE };
        self.inside(at, inside, &context.json, &mut json).map_err(|missing| missing.of(at.table, at.column))?;
        let alike = |field| fields::alike(&context.json, &json, field);
        json = context.actor_field.and_then(alike).unwrap_or(json);
        // Ciphertexts may be longer than the original values.
        let left = Context::of(&json).unwrap_or_default();
        (context.actor_id, context.actor, context.reason) = (left.actor_id, left.actor, left.reason);
        context.json = json;
        Ok(context)
    }
}

fn text<'a>(table: &Table, column: &str, bytes: &'a [u8]) -> Result<&'a str, SealError> {
    std::str::from_utf8(bytes)
        .map_err(|_| SealError::NotUtf8 { table: table.name.to_string(), column: column.to_string() })
}

/// Where the row's actor comes from. The context has priority. The row's own column is never used for deletions, and it
/// is marked as uncertain if this change did not set it: it may name an earlier editor.
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
        event if event.is_update() => raw.before_known && raw.before(source) != raw.after(source),
        _ => false,
    };
    Some(if set_here { ActorSource::Row } else { ActorSource::RowUnchanged })
}
