//! The canonical record of a version: [`Canonical`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use audit_core::json::{members, unquote};
use audit_core::position::Micros;
use audit_core::stored::{Json, Record};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::cipher::reduced;
use crate::unit::{Tag, Unit, take_unit, write_field, write_unit};
use crate::value::{Kind, Kinds, Value, storable};

/// The version of the form, and the first byte of each record.
const FORM: u8 = 1;

/// Bytes of `actor_id` in every store; `actor` and `context` have the whole.
const ACTOR_ID_MAX: usize = 1_000;

/// 0001-01-01, the earliest commit time that every store can hold.
const COMMITTED_AT_MIN: Micros = Micros(-62_135_596_800_000_000);

/// The canonical record of a version; `docs/canonical-record.md` specifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    bytes: Vec<u8>,
    /// Where the units end that every store of the version has.
    shared: usize,
}

/// Values of columns, by name.
type Columns = BTreeMap<String, Value>;

impl Canonical {
    /// The canonical record of what a store gives back, or of what the daemon has ([`Record::of`]). `kinds` are those
    /// of the shape that the record names by its `schema_version`.
    pub fn of(record: &Record, kinds: &Kinds) -> Canonical {
        let mut bytes = vec![FORM];
        write_unit(&mut bytes, Tag::Envelope, "", &envelope(record));
        let is_snapshot = record.event == "snapshot";
        if !is_snapshot {
            write_unit(&mut bytes, Tag::Place, "", &place(record));
        }
        who_and_why(&mut bytes, record);
        write_columns(&mut bytes, Tag::Included, &image(record.included.as_deref(), kinds));
        let (before, after) = (image(record.before.as_deref(), kinds), image(record.after.as_deref(), kinds));
        let full = full_image(record);
        let row = match full {
            Some(Side::Before) => &before,
            Some(Side::After) => &after,
            None => &Columns::new(),
        };
        write_columns(&mut bytes, Tag::Image, row);
        if let Some([old, new]) = changes(record, kinds, row) {
            write_columns(&mut bytes, Tag::Old, &old);
            write_columns(&mut bytes, Tag::New, &new);
        }
        let shared = bytes.len();
        if is_snapshot {
            write_unit(&mut bytes, Tag::SnapshotPlace, "", &place(record));
        }
        write_unit(&mut bytes, Tag::Stored, "", &fields(&[("recorded_at", Some(Value::number(record.recorded_at.0)))]));
        if full != Some(Side::Before) {
            write_columns(&mut bytes, Tag::KeptBefore, &before);
        }
        if full != Some(Side::After) {
            write_columns(&mut bytes, Tag::KeptAfter, &after);
        }
        Canonical { bytes, shared }
    }

    /// The whole record, with what only this store knows.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The part that is the same in every store.
    pub fn shared(&self) -> &[u8] {
        self.bytes.get(..self.shared).unwrap_or_default()
    }

    /// The same with ciphertexts reduced to their kind of key and their length: what two stores must agree on.
    pub fn meaning(&self) -> Cow<'_, [u8]> {
        reduced(self.shared())
    }

    /// The SHA-256 digest of the whole record.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.bytes()).into()
    }

    pub fn units(&self) -> Units<'_> {
        Units { rest: self.bytes.get(1..).unwrap_or_default() }
    }
}

/// The units of a record, in their order.
#[derive(Clone, Debug)]
pub struct Units<'r> {
    rest: &'r [u8],
}

impl<'r> Iterator for Units<'r> {
    type Item = Unit<'r>;

    fn next(&mut self) -> Option<Unit<'r>> {
        take_unit(&mut self.rest)
    }
}

/// Some fields as one value, without those that are absent. They are given in the order of their names.
fn fields(fields: &[(&str, Option<Value>)]) -> Value {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        if let Some(value) = value {
            write_field(&mut bytes, name, value);
        }
    }
    Value { kind: Kind::Fields, bytes }
}

fn envelope(record: &Record) -> Value {
    let text = |text: &Option<String>| text.as_deref().map(Value::text);
    fields(&[
        ("actor_source", text(&record.actor_source)),
        ("baseline", record.baseline.map(Value::number)),
        ("before_known", Some(Value::bool(record.before_known))),
        ("carried", Some(Value::names(&record.carried))),
        ("changed", record.changed.as_deref().map(Value::names)),
        ("context_verified", record.context_verified.map(Value::bool)),
        ("event", Some(Value::text(&record.event))),
        ("item_type", Some(Value::text(&record.item_type))),
        ("schema_version", Some(Value::number(record.schema_version))),
        ("source", Some(Value::text(&record.source))),
        ("table_name", Some(Value::text(&record.table_name))),
        ("tenant", text(&record.tenant)),
        ("unknown", Some(Value::names(&record.unknown))),
    ])
}

fn place(record: &Record) -> Value {
    fields(&[
        ("commit_lsn", Some(Value::number(record.commit_lsn.0))),
        ("committed_at", Some(Value::number(committed_at(record).0))),
        ("lsn", Some(Value::number(record.lsn.0))),
        ("position", Some(Value::text(&record.position.to_string()))),
        ("seq", Some(Value::number(record.seq))),
        ("xid", Some(Value::number(record.xid))),
    ])
}

/// The commit time as every store can hold it.
pub(crate) fn committed_at(record: &Record) -> Micros {
    record.committed_at.max(COMMITTED_AT_MIN)
}

fn who_and_why(out: &mut Vec<u8>, record: &Record) {
    let actor_id = record.actor_id.as_deref().map(|id| {
        let id = storable(id);
        Value::text(&id[..id.floor_char_boundary(ACTOR_ID_MAX)])
    });
    let text = |text: &Option<String>| text.as_deref().map(Value::text);
    let json = |json: &Option<Json>| json.as_deref().map(|json| Value::json(json.get()));
    let units = [
        (Tag::Key, text(&record.key)),
        (Tag::OldKey, text(&record.old_key)),
        (Tag::ActorId, actor_id),
        (Tag::Actor, json(&record.actor)),
        (Tag::Reason, text(&record.reason)),
        (Tag::Context, json(&record.context)),
    ];
    for (tag, value) in units {
        if let Some(value) = value {
            write_unit(out, tag, "", &value);
        }
    }
}

fn write_columns(out: &mut Vec<u8>, tag: Tag, columns: &Columns) {
    for (name, value) in columns {
        write_unit(out, tag, name, value);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// The side of which every store has the whole row, or what is known of it.
fn full_image(record: &Record) -> Option<Side> {
    match record.event.as_str() {
        "created" | "snapshot" => Some(Side::After),
        "deleted" => Some(Side::Before),
        _ if record.changed.is_none() => Some(Side::After),
        _ => None,
    }
}

/// The members of an object, of equal names the last one.
fn image(object: Option<&RawValue>, kinds: &Kinds) -> Columns {
    let members = object.map(|object| members(object.get())).into_iter().flatten();
    let value = |name: &str, json: &str| Value::of_column(kinds.get(name), json);
    members
        .map(|(name, json)| {
            let name = column_name(name);
            let value = value(&name, json);
            (name, value)
        })
        .collect()
}

fn column_name(quoted: &str) -> String {
    storable(&unquote(&audit_core::jsonb::fit(quoted))).into_owned()
}

/// The old and the new values that `changes` shows; `None` if there are none, or if they say only what the row says.
fn changes(record: &Record, kinds: &Kinds, row: &Columns) -> Option<[Columns; 2]> {
    let shown = record.changes.as_deref()?.get();
    let (mut old, mut new) = (Columns::new(), Columns::new());
    for (name, sides) in members(shown) {
        let name = column_name(name);
        let value = |json: &RawValue| Value::of_column(kinds.get(&name), json.get());
        let (before, after) = match serde_json::from_str::<[&RawValue; 2]>(sides) {
            Ok([before, after]) => (value(before), Some(value(after))),
            // No sink writes this. What somebody else wrote is covered too.
            Err(_) => (Value::json(sides), None),
        };
        new.remove(&name);
        new.extend(after.map(|after| (name.clone(), after)));
        old.insert(name, before);
    }
    let says_nothing = |side: &Columns| side.values().all(Value::is_null);
    let is_the_row = match record.event.as_str() {
        "created" | "snapshot" => says_nothing(&old) && new == *row,
        "deleted" => says_nothing(&new) && old == *row,
        _ => false,
    };
    (!is_the_row).then_some([old, new])
}
