//! Ciphertexts and tokens: what they are bound to, and under whose key they are made.

use std::borrow::Cow;
use std::collections::HashSet;

use audit_cipher::{Failure, Row, Wanted};

use super::{DEFAULT_CLASS, Missing, Place, Policy, REDACTED, SealError};
use crate::batch::{Batch, Span};
use crate::change::{self, Cell, Value};
use crate::mac::Space;
use crate::method::{Method, MethodRule};
use crate::table::{Column, Table};

/// What the ciphertexts of a value are bound to, and whose value it is.
#[derive(Clone, Copy)]
pub(crate) struct Bound<'a> {
    /// The context that is authenticated with them; empty for values that are not in a row.
    pub aad: &'a [u8],
    /// The raw id of the data subject that the value belongs to: null if it belongs to nobody, unknown if the server
    /// did not send it.
    pub subject: Value<&'a [u8]>,
}

impl Bound<'static> {
    /// The binding of values that are not in a row.
    pub const NOWHERE: Bound<'static> = Bound { aad: &[], subject: Value::Null };
}

/// Where a value is (for the spaces of hashes), and what its ciphertexts are bound to.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub table: &'a str,
    pub column: &'a str,
    pub bound: Bound<'a>,
}

impl Policy {
    /// Begins the context that encrypted values are bound to, for a row or for one side of its change.
    pub(super) fn bind<'v>(
        &self,
        batch: &mut Batch,
        table: &Table,
        key: Option<Span>,
        place: Place,
        value: impl Fn(usize) -> Value<&'v [u8]>,
    ) -> Result<(), SealError> {
        let Some(sealer) = &self.sealer else { return Ok(()) };
        let mut with = Vec::with_capacity(table.bound.len());
        for column in table.bound.iter().map(|column| &table.columns[*column]) {
            let text = value(column.source).text().map(|bytes| super::text(table, &column.name, bytes)).transpose()?;
            with.push((column.name.as_str(), text.map(|text| self.as_kept(table, column, text)).transpose()?));
        }
        let mut aad = std::mem::take(&mut batch.aad);
        let row = Row {
            source: sealer.source(),
            table: &table.name,
            key: key.map(|key| batch.text_at(key)),
            xid: batch.xid(),
            lsn: place.lsn.0,
            seq: u64::from(place.position.seq),
        };
        aad.row(&row, with.iter().map(|(name, text)| (*name, text.as_deref())));
        batch.aad = aad;
        Ok(())
    }

    /// The value of an unprotected column as it is recorded: content inside it may be protected.
    fn as_kept<'t>(&self, table: &Table, column: &Column, text: &'t str) -> Result<Cow<'t, str>, SealError> {
        let Some(inside) = column.inside.as_ref().filter(|inside| inside.may_find(text)) else {
            return Ok(text.into());
        };
        let mut left = String::new();
        let at = At { table: &table.name, column: &column.name, bound: Bound::NOWHERE };
        self.inside(at, inside, text, &mut left).map_err(|missing| missing.of(at.table, at.column))?;
        Ok(left.into())
    }

    /// Lends the context that a column's encrypted values are bound to; it is empty if nothing is encrypted.
    pub(super) fn with_aad(
        &self,
        batch: &mut Batch,
        column: &str,
        write: impl FnOnce(&[u8], &mut Batch) -> Result<Cell, SealError>,
    ) -> Result<Cell, SealError> {
        if self.sealer.is_none() {
            return write(&[], batch);
        }
        let mut aad = std::mem::take(&mut batch.aad);
        let cell = write(aad.column(column), batch);
        batch.aad = aad;
        cell
    }

    /// Encrypts a value, or makes its token.
    pub(super) fn keyed(
        &self,
        rule: &MethodRule,
        space: &Space,
        bound: Bound<'_>,
        text: &str,
        out: &mut String,
    ) -> Result<(), Missing> {
        let missing = Missing::Keys(rule.method);
        let sealer = self.sealer.as_ref().ok_or(missing)?;
        let class = sealer.class(class(rule)).ok_or(missing)?;
        let text = text.as_bytes();
        let sealed = match (rule.method, bound.subject) {
            (Method::Token, _) => sealer.token(class, space.bytes(), text, out),
            // A value that is not in a row (of a context or a key) cannot be bound to one. A general rule may still
            // match it, and no application may stop the trail by what it sends: the value is hidden whole. The same
            // holds for a value whose data subject is not known: under any other key it would outlive the deletion of
            // that person's key.
            (_, subject) if bound.aad.is_empty() || subject.is_unknown() => {
                out.push_str(REDACTED);
                return Ok(());
            }
            (_, Value::Text(id)) => {
                sealer.subject(class, id).and_then(|subject| sealer.encrypt_for(class, &subject, bound.aad, text, out))
            }
            _ => sealer.encrypt(class, bound.aad, text, out),
        };
        sealed.map_err(|failure| match failure {
            Failure::Wanted(wanted) => Missing::Wanted(wanted),
            Failure::TooLong => Missing::TooLong,
        })
    }

    /// The keys of data subjects that sealing these rows will need, of the same class as the key that was just missing:
    /// no more than are kept in memory at once, and no more than one statement should ask for. Values inside documents
    /// are not searched.
    pub fn wanted_ahead<'r>(
        &self,
        table: &Table,
        wanted: &Wanted,
        rows: impl Iterator<Item = change::Row<'r>>,
    ) -> Vec<Wanted> {
        let (Some(sealer), Some(source), Wanted::Subject(of, _)) = (&self.sealer, table.subject, *wanted) else {
            return Vec::new();
        };
        let protections = table.columns.iter().filter_map(|column| column.protection.as_ref());
        let mut encrypted = protections.filter(|protection| protection.rule.method == Method::Encrypt);
        if !encrypted.any(|protection| sealer.class(class(&protection.rule)) == Some(of)) {
            return Vec::new();
        }
        let ids = rows.filter_map(|row| row.get(source).text());
        let mut seen = HashSet::new();
        let lacking = ids.filter_map(|id| sealer.lacks(of, id)).filter(|wanted| seen.insert(*wanted));
        lacking.take(sealer.subjects_max(of).min(AHEAD_MAX)).collect()
    }
}

/// Number of subjects whose keys are fetched or made in one statement.
const AHEAD_MAX: usize = 500;

/// The class of keys that a rule names, or the default class.
fn class(rule: &MethodRule) -> &str {
    rule.key.as_deref().unwrap_or(DEFAULT_CLASS)
}
