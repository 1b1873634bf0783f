//! Filters: which versions are asked for ([`Filter`]).
//!
//! A filter is a list of terms that all have to hold. Each term is one word:
//!
//! | word | the versions |
//! |---|---|
//! | `actor:31,32`, `event:…`, `table:…`, `key:…`, `reason:…`, `request:…`, `tenant:…`, `xid:…` | that have one of these; `actor:null`: nobody |
//! | `reason~refund`, also `actor~`, `key~`, `request~` | whose text has this part, in capitals or not |
//! | `since:8d`, `until:2026-02-01`, `in:2026-01`, `on:yesterday` | committed then; the end is exclusive |
//! | `state:` | that touched the column |
//! | `state:open->paid`, `state:->paid`, `state:null->` | that changed it so |
//! | `state:paid`, `total>1000`, `total<=5`, `note~late` | that have such a value of the column before or after |
//! | `word:refund`, `refund` | with this part in key, reason, actor or request id |
//!
//! A comma means "or", a leading `-` (or `!`) "not". `null` is NULL, and `"null"` the text; quotes also protect commas,
//! arrows and spaces. A column that is called like one of the words of this table is written with a dot before: `.key:7`.

use std::fmt;

use audit_core::position::Micros;
use serde::{Deserialize, Serialize};

use super::time::{Clock, NotATime};

/// Terms that all have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Filter {
    pub terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// Whether the condition must not hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not: bool,
    #[serde(flatten)]
    pub condition: Condition,
}

/// One condition. NULL is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "test", rename_all = "snake_case")]
pub enum Condition {
    Is { of: Attribute, one_of: Vec<Option<String>> },
    Has { of: Attribute, one_of: Vec<String> },
    Committed { since: Option<At>, until: Option<At> },
    Word { one_of: Vec<String> },
    Touched { column: String },
    Changed { column: String, from: Option<Vec<Option<String>>>, to: Option<Vec<Option<String>>> },
    Value { column: String, one_of: Vec<Option<String>> },
    ValueHas { column: String, one_of: Vec<String> },
    Compares { column: String, how: How, with: String },
}

/// What a record says of a version, beside its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribute {
    Table,
    Key,
    Event,
    Actor,
    Reason,
    Request,
    Tenant,
    Xid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Less,
    AtMost,
    More,
    AtLeast,
}

/// A time, as text in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At(pub Micros);

impl Serialize for At {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<At, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(At).map_err(serde::de::Error::custom)
    }
}

/// A word that is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAFilter {
    #[error("the filter {word:?} has no value")]
    NoValue { word: String },
    #[error("the filter {word:?} compares what has no order")]
    NoOrder { word: String },
    #[error("{value:?} is not an event")]
    NoEvent { value: String },
    #[error("{value:?} is not the number of a transaction")]
    NoXid { value: String },
    #[error("the filter {word:?} has a quote that is not closed")]
    Open { word: String },
    #[error(transparent)]
    Time(#[from] NotATime),
}

impl NotAFilter {
    /// A hint on what to do about the error.
    pub fn hint(&self) -> String {
        match self {
            NotAFilter::NoEvent { .. } => format!("the events are {}", EVENTS.join(", ")),
            NotAFilter::NoXid { .. } => "write it as in xid:7311".to_owned(),
            NotAFilter::Time(error) => error.hint(),
            NotAFilter::NoValue { .. } | NotAFilter::NoOrder { .. } | NotAFilter::Open { .. } => {
                "write actor:31,32, event:deleted, reason~refund, since:8d, state:open->paid, state:, total>1000, or \
                 a word; a comma means \"or\", a leading - means \"not\""
                    .to_owned()
            }
        }
    }
}

const EVENTS: [&str; 9] =
    ["created", "updated", "deleted", "truncated", "snapshot", "discarded", "restored", "gap", "error"];

impl Filter {
    /// Reads words, one term or more each.
    ///
    /// # Errors
    /// Returns [`NotAFilter`] for the first word that is not one of those in the module's table.
    pub fn read(words: &[String], clock: &Clock) -> Result<Filter, NotAFilter> {
        let mut terms = Vec::new();
        for word in words {
            terms.push(term(word, clock)?);
        }
        Ok(Filter { terms })
    }

    /// The columns that the filter names.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().filter_map(|term| term.condition.column())
    }

    /// The values, one of which an attribute must have. Empty if the filter does not say.
    pub fn only(&self, attribute: Attribute) -> Vec<String> {
        let lists = self.terms.iter().filter(|term| !term.not).filter_map(|term| match &term.condition {
            Condition::Is { of, one_of } if *of == attribute => one_of.iter().cloned().collect::<Option<Vec<_>>>(),
            _ => None,
        });
        // Further lists are checked on the records.
        lists.into_iter().next().unwrap_or_default()
    }

    /// The span of commit times that can match.
    pub fn span(&self) -> (Option<Micros>, Option<Micros>) {
        let spans = self.terms.iter().filter(|term| !term.not).filter_map(|term| match term.condition {
            Condition::Committed { since, until } => Some((since, until)),
            _ => None,
        });
        spans.fold((None, None), |(from, end), (since, until)| {
            let earlier = |a: Option<Micros>, b: Option<At>| match (a, b) {
                (Some(a), Some(At(b))) => Some(a.min(b)),
                (a, b) => a.or(b.map(|At(b)| b)),
            };
            (from.max(since.map(|At(at)| at)), earlier(end, until))
        })
    }
}

impl Condition {
    pub fn column(&self) -> Option<&str> {
        match self {
            Condition::Touched { column }
            | Condition::Changed { column, .. }
            | Condition::Value { column, .. }
            | Condition::ValueHas { column, .. }
            | Condition::Compares { column, .. } => Some(column),
            Condition::Is { .. } | Condition::Has { .. } | Condition::Committed { .. } | Condition::Word { .. } => None,
        }
    }
}

/// Splits a line into words. Quotes keep spaces together, and stay.
///
/// # Errors
/// Returns [`NotAFilter::Open`] if a quote is not closed.
pub fn words(line: &str) -> Result<Vec<String>, NotAFilter> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        quoted ^= c == '"';
        if c.is_whitespace() && !quoted {
            words.push(std::mem::take(&mut word));
        } else {
            word.push(c);
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    if quoted { Err(NotAFilter::Open { word: line.to_owned() }) } else { Ok(words) }
}

fn term(written: &str, clock: &Clock) -> Result<Term, NotAFilter> {
    let word = written.strip_prefix(['-', '!']).filter(|rest| !rest.is_empty());
    let (not, word) = (word.is_some(), word.unwrap_or(written));
    let condition = match named(word) {
        Some((name, operator, value)) => condition(&name, operator, value, word, clock)?,
        None => Condition::Word { one_of: texts(word, word)? },
    };
    Ok(Term { not, condition })
}

/// Splits a word into the name before its operator, the operator, and what follows.
fn named(word: &str) -> Option<(String, Operator, &str)> {
    let (name, rest) = match word.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').map(|(name, rest)| (format!(".{name}"), rest))?,
        None => {
            let at = word.find([':', '=', '~', '<', '>'])?;
            (word[..at].to_owned(), &word[at..])
        }
    };
    let is_plain = |name: &str| name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '$'));
    if name.is_empty() || !(word.starts_with('"') || is_plain(&name)) {
        return None;
    }
    let colon = rest.strip_prefix(':').filter(|rest| rest.starts_with(['<', '>', '~']));
    let rest = colon.unwrap_or(rest);
    let operators = [
        (">=", Operator::Compares(How::AtLeast)),
        ("<=", Operator::Compares(How::AtMost)),
        (">", Operator::Compares(How::More)),
        ("<", Operator::Compares(How::Less)),
        ("~", Operator::Has),
        (":", Operator::Is),
        ("=", Operator::Is),
    ];
    operators.into_iter().find_map(|(text, operator)| Some((name.clone(), operator, rest.strip_prefix(text)?)))
}

#[derive(Clone, Copy)]
enum Operator {
    Is,
    Has,
    Compares(How),
}

fn condition(name: &str, operator: Operator, value: &str, word: &str, clock: &Clock) -> Result<Condition, NotAFilter> {
    let attribute = match name {
        "table" => Some(Attribute::Table),
        "key" => Some(Attribute::Key),
        "event" => Some(Attribute::Event),
        "actor" => Some(Attribute::Actor),
        "reason" => Some(Attribute::Reason),
        "request" => Some(Attribute::Request),
        "tenant" => Some(Attribute::Tenant),
        "xid" => Some(Attribute::Xid),
        _ => None,
    };
    match (attribute, operator, name) {
        (Some(of), Operator::Is, _) => is(of, values(value, word)?),
        (Some(of), Operator::Has, _) => Ok(Condition::Has { of, one_of: texts(value, word)? }),
        (None, Operator::Is, "since" | "until" | "in" | "on") => committed(name, value, word, clock),
        (None, Operator::Is, "word") => Ok(Condition::Word { one_of: texts(value, word)? }),
        (Some(_), Operator::Compares(_), _) | (None, _, "since" | "until" | "in" | "on" | "word") => {
            Err(NotAFilter::NoOrder { word: word.to_owned() })
        }
        (None, operator, _) => of_column(name.strip_prefix('.').unwrap_or(name), operator, value, word),
    }
}

fn is(of: Attribute, one_of: Vec<Option<String>>) -> Result<Condition, NotAFilter> {
    for value in &one_of {
        let text = value.as_deref().unwrap_or("null");
        match of {
            Attribute::Event if !EVENTS.contains(&text) => return Err(NotAFilter::NoEvent { value: text.to_owned() }),
            Attribute::Xid if text.parse::<u32>().is_err() => return Err(NotAFilter::NoXid { value: text.to_owned() }),
            _ => {}
        }
    }
    Ok(Condition::Is { of, one_of })
}

fn committed(name: &str, value: &str, word: &str, clock: &Clock) -> Result<Condition, NotAFilter> {
    let text = unquoted(value, word)?;
    let (since, until) = match name {
        "since" => (Some(At(clock.time(&text)?)), None),
        "until" => (None, Some(At(clock.time(&text)?))),
        _ => {
            let span = clock.span(&text)?;
            (Some(At(span.from)), Some(At(span.until)))
        }
    };
    Ok(Condition::Committed { since, until })
}

fn of_column(column: &str, operator: Operator, value: &str, word: &str) -> Result<Condition, NotAFilter> {
    let column = column.to_owned();
    Ok(match operator {
        Operator::Compares(how) => Condition::Compares { column, how, with: unquoted(value, word)? },
        Operator::Has => Condition::ValueHas { column, one_of: texts(value, word)? },
        Operator::Is if value.is_empty() => Condition::Touched { column },
        Operator::Is => match split(value, "->").as_slice() {
            ["", ""] => Condition::Touched { column },
            [from, to] => {
                let side = |side: &str| if side.is_empty() { Ok(None) } else { values(side, word).map(Some) };
                Condition::Changed { column, from: side(from)?, to: side(to)? }
            }
            _ => Condition::Value { column, one_of: values(value, word)? },
        },
    })
}

/// The parts of a text between separators that are not in quotes.
fn split<'t>(text: &'t str, separator: &str) -> Vec<&'t str> {
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        quoted ^= c == '"';
        if !quoted && at >= start && text[at..].starts_with(separator) {
            parts.push(&text[start..at]);
            start = at + separator.len();
        }
    }
    parts.push(&text[start..]);
    parts
}

fn values(text: &str, word: &str) -> Result<Vec<Option<String>>, NotAFilter> {
    let value = |part: &str| match part {
        "null" => Ok(None),
        part => unquoted(part, word).map(Some),
    };
    split(text, ",").into_iter().map(value).collect()
}

fn texts(text: &str, word: &str) -> Result<Vec<String>, NotAFilter> {
    split(text, ",").into_iter().map(|part| unquoted(part, word)).collect()
}

/// A value without its quotes; it must have one. `""` is the empty text.
fn unquoted(text: &str, word: &str) -> Result<String, NotAFilter> {
    match text.strip_prefix('"') {
        Some(rest) => match rest.strip_suffix('"') {
            Some(text) => Ok(text.to_owned()),
            None => Err(NotAFilter::Open { word: word.to_owned() }),
        },
        None if text.is_empty() => Err(NotAFilter::NoValue { word: word.to_owned() }),
        None => Ok(text.to_owned()),
    }
}

/// The filter in words, as it can be read again.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            write!(f, "{}{term}", if i > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.not { "-" } else { "" })?;
        match &self.condition {
            Condition::Is { of, one_of } => write!(f, "{}:{}", of.name(), list(one_of)),
            Condition::Has { of, one_of } => write!(f, "{}~{}", of.name(), joined(one_of)),
            Condition::Word { one_of } => write!(f, "word:{}", joined(one_of)),
            Condition::Committed { since: Some(At(at)), until: None } => write!(f, "since:{at}"),
            Condition::Committed { since: None, until: Some(At(at)) } => write!(f, "until:{at}"),
            Condition::Committed { since: Some(At(since)), until: Some(At(until)) } => {
                write!(f, "in:{since}..{until}")
            }
            Condition::Committed { since: None, until: None } => f.write_str("in:all"),
            Condition::Touched { column } => write!(f, "{}:", name(column)),
            Condition::Changed { column, from, to } => {
                let side = |side: &Option<Vec<_>>| side.as_deref().map(list).unwrap_or_default();
                write!(f, "{}:{}->{}", name(column), side(from), side(to))
            }
            Condition::Value { column, one_of } => write!(f, "{}:{}", name(column), list(one_of)),
            Condition::ValueHas { column, one_of } => write!(f, "{}~{}", name(column), joined(one_of)),
            Condition::Compares { column, how, with } => {
                write!(f, "{}{}{}", name(column), how.sign(), shown(with))
            }
        }
    }
}

impl Attribute {
    pub fn name(self) -> &'static str {
        match self {
            Attribute::Table => "table",
            Attribute::Key => "key",
            Attribute::Event => "event",
            Attribute::Actor => "actor",
            Attribute::Reason => "reason",
            Attribute::Request => "request",
            Attribute::Tenant => "tenant",
            Attribute::Xid => "xid",
        }
    }
}

impl How {
    fn sign(self) -> &'static str {
        match self {
            How::Less => "<",
            How::AtMost => "<=",
            How::More => ">",
            How::AtLeast => ">=",
        }
    }
}

fn list(values: &[Option<String>]) -> String {
    let value = |value: &Option<String>| value.as_deref().map_or_else(|| "null".to_owned(), shown);
    values.iter().map(value).collect::<Vec<_>>().join(",")
}

fn joined(texts: &[String]) -> String {
    texts.iter().map(|text| shown(text)).collect::<Vec<_>>().join(",")
}

/// A value, in quotes where it would be read otherwise without.
fn shown(text: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, ',' | '"' | '<' | '>' | '~');
    let is_plain = !text.is_empty() && text != "null" && text.chars().all(plain);
    if is_plain { text.to_owned() } else { format!("\"{text}\"") }
}

fn name(column: &str) -> String {
    let reserved =
        ["table", "key", "event", "actor", "reason", "request", "tenant", "xid", "since", "until", "in", "on", "word"];
    let plain = column.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '$'));
    match (reserved.contains(&column), plain) {
        (true, _) => format!(".{column}"),
        (false, true) => column.to_owned(),
        (false, false) => format!("\"{column}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock { now: "2026-04-01T09:30:00Z".parse().unwrap(), zone: jiff::tz::TimeZone::UTC }
    }

    fn read(line: &str) -> Filter {
        Filter::read(&words(line).unwrap(), &clock()).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn words_become_conditions_and_words_again() {
        for (line, shown) in [
            (
                "state:open->paid actor:31,32 -event:snapshot total>1000",
                "state:open->paid actor:31,32 -event:snapshot total>1000",
            ),
            ("reason~refund since:8d", "reason~refund since:2026-03-24T09:30:00.000000Z"),
            ("state:->paid state:null-> state: state:->", "state:->paid state:null-> state: state:"),
            ("in:2026-01", "in:2026-01-01T00:00:00.000000Z..2026-02-01T00:00:00.000000Z"),
            (r#"state:"null" note:"a,b->c",d"#, r#"state:"null" note:"a,b->c",d"#),
            ("refund !word:bank", "word:refund -word:bank"),
            ("total:>=5 total=6", "total>=5 total:6"),
            (r#".key:7 "odd name":7 "two words""#, r#".key:7 "odd name":7 word:"two words""#),
            ("ann@example.org:7", "word:ann@example.org:7"),
            ("actor:null -request~x", "actor:null -request~x"),
        ] {
            let filter = read(line);
            assert_eq!(filter.to_string(), shown, "{line}");
            assert_eq!(read(&filter.to_string()), filter, "{line}");
            let json = serde_json::to_string(&filter).unwrap();
            assert_eq!(serde_json::from_str::<Filter>(&json).unwrap(), filter, "{json}");
        }
    }

    #[test]
    fn the_json_form_is_plain() {
        let json = serde_json::to_string(&read("state:null->paid -actor:31")).unwrap();
        assert_eq!(
            json,
            r#"[{"test":"changed","column":"state","from":[null],"to":["paid"]},{"not":true,"test":"is","of":"actor","one_of":["31"]}]"#
        );
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for line in ["actor:", "event:gone", "xid:x", "since:soon", "actor>3", "total>", "since>3d", "note~"] {
            assert!(Filter::read(&[line.to_owned()], &clock()).is_err(), "{line}");
        }
        assert!(words("a \"b").is_err());
    }

    #[test]
    fn the_span_and_the_lists_are_what_a_store_can_check() {
        let filter = read("since:2026-01-01 until:2026-03-01 in:2026-02 -until:2026-02-10 actor:1,2 actor:null");
        let (since, until) = filter.span();
        assert_eq!(since.map(|at| at.date()), Some((2026, 2, 1)));
        assert_eq!(until.map(|at| at.date()), Some((2026, 3, 1)));
        assert_eq!(filter.only(Attribute::Actor), ["1", "2"]);
        assert!(filter.only(Attribute::Event).is_empty());
    }
}
