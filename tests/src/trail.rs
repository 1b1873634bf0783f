//! A trail as the tests compare it: versions in one form, whichever sink they were read from.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::value::Text;

/// Column to value; a column that is absent has a value that nobody knows.
pub type Row = BTreeMap<String, Text>;

/// What stands in place of a value under the method `full`.
pub const REDACTED: &str = "[REDACTED]";

/// One version. JSON documents of the application are kept as parsed values, since `jsonb` orders their members anew.
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
    /// The row that the version shows: after, or of a deleted row the last known values.
    pub fn image(&self) -> Option<&Row> {
        self.after.as_ref().or(self.before.as_ref())
    }

    /// Whether this is the record of changes that the sink of this name will never get.
    pub fn is_gap_of(&self, sink: &str) -> bool {
        let lost = self.context.as_ref().and_then(|note| note["lost"].as_array());
        self.event == "gap" && lost.into_iter().flatten().any(|lost| lost["sink"] == sink)
    }

    /// Leaves aside the columns whose values were withheld.
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

    /// `0001:…:0000000002 public.t updated 7`
    pub fn place(&self) -> String {
        let key = self.key.as_deref().unwrap_or("without key");
        format!("{} {} {} {key}", self.position, self.table, self.event)
    }
}

/// `16/B374D848` as a number.
pub fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap_or_else(|| panic!("not a WAL position: {text}"));
    let part = |text| u64::from_str_radix(text, 16).expect("hex digits");
    part(high) << 32 | part(low)
}

/// What every trail must fulfil by itself: positions rise, none comes twice, and each is made of what the version says.
/// Returns the first violations, one a line.
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

/// The stretches that a sink's gap records cover: from the last change that it has before each, to the record.
pub fn holes<'v>(trail: &'v [Version], sink: &str) -> Vec<(&'v str, &'v str)> {
    let (mut last, mut holes) = ("", Vec::new());
    for version in trail {
        if version.is_gap_of(sink) {
            holes.push((last, version.position.as_str()));
        } else if !matches!(version.event.as_str(), "gap" | "snapshot") {
            last = &version.position;
        }
    }
    holes
}

/// Where two trails differ: the first few places, one a line, with what differs. Empty if they agree.
///
/// Sinks keep different sides of an update: those that only one has are not compared.
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

/// The fields in which two versions of one position differ, with both values.
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
