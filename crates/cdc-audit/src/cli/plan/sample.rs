//! Made-up values for every column, and what the daemon's own code would leave of them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use audit_cipher::{KeyId, Limits, Sealer, SecretKey, Wanted};
use audit_core::batch::Batch;
use audit_core::change::{Cell, Change, Row, Value};
use audit_core::position::{Lsn, Position};
use audit_core::protect::{MacKey, Place, Policy, SealError};
use audit_core::shape::ShapeColumn;
use audit_core::table::Table;
use audit_core::value::Kind;
use audit_core::version::version;

use crate::config::Config;

/// A value for each kept column, by its name, as it would be stored. The keys are made up as well: a real hash of a value that everybody can guess is
/// nobody's business, and a plan needs no secrets.
pub fn samples(table: &Arc<Table>, config: &Config) -> Vec<(String, String)> {
    let (mut bytes, mut cells) = (Vec::new(), Vec::new());
    for column in &table.shape.columns {
        let value = made_up(column);
        cells.push(Cell::text(bytes.len(), value.len()));
        bytes.extend_from_slice(value.as_bytes());
    }
    let key = || Some(MacKey::new(config.protection.hash_key_id.as_str(), b"made up, for samples alone"));
    let sealer = made_up_sealer(config);
    let policy = Policy { hash_key: key(), row_key: key(), sealer: Some(Arc::clone(&sealer)) };
    let (mut batch, mut changed) = (Batch::default(), Vec::new());
    let row = Change::Insert { new: Row::new(&bytes, &cells) };
    let place = Place { position: Position::default(), lsn: Lsn::ZERO };
    let Some(raw) = version(table, row, &mut changed) else { return Vec::new() };
    loop {
        match policy.seal(&mut batch, table, &raw, place, None) {
            Ok(()) => break,
            Err(SealError::KeyWanted(wanted)) if give(&sealer, wanted).is_some() => {}
            // A class that is not configured: such a file does not load.
            Err(_) => return Vec::new(),
        }
    }
    let text = |value: Value<&str>| value.text().unwrap_or("NULL").to_owned();
    let image = batch.versions().next().and_then(|version| version.after());
    image.into_iter().flat_map(|image| image.iter()).map(|(column, value)| (column.name.clone(), text(value))).collect()
}

fn made_up_sealer(config: &Config) -> Arc<Sealer> {
    let limits = Limits {
        rotate_after: Duration::from_secs(3_600),
        rotate_count: 1 << 30,
        subjects_max: NonZeroUsize::MIN,
        subject_for: Duration::from_secs(3_600),
    };
    let classes = config.protection.keys.keys().map(|class| (class.clone(), limits));
    Arc::new(Sealer::new(&config.source.name, classes))
}

/// A key that says by its name, and its value, that it is none.
fn give(sealer: &Sealer, wanted: Wanted) -> Option<()> {
    let id = |kind: char| KeyId::parse(&format!("{kind}0000000000000000"));
    let key = SecretKey::from_slice(&[0; SecretKey::LEN])?;
    match wanted {
        Wanted::Data(class) => sealer.install_data(class, id('d')?, &key),
        Wanted::Tokens(class) => sealer.install_tokens(class, id('t')?, &key),
        Wanted::Subjects(class) => sealer.install_subjects(class, &key),
        Wanted::Subject(class, of) => sealer.install_subject(class, of, Some((id('s')?, &key))),
    }
    Some(())
}

/// By what the column is called, else by its type.
fn made_up(column: &ShapeColumn) -> &'static str {
    let name = column.name.to_lowercase();
    let called = |words: &[&str]| words.iter().any(|word| name.contains(word));
    match &column.kind {
        Kind::Bool => "t",
        Kind::Int2 => "42",
        Kind::Int4 | Kind::Int8 if called(&["ssn"]) => "219099999",
        Kind::Int8 if called(&["card"]) => "4532015112830366",
        Kind::Int4 | Kind::Int8 => "42",
        Kind::Float4 | Kind::Float8 => "1.5",
        Kind::Numeric(_) => "12.50",
        Kind::Bytea => "\\x00ff",
        Kind::Date => "2026-03-01",
        Kind::Timestamp => "2026-03-01 09:30:00",
        Kind::TimestampTz => "2026-03-01 09:30:00+00",
        Kind::Uuid => "8a1f6f0e-0000-4000-8000-000000000001",
        Kind::Json | Kind::Jsonb => {
            r#"{"name": "Ann Smith", "password": "correct horse", "note": "paid with 4532 0151 1283 0366"}"#
        }
        Kind::Array(_) => "{}",
        Kind::Text if called(&["mail"]) => "ann.smith@example.com",
        Kind::Text if called(&["phone", "mobile", "fax"]) => "+1 555 010 4567",
        Kind::Text if called(&["ssn", "social_security"]) => "219-09-9999",
        Kind::Text if called(&["card"]) => "4532 0151 1283 0366",
        Kind::Text if called(&["iban"]) => "DE89370400440532013000",
        Kind::Text if column.type_name == "inet" || called(&["ip_", "_ip"]) => "192.0.2.7",
        Kind::Text if called(&["name"]) => "Ann Smith",
        Kind::Text if called(&["note", "comment", "text", "body", "message"]) => "paid with 4532 0151 1283 0366",
        Kind::Text => "made up",
    }
}
