//! A trail as the tests compare it: versions in one form, from whatever sink they were read.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::value::Text;

/// Column to value. The value of an absent column is not known.
pub type Row = BTreeMap<String, Text>;

/// The text stored instead of a value that is protected by the method `full`.
pub const REDACTED: &str = "[REDACTED]";

/// One version. JSON documents of the application are kept as parsed values, because `jsonb` reorders their members.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    pub source: String,
    pub position: String,
    pub table: String,
    pub item_type: String,
    pub key: Option<String>,
    pub old_key: Option<String>,
    pub event: String,
    /// Column to old and new value.
    pub changes: Option<BTreeMap<String, (Text, Text)>>,
    pub before: Option<Row>,
    pub after: Option<Row>,
    pub changed: Option<Vec<String>>,
    pub before_known: bool,
    pub unknown: Vec<String>,
    pub included: Option<Row>,
    pub actor_id: Option<String>,
    pub actor: Option<serde_json::Value>,
    pub reason: Option<String>,
    pub context: Option<serde_json::Value>,
    pub actor_source: Option<String>,
    pub context_verified: Option<bool>,
    pub xid: i64,
    pub commit_lsn: u64,
    pub lsn: u64,
    pub seq: i64,
    /// Microseconds since 1970.
    pub committed_at: i64,
    pub schema_version: i32,
    pub baseline: Option<i32>,
    pub tenant: Option<String>,
}

impl Version {
    /// Returns the row that the version shows: `after`, or the last known values of a deleted row.
    pub fn image(&self) -> Option<&Row> {
        self.after.as_ref().or(self.before.as_ref())
    }

    /// Tells whether this records changes that the sink with this name will never get.
    pub fn is_gap_of(&self, sink: &str) -> bool {
        let lost = self.context.as_ref().and_then(|note| note["lost"].as_array());
        self.event == "gap" && lost.into_iter().flatten().any(|lost| lost["sink"] == sink)
    }

    /// Removes the columns whose values were withheld.
    pub fn without_protected(mut self) -> Version {
        for row in [&mut self.before, &mut self.after].into_iter().flatten() {
            row.retain(|_, value| value.as_deref() != Some(REDACTED));
        }
        if let Some(changes) = &mut self.changes {
            changes.retain(|_, (old, new)| ![old, new].into_iter().any(|value| value.as_deref() == Some(REDACTED)));
            self.changed = Some(changes.keys().cloned().collect());
        }
        self
    }

    pub fn epoch(&self) -> usize {
        usize::from_str_radix(&self.position[..4], 16).expect("hex digits")
    }

    /// Describes the version as in `0001:…:0000000002 public.t updated 7`.
    pub fn place(&self) -> String {
        let key = self.key.as_deref().unwrap_or("without key");
        format!("{} {} {} {key}", self.position, self.table, self.event)
    }
}

/// Parses an LSN such as `16/B374D848`.
pub fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap_or_else(|| panic!("not a WAL position: {text}"));
    let part = |text| u64::from_str_radix(text, 16).expect("hex digits");
    part(high) << 32 | part(low)
}

/// Checks what is true of every trail: positions rise, none occurs twice, and each is made from the version's fields.
/// Returns the first violations, one in each entry.
pub fn flaws(trail: &[Version]) -> Vec<String> {
    let mut flaws = Vec::new();
    for pair in trail.windows(2) {
        if pair[0].position == pair[1].position {
            flaws.push(format!("twice: {} and {}", pair[0].place(), pair[1].place()));
        } else if pair[0].position > pair[1].position {
            flaws.push(format!("out of order: {} before {}", pair[0].place(), pair[1].place()));
        }
    }
    for version in trail {
        let epoch = &version.position[..4];
        if version.position != format!("{epoch}:{:016x}:{:010}", version.commit_lsn, version.seq) {
            flaws.push(format!("position and its parts differ: {}", version.place()));
        }
        let changed: Option<Vec<&String>> = version.changed.as_ref().map(|names| {
            let mut names: Vec<&String> = names.iter().collect();
            names.sort();
            names
        });
        if changed != version.changes.as_ref().map(|changes| changes.keys().collect()) {
            flaws.push(format!("changed and changes differ: {}", version.place()));
        }
        if let (Some(changes), Some(after)) = (&version.changes, &version.after)
            && let Some(column) = changes.iter().find(|(column, (_, new))| after.get(*column).is_some_and(|v| v != new))
        {
            flaws.push(format!("changes and after differ in {}: {}", column.0, version.place()));
        }
    }
    flaws.truncate(20);
    flaws
}

/// A range in which a sink may lack changes, as one of its gap records says.
pub struct Hole {
    /// The sink has every transaction of this epoch that ended at or before this LSN. What it has of later ones is true,
    /// but need not be whole: a lake writes its tables one after another.
    from: (usize, u64),
    /// The epoch and the LSN of the gap record.
    to: (usize, u64),
}

impl Hole {
    /// Tells whether the sink may lack a transaction that ends at this LSN.
    pub fn covers(&self, epoch: usize, end: u64) -> bool {
        // A gap record is placed just before the first transaction that is recorded again.
        self.from < (epoch, end) && (epoch, end) <= (self.to.0, self.to.1 + 1)
    }
}

/// Lists the holes of a sink's trail.
pub fn holes(trail: &[Version], sink: &str) -> Vec<Hole> {
    let epochs = std::iter::once(1).chain(trail.iter().map(Version::epoch));
    let records = epochs.zip(trail).filter(|(_, version)| version.is_gap_of(sink));
    records
        .map(|(epoch, record)| {
            let lost = record.context.as_ref().and_then(|note| note["lost"].as_array()).expect("what was lost");
            let ours = lost.iter().find(|lost| lost["sink"] == sink).expect("what this sink lost");
            let from = lsn(ours["from"].as_str().expect("an LSN"));
            Hole { from: (epoch, from), to: (record.epoch(), record.commit_lsn) }
        })
        .collect()
}

/// Lists the first few places where two trails differ, one in each entry, with the differing fields. Empty if they
/// agree.
///
/// Sinks keep different sides of an update: a side that only one of them has is not compared.
pub fn differences(name_a: &str, a: &[Version], name_b: &str, b: &[Version]) -> Vec<String> {
    let mut found = Vec::new();
    let (mut at_a, mut at_b) = (a.iter().peekable(), b.iter().peekable());
    while found.len() < 10 {
        match (at_a.peek(), at_b.peek()) {
            (None, None) => break,
            (Some(one), other) if other.is_none_or(|other| one.position < other.position) => {
                found.push(format!("only {name_a}: {}", one.place()));
                at_a.next();
            }
            (one, Some(other)) if one.is_none_or(|one| other.position < one.position) => {
                found.push(format!("only {name_b}: {}", other.place()));
                at_b.next();
            }
            (Some(one), Some(other)) => {
                let what = differing(one, other);
                if !what.is_empty() {
                    found.push(format!("{}: {what}", one.place()));
                }
                at_a.next();
                at_b.next();
            }
            _ => break,
        }
    }
    found
}

/// Lists the fields in which two versions of one position differ, with both values.
fn differing(a: &Version, b: &Version) -> String {
    let mut what = String::new();
    macro_rules! compare {
        ($($field:ident),*) => {$(
            if a.$field != b.$field {
                let _ = write!(what, "{} {:?} / {:?}; ", stringify!($field), a.$field, b.$field);
            }
        )*};
    }
    compare!(
        source,
        table,
        item_type,
        key,
        old_key,
        event,
        changes,
        changed,
        before_known,
        unknown,
        included,
        actor_id,
        actor,
        reason,
        context,
        actor_source,
        context_verified,
        xid,
        commit_lsn,
        lsn,
        seq,
        committed_at,
        schema_version,
        baseline,
        tenant
    );
    for (side, one, other) in [("before", &a.before, &b.before), ("after", &a.after, &b.after)] {
        if let (Some(one), Some(other)) = (one, other)
            && one != other
        {
            let columns: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for column in columns.into_iter().filter(|column| one.get(*column) != other.get(*column)) {
                let _ = write!(what, "{side}.{column} {:?} / {:?}; ", one.get(column), other.get(column));
            }
        }
    }
    what
}
