//! The version record as it is read back: one struct for all stores, in the order and under the names of the record.
//!
//! A store provides what it holds; [`Record::complete`] adds what is derived on reading, so that hot tables and lakes
//! show the same. JSON is kept as text and never parsed into our own number types, because a `numeric` inside a `jsonb`
//! may have more digits than a float.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::batch::Version;
use crate::position::{Lsn, Micros, Position};
use crate::record::{self, Sides, write_summary};
use crate::shape::Shape;
use crate::table::companion_of;
use crate::value::write_json_string;

/// A JSON text, valid by construction.
pub type Json = Box<RawValue>;

/// A version as readers see it. It serialises to the record's JSON form.
#[derive(Clone, Serialize)]
pub struct Record {
    pub source: String,
    pub position: Position,
    pub table_name: String,
    pub item_type: String,
    pub key: Option<String>,
    pub old_key: Option<String>,
    /// The name of an [`crate::version::Event`], or one that a later version of the program wrote.
    pub event: String,
    /// `{"column": [old, new]}`. It is stored for updates only; [`Record::complete`] makes it for the other events.
    pub changes: Option<Json>,
    pub before: Option<Json>,
    pub after: Option<Json>,
    pub changed: Option<Vec<String>>,
    pub before_known: bool,
    pub unknown: Vec<String>,
    pub carried: Vec<String>,
    pub included: Option<Json>,
    pub actor_id: Option<String>,
    pub actor: Option<Json>,
    pub reason: Option<String>,
    pub context: Option<Json>,
    pub actor_source: Option<String>,
    pub context_verified: Option<bool>,
    pub xid: u32,
    pub commit_lsn: Lsn,
    pub lsn: Lsn,
    pub seq: u32,
    #[serde(serialize_with = "as_text")]
    pub committed_at: Micros,
    #[serde(serialize_with = "as_text")]
    pub recorded_at: Micros,
    pub schema_version: u32,
    pub baseline: Option<u32>,
    pub tenant: Option<String>,
    /// Not stored; made by [`Record::complete`].
    pub summary: String,
}

fn as_text<S: Serializer>(micros: &Micros, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(micros)
}

impl Record {
    /// The record of a version that no store has changed in any way, with both sides of its row as far as they are
    /// known.
    pub fn of(version: &Version<'_>, source: &str, recorded_at: Micros) -> Record {
        let (table, transaction) = (version.table(), version.transaction());
        let text = |text: Option<&str>| text.map(str::to_owned);
        let image = |image: Option<_>| made(|out| image.map(|image| record::write_image(out, image)).is_some());
        let names = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect::<Vec<_>>();
        let record = Record {
            source: source.to_owned(),
            position: version.position(),
            table_name: table.name.to_string(),
            item_type: table.item_type.clone(),
            key: text(version.key()),
            old_key: text(version.old_key()),
            event: version.event().name().to_owned(),
            changes: made(|out| record::write_changes(out, version)),
            before: image(version.before()),
            after: image(version.after()),
            changed: record::changed_columns(version).map(|mut changed| names(&mut changed)),
            before_known: version.before_known(),
            unknown: names(&mut record::unknown_columns(version)),
            carried: Vec::new(),
            included: made(|out| record::write_included(out, version)),
            actor_id: text(version.actor_id()),
            actor: text(version.actor()).map(json),
            reason: text(version.reason()),
            context: version.context().map(|context| json(context.json.clone())),
            actor_source: version.actor_source().map(|source| source.name().to_owned()),
            context_verified: version.context_verified(),
            xid: transaction.xid,
            commit_lsn: transaction.commit_lsn,
            lsn: version.lsn(),
            seq: version.position().seq,
            committed_at: transaction.committed_at,
            recorded_at,
            schema_version: table.shape.schema_version,
            baseline: version.baseline(),
            tenant: text(version.tenant()),
            summary: String::new(),
        };
        record.complete()
    }

    /// Puts the columns into their order, which a `jsonb` does not keep, and makes the derived fields again.
    pub fn in_order(mut self, order: &ColumnOrder) -> Record {
        let objects = [&mut self.changes, &mut self.before, &mut self.after, &mut self.included];
        for object in objects.into_iter().flatten() {
            if let Some(sorted) = order.sorted(object) {
                *object = sorted;
            }
        }
        self.complete()
    }

    /// What the table's rules required and nobody provided: `actor`, `reason`.
    pub fn missing(&self) -> Vec<String> {
        #[derive(serde::Deserialize)]
        struct Flagged {
            #[serde(default)]
            missing: Vec<String>,
        }
        let context = self.context.as_deref().map(RawValue::get);
        context.and_then(|json| serde_json::from_str::<Flagged>(json).ok()).map_or_else(Vec::new, |said| said.missing)
    }

    /// Adds what is not stored: `changes` of created, snapshot (`[null, v]`) and deleted (`[v, null]`) versions, and
    /// the summary.
    pub fn complete(mut self) -> Record {
        if self.changes.is_none() {
            self.changes = match self.event.as_str() {
                "created" | "snapshot" => self.after.as_deref().and_then(|image| expand(image, "[null, ", "]")),
                "deleted" => self.before.as_deref().and_then(|image| expand(image, "[", ", null]")),
                _ => None,
            };
        }
        self.summary = summary(&self.event, self.changes.as_deref(), self.before_known);
        self
    }
}

/// The order of a table's columns. Unknown columns come last, by name; an empty order sorts everything by name.
#[derive(Clone, Debug, Default)]
pub struct ColumnOrder(HashMap<String, usize>);

impl ColumnOrder {
    pub fn of(shape: &Shape) -> ColumnOrder {
        ColumnOrder(shape.columns.iter().enumerate().map(|(at, column)| (column.name.clone(), at)).collect())
    }

    /// The sort key of a name. The companion column of a further protection method sorts directly after its column.
    fn place<'n>(&self, name: &'n str) -> (usize, &'n str, bool, &'n str) {
        let column = if self.0.contains_key(name) { None } else { companion_of(name) };
        let beside = column.unwrap_or(name);
        (self.0.get(beside).copied().unwrap_or(usize::MAX), beside, column.is_some(), name)
    }

    /// The object with its members in order; `None` if they already are, or if it is not an object.
    fn sorted(&self, object: &RawValue) -> Option<Json> {
        let mut members = fields(object)?;
        let order = |a: &Member<'_>, b: &Member<'_>| self.place(&a.0).cmp(&self.place(&b.0));
        if members.is_sorted_by(|a, b| order(a, b).is_le()) {
            return None;
        }
        members.sort_by(order);
        write_object(members, "", "")
    }
}

/// Shows the record's place, no values.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} {} {} {})", self.source, self.position, self.table_name, self.event)
    }
}

/// Turns `{"column": v}` into `{"column": <left>v<right>}`.
fn expand(image: &RawValue, left: &str, right: &str) -> Option<Json> {
    write_object(fields(image)?, left, right)
}

fn write_object(members: Vec<Member<'_>>, left: &str, right: &str) -> Option<Json> {
    let mut out = vec![b'{'];
    for (i, (name, value)) in members.into_iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
        write_json_string(&mut out, &name);
        for part in [": ", left, value.get(), right] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.push(b'}');
    RawValue::from_string(String::from_utf8(out).ok()?).ok()
}

/// One sentence for people: [`write_summary`] for `changes` as JSON, in the form that readers are shown.
pub fn summary(event: &str, changes: Option<&RawValue>, before_known: bool) -> String {
    let members = changes.and_then(fields).unwrap_or_default();
    let pairs: Vec<(Cow<'_, str>, [&RawValue; 2])> =
        members.into_iter().filter_map(|(name, sides)| Some((name, serde_json::from_str(sides.get()).ok()?))).collect();
    let mut summary = String::new();
    let sides = pairs.iter().map(|(column, [old, new])| Sides {
        column: column.clone(),
        old: old.get().as_bytes(),
        new: new.get().as_bytes(),
    });
    write_summary(&mut summary, event, before_known, sides);
    summary
}

type Member<'a> = (Cow<'a, str>, &'a RawValue);

/// An object's members in their order, with whatever values they have.
fn fields(object: &RawValue) -> Option<Vec<Member<'_>>> {
    serde_json::from_str(object.get()).ok().map(|Fields(fields)| fields)
}

struct Fields<'a>(Vec<Member<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields<'a>, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The JSON text that `write` appends, unless it returns false.
fn made(write: impl FnOnce(&mut Vec<u8>) -> bool) -> Option<Json> {
    let mut out = Vec::new();
    write(&mut out).then(|| json(String::from_utf8(out).unwrap_or_default()))
}

/// A JSON text from its stored form. A text that is not valid JSON becomes a JSON string, because what was stored must
/// stay readable.
pub fn json(text: String) -> Json {
    RawValue::from_string(text.clone()).or_else(|_| to_raw_value(&text)).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: &str, before: Option<&str>, after: Option<&str>) -> Record {
        let raw = |text: &str| json(text.to_string());
        Record {
            source: "shop".into(),
            position: Position::new(1, Lsn(0x16), 2),
            table_name: "public.t".into(),
            item_type: "t".into(),
            key: Some("1".into()),
            old_key: None,
            event: event.into(),
            changes: None,
            before: before.map(raw),
            after: after.map(raw),
            changed: None,
            before_known: true,
            unknown: Vec::new(),
            carried: Vec::new(),
            included: None,
            actor_id: None,
            actor: None,
            reason: None,
            context: None,
            actor_source: None,
            context_verified: None,
            xid: 7,
            commit_lsn: Lsn(0x16),
            lsn: Lsn(0x10),
            seq: 2,
            committed_at: Micros(0),
            recorded_at: Micros(0),
            schema_version: 1,
            baseline: None,
            tenant: None,
            summary: String::new(),
        }
    }

    #[test]
    fn what_is_not_stored_is_made_on_reading() {
        let created = record("created", None, Some(r#"{"name": "Ann", "n": 12345678901234567890.123}"#)).complete();
        assert_eq!(
            created.changes.as_deref().map(RawValue::get),
            Some(r#"{"name": [null, "Ann"], "n": [null, 12345678901234567890.123]}"#)
        );
        assert_eq!(created.summary, "Name set to Ann and n set to 12345678901234567890.123.");
        let deleted = record("deleted", Some(r#"{"a\"b": 1}"#), None).complete();
        assert_eq!(deleted.changes.as_deref().map(RawValue::get), Some(r#"{"a\"b": [1, null]}"#));
        assert_eq!(record("truncated", None, None).complete().summary, "Table truncated.");
    }

    #[test]
    fn columns_come_in_the_tables_order() {
        let order =
            ColumnOrder(["id", "name", "n"].iter().enumerate().map(|(at, name)| (name.to_string(), at)).collect());
        let text = |json: &Option<Json>| json.as_deref().map_or("", RawValue::get).to_string();
        let stored =
            record("created", None, Some(r#"{"n": 1.50, "id": 7, "zzz": {"b": 1, "a": 2}, "name": "Ann", "aaa": 0}"#));
        let created = stored.clone().in_order(&order);
        assert_eq!(text(&created.after), r#"{"id": 7, "name": "Ann", "n": 1.50, "aaa": 0, "zzz": {"b": 1, "a": 2}}"#);
        assert!(created.summary.starts_with("Id set to 7, name set to Ann, n set to 1.50, aaa"), "{}", created.summary);
        assert_eq!(text(&stored.complete().in_order(&order).changes), text(&created.changes));
        let by_name = record("deleted", Some(r#"{"b": 1, "a": 2}"#), None).in_order(&ColumnOrder::default());
        assert_eq!(by_name.summary, "A was 2 and b was 1.");
    }

    #[test]
    fn depth_is_no_obstacle() {
        let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
        let created = record("created", None, Some(&format!(r#"{{"doc": {deep}}}"#))).complete();
        assert!(created.summary.starts_with("Doc set to [[["));
        assert!(serde_json::to_string(&created).is_ok_and(|text| text.contains(&deep)));
    }

    #[test]
    fn the_json_form_has_the_records_names_in_its_order() {
        let text = serde_json::to_string(&record("truncated", None, None).complete()).unwrap_or_default();
        assert_eq!(
            text,
            r#"{"source":"shop","position":"0001:0000000000000016:0000000002","table_name":"public.t","item_type":"t","key":"1","old_key":null,"event":"truncated","changes":null,"before":null,"after":null,"changed":null,"before_known":true,"unknown":[],"carried":[],"included":null,"actor_id":null,"actor":null,"reason":null,"context":null,"actor_source":null,"context_verified":null,"xid":7,"commit_lsn":"0/16","lsn":"0/10","seq":2,"committed_at":"1970-01-01T00:00:00.000000Z","recorded_at":"1970-01-01T00:00:00.000000Z","schema_version":1,"baseline":null,"tenant":null,"summary":"Table truncated."}"#
        );
    }
}
