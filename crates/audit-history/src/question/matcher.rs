//! A filter that is applied to records ([`Matcher`]).
//!
//! What a record does not know is neither a match nor its opposite: such versions are counted, and not shown.

mod rows;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use audit_core::method::{Method, MethodRule};
use audit_core::position::Position;
use audit_core::rules::{TableRules, matches as is_like};
use audit_core::shape::{ColumnNames, Shape, ShapeColumn};
use audit_core::stored::Record;
use audit_core::table::{companion_name, companion_of};
use audit_core::value::Kind;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::filter::{Attribute, Condition, Filter, How, Term};
use super::time::Clock;
use super::value::{Given, NotAValue, Value};

/// A filter that does not fit a table.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error(transparent)]
    Value(#[from] NotAValue),
    #[error("column {column} of {table} is protected with `{method}`: nothing may be learnt of its values by a filter")]
    Protected { table: String, column: String, method: &'static str },
    #[error("no table that is searched has a column {column}")]
    NoColumn { column: String, known: Vec<String> },
}

impl Unfit {
    /// A hint on what to do about the error.
    pub fn hint(&self) -> String {
        match self {
            Unfit::Value(_) => "write a value of that type; null is NULL, and \"null\" the text".to_owned(),
            Unfit::Protected { method: "hash" | "token", .. } => {
                "only whole values can be searched for, as in email:ann@example.org".to_owned()
            }
            Unfit::Protected { column, .. } => format!("search for versions that touched it: {column}:"),
            Unfit::NoColumn { known, .. } => format!(
                "the columns are {}; beside them there are table, key, event, actor, reason, request, tenant, xid, since, \
                 until, in, on and word",
                known.join(", ")
            ),
        }
    }
}

/// A plain value that is searched for in a protected column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sought {
    pub table: String,
    pub column: String,
    pub plain: String,
}

/// The columns of one table, as filters see them: under the names that they have now.
pub struct Columns {
    table: String,
    columns: Vec<ShapeColumn>,
    names: Arc<ColumnNames>,
    rules: TableRules,
}

/// Where the values of a column are, and what may be asked about them.
struct Field<'r> {
    /// The column's name now.
    column: String,
    /// The name under which its values are.
    name: String,
    kind: Kind,
    rule: Option<&'r MethodRule>,
}

impl Columns {
    /// `shapes` are all that the table has had; the latest that has a column decides about its type.
    pub fn new(table: &str, shapes: &[Shape], mut rules: TableRules) -> Columns {
        let names = ColumnNames::of(shapes, &rules.rule.renames);
        rules.remember(names.all_former());
        let mut shapes: Vec<&Shape> = shapes.iter().collect();
        shapes.sort_by_key(|shape| std::cmp::Reverse((shape.first, shape.schema_version)));
        let mut columns: Vec<ShapeColumn> = Vec::new();
        for (shape, column) in shapes.iter().flat_map(|shape| shape.columns.iter().map(move |column| (shape, column))) {
            let name = names.shown(shape.schema_version, &column.name).into_owned();
            if !columns.iter().any(|known| known.name == name) {
                columns.push(ShapeColumn { name, ..column.clone() });
            }
        }
        Columns { table: table.to_owned(), columns, names: Arc::new(names), rules }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// The table's whole name.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Whether the table has, or had, such a column.
    pub fn has(&self, column: &str) -> bool {
        self.field(column).is_some()
    }

    /// The values that are searched for in protected columns, each with the method by which it is stored.
    ///
    /// # Errors
    /// Returns [`Unfit::Protected`] if the filter asks anything else about the values of a protected column.
    pub fn sought(&self, filter: &Filter) -> Result<Vec<(Sought, &MethodRule)>, Unfit> {
        let mut sought = Vec::new();
        for condition in filter.terms.iter().map(|term| &term.condition) {
            let field = condition.column().and_then(|name| self.field(name));
            let Some((column, rule)) = field.and_then(|field| Some((field.column, field.rule?))) else { continue };
            let values = match condition {
                Condition::Touched { .. } => continue,
                Condition::Value { one_of, .. } => one_of.iter().flatten().collect(),
                Condition::Changed { from, to, .. } => from.iter().chain(to).flatten().flatten().collect(),
                _ => Vec::new(),
            };
            let asks_for_whole_values = matches!(condition, Condition::Value { .. } | Condition::Changed { .. });
            if !asks_for_whole_values || !matches!(rule.method, Method::Hash | Method::Token) {
                let (table, method) = (self.table.clone(), rule.method.name());
                return Err(Unfit::Protected { table, column, method });
            }
            let all = values.into_iter().flat_map(|plain: &String| self.sought_as(&column, plain));
            sought.extend(all.map(|sought| (sought, rule)));
        }
        Ok(sought)
    }

    /// A value under every name that the column has had: stored forms depend on the name.
    fn sought_as(&self, column: &str, plain: &str) -> Vec<Sought> {
        let sought = |column| Sought { table: self.table.clone(), column, plain: plain.to_owned() };
        self.names.all(column).map(sought).collect()
    }

    /// The place of a column's values; `None` if the table has no such column.
    fn field(&self, given: &str) -> Option<Field<'_>> {
        let rules = &self.rules;
        let meant = self.names.meant(given);
        let name = meant.as_ref();
        let of =
            |name: &str, kind: Kind, rule| Some(Field { column: meant.to_string(), name: name.to_owned(), kind, rule });
        let column = |name: &str| self.columns.iter().find(|column| column.name == name);
        if let Some(column) = column(name) {
            let methods = rules.methods(column);
            let Some(first) = methods.first() else {
                return of(name, column.kind.clone(), None);
            };
            let equal = methods.iter().find(|rule| matches!(rule.method, Method::Hash | Method::Token));
            let rule = equal.unwrap_or(first);
            let stored = if rule == first { name.to_owned() } else { companion_name(name, rule.method) };
            return of(&stored, Kind::Text, Some(rule));
        }
        if let Some(column) = companion_of(name).and_then(column) {
            let rule = rules.methods(column).iter().find(|rule| companion_name(&column.name, rule.method) == name)?;
            return of(name, Kind::Text, Some(rule));
        }
        let is_member = |(pattern, rule): (&String, &audit_core::expand::JsonRule)| {
            let labels = self.names().filter(|column| is_like(pattern, column));
            let mut labels = labels.map(|column| rule.label.as_deref().unwrap_or(column));
            labels.any(|label| name.strip_prefix(label).is_some_and(|rest| rest.starts_with(rule.separator.as_str())))
        };
        let member = rules.rule.json.iter().any(is_member);
        if member { of(name, Kind::Jsonb, None) } else { None }
    }
}

/// Versions that are counted because it could not be told whether they match.
pub const UNTOLD_MAX: usize = 100_000;

/// Applies a filter to records.
pub struct Matcher {
    terms: Vec<Term>,
    /// By table: the names of its columns, and its tests in the order of those terms that are about columns.
    tables: HashMap<String, (Arc<ColumnNames>, Vec<Test>)>,
    about_columns: bool,
    /// A version may be asked about more than once, because several stores have it.
    untold: Mutex<HashSet<Position>>,
}

/// A condition on a column of one table.
struct Test {
    not: bool,
    /// The name that the column has now.
    field: String,
    asks: Asks,
}

enum Asks {
    /// The table has no such column.
    Nothing,
    Touched,
    Changed {
        from: Option<Vec<Given>>,
        to: Option<Vec<Given>>,
    },
    Value(Vec<Given>),
    Has(Vec<String>),
    Compares(How, Given),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Yes,
    No,
    Unknown,
}

impl Matcher {
    pub fn new(filter: &Filter) -> Matcher {
        let about_columns = filter.columns().next().is_some();
        Matcher { terms: filter.terms.clone(), tables: HashMap::new(), about_columns, untold: Mutex::default() }
    }

    /// Prepares the filter for a table. `stored` gives the stored forms of plain values in protected columns. Returns
    /// false if no version of the table can match, because it lacks a column.
    ///
    /// # Errors
    /// Returns [`Unfit`] if a value does not have the type of its column.
    pub fn bind(
        &mut self,
        columns: &Columns,
        stored: &HashMap<Sought, Vec<String>>,
        clock: &Clock,
    ) -> Result<bool, Unfit> {
        let mut tests = Vec::new();
        for term in self.terms.iter().filter(|term| term.condition.column().is_some()) {
            let test = test(term, columns, stored, clock)?;
            if matches!(test.asks, Asks::Nothing) && !term.not {
                return Ok(false);
            }
            tests.push(test);
        }
        self.tables.insert(columns.table.clone(), (columns.names.clone(), tests));
        Ok(true)
    }

    /// Whether the record is part of the answer; `None` if what it says does not tell. Of the `unknown` columns it is not
    /// known whether they changed.
    pub fn truth(&self, record: &Record, unknown: &[String]) -> Option<bool> {
        if !self.terms.iter().all(|term| about_record(&term.condition, record).is_none_or(|is| is != term.not)) {
            return Some(false);
        }
        if !self.about_columns {
            return Some(true);
        }
        let Some((names, tests)) = self.tables.get(&record.table_name) else { return Some(false) };
        let truths: Vec<Truth> = tests.iter().map(|test| test.truth(record, names, unknown)).collect();
        all(&truths)
    }

    /// Whether the record is part of the answer. One that does not tell is none, and is counted.
    pub fn matches(&self, record: &Record) -> bool {
        let truth = self.truth(record, &[]);
        if truth.is_none() {
            self.leave_untold(record.position);
        }
        truth == Some(true)
    }

    /// Counts a version of which it cannot be told whether it matches.
    pub fn leave_untold(&self, position: Position) {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if untold.len() < UNTOLD_MAX {
            untold.insert(position);
        }
    }

    /// The names under which stores have the columns that must have changed, a list for each.
    pub fn changed(&self) -> Vec<Vec<String>> {
        let changed = self.terms.iter().filter(|term| !term.not).filter_map(|term| match &term.condition {
            Condition::Touched { column } | Condition::Changed { column, .. } => Some(column),
            _ => None,
        });
        let stored = |column: &String| {
            let of_table = |names: &ColumnNames| names.all(&names.meant(column)).collect::<Vec<_>>();
            let tables = self.tables.values().flat_map(|(names, _)| of_table(names));
            tables.chain([column.clone()]).collect::<BTreeSet<_>>().into_iter().collect()
        };
        changed.map(stored).collect()
    }

    /// The number of versions so far of which it could not be told whether they match, at most [`UNTOLD_MAX`].
    pub fn untold(&self) -> usize {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Whether all of it holds; `None` if that depends on what is not known.
fn all(truths: &[Truth]) -> Option<bool> {
    match (truths.contains(&Truth::No), truths.contains(&Truth::Unknown)) {
        (true, _) => Some(false),
        (false, true) => None,
        (false, false) => Some(true),
    }
}

fn test(term: &Term, columns: &Columns, stored: &HashMap<Sought, Vec<String>>, clock: &Clock) -> Result<Test, Unfit> {
    let name = term.condition.column().unwrap_or_default();
    let Some(field) = columns.field(name) else {
        return Ok(Test { not: term.not, field: String::new(), asks: Asks::Nothing });
    };
    let list = |values: &[Option<String>]| {
        let mut all = Vec::new();
        for value in values {
            match value {
                None => all.push(Given::Value(Value::Null)),
                Some(plain) if field.rule.is_some() => {
                    let sought = columns.sought_as(&field.column, plain);
                    let forms = sought.iter().filter_map(|sought| stored.get(sought)).flatten();
                    all.extend(forms.map(|text| Given::Value(Value::Text(text.clone()))));
                }
                Some(text) => all.push(Given::read(&field.kind, name, text, clock)?),
            }
        }
        Ok::<_, Unfit>(all)
    };
    let side = |values: &Option<Vec<Option<String>>>| values.as_deref().map(&list).transpose();
    let asks = match &term.condition {
        Condition::Changed { from, to, .. } => Asks::Changed { from: side(from)?, to: side(to)? },
        Condition::Value { one_of, .. } => Asks::Value(list(one_of)?),
        Condition::ValueHas { one_of, .. } => Asks::Has(one_of.iter().map(|text| text.to_lowercase()).collect()),
        Condition::Compares { how, with, .. } => Asks::Compares(*how, Given::read(&field.kind, name, with, clock)?),
        _ => Asks::Touched,
    };
    Ok(Test { not: term.not, field: field.name, asks })
}

/// What a version did to a column.
enum Sides<'r> {
    /// The value before and after; `None` if there was no row.
    Known(Option<&'r RawValue>, Option<&'r RawValue>),
    Untouched,
    /// The value before is not known. The one after may be.
    Unknown(Option<&'r RawValue>),
}

impl Test {
    fn truth(&self, record: &Record, names: &ColumnNames, unknown: &[String]) -> Truth {
        self.judged(match (&self.asks, names.find(record.schema_version, &self.field)) {
            (Asks::Nothing, _) | (_, None) => Truth::No,
            (asks, Some(stored)) if unknown.iter().any(|name| *name == stored) => {
                asks.truth(&record.event, &Sides::Unknown(of(&record.after, &stored)))
            }
            (asks, Some(stored)) => asks.truth(&record.event, &sides(record, &stored)),
        })
    }

    fn judged(&self, truth: Truth) -> Truth {
        match (truth, self.not) {
            (Truth::Yes, true) => Truth::No,
            (Truth::No, true) => Truth::Yes,
            (truth, _) => truth,
        }
    }
}

impl Asks {
    fn truth(&self, event: &str, sides: &Sides<'_>) -> Truth {
        let is = |holds: bool| if holds { Truth::Yes } else { Truth::No };
        // A snapshot says what a value is, and not that it became so.
        let is_change = event != "snapshot";
        let one = |list: &[Given], json: &RawValue| list.iter().any(|given| equals(given, json));
        match (self, sides) {
            (Asks::Nothing, _) | (_, Sides::Untouched) => Truth::No,
            (Asks::Touched, Sides::Known(_, new)) => is(is_change && new.is_some()),
            (Asks::Changed { from, to }, Sides::Known(old, new)) => {
                let side = |wanted: &Option<Vec<Given>>, side: &Option<&RawValue>| match (wanted, side) {
                    (None, _) => true,
                    (Some(list), Some(json)) => one(list, json),
                    (Some(_), None) => false,
                };
                is(is_change && side(from, old) && side(to, new))
            }
            (Asks::Changed { to: Some(to), .. }, Sides::Unknown(Some(new))) if !one(to, new) => Truth::No,
            (asks, Sides::Known(old, new)) => is([old, new].into_iter().flatten().any(|json| asks.holds(json))),
            (_, Sides::Unknown(_)) => Truth::Unknown,
        }
    }

    /// Whether one value is what is asked for.
    fn holds(&self, json: &RawValue) -> bool {
        match self {
            Asks::Value(list) => list.iter().any(|given| equals(given, json)),
            Asks::Has(parts) => {
                let text = serde_json::from_str::<String>(json.get()).unwrap_or_else(|_| json.get().to_owned());
                has(&text, parts)
            }
            Asks::Compares(how, given) => order(given, json).is_some_and(|order| match how {
                How::Less => order == Ordering::Less,
                How::AtMost => order != Ordering::Greater,
                How::More => order == Ordering::Greater,
                How::AtLeast => order != Ordering::Less,
            }),
            Asks::Nothing | Asks::Touched | Asks::Changed { .. } => false,
        }
    }
}

/// The kind by which a stored value is read: that of what it is compared with.
fn kind_of(given: &Given) -> Kind {
    match given {
        Given::Value(Value::Number(_)) => Kind::Numeric(None),
        Given::Value(Value::Json(_)) => Kind::Jsonb,
        Given::Span(_) => Kind::TimestampTz,
        Given::Value(_) => Kind::Text,
    }
}

fn equals(given: &Given, json: &RawValue) -> bool {
    given.equals(&Value::stored(&kind_of(given), json))
}

fn order(given: &Given, json: &RawValue) -> Option<Ordering> {
    given.order(&Value::stored(&kind_of(given), json))
}

/// Whether a text has one of the parts, which are in small letters.
fn has(text: &str, parts: &[String]) -> bool {
    let text = text.to_lowercase();
    parts.iter().any(|part| text.contains(part.as_str()))
}

#[derive(Deserialize)]
struct Name<'r>(#[serde(borrow)] Cow<'r, str>);

/// A member of an object.
fn member<'r>(object: &'r RawValue, name: &str) -> Option<&'r RawValue> {
    struct Find<'n>(&'n str);
    impl<'de> serde::de::DeserializeSeed<'de> for Find<'_> {
        type Value = Option<&'de RawValue>;

        fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_map(self)
        }
    }
    impl<'de> serde::de::Visitor<'de> for Find<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(Name(name)) = map.next_key()? {
                let value: &RawValue = map.next_value()?;
                if name == self.0 {
                    found = Some(value);
                }
            }
            Ok(found)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(object.get());
    serde::de::DeserializeSeed::deserialize(Find(name), &mut deserializer).ok().flatten()
}

/// A column of one side of the row.
fn of<'r>(image: &'r Option<Box<RawValue>>, column: &str) -> Option<&'r RawValue> {
    member(image.as_deref()?, column)
}

fn sides<'r>(record: &'r Record, column: &str) -> Sides<'r> {
    let of = |image: &'r Option<Box<RawValue>>| of(image, column);
    match record.event.as_str() {
        "created" | "snapshot" => of(&record.after).map_or(Sides::Untouched, |new| Sides::Known(None, Some(new))),
        "deleted" => match of(&record.before) {
            Some(old) => Sides::Known(Some(old), None),
            None if record.before_known => Sides::Untouched,
            None => Sides::Unknown(None),
        },
        "updated" | "discarded" | "restored" => match &record.changes {
            Some(changes) => match member(changes, column) {
                Some(pair) => match serde_json::from_str::<[&RawValue; 2]>(pair.get()) {
                    Ok([old, new]) => Sides::Known(Some(old), Some(new)),
                    Err(_) => Sides::Unknown(None),
                },
                None => Sides::Untouched,
            },
            // A value that was not sent, because it is stored apart and did not change.
            None if record.unknown.iter().any(|unknown| unknown == column) => Sides::Untouched,
            None => Sides::Unknown(of(&record.after)),
        },
        _ => Sides::Untouched,
    }
}

/// Whether a condition that is not about a column holds; `None` for the others.
fn about_record(condition: &Condition, record: &Record) -> Option<bool> {
    Some(match condition {
        Condition::Is { of, one_of } => {
            let text = attribute(*of, record);
            one_of.iter().any(|value| value.as_deref() == text.as_deref())
        }
        Condition::Has { of, one_of } => attribute(*of, record).is_some_and(|text| has(&text, &lower(one_of))),
        Condition::Committed { since, until } => {
            since.is_none_or(|since| since.0 <= record.committed_at)
                && until.is_none_or(|until| record.committed_at < until.0)
        }
        Condition::Word { one_of } => {
            let actor = record.actor.as_deref().map(|actor| Cow::Borrowed(actor.get()));
            let of = [Attribute::Key, Attribute::Reason, Attribute::Actor, Attribute::Request];
            let texts = of.into_iter().filter_map(|of| attribute(of, record));
            let words = lower(one_of);
            texts.chain(actor).any(|text| has(&text, &words))
        }
        _ => return None,
    })
}

fn lower(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| text.to_lowercase()).collect()
}

fn attribute(of: Attribute, record: &Record) -> Option<Cow<'_, str>> {
    let text = |text: &'_ Option<String>| text.clone().map(Cow::Owned);
    match of {
        Attribute::Table => Some(Cow::Borrowed(&record.table_name)),
        Attribute::Event => Some(Cow::Borrowed(&record.event)),
        Attribute::Key => text(&record.key),
        Attribute::Actor => text(&record.actor_id),
        Attribute::Reason => text(&record.reason),
        Attribute::Tenant => text(&record.tenant),
        Attribute::Xid => Some(Cow::Owned(record.xid.to_string())),
        Attribute::Request => {
            let id = member(record.context.as_deref()?, "request_id")?;
            Some(Cow::Owned(serde_json::from_str(id.get()).unwrap_or_else(|_| id.get().to_owned())))
        }
    }
}
