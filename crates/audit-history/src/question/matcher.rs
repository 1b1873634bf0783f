//! A filter that is applied to records ([`Matcher`]).
//!
//! What a record does not know is neither a match nor its opposite: such versions are counted, and not shown.

mod rows;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use audit_core::method::{Method, MethodRule};
use audit_core::position::Position;
use audit_core::rules::{TableRules, matches as is_like};
use audit_core::shape::{Shape, ShapeColumn};
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

/// The columns of one table, as filters see them.
pub struct Columns<'r> {
    table: String,
    columns: Vec<ShapeColumn>,
    rules: &'r TableRules,
}

/// Where the values of a column are, and what may be asked about them.
struct Field<'r> {
    name: String,
    kind: Kind,
    rule: Option<&'r MethodRule>,
}

impl<'r> Columns<'r> {
    /// `shapes` are all that the table has had; the latest that has a column decides about its type.
    pub fn new(table: &str, shapes: &[Shape], rules: &'r TableRules) -> Columns<'r> {
        let mut shapes: Vec<&Shape> = shapes.iter().collect();
        shapes.sort_by_key(|shape| std::cmp::Reverse(shape.schema_version));
        let mut columns: Vec<ShapeColumn> = Vec::new();
        for column in shapes.into_iter().flat_map(|shape| &shape.columns) {
            if !columns.iter().any(|known| known.name == column.name) {
                columns.push(column.clone());
            }
        }
        Columns { table: table.to_owned(), columns, rules }
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
    pub fn sought(&self, filter: &Filter) -> Result<Vec<(Sought, &'r MethodRule)>, Unfit> {
        let mut sought = Vec::new();
        for condition in filter.terms.iter().map(|term| &term.condition) {
            let Some((column, rule)) = condition.column().and_then(|name| Some((name, self.field(name)?.rule?))) else {
                continue;
            };
            let values = match condition {
                Condition::Touched { .. } => continue,
                Condition::Value { one_of, .. } => one_of.iter().flatten().collect(),
                Condition::Changed { from, to, .. } => from.iter().chain(to).flatten().flatten().collect(),
                _ => Vec::new(),
            };
            let asks_for_whole_values = matches!(condition, Condition::Value { .. } | Condition::Changed { .. });
            if !asks_for_whole_values || !matches!(rule.method, Method::Hash | Method::Token) {
                let (table, method) = (self.table.clone(), rule.method.name());
                return Err(Unfit::Protected { table, column: column.to_owned(), method });
            }
            sought.extend(values.into_iter().map(|plain: &String| {
                let (table, column) = (self.table.clone(), column.to_owned());
                (Sought { table, column, plain: plain.clone() }, rule)
            }));
        }
        Ok(sought)
    }

    /// The place of a column's values; `None` if the table has no such column.
    fn field(&self, name: &str) -> Option<Field<'r>> {
        let rules: &'r TableRules = self.rules;
        let column = |name: &str| self.columns.iter().find(|column| column.name == name);
        if let Some(column) = column(name) {
            let methods = rules.methods(column);
            let Some(first) = methods.first() else {
                return Some(Field { name: name.to_owned(), kind: column.kind.clone(), rule: None });
            };
            let equal = methods.iter().find(|rule| matches!(rule.method, Method::Hash | Method::Token));
            let rule = equal.unwrap_or(first);
            let stored = if rule == first { name.to_owned() } else { companion_name(name, rule.method) };
            return Some(Field { name: stored, kind: Kind::Text, rule: Some(rule) });
        }
        if let Some(column) = companion_of(name).and_then(column) {
            let rule = rules.methods(column).iter().find(|rule| companion_name(&column.name, rule.method) == name)?;
            return Some(Field { name: name.to_owned(), kind: Kind::Text, rule: Some(rule) });
        }
        let is_member = |(pattern, rule): (&String, &audit_core::expand::JsonRule)| {
            let labels = self.names().filter(|column| is_like(pattern, column));
            let mut labels = labels.map(|column| rule.label.as_deref().unwrap_or(column));
            labels.any(|label| name.strip_prefix(label).is_some_and(|rest| rest.starts_with(rule.separator.as_str())))
        };
        let member = rules.rule.json.iter().any(is_member);
        member.then(|| Field { name: name.to_owned(), kind: Kind::Jsonb, rule: None })
    }
}

/// Versions that are counted because it could not be told whether they match.
pub const UNTOLD_MAX: usize = 100_000;

/// Applies a filter to records.
pub struct Matcher {
    terms: Vec<Term>,
    /// By table: its tests, in the order of those terms that are about columns.
    tables: HashMap<String, Vec<Test>>,
    about_columns: bool,
    /// A version may be asked about more than once, because several stores have it.
    untold: Mutex<HashSet<Position>>,
}

/// A condition on a column of one table.
struct Test {
    not: bool,
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
        columns: &Columns<'_>,
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
        self.tables.insert(columns.table.clone(), tests);
        Ok(true)
    }

    /// Whether the record is part of the answer.
    pub fn matches(&self, record: &Record) -> bool {
        if !self.terms.iter().all(|term| about_record(&term.condition, record).is_none_or(|is| is != term.not)) {
            return false;
        }
        if !self.about_columns {
            return true;
        }
        let Some(tests) = self.tables.get(&record.table_name) else { return false };
        let mut all = Truth::Yes;
        for test in tests {
            match test.truth(record) {
                Truth::Yes => {}
                Truth::No => return false,
                Truth::Unknown => all = Truth::Unknown,
            }
        }
        if all == Truth::Unknown {
            let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
            if untold.len() < UNTOLD_MAX {
                untold.insert(record.position);
            }
        }
        all == Truth::Yes
    }

    /// The number of versions so far of which it could not be told whether they match, at most [`UNTOLD_MAX`].
    pub fn untold(&self) -> usize {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn test(
    term: &Term,
    columns: &Columns<'_>,
    stored: &HashMap<Sought, Vec<String>>,
    clock: &Clock,
) -> Result<Test, Unfit> {
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
                    let sought = Sought { table: columns.table.clone(), column: name.to_owned(), plain: plain.clone() };
                    let forms = stored.get(&sought).into_iter().flatten();
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
    fn truth(&self, record: &Record) -> Truth {
        self.judged(match &self.asks {
            Asks::Nothing => Truth::No,
            asks => asks.truth(&record.event, &sides(record, &self.field)),
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

fn sides<'r>(record: &'r Record, column: &str) -> Sides<'r> {
    let of = |image: &'r Option<Box<RawValue>>| image.as_deref().and_then(|image| member(image, column));
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
