//! Ciphertexts and tokens in version records, replaced by what they hide ([`Revealer`]).
//!
//! Records stay text: a number in a document has more digits than a float, and members keep their order. What is replaced lies inside
//! of JSON strings, alone or in the middle of other text, and becomes part of the same string.

mod found;
mod place;
mod table;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use audit_cipher::ERASED;
use audit_core::rules::Rules;
use audit_core::stored::Record;
use audit_keys::{Access, Ask, Opener};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use self::found::{Found, Parts};
pub use self::place::NamedDomain;
use self::place::Place;
use self::table::Table;
use crate::error::{CliError, code};

/// More values than this are bulk, which wants a purpose.
const BULK: u64 = 100;

/// Opens what stands in records, for one request.
pub struct Revealer {
    opener: Opener,
    access: Access,
    rules: Rules,
    /// What the rules say of the tables that were seen.
    tables: HashMap<String, Table>,
    /// The named domains of the configuration.
    domains: Vec<NamedDomain>,
    limit: u64,
    opened: u64,
    /// Values that did not open, by the reason.
    failed: BTreeMap<String, u64>,
}

/// What says where a record's values stand; its other parts are [`Parts`].
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
}

/// Values that were opened, by their field and the stored text.
type Plain = HashMap<(String, String), zeroize::Zeroizing<String>>;

impl Revealer {
    pub fn new(opener: Opener, access: Access, rules: Rules, domains: Vec<NamedDomain>, limit: u64) -> Revealer {
        Revealer { opener, access, rules, tables: HashMap::new(), domains, limit, opened: 0, failed: BTreeMap::new() }
    }

    /// One version as a line of JSON, with its values in plain.
    pub async fn line(&mut self, line: &str) -> Result<String, CliError> {
        let no_version = |error: serde_json::Error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            CliError::new("this is no version")
                .detail(place)
                .hint("give versions as `history --json` prints them".to_owned())
        };
        let head: Head<'_> = serde_json::from_str(line).map_err(no_version)?;
        let parts: Parts<'_> = serde_json::from_str(line).map_err(no_version)?;
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
        let mut all = Vec::new();
        for (part, found) in parts.find(self.table(&head.table_name)) {
            let start = part.as_ptr() as usize - line.as_ptr() as usize;
            all.extend(found.into_iter().map(|found| found.behind(start)));
        }
        let plain = self.open(&parts, all.iter(), &place).await?;
        let shown = replaced(line, &mut all, &plain);
        Ok(with_summary(&shown).unwrap_or(shown))
    }

    /// A record's values in plain; what is derived from them is derived anew.
    pub async fn record(&mut self, mut record: Record) -> Result<Record, CliError> {
        let unfit = |_: serde_json::Error| CliError::new("a value does not fit into its record");
        let texts = [&record.actor_id, &record.reason, &record.tenant];
        let [actor_id, reason, tenant] = texts.map(|text| text.as_ref().map(to_raw_value).transpose());
        let (mut actor_id, mut reason, mut tenant) =
            (actor_id.map_err(unfit)?, reason.map_err(unfit)?, tenant.map_err(unfit)?);
        let parts = Parts {
            changes: record.changes.as_deref(),
            before: record.before.as_deref(),
            after: record.after.as_deref(),
            included: record.included.as_deref(),
            context: record.context.as_deref(),
            actor: record.actor.as_deref(),
            actor_id: actor_id.as_deref(),
            reason: reason.as_deref(),
            tenant: tenant.as_deref(),
        };
        let position = record.position.to_string();
        let place = Place {
            source: &record.source,
            table: &record.table_name,
            position: &position,
            key: record.key.as_deref(),
            xid: record.xid,
            lsn: record.lsn,
            seq: u64::from(record.seq),
        };
        let mut found: HashMap<String, Vec<Found>> = HashMap::new();
        for (part, values) in parts.find(self.table(&record.table_name)) {
            found.insert(part.to_owned(), values);
        }
        if found.values().all(Vec::is_empty) {
            return Ok(record);
        }
        let plain = self.open(&parts, found.values().flatten(), &place).await?;
        let objects = [&mut record.changes, &mut record.before, &mut record.after, &mut record.included];
        let said = [&mut record.context, &mut record.actor, &mut actor_id, &mut reason, &mut tenant];
        for json in objects.into_iter().chain(said).flatten() {
            let Some(values) = found.get_mut(json.get()) else { continue };
            *json = RawValue::from_string(replaced(json.get(), values, &plain)).map_err(unfit)?;
        }
        let text = |json: Option<Box<RawValue>>| json.map(|json| serde_json::from_str(json.get())).transpose();
        record.actor_id = text(actor_id).map_err(unfit)?;
        record.reason = text(reason).map_err(unfit)?;
        record.tenant = text(tenant).map_err(unfit)?;
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

    fn table(&mut self, name: &str) -> &Table {
        let rules = &self.rules;
        self.tables.entry(name.to_owned()).or_insert_with(|| Table::of(rules.for_name(name.to_owned()).rule))
    }

    /// Opens what was found, each value of a field once; each attempt is logged.
    async fn open<'f>(
        &mut self,
        parts: &Parts<'_>,
        found: impl Iterator<Item = &'f Found>,
        place: &Place<'_>,
    ) -> Result<Plain, CliError> {
        // The same value stands in more than one part of a record.
        let mut wanted: BTreeMap<(&str, &str), Vec<&Found>> = BTreeMap::new();
        for found in found {
            wanted.entry((found.field.as_str(), found.value.as_str())).or_default().push(found);
        }
        if wanted.is_empty() {
            return Ok(Plain::new());
        }
        self.allow(wanted.len() as u64)?;
        let bound = self.table(place.table).bound(parts);
        let ask = |((field, value), found): (&(&str, &str), &Vec<&Found>)| Ask {
            text: (*value).to_owned(),
            aads: place.aads(found, &bound),
            domains: place.domains(found, &self.domains),
            source: place.source.to_owned(),
            table: place.table.to_owned(),
            key: place.key.map(str::to_owned),
            position: place.position.to_owned(),
            field: (*field).to_owned(),
        };
        let asks: Vec<Ask> = wanted.iter().map(ask).collect();
        let opened = self.opener.reveal(&self.access, &asks).await?;
        let mut plain = Plain::new();
        for ((field, value), result) in wanted.into_keys().zip(opened) {
            let wanted = (field.to_owned(), value.to_owned());
            match result {
                Ok(value) => drop(plain.insert(wanted, value)),
                // As it was meant to be: no failure of whoever asks.
                Err(error) if error.is_erased() => drop(plain.insert(wanted, ERASED.to_owned().into())),
                Err(error) => *self.failed.entry(CliError::of(&error).to_string()).or_default() += 1,
            }
        }
        Ok(plain)
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
}

/// A JSON text with what was opened in it.
fn replaced(text: &str, found: &mut [Found], plain: &Plain) -> String {
    found.sort_by_key(|found| found.at.start);
    let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
    for found in found {
        let Some(value) = plain.get(&(found.field.clone(), found.value.clone())) else { continue };
        out.push_str(&text[copied..found.at.start]);
        let inside = escaped(value);
        out.push_str(&if found.nested { escaped(&inside) } else { inside });
        copied = found.at.end;
    }
    out.push_str(&text[copied..]);
    out
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
