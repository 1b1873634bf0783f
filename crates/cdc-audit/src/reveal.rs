//! Ciphertexts and tokens in version records, replaced by what they hide ([`Revealer`]).
//!
//! Records stay text: a number in a document has more digits than a float, and members keep their order. What is replaced lies inside
//! of JSON strings, alone or in the middle of other text, and becomes part of the same string.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use audit_cipher::ERASED;
use audit_core::mac::Space;
use audit_core::position::Lsn;
use audit_core::stored::Record;
use audit_keys::{Access, Ask, Opener};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{CliError, code};

/// More values than this are bulk, which wants a purpose.
const BULK: u64 = 100;

/// Opens what stands in records, for one request.
pub struct Revealer {
    opener: Opener,
    access: Access,
    /// The named domains of the configuration.
    domains: Vec<String>,
    limit: u64,
    opened: u64,
    /// Values that did not open, by the reason.
    failed: BTreeMap<String, u64>,
}

/// The parts of a record that hold values of columns, and those that say where they stand.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    table_name: Cow<'a, str>,
    #[serde(borrow)]
    position: Cow<'a, str>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    xid: u32,
    #[serde(borrow)]
    lsn: Cow<'a, str>,
    seq: u64,
    #[serde(borrow)]
    changes: Option<&'a RawValue>,
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    #[serde(borrow)]
    included: Option<&'a RawValue>,
}

/// A protected value in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    at: Range<usize>,
    column: String,
    /// It stands in a document that is itself kept as text.
    nested: bool,
}

/// Where a record's values stand.
struct Place<'a> {
    source: &'a str,
    table: &'a str,
    position: &'a str,
    key: Option<&'a str>,
    xid: u32,
    lsn: Lsn,
    seq: u64,
}

impl Revealer {
    pub fn new(opener: Opener, access: Access, domains: Vec<String>, limit: u64) -> Revealer {
        Revealer { opener, access, domains, limit, opened: 0, failed: BTreeMap::new() }
    }

    /// One version as a line of JSON, with its values in plain.
    pub async fn line(&mut self, line: &str) -> Result<String, CliError> {
        let head: Head<'_> = serde_json::from_str(line).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            CliError::new("this is no version")
                .detail(place)
                .hint("give versions as `history --json` prints them".to_owned())
        })?;
        let lsn = head.lsn.parse().map_err(|_| CliError::new("this version has no place in the WAL"))?;
        let place = Place {
            source: &head.source,
            table: &head.table_name,
            position: &head.position,
            key: head.key.as_deref(),
            xid: head.xid,
            lsn,
            seq: head.seq,
        };
        let parts: Vec<&RawValue> =
            [head.changes, head.before, head.after, head.included].into_iter().flatten().collect();
        let mut found = Vec::new();
        for part in parts {
            let start = part.get().as_ptr() as usize - line.as_ptr() as usize;
            found.extend(find(part.get()).into_iter().map(|found| {
                let at = found.at.start + start..found.at.end + start;
                Found { at, ..found }
            }));
        }
        let plain = self.replace(line, found, &place).await?;
        Ok(with_summary(&plain).unwrap_or(plain))
    }

    /// A record's values in plain; what is derived from them is derived anew.
    pub async fn record(&mut self, mut record: Record) -> Result<Record, CliError> {
        let (source, table, position) = (record.source.clone(), record.table_name.clone(), record.position.to_string());
        let key = record.key.clone();
        let place = Place {
            source: &source,
            table: &table,
            position: &position,
            key: key.as_deref(),
            xid: record.xid,
            lsn: record.lsn,
            seq: u64::from(record.seq),
        };
        for part in [&mut record.changes, &mut record.before, &mut record.after, &mut record.included] {
            let Some(json) = part else { continue };
            let plain = self.replace(json.get(), find(json.get()), &place).await?;
            *json = RawValue::from_string(plain).map_err(|_| CliError::new("a value does not fit into its record"))?;
        }
        Ok(record.complete())
    }

    /// How many values were opened.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// How many were not, by the reason.
    pub fn failed(&self) -> &BTreeMap<String, u64> {
        &self.failed
    }

    async fn replace(&mut self, text: &str, mut found: Vec<Found>, place: &Place<'_>) -> Result<String, CliError> {
        if found.is_empty() {
            return Ok(text.to_owned());
        }
        found.sort_by_key(|found| found.at.start);
        // The same value stands in more than one part of a record.
        let wanted: BTreeSet<(&str, &str)> =
            found.iter().map(|found| (found.column.as_str(), &text[found.at.clone()])).collect();
        let wanted: Vec<(&str, &str)> = wanted.into_iter().collect();
        self.allow(wanted.len() as u64)?;
        let asks: Vec<Ask> = wanted.iter().map(|(column, value)| self.ask(place, column, value)).collect();
        let opened = self.opener.reveal(&self.access, &asks).await;
        let opened = opened.map_err(|error| CliError::of(&error).hint(error.hint()))?;
        let mut plain = HashMap::new();
        for (wanted, result) in wanted.into_iter().zip(opened) {
            match result {
                Ok(value) => drop(plain.insert(wanted, value)),
                // As it was meant to be: no failure of whoever asks.
                Err(error) if error.is_erased() => drop(plain.insert(wanted, ERASED.to_owned().into())),
                Err(error) => *self.failed.entry(CliError::of(&error).to_string()).or_default() += 1,
            }
        }
        let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
        for found in &found {
            let Some(value) = plain.get(&(found.column.as_str(), &text[found.at.clone()])) else { continue };
            out.push_str(&text[copied..found.at.start]);
            let inside = escaped(value);
            out.push_str(&if found.nested { escaped(&inside) } else { inside });
            copied = found.at.end;
        }
        out.push_str(&text[copied..]);
        Ok(out)
    }

    fn allow(&mut self, more: u64) -> Result<(), CliError> {
        self.opened += more;
        if self.access.purpose.is_none() && self.opened > BULK {
            return Err(CliError::new(format!("more than {BULK} values are not opened without a purpose"))
                .hint("say why with --purpose; it becomes part of the access log".to_owned())
                .code(code::USAGE));
        }
        if self.opened > self.limit {
            return Err(CliError::new(format!("more than {} values", self.limit))
                .hint("raise --limit; what came before was opened and logged".to_owned())
                .code(code::USAGE));
        }
        Ok(())
    }

    fn ask(&self, place: &Place<'_>, column: &str, value: &str) -> Ask {
        let row = audit_cipher::Row {
            source: place.source,
            table: place.table,
            key: place.key,
            xid: place.xid,
            lsn: place.lsn.0,
            seq: place.seq,
        };
        let mut aad = audit_cipher::Aad::new();
        aad.row(&row, std::iter::empty());
        Ask {
            text: value.to_owned(),
            aad: aad.column(column).to_vec(),
            domains: self.domains_of(place.table, column),
            source: place.source.to_owned(),
            table: place.table.to_owned(),
            key: place.key.map(str::to_owned),
            position: place.position.to_owned(),
            field: column.to_owned(),
        }
    }

    /// The column's own domain, and those with names. What a further method left stands in a column named after both.
    fn domains_of(&self, table: &str, column: &str) -> Vec<Vec<u8>> {
        let base = column.strip_suffix("__token").unwrap_or(column);
        let own = [column, base].map(|column| Space::column(table, column));
        let named = self.domains.iter().map(|domain| Space::domain(domain));
        own.into_iter().chain(named).map(|space| space.bytes().to_vec()).collect()
    }
}

/// What a record's summary is made of.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    changes: Option<&'a RawValue>,
    before_known: bool,
    #[serde(borrow)]
    summary: &'a RawValue,
}

/// The record with a summary of its values as they are now; `None` where it has none.
fn with_summary(line: &str) -> Option<String> {
    let told: Told<'_> = serde_json::from_str(line).ok()?;
    let summary = audit_core::stored::summary(&told.event, told.changes, told.before_known);
    let start = told.summary.get().as_ptr() as usize - line.as_ptr() as usize;
    let behind = &line[start + told.summary.get().len()..];
    Some(format!("{}{}{behind}", &line[..start], serde_json::Value::from(summary)))
}

/// A text as it stands inside of a JSON string.
fn escaped(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json[1..json.len() - 1].to_owned()
}

/// The protected values in a JSON object, by the member that they belong to.
fn find(object: &str) -> Vec<Found> {
    let Ok(members) = serde_json::from_str::<HashMap<Cow<'_, str>, &RawValue>>(object) else { return Vec::new() };
    let mut found = Vec::new();
    for (column, value) in members {
        let start = value.get().as_ptr() as usize - object.as_ptr() as usize;
        for (at, nested) in values(value.get()) {
            found.push(Found { at: at.start + start..at.end + start, column: column.to_string(), nested });
        }
    }
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "aes256gcm:d0123456789abcdef:AUgLXktv8gsZW+TxVd3gwp8AAAAAAAAAAIri4IBhgFOu548imKwl59MLAFYCdwYs";
    const TOKEN: &str = "aes-siv:t0123456789abcdef:KG1LPCaJN5d2ZHNRLpqXHls61KuTviA";

    #[test]
    fn protected_values_are_found_with_their_columns() {
        let object = format!(
            r#"{{"ssn": [null, "{VALUE}"], "note": "call {TOKEN}, or not", "doc": "{{\"a\":\"{VALUE}\"}}", "n": 1.00, "x": "aes256gcm:no"}}"#
        );
        let mut found = find(&object);
        found.sort_by_key(|found| found.at.start);
        let seen: Vec<_> =
            found.iter().map(|found| (found.column.as_str(), &object[found.at.clone()], found.nested)).collect();
        assert_eq!(seen, [("ssn", VALUE, false), ("note", TOKEN, false), ("doc", VALUE, true)]);
    }

    #[test]
    fn what_is_no_object_holds_nothing() {
        for text in ["null", "[]", "", VALUE, "{"] {
            assert!(find(text).is_empty());
        }
    }
}
