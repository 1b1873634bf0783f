//! Versions on their way into a file. They are appended to Arrow builders, one for each column, without an allocation
//! for each version.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Int32Builder, Int64Builder, ListBuilder, RecordBatch, StringBuilder, StructArray,
    TimestampMicrosecondBuilder, new_null_array,
};
use arrow::datatypes::{DataType, Fields};
use arrow::error::ArrowError;
use audit_core::batch::{Image, Version};
use audit_core::change::Value;
use audit_core::position::Micros;
use audit_core::record;
use audit_core::value::write_json_string;

use crate::cells::{Cells, Taken, VALUE_MAX};
use crate::form::{Form, list_item};
use crate::schema::{BEFORE, RowPlan};

/// The values that all rows of a write share.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    pub source: &'a str,
    pub recorded_at: Micros,
}

/// A value that no array can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLarge {
    pub column: String,
}

/// Bytes of capacity that a scratch buffer keeps for the next value.
const SCRATCH_MAX: usize = 1 << 20;

/// Rows that are not encoded yet.
#[derive(Debug)]
pub struct Rows {
    plan: Arc<RowPlan>,
    record: RecordColumns,
    after: Vec<Cells>,
    before: Vec<Cells>,
    before_valid: Vec<bool>,
    len: usize,
    bytes: usize,
    /// Bytes that each row takes in addition to its texts.
    width: usize,
    exact: String,
    derived: Derived,
    scratch: Vec<u8>,
}

/// JSON that is made from a version's values before any of them is appended, because it may be too large.
#[derive(Debug, Default)]
struct Derived {
    changes: Vec<u8>,
    has_changes: bool,
    included: Vec<u8>,
    has_included: bool,
}

impl Derived {
    fn make(&mut self, version: &Version<'_>) -> Result<(), TooLarge> {
        self.changes.clear();
        self.has_changes = record::write_changes(&mut self.changes, version);
        self.included.clear();
        self.has_included = record::write_included(&mut self.included, version);
        for (json, column) in [(&self.changes, "cdc_changes"), (&self.included, "cdc_included")] {
            if json.len() > VALUE_MAX {
                return Err(TooLarge { column: column.to_string() });
            }
        }
        Ok(())
    }
}

/// The columns of the record. Those that are always null, or are the same in all rows of a write, are made when the
/// rows are taken out.
#[derive(Debug)]
struct RecordColumns {
    source: StringBuilder,
    position: StringBuilder,
    table_name: StringBuilder,
    item_type: StringBuilder,
    key: StringBuilder,
    old_key: StringBuilder,
    event: StringBuilder,
    changes: StringBuilder,
    changed: ListBuilder<StringBuilder>,
    before_known: BooleanBuilder,
    unknown: ListBuilder<StringBuilder>,
    included: StringBuilder,
    actor_id: StringBuilder,
    actor: StringBuilder,
    reason: StringBuilder,
    context: StringBuilder,
    actor_source: StringBuilder,
    context_verified: BooleanBuilder,
    xid: Int64Builder,
    commit_lsn: StringBuilder,
    lsn: StringBuilder,
    seq: Int64Builder,
    committed_at: TimestampMicrosecondBuilder,
    recorded_at: TimestampMicrosecondBuilder,
    schema_version: Int32Builder,
    baseline: Int32Builder,
    tenant: StringBuilder,
    exact: StringBuilder,
}

fn text() -> StringBuilder {
    StringBuilder::with_capacity(0, 0)
}

fn list() -> ListBuilder<StringBuilder> {
    ListBuilder::with_capacity(text(), 0).with_field(Arc::new(list_item()))
}

fn time() -> TimestampMicrosecondBuilder {
    TimestampMicrosecondBuilder::with_capacity(0).with_timezone("UTC")
}

impl RecordColumns {
    fn new() -> RecordColumns {
        RecordColumns {
            source: text(),
            position: text(),
            table_name: text(),
            item_type: text(),
            key: text(),
            old_key: text(),
            event: text(),
            changes: text(),
            changed: list(),
            before_known: BooleanBuilder::with_capacity(0),
            unknown: list(),
            included: text(),
            actor_id: text(),
            actor: text(),
            reason: text(),
            context: text(),
            actor_source: text(),
            context_verified: BooleanBuilder::with_capacity(0),
            xid: Int64Builder::with_capacity(0),
            commit_lsn: text(),
            lsn: text(),
            seq: Int64Builder::with_capacity(0),
            committed_at: time(),
            recorded_at: time(),
            schema_version: Int32Builder::with_capacity(0),
            baseline: Int32Builder::with_capacity(0),
            tenant: text(),
            exact: text(),
        }
    }

    /// Appends what every record has: its position and what it is about. Returns about how many bytes that took.
    fn identity(&mut self, version: &Version<'_>, event: &str, shared: Shared<'_>) -> usize {
        let (table, transaction, position) = (version.table(), version.transaction(), version.position());
        self.source.append_value(shared.source);
        append_shown(&mut self.position, format_args!("{position}"));
        self.table_name.append_value(&table.name);
        self.item_type.append_value(&table.item_type);
        self.event.append_value(event);
        self.xid.append_value(i64::from(transaction.xid));
        append_hex(&mut self.commit_lsn, transaction.commit_lsn.0);
        append_hex(&mut self.lsn, version.lsn().0);
        self.seq.append_value(i64::from(position.seq));
        self.committed_at.append_value(transaction.committed_at.0);
        self.recorded_at.append_value(shared.recorded_at.0);
        self.schema_version.append_value(table.shape.schema_version as i32);
        self.baseline.append_option(version.baseline().map(|number| number as i32));
        200 + shared.source.len() + table.name.len() + table.item_type.len()
    }

    fn who_and_why(&mut self, version: &Version<'_>) -> usize {
        let context = version.context();
        self.context_verified.append_option(version.context_verified());
        let texts = [
            (&mut self.actor_id, version.actor_id()),
            (&mut self.actor, version.actor()),
            (&mut self.reason, version.reason()),
            (&mut self.context, context.map(|context| context.json.as_str())),
            (&mut self.actor_source, version.actor_source().map(|source| source.name())),
            (&mut self.tenant, version.tenant()),
        ];
        texts.into_iter().map(|(cells, text)| append_text(cells, text)).sum()
    }

    /// Appends the keys, the changes and the lists of names. Returns about how many bytes that took.
    fn what(&mut self, version: &Version<'_>, derived: &Derived) -> usize {
        let mut bytes = append_text(&mut self.key, version.key()) + append_text(&mut self.old_key, version.old_key());
        self.before_known.append_value(version.before_known());
        bytes += append_json(&mut self.changes, &derived.changes, derived.has_changes);
        bytes += append_json(&mut self.included, &derived.included, derived.has_included);
        match record::changed_columns(version) {
            Some(names) => bytes += append_names(&mut self.changed, names),
            None => self.changed.append_null(),
        }
        let mut unknown = record::unknown_columns(version).peekable();
        if unknown.peek().is_some() {
            bytes += append_names(&mut self.unknown, unknown);
        } else {
            self.unknown.append_null();
        }
        bytes
    }

    fn finish(&mut self, len: usize) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.source.finish()),
            Arc::new(self.position.finish()),
            Arc::new(self.table_name.finish()),
            Arc::new(self.item_type.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.old_key.finish()),
            Arc::new(self.event.finish()),
            Arc::new(self.changes.finish()),
            Arc::new(self.changed.finish()),
            Arc::new(self.before_known.finish()),
            Arc::new(self.unknown.finish()),
            new_null_array(&Form::TextList.arrow(), len),
            Arc::new(self.included.finish()),
            Arc::new(self.actor_id.finish()),
            Arc::new(self.actor.finish()),
            Arc::new(self.reason.finish()),
            Arc::new(self.context.finish()),
            Arc::new(self.actor_source.finish()),
            Arc::new(self.context_verified.finish()),
            Arc::new(self.xid.finish()),
            Arc::new(self.commit_lsn.finish()),
            Arc::new(self.lsn.finish()),
            Arc::new(self.seq.finish()),
            Arc::new(self.committed_at.finish()),
            Arc::new(self.recorded_at.finish()),
            Arc::new(self.schema_version.finish()),
            Arc::new(self.baseline.finish()),
            Arc::new(self.tenant.finish()),
            Arc::new(self.exact.finish()),
        ]
    }
}

fn append_text(cells: &mut StringBuilder, text: Option<&str>) -> usize {
    cells.append_option(text);
    text.map_or(0, str::len)
}

/// Appends a JSON text, which is always valid UTF-8, or null if not `some`. Returns the length of the text.
fn append_json(cells: &mut StringBuilder, json: &[u8], some: bool) -> usize {
    match std::str::from_utf8(json) {
        Ok(text) if some => {
            cells.append_value(text);
            text.len()
        }
        _ => {
            cells.append_null();
            0
        }
    }
}

fn append_names<'n>(cells: &mut ListBuilder<StringBuilder>, names: impl Iterator<Item = &'n str>) -> usize {
    let mut bytes = 0;
    for name in names {
        bytes += name.len() + 4;
        cells.values().append_value(name);
    }
    cells.append(true);
    bytes
}

fn append_shown(cells: &mut StringBuilder, shown: std::fmt::Arguments<'_>) {
    // Writing to an Arrow builder cannot fail.
    let _ = cells.write_fmt(shown);
    cells.append_value("");
}

/// Appends 16 lower-case hex digits.
fn append_hex(cells: &mut StringBuilder, value: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0u8; 16];
    for (at, digit) in digits.iter_mut().enumerate() {
        *digit = DIGITS[(value >> (60 - 4 * at)) as usize & 15];
    }
    cells.append_value(std::str::from_utf8(&digits).unwrap_or_default());
}

impl Rows {
    pub fn new(plan: Arc<RowPlan>) -> Rows {
        let cells = || plan.columns.iter().map(|(_, form)| Cells::new(form)).collect();
        Rows {
            record: RecordColumns::new(),
            after: cells(),
            before: if plan.before { cells() } else { Vec::new() },
            before_valid: Vec::new(),
            len: 0,
            bytes: 0,
            width: plan.width(),
            exact: String::new(),
            derived: Derived::default(),
            scratch: Vec::new(),
            plan,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// About how many bytes of memory the rows take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a version. If it is refused, nothing of it is appended.
    pub fn append(&mut self, version: &Version<'_>, shared: Shared<'_>) -> Result<(), TooLarge> {
        let image = version.after().or(version.before());
        let before = version.before().filter(|_| self.plan.before && version.after().is_some());
        for image in image.iter().chain(&before) {
            self.check(*image)?;
        }
        self.derived.make(version)?;
        self.exact.clear();
        let mut into = Into { plan: &self.plan, exact: &mut self.exact, scratch: &mut self.scratch };
        let mut bytes = self.width;
        match image {
            Some(image) => bytes += into.append(&mut self.after, image, ""),
            None => append_nulls(&mut self.after),
        }
        if self.plan.before {
            self.before_valid.push(before.is_some());
            match before {
                Some(image) => bytes += into.append(&mut self.before, image, "cdc_before."),
                None => append_nulls(&mut self.before),
            }
        }
        bytes += self.record.identity(version, version.event().name(), shared);
        bytes += self.record.what(version, &self.derived);
        bytes += self.record.who_and_why(version);
        bytes += self.append_exact();
        self.len += 1;
        self.bytes += bytes;
        for scratch in [&mut self.derived.changes, &mut self.derived.included, &mut self.scratch] {
            // One large value is no reason to expect another.
            if scratch.capacity() > SCRATCH_MAX {
                *scratch = Vec::new();
            }
        }
        Ok(())
    }

    fn check(&mut self, image: Image<'_>) -> Result<(), TooLarge> {
        fail::fail_point!("lake::too_large", |_| Err(TooLarge { column: "any".to_string() }));
        for (target, (_, value)) in self.plan.targets.iter().zip(image.iter()) {
            if let (Some(at), Value::Text(text)) = (*target, value)
                && !self.after[at].fits(text, &mut self.scratch)
            {
                return Err(TooLarge { column: self.plan.columns[at].0.clone() });
            }
        }
        Ok(())
    }

    fn append_exact(&mut self) -> usize {
        if self.exact.is_empty() {
            self.record.exact.append_null();
            return 0;
        }
        self.exact.push('}');
        append_text(&mut self.record.exact, Some(&self.exact))
    }

    /// Takes the rows out.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let len = std::mem::take(&mut self.len);
        self.bytes = 0;
        let mut columns = self.record.finish(len);
        let row: Vec<ArrayRef> = self.after.iter_mut().map(Cells::finish).collect();
        if self.plan.before {
            let inner = self.before.iter_mut().map(Cells::finish).collect();
            let valid = std::mem::take(&mut self.before_valid).into();
            columns.push(Arc::new(StructArray::try_new(self.before_fields(), inner, Some(valid))?));
        }
        columns.extend(row);
        RecordBatch::try_new(self.plan.schema.clone(), columns)
    }

    fn before_fields(&self) -> Fields {
        match self.plan.schema.field_with_name(BEFORE).map(|field| field.data_type()) {
            Ok(DataType::Struct(fields)) => fields.clone(),
            _ => Fields::empty(),
        }
    }
}

fn append_nulls(cells: &mut [Cells]) {
    cells.iter_mut().for_each(Cells::append_null);
}

/// Where the values of one side of a version are appended.
struct Into<'r> {
    plan: &'r RowPlan,
    exact: &'r mut String,
    scratch: &'r mut Vec<u8>,
}

impl Into<'_> {
    /// Appends the values. A value that a typed column cannot hold is noted as text. Returns about how many bytes the
    /// texts took.
    fn append(&mut self, cells: &mut [Cells], image: Image<'_>, prefix: &str) -> usize {
        let mut bytes = 0;
        for (target, (_, value)) in self.plan.targets.iter().zip(image.iter()) {
            let Some(at) = *target else { continue };
            match value {
                Value::Text(text) => {
                    bytes += if self.plan.columns[at].1.is_text() { text.len() } else { 0 };
                    if cells[at].append(text, self.scratch) == Taken::Inexact {
                        note_exact(self.exact, prefix, &self.plan.columns[at].0, text);
                    }
                }
                Value::Null | Value::Unknown => cells[at].append_null(),
            }
        }
        bytes
    }
}

fn note_exact(exact: &mut String, prefix: &str, column: &str, text: &str) {
    let mut json = Vec::with_capacity(column.len() + text.len() + 8);
    json.extend_from_slice(if exact.is_empty() { b"{" } else { b", " });
    write_json_string(&mut json, &format!("{prefix}{column}"));
    json.extend_from_slice(b": ");
    write_json_string(&mut json, text);
    exact.push_str(std::str::from_utf8(&json).unwrap_or_default());
}
