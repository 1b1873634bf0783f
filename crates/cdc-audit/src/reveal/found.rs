//! Protected values in the parts of a record: where they are, and which columns and members they may belong to.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::table::Table;

/// The parts of a record that may hold protected values.
#[derive(Clone, Copy, Deserialize)]
pub struct Parts<'a> {
    #[serde(borrow)]
    pub changes: Option<&'a RawValue>,
    #[serde(borrow)]
    pub before: Option<&'a RawValue>,
    #[serde(borrow)]
    pub after: Option<&'a RawValue>,
    #[serde(borrow)]
    pub included: Option<&'a RawValue>,
    #[serde(borrow)]
    pub context: Option<&'a RawValue>,
    #[serde(borrow)]
    pub actor: Option<&'a RawValue>,
    #[serde(borrow)]
    pub actor_id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub reason: Option<&'a RawValue>,
    #[serde(borrow)]
    pub tenant: Option<&'a RawValue>,
}

/// A protected value in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub at: Range<usize>,
    pub value: String,
    /// What the access log calls it: the column, or the field of the record.
    pub field: String,
    /// Columns of the table that it may stand in.
    pub columns: Vec<String>,
    /// Paths of members that it may have been made for, in documents of the table.
    pub members: BTreeSet<String>,
    /// The same in the context.
    pub said: BTreeSet<String>,
    /// It stands in a document that is itself kept as text.
    pub nested: bool,
}

impl Found {
    /// The same in a text that begins so much earlier.
    pub fn behind(self, start: usize) -> Found {
        Found { at: self.at.start + start..self.at.end + start, ..self }
    }
}

/// Paths at which a value stands.
type Paths = HashMap<String, BTreeSet<String>>;

impl<'a> Parts<'a> {
    /// Each part's text, with what is protected in it.
    pub fn find(&self, table: &Table) -> Vec<(&'a str, Vec<Found>)> {
        let mut all = Vec::new();
        for part in [self.changes, self.before, self.after, self.included].into_iter().flatten() {
            all.push((part.get(), columns(part.get(), table)));
        }
        // What stands in the actor's fields was taken from the context, or from the row.
        let context = self.context.map(|context| paths(context.get(), "context")).unwrap_or_default();
        let said = [
            ("context", self.context, &None),
            ("actor", self.actor, &None),
            ("actor_id", self.actor_id, &table.actor),
            ("reason", self.reason, &table.reason),
            ("tenant", self.tenant, &table.tenant),
        ];
        for (field, part, column) in said {
            let Some(part) = part else { continue };
            let found = |(at, nested): (Range<usize>, bool)| {
                let value = part.get()[at.clone()].to_owned();
                let said = context.get(&value).cloned().unwrap_or_default();
                let columns = column.iter().cloned().collect();
                Found { at, field: field.to_owned(), columns, members: BTreeSet::new(), said, nested, value }
            };
            all.push((part.get(), values(part.get()).into_iter().map(found).collect()));
        }
        all
    }
}

/// The protected values in a JSON object, by the member that they belong to.
fn columns(object: &str, table: &Table) -> Vec<Found> {
    let Ok(members) = serde_json::from_str::<HashMap<Cow<'_, str>, &RawValue>>(object) else { return Vec::new() };
    let mut all = Vec::new();
    for (name, value) in members {
        let found = values(value.get());
        if found.is_empty() {
            continue;
        }
        let start = value.get().as_ptr() as usize - object.as_ptr() as usize;
        let mut columns = vec![name.to_string()];
        let mut at_paths = paths(value.get(), &name);
        for (column, path) in table.expanded(&name) {
            for (value, paths) in paths(value.get(), &path) {
                at_paths.entry(value).or_default().extend(paths);
            }
            columns.push(column);
        }
        for (at, nested) in found {
            let text = value.get()[at.clone()].to_owned();
            let members = at_paths.get(&text).cloned().unwrap_or_default();
            let (field, columns, said) = (name.to_string(), columns.clone(), BTreeSet::new());
            all.push(Found { at, value: text, field, columns, members, said, nested }.behind(start));
        }
    }
    all
}

/// What looks like a protected value, and whether the string that it stands in is itself inside of one.
fn values(text: &str) -> Vec<(Range<usize>, bool)> {
    let mut found = Vec::new();
    for prefix in audit_cipher::PREFIXES {
        for (start, _) in text.match_indices(prefix) {
            let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_' | ':');
            let end = text[start..].find(|c| !part(c)).map_or(text.len(), |length| start + length);
            if audit_cipher::Form::parse(&text[start..end]).is_ok() {
                // Right behind a quote that is itself escaped.
                found.push((start..end, text[..start].ends_with("\\\"")));
            }
        }
    }
    found
}

/// The paths of protected values in a document, which begin with `root`. Lists do not count; documents that are kept as text do.
fn paths(json: &str, root: &str) -> Paths {
    let mut found = Paths::new();
    if let Ok(value) = serde_json::from_str(json) {
        walk(&value, root, &mut found);
    }
    found
}

fn walk(value: &Value, path: &str, found: &mut Paths) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, member)| walk(member, &format!("{path}.{name}"), found))
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, path, found)),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(document @ (Value::Object(_) | Value::Array(_))) => walk(&document, path, found),
            _ => {
                for (at, _) in values(text) {
                    found.entry(text[at].to_owned()).or_default().insert(path.to_owned());
                }
            }
        },
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use audit_core::rules::TableRule;

    use super::*;

    const VALUE: &str = "aes256gcm:d0123456789abcdef:AUgLXktv8gsZW+TxVd3gwp8AAAAAAAAAAIri4IBhgFOu548imKwl59MLAFYCdwYs";
    const TOKEN: &str = "aes-siv:t0123456789abcdef:KG1LPCaJN5d2ZHNRLpqXHls61KuTviA";

    fn table() -> Table {
        let json = r#"{"name": "public.t", "actor_column": "editor", "json": {"cus*": {}, "extra": {"label": "x", "separator": ":"}}}"#;
        Table::of(serde_json::from_str::<TableRule>(json).unwrap())
    }

    #[test]
    fn protected_values_are_found_with_their_columns() {
        let object = format!(
            r#"{{"ssn": [null, "{VALUE}"], "note": "call {TOKEN}, or not", "doc": "{{\"a\":\"{VALUE}\"}}", "n": 1.00, "x": "aes256gcm:no"}}"#
        );
        let mut found = columns(&object, &table());
        found.sort_by_key(|found| found.at.start);
        let seen: Vec<_> =
            found.iter().map(|found| (found.columns[0].as_str(), &object[found.at.clone()], found.nested)).collect();
        assert_eq!(seen, [("ssn", VALUE, false), ("note", TOKEN, false), ("doc", VALUE, true)]);
        assert!(found.iter().all(|found| found.value == object[found.at.clone()]));
    }

    #[test]
    fn members_are_found_with_their_paths() {
        let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
        for (object, columns_of, members) in [
            (format!(r#"{{"doc": {{"a": [{{"pin": "{TOKEN}"}}]}}}}"#), vec!["doc"], vec!["doc.a.pin"]),
            (format!(r#"{{"doc": ["{{\"pin\": \"{TOKEN}\"}}", null]}}"#), vec!["doc"], vec!["doc.pin"]),
            // Of columns whose changes are recorded member by member.
            (format!(r#"{{"custom.pin": [null, "{TOKEN}"]}}"#), vec!["custom.pin", "custom"], vec!["custom.pin"]),
            (
                format!(r#"{{"x:a:b": [null, {{"c": "{TOKEN}"}}]}}"#),
                vec!["x:a:b", "extra"],
                vec!["extra.a.b.c", "x:a:b.c"],
            ),
        ] {
            let found = columns(&object, &table());
            assert_eq!(found.len(), 1, "{object}");
            assert_eq!(
                (found[0].columns.clone(), list(&found[0].members)),
                (
                    columns_of.iter().map(ToString::to_string).collect(),
                    members.iter().map(ToString::to_string).collect()
                ),
                "{object}"
            );
        }
        let context = format!(r#"{{"actor_id": "{TOKEN}", "device": {{"ip": "{TOKEN}"}}}}"#);
        let actor = format!("\"{TOKEN}\"");
        let line = format!(r#"{{"context": {context}, "actor_id": {actor}}}"#);
        let parts: Parts<'_> = serde_json::from_str(&line).unwrap();
        let found: Vec<Found> = parts.find(&table()).into_iter().flat_map(|(_, found)| found).collect();
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|found| list(&found.said) == ["context.actor_id", "context.device.ip"]));
        assert_eq!(
            (found[2].field.as_str(), found[2].columns.as_slice()),
            ("actor_id", ["editor".to_owned()].as_slice())
        );
    }

    #[test]
    fn what_is_no_object_holds_nothing() {
        for text in ["null", "[]", "", VALUE, "{"] {
            assert!(columns(text, &table()).is_empty());
        }
    }
}
