//! The test vectors of `docs/canonical-record.md`: this crate and a second implementation, which shares nothing with
//! it, make the same bytes of them. The vectors never change; further ones may be added.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use audit_core::position::{Lsn, Micros, Position};
use audit_core::shape::{KeySource, Shape, ShapeColumn};
use audit_core::stored::{Json, Record};
use audit_proof::{Canonical, Kinds};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Vector {
    about: String,
    /// The types of the table's columns, as far as they matter.
    columns: BTreeMap<String, String>,
    record: Given,
    bytes: String,
    /// Number of bytes of the part that is the same in every store.
    shared: usize,
    digest: String,
    meaning: String,
}

/// A version record in its JSON form.
#[derive(Deserialize)]
struct Given {
    source: String,
    position: String,
    table_name: String,
    item_type: String,
    key: Option<String>,
    old_key: Option<String>,
    event: String,
    changes: Option<Json>,
    before: Option<Json>,
    after: Option<Json>,
    changed: Option<Vec<String>>,
    before_known: bool,
    unknown: Vec<String>,
    carried: Vec<String>,
    included: Option<Json>,
    actor_id: Option<String>,
    actor: Option<Json>,
    reason: Option<String>,
    context: Option<Json>,
    actor_source: Option<String>,
    context_verified: Option<bool>,
    xid: u32,
    commit_lsn: String,
    lsn: String,
    seq: u32,
    committed_at: String,
    recorded_at: String,
    schema_version: u32,
    baseline: Option<u32>,
    tenant: Option<String>,
}

impl Given {
    fn record(self) -> Record {
        let lsn = |text: &str| text.parse::<Lsn>().unwrap();
        Record {
            position: self.position.parse::<Position>().unwrap(),
            commit_lsn: lsn(&self.commit_lsn),
            lsn: lsn(&self.lsn),
            committed_at: micros(&self.committed_at),
            recorded_at: micros(&self.recorded_at),
            summary: String::new(),
            source: self.source,
            table_name: self.table_name,
            item_type: self.item_type,
            key: self.key,
            old_key: self.old_key,
            event: self.event,
            changes: self.changes,
            before: self.before,
            after: self.after,
            changed: self.changed,
            before_known: self.before_known,
            unknown: self.unknown,
            carried: self.carried,
            included: self.included,
            actor_id: self.actor_id,
            actor: self.actor,
            reason: self.reason,
            context: self.context,
            actor_source: self.actor_source,
            context_verified: self.context_verified,
            xid: self.xid,
            seq: self.seq,
            schema_version: self.schema_version,
            baseline: self.baseline,
            tenant: self.tenant,
        }
    }
}

fn micros(text: &str) -> Micros {
    Micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

fn kinds(columns: &BTreeMap<String, String>) -> Kinds {
    let column = |(name, kind): (&String, &String)| ShapeColumn {
        name: name.clone(),
        type_oid: 0,
        typmod: -1,
        type_name: kind.clone(),
        holds: Vec::new(),
        kind: kind.parse().unwrap(),
        attnum: None,
        in_identity: false,
    };
    Kinds::of(&Shape {
        schema: "public".into(),
        table: "t".into(),
        schema_version: 1,
        digest: String::new(),
        first: Position::default(),
        columns: columns.iter().map(column).collect(),
        key: Vec::new(),
        key_source: KeySource::None,
        oid: None,
        rules: None,
        seal: None,
    })
}

fn here(name: &str) -> std::path::PathBuf {
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("tests").join(name)
}

#[test]
fn each_vector_gives_these_bytes() {
    let vectors: Vec<Vector> = serde_json::from_str(&std::fs::read_to_string(here("vectors.json")).unwrap()).unwrap();
    assert!(vectors.len() >= 12, "{}", vectors.len());
    for Vector { about, columns, record, bytes, shared, digest, meaning } in vectors {
        let canonical = Canonical::of(&record.record(), &kinds(&columns));
        let made = (
            hex::encode(canonical.bytes()),
            canonical.shared().len(),
            hex::encode(canonical.digest()),
            hex::encode(Sha256::digest(canonical.meaning())),
        );
        assert_eq!(made, (bytes, shared, digest, meaning), "{about}");
        assert_eq!(canonical.units().map(|unit| (unit.tag, unit.name)).collect::<Vec<_>>(), {
            let mut sorted: Vec<_> = canonical.units().map(|unit| (unit.tag, unit.name)).collect();
            sorted.sort();
            sorted.dedup();
            sorted
        });
    }
}

/// Where there is a Python, which any version from 3.8 on is.
#[test]
fn another_implementation_gives_the_same_bytes() {
    let Ok(done) = Command::new("python3").arg(here("canonical.py")).arg(here("vectors.json")).output() else { return };
    assert!(
        done.status.success(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}
