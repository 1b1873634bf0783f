//! One pass over the records of a row, oldest first: [`Fold`].

mod held;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use audit_core::json::{members, unquote};
use audit_core::method::Method;
use audit_core::position::{Micros, Position};
use audit_core::shape::Shape;
use audit_core::stored::Record;
use audit_core::table::companion_of;
use serde_json::value::RawValue;

use super::compare::{Verdict, compare};
use super::facts::{Facts, is_full, rules_of, same_column};
use super::known::{Known, State, Why};

pub(crate) use held::state_bytes;

/// A version of a row, with what is known of its changes.
#[derive(Clone, Debug)]
pub struct Version {
    pub record: Record,
    /// Counts the rows that had the key, from 1; 0 for a truncation, which ends all of them.
    pub row: u32,
    /// Counts the row's versions, from 1; `None` if earlier ones were not read.
    pub number: Option<u32>,
    /// The version before, of the same row.
    pub previous: Option<Place>,
    /// Whether the row was moved to another partition.
    pub moved: bool,
    pub changes: Vec<Change>,
    /// The columns of which it is not known whether they changed, or what the deleted row had in them.
    pub unknown: BTreeMap<String, Why>,
}

/// Where a version stands, and when it was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub position: Position,
    pub committed_at: Micros,
}

/// A column that changed, under the name that it has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub column: String,
    pub old: Known,
    pub new: Known,
}

impl Change {
    /// Whether it is no change: a column that was NULL in a new row, or in a deleted one.
    pub fn is_null(&self) -> bool {
        [&self.old, &self.new].iter().all(|known| known.value() == Some(Known::NULL))
    }
}

impl Version {
    /// `None` for a row's first version. It is negative where the clock of the source went back.
    pub fn seconds_since_previous(&self) -> Option<i64> {
        let previous = self.previous?;
        Some((self.record.committed_at.0 - previous.committed_at.0) / 1_000_000)
    }

    /// Columns whose old values are derived.
    pub fn derived(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().filter(|change| change.old.is_derived()).map(|change| change.column.as_str())
    }

    /// The version from which old values are derived.
    pub fn derived_from(&self) -> Option<Position> {
        self.previous.filter(|_| self.derived().next().is_some()).map(|previous| previous.position)
    }

    /// The same version with the values that `revealed`, its record in plain, states.
    #[must_use]
    pub fn revealed(self, facts: &Facts, revealed: Record) -> Version {
        let image = |json: &Option<Box<RawValue>>| image(facts, &revealed, json.as_deref());
        let (mut olds, mut news) = (image(&revealed.before), image(&revealed.after));
        for (name, [old, new]) in pairs(&revealed) {
            let column = facts.shown(revealed.schema_version, &name).into_owned();
            olds.insert(column.clone(), stated(&revealed, &name, old));
            news.insert(column, stated(&revealed, &name, new));
        }
        let plain = |known: Known, column: &str, side: &State| match (&known, side.get(column)) {
            (Known::Stated(_), Some(plain)) => plain.clone(),
            _ => known,
        };
        let changes = self.changes.into_iter().map(|Change { column, old, new }| {
            let (old, new) = (plain(old, &column, &olds), plain(new, &column, &news));
            Change { column, old, new }
        });
        Version { changes: changes.collect(), record: revealed, ..self }
    }

    pub fn is_update(&self) -> bool {
        matches!(self.record.event.as_str(), "updated" | "discarded" | "restored")
    }

    /// Whether it is an update that is known to have changed nothing.
    pub fn is_nothing(&self) -> bool {
        self.is_update()
            && !self.record.before_known
            && !self.moved
            && self.record.old_key.is_none()
            && self.changes.is_empty()
            && self.unknown.is_empty()
    }
}

/// Reads the records of a row and of all that had its key, oldest first; see [`super`]. It holds the present state of
/// these rows and nothing else.
#[derive(Clone, Debug)]
pub struct Fold<'f> {
    facts: &'f Facts,
    /// The rows that exist, by key.
    living: HashMap<String, Living>,
    rows: u32,
}

/// A row as it stands at a position.
#[derive(Clone, Debug)]
pub struct Standing {
    /// See [`Version::row`].
    pub row: u32,
    /// The row's last version.
    pub last: Option<Place>,
    /// The shape that the table is in.
    pub schema_version: u32,
    pub state: State,
}

#[derive(Clone, Debug)]
struct Living {
    row: u32,
    number: Option<u32>,
    last: Option<Place>,
    /// How far the state is right.
    at: Position,
    schema_version: u32,
    state: State,
}

impl<'f> Fold<'f> {
    pub fn new(facts: &'f Facts) -> Fold<'f> {
        Fold { facts, living: HashMap::new(), rows: 0 }
    }

    /// Takes the next record, with the deletion that it continues ([`super::moves()`]).
    pub fn push(&mut self, record: Record, moved: Option<Record>) -> Version {
        if record.event == "truncated" {
            self.living.clear();
            return bare(record);
        }
        let record = match moved.as_ref() {
            Some(deleted) => updated(record, deleted),
            None => record,
        };
        let begins = record.event == "created";
        let before = record.old_key.as_ref().or(record.key.as_ref()).and_then(|key| self.living.remove(key));
        let before = before.filter(|_| !begins);
        let had = before.is_some();
        let mut living = before.unwrap_or_else(|| self.begin(&record, begins));
        let previous = living.last;
        if had {
            living.advance(self.facts, record.position, Some(record.schema_version));
        }
        living.number = living.number.and_then(|number| number.checked_add(1));
        let (row, number) = (living.row, living.number);
        let mut version = Version { previous, row, number, moved: moved.is_some(), ..bare(record) };
        living.take(self.facts, &mut version, had);
        let Version { record, .. } = &version;
        if let Some(key) = record.key.clone().filter(|_| !ends(record)) {
            living.last = Some(Place { position: record.position, committed_at: record.committed_at });
            living.at = record.position;
            living.schema_version = record.schema_version;
            self.living.insert(key, living);
        }
        version
    }

    fn begin(&mut self, record: &Record, begins: bool) -> Living {
        self.rows += 1;
        let numbered = self.facts.is_complete() || begins;
        Living {
            row: self.rows,
            number: numbered.then_some(0),
            last: None,
            at: record.position,
            schema_version: record.schema_version,
            state: State::new(),
        }
    }

    /// The row that has this key now, with its state at position `at`, which is not before its last version.
    pub fn state(&self, key: &str, at: Position) -> Option<Standing> {
        Some(self.living.get(key)?.clone().standing(self.facts, at))
    }

    /// The key that a row has now; `None` if it has ended.
    pub fn key_of(&self, row: u32) -> Option<&str> {
        self.living.iter().find(|(_, living)| living.row == row).map(|(key, _)| key.as_str())
    }
}

fn bare(record: Record) -> Version {
    let (changes, unknown) = (Vec::new(), BTreeMap::new());
    Version { record, row: 0, number: None, previous: None, moved: false, changes, unknown }
}

/// The update that the insertion of a moved row is, with what its deletion says of the row before.
fn updated(created: Record, deleted: &Record) -> Record {
    Record {
        event: "updated".into(),
        changes: None,
        changed: None,
        before: deleted.before.clone(),
        before_known: deleted.before_known,
        ..created
    }
}

/// Whether the row does not exist after this record. An `error` stands for the event that was quarantined.
pub(crate) fn ends(record: &Record) -> bool {
    #[derive(serde::Deserialize)]
    struct Quarantined {
        #[serde(default)]
        event: String,
    }
    let context = || record.context.as_deref().map(RawValue::get);
    match record.event.as_str() {
        "deleted" => true,
        "error" => context()
            .and_then(|json| serde_json::from_str::<Quarantined>(json).ok())
            .is_some_and(|quarantined| quarantined.event == "deleted"),
        _ => false,
    }
}

impl Living {
    fn standing(mut self, facts: &Facts, at: Position) -> Standing {
        self.advance(facts, at, None);
        let Living { row, last, schema_version, state, .. } = self;
        Standing { row, last, schema_version, state }
    }

    /// Takes out of the state what is no longer known at `to`, if no version of the row came until there.
    /// `schema_version` is the shape that a version at `to` has.
    fn advance(&mut self, facts: &Facts, to: Position, schema_version: Option<u32>) {
        if let Some(why) = facts.break_between(self.at, to) {
            self.forget(why);
        }
        let passed = facts.shapes_between(self.at, to).iter();
        for next in passed.chain(schema_version.and_then(|number| facts.shape(number))) {
            match facts.shape(self.schema_version) {
                Some(shape) => self.pass(facts, shape, next),
                None => self.forget(Why::Rules),
            }
            self.schema_version = next.schema_version;
        }
        if to > self.at {
            self.stay(facts);
        }
        self.at = to;
    }

    fn forget(&mut self, why: Why) {
        self.state.values_mut().for_each(|known| lose(known, why));
    }

    /// From one shape to the next.
    fn pass(&mut self, facts: &Facts, shape: &Shape, next: &Shape) {
        if shape.schema_version == next.schema_version {
            return;
        }
        self.stay(facts);
        let rules = shape.rules.as_ref().zip(next.rules.as_ref());
        match rules {
            None => self.forget(Why::Rules),
            Some((rules, after)) if rules.filter != after.filter => self.forget(Why::NotCaptured),
            Some(_) => {}
        }
        let state = std::mem::take(&mut self.state);
        for (shown, mut known) in state {
            let stored = facts.stored(shape.schema_version, &shown);
            let same = same_column(shape, next, &stored);
            let alike = |name: &String| protects_alike(shape, &stored, next, name);
            match &same {
                None => lose(&mut known, Why::Shape(next.schema_version)),
                Some(name) if rules.is_some() && !alike(name) => lose(&mut known, Why::Rekeyed),
                Some(_) => {}
            }
            // A column that the next shape does not track under any name is not the row's any more.
            let is_there = |name: &str| next.rules.as_ref().is_none_or(|rules| rules.columns.contains_key(name));
            if is_there(same.as_deref().unwrap_or(&facts.stored(next.schema_version, &shown))) {
                self.state.insert(shown, known);
            }
        }
    }

    /// A stretch in one shape, in which updates may have happened that made no version.
    fn stay(&mut self, facts: &Facts) {
        let Some(shape) = facts.shape(self.schema_version) else { return self.forget(Why::Rules) };
        let Some(rules) = &shape.rules else { return self.forget(Why::Rules) };
        if !rules.captures_updates() {
            return self.forget(Why::NotCaptured);
        }
        for (shown, known) in self.state.iter_mut().filter(|_| is_full(shape)) {
            let rules = rules_of(shape, &facts.stored(shape.schema_version, shown));
            if rules.is_some_and(|rules| rules.ignored_alone) {
                lose(known, Why::IgnoredAlone);
            }
        }
    }

    /// Puts a version's values into the state, and finds out what it changed.
    fn take(&mut self, facts: &Facts, version: &mut Version, had: bool) {
        let record = &version.record;
        let image = |json: &Option<Box<RawValue>>| image(facts, record, json.as_deref());
        let (before, after) = (image(&record.before), image(&record.after));
        let unknown = record.unknown.iter().map(|name| facts.shown(record.schema_version, name).into_owned());
        let unknown: Vec<String> =
            unknown.filter(|name| after.get(name).is_none_or(|known| known.why().is_some())).collect();
        match record.event.as_str() {
            "deleted" => self.delete(facts, version, before),
            "error" => self.forget(Why::Error(version.record.position)),
            "created" => self.create(version, after, unknown),
            "snapshot" if !had => self.create(version, after, unknown),
            _ if record.before_known && record.changes.is_some() && record.event != "snapshot" => {
                self.change(facts, version, after)
            }
            _ => self.restate(facts, version, (before, after, unknown), had),
        }
    }

    fn create(&mut self, version: &mut Version, after: State, unknown: Vec<String>) {
        self.state = after;
        let null = || Known::Stated(Known::NULL.into());
        let change =
            |(column, new): (&String, &Known)| Change { column: column.clone(), old: null(), new: new.clone() };
        version.changes = self.state.iter().map(change).collect();
        self.miss(unknown);
    }

    /// Large values that the version does not have.
    fn miss(&mut self, unknown: Vec<String>) {
        for column in unknown {
            self.state.entry(column).or_insert(Known::Unknown(Why::Toast));
        }
    }

    fn delete(&mut self, facts: &Facts, version: &mut Version, before: State) {
        let known = version.record.before_known;
        let mut last: State = std::mem::take(&mut self.state).into_iter().filter(|_| !known).collect();
        last.values_mut().for_each(|value| *value = value.derived());
        if version.previous.is_none() && !known {
            last.extend(tracked(facts, &version.record).map(|column| (column, Known::Unknown(Why::First))));
        }
        last.extend(before);
        for (column, old) in last {
            match old.why().or_else(|| sealed(facts, version.record.schema_version, &column, &old)) {
                Some(why) => {
                    version.unknown.insert(column, why);
                }
                None => version.changes.push(Change { column, old, new: Known::Stated(Known::NULL.into()) }),
            }
        }
    }

    /// An update of which the server sent the whole old row: what it does not name, it did not change.
    fn change(&mut self, facts: &Facts, version: &mut Version, after: State) {
        let record = &version.record;
        let shape = facts.shape(record.schema_version);
        let mut members_only = false;
        for (name, sides) in pairs(record) {
            let column = facts.shown(record.schema_version, &name).into_owned();
            let [old, new] = sides.map(|json| stated(record, &name, json));
            let own = |shape: &Shape| shape.column(&name).is_some() || rules_of(shape, &name).is_some();
            match shape.is_none_or(own) {
                true => drop(self.state.insert(column.clone(), new.clone())),
                false => members_only = true,
            }
            match old.why().or(new.why()) {
                Some(why) => {
                    version.unknown.insert(column, why);
                }
                None => version.changes.push(Change { column, old, new }),
            }
        }
        if members_only {
            self.lose_documents(facts, shape);
        }
        self.state.extend(after);
    }

    /// Only members were recorded: what the whole documents are now is not known.
    fn lose_documents(&mut self, facts: &Facts, shape: Option<&Shape>) {
        for column in shape.map(|shape| shape.columns.as_slice()).unwrap_or_default() {
            let shown = facts.shown(shape.map_or(0, |shape| shape.schema_version), &column.name);
            let is_document = matches!(column.kind.to_string().as_str(), "json" | "jsonb");
            if let Some(known) = self.state.get_mut(shown.as_ref()).filter(|_| is_document) {
                *known = Known::Unknown(Why::Members);
            }
        }
    }

    /// A version that has the new row and not the whole old one: old values are those that the row had before.
    fn restate(
        &mut self,
        facts: &Facts,
        version: &mut Version,
        (before, after, unknown): (State, State, Vec<String>),
        had: bool,
    ) {
        let schema_version = version.record.schema_version;
        let mut last = std::mem::take(&mut self.state);
        let mut compared = Vec::with_capacity(after.len());
        for (column, new) in &after {
            let old = match (before.get(column), last.remove(column)) {
                (Some(stated), _) => stated.clone(),
                (None, Some(known)) => known.derived(),
                (None, None) if had => Known::Unknown(Why::Shape(schema_version)),
                (None, None) => Known::Unknown(Why::First),
            };
            let verdict = compared_in(facts, schema_version, column, [&old, new]);
            compared.push((Change { column: column.clone(), old, new: new.clone() }, verdict));
        }
        judge(facts, version, compared);
        // ⚠ A large value that was not sent again is unchanged. One that was too large to be stored is not.
        let carried = |column: &String| Some((column.clone(), last.get(column)?.derived()));
        let carried: State = unknown.iter().filter(|name| !after.contains_key(*name)).filter_map(carried).collect();
        self.state = after;
        let known = carried.into_iter().filter(|(_, value)| value.why().is_none());
        self.state.extend(known);
        self.miss(unknown);
    }
}

/// Compares two values of a column in one shape.
fn compared_in(facts: &Facts, schema_version: u32, column: &str, [old, new]: [&Known; 2]) -> Verdict {
    let (old, new) = match (old, new) {
        (Known::Unknown(why), _) | (_, Known::Unknown(why)) => return Verdict::Unknown(*why),
        (old, new) => (old.value().unwrap_or_default(), new.value().unwrap_or_default()),
    };
    let (shape, stored) = (facts.shape(schema_version), facts.stored(schema_version, column));
    let kind = shape.and_then(|shape| shape.column(&stored)).map(|column| &column.kind);
    compare(kind, shape.and_then(|shape| rules_of(shape, &stored)), old, new)
}

/// Why a value cannot be derived whatever is known of it. ⚠ A ciphertext opens only in the version that it was made for.
fn sealed(facts: &Facts, schema_version: u32, column: &str, known: &Known) -> Option<Why> {
    let protection = facts.rules(schema_version, column)?.protection.as_ref()?;
    let is_text = known.value().is_some_and(|value| value != Known::NULL);
    (protection.method == Method::Encrypt && known.is_derived() && is_text).then_some(Why::Protected(Method::Encrypt))
}

/// Sorts columns into what changed and what is not known. A column and its companions hold the same value under several
/// methods: what one of them proves holds for all.
fn judge(facts: &Facts, version: &mut Version, compared: Vec<(Change, Verdict)>) {
    let shape = facts.shape(version.record.schema_version);
    let own =
        |column: &str| shape.is_none_or(|shape| shape.column(&facts.stored(shape.schema_version, column)).is_some());
    let base = |change: &Change| {
        let base = companion_of(&change.column).filter(|_| !own(&change.column));
        base.unwrap_or(&change.column).to_owned()
    };
    let mut proved: HashMap<String, Verdict> = HashMap::new();
    for (change, verdict) in compared.iter().filter(|(_, verdict)| !matches!(verdict, Verdict::Unknown(_))) {
        let known = proved.entry(base(change)).or_insert(*verdict);
        *known = if *known == Verdict::Differs { Verdict::Differs } else { *verdict };
    }
    for (change, verdict) in compared {
        let both = change.old.value().is_some() && change.new.value().is_some();
        let proved = proved.get(&base(&change)).copied().filter(|_| both);
        let sealed = sealed(facts, version.record.schema_version, &change.column, &change.old);
        match (proved.unwrap_or(verdict), sealed) {
            (Verdict::Same, _) => {}
            (Verdict::Differs, None) => version.changes.push(change),
            (Verdict::Differs, Some(why)) | (Verdict::Unknown(why), _) => {
                version.unknown.insert(change.column, why);
            }
        }
    }
}

fn lose(known: &mut Known, why: Why) {
    if known.why().is_none() {
        *known = Known::Unknown(why);
    }
}

/// Whether a column's values are protected in the same way in both shapes. A column without rules is not tracked.
fn protects_alike(shape: &Shape, stored: &str, next: &Shape, name: &str) -> bool {
    match (rules_of(shape, stored), rules_of(next, name)) {
        (Some(a), Some(b)) => (&a.protection, &a.inside) == (&b.protection, &b.inside),
        _ => false,
    }
}

/// The columns that the record's shape tracks.
fn tracked<'f>(facts: &'f Facts, record: &'f Record) -> impl Iterator<Item = String> + 'f {
    let shape = facts.shape(record.schema_version);
    let columns = shape.map(|shape| shape.columns.as_slice()).unwrap_or_default();
    let is_tracked = move |name: &str| {
        let rules = shape.and_then(|shape| shape.rules.as_ref());
        rules.is_none_or(|rules| rules.columns.contains_key(name))
    };
    let columns = columns.iter().filter(move |column| is_tracked(&column.name));
    columns.map(|column| facts.shown(record.schema_version, &column.name).into_owned())
}

/// One side of the row under the names that its columns have now.
fn image(facts: &Facts, record: &Record, json: Option<&RawValue>) -> State {
    let column = |(name, value): (&str, &str)| {
        let name = unquote(name);
        (facts.shown(record.schema_version, &name).into_owned(), stated(record, &name, value))
    };
    members(json.map_or("", RawValue::get)).map(column).collect()
}

/// The entries of an update's stored `changes`.
fn pairs(record: &Record) -> Vec<(String, [&str; 2])> {
    let json = record.changes.as_deref().map_or("", RawValue::get);
    members(json).filter_map(|(name, sides)| pair(name, sides)).collect()
}

fn pair<'r>(name: &str, sides: &'r str) -> Option<(String, [&'r str; 2])> {
    let sides: [&'r RawValue; 2] = serde_json::from_str(sides).ok()?;
    Some((unquote(name).into_owned(), sides.map(RawValue::get)))
}

/// A value as a record has it. ⚠ One that was too large for the store stands there as its size.
fn stated(record: &Record, stored: &str, value: &str) -> Known {
    let too_large = value.starts_with("{\"$too_large\"") && record.unknown.iter().any(|name| name == stored);
    match too_large {
        true => Known::Unknown(Why::TooLarge),
        false => Known::Stated(Arc::from(value)),
    }
}
