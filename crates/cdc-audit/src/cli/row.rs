//! What the commands about one row share: which row, what is recorded of it, and how its values are shown.

use std::borrow::Cow;
use std::process::ExitCode;

use audit_core::json::unquote;
use audit_core::position::{Micros, Position};
use audit_core::stored::Record;
use audit_history::question::point::Point;
use audit_history::question::time::Clock;
use audit_history::row::{Absent, Facts, Found, Known, State, Then, Through, Version, place};
use audit_history::{Coverage, Timeline};

use crate::cli::covered::Strict;
use crate::cli::point;
use crate::cli::subject::{self, KeyOf};
use crate::cli::when::{clock, time};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::argument;
use crate::role::Reader;
use crate::store::{Explain, open_reachable};

/// Number of versions that are read of a row. The numbers of versions, and what is known of the earliest, depend on all
/// of them.
pub const VERSIONS_MAX: u32 = 100_000;

#[derive(Debug, clap::Args)]
pub struct RowArgs {
    /// `schema.table`, or the table's name or label alone where only one table has it.
    pub table: String,
    /// The row's key: `42`; of several columns `42,3`, "order_id=42 line=3", or a JSON array. `-`: a line of standard input, which no other
    /// user of the machine can see.
    pub key: String,
    #[command(flatten)]
    pub source: SourceArgs,
}

/// From where, and for whom, the trail is read.
#[derive(Debug, clap::Args)]
pub struct SourceArgs {
    /// The sink to read from. Default: hot tables and lake as one.
    #[arg(long, value_name = "SINK")]
    from: Option<String>,
    /// Only what this tenant has, in a sink that keeps tenants apart. `-`: a line of standard input.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The time zone of times that are given and shown: `Europe/Rome`, `+02:00`.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    /// JSON, one record a line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub strict: Strict,
    #[command(flatten)]
    explain: Explain,
    #[command(flatten)]
    pub reader: Reader,
}

/// A row's trail, as it was read.
pub struct Asked {
    /// The table's whole name.
    pub table: String,
    /// The key as it was given, and as it is stored.
    pub given: String,
    pub key: String,
    /// Oldest first.
    pub records: Vec<Record>,
    /// What is missing for every row of the table.
    pub marks: Vec<Record>,
    pub facts: Facts,
    pub coverage: Coverage,
    pub strict: Strict,
    pub clock: Clock,
    source: String,
    store: Timeline,
    explain: Explain,
    json: bool,
}

impl SourceArgs {
    /// Opens what is read, and says what now is.
    pub async fn open(&self, config: &Config) -> Result<(Timeline, Clock), CliError> {
        let tenant = self.tenant.clone().map(argument).transpose()?;
        self.reader.check(config)?;
        let clock = clock(&self.tz)?;
        let store = open_reachable(config, self.from.as_deref(), tenant.as_deref(), &self.reader).await?;
        self.explain.begin(&store);
        Ok((store, clock))
    }

    /// After the answer: what was read for it, if that is asked for.
    pub fn explain(&self, store: &Timeline) {
        self.explain.say(store, self.json);
    }
}

impl Asked {
    pub async fn read(args: RowArgs, config: &Config) -> Result<Asked, CliError> {
        let RowArgs { table, key: given, source } = args;
        let given = argument(given)?;
        let (store, clock) = source.open(config).await?;
        let table = subject::table(config, &store, &table).await?;
        let key = KeyOf::table(config, &store, &table).await?.stored(&given)?;
        let name = &config.source.name;
        let mut records = store.history(name, &table, &key, VERSIONS_MAX).await?;
        records.reverse();
        let marks = store.marks(name, &table).await?;
        let complete = records.len() < VERSIONS_MAX as usize;
        let facts = Facts::new(store.shapes(name, &table).await?, &marks, complete);
        let mut coverage = store.coverage(name).await?;
        let is_first = records.first().is_some_and(|record| record.event == "created");
        coverage.numbered_from = (store.is_partial() && !is_first).then(|| store.sink().to_owned());
        let (name, strict, explain, json) = (name.clone(), source.strict, source.explain, source.json);
        let source = name;
        Ok(Asked { table, given, key, records, marks, facts, coverage, strict, clock, source, store, explain, json })
    }

    /// After the answer: what was read for it, if that is asked for.
    pub fn explain(&self) {
        self.explain.say(&self.store, self.json);
    }

    /// Says what the answer covers, and returns the exit code.
    pub fn close(&self, otherwise: ExitCode) -> ExitCode {
        let code = self.strict.close(&self.coverage, otherwise);
        self.explain();
        code
    }

    /// What the answer covers, for programs.
    pub fn coverage_json(&self) -> String {
        serde_json::to_string(&self.coverage).unwrap_or_else(|_| "null".to_owned())
    }

    /// The row up to a position; nothing is looked through.
    pub fn then(&self, until: Option<Position>) -> Then<'_> {
        self.then_through(until, |_| Through::Nothing)
    }

    /// The same, where blame looks through versions.
    pub fn then_through(&self, until: Option<Position>, through: impl Fn(&Record) -> Through) -> Then<'_> {
        Then::read(&self.facts, self.records.clone(), &self.marks, until, through)
    }

    /// The last position that counts for a point; `None` if all do.
    pub async fn until(&self, text: Option<&str>) -> Result<Option<Position>, CliError> {
        let point = text.map_or(Ok(Point::Now), |text| point::read(text, &self.clock))?;
        if point == Point::Now {
            return Ok(None);
        }
        let hint = || format!("cdc-audit history {} {} shows its versions", shell(&self.table), shell(&self.given));
        let own = place(&self.facts, &self.records, point);
        if let Some(own) = own.map_err(|error| CliError::of(&error).hint(hint()).code(code::USAGE))? {
            return Ok(Some(own));
        }
        if self.store.head().is_none() {
            return Ok(Some(Position::default()));
        }
        let before = point::before(&self.store, &self.source, &point, &self.clock).await?;
        Ok(Some(before.previous().unwrap_or_default()))
    }

    /// A time in the zone that was asked for, to the second.
    pub fn time(&self, at: Micros) -> String {
        time(&self.clock, at)
    }

    pub fn zone(&self) -> &str {
        self.clock.zone.iana_name().unwrap_or("UTC")
    }

    /// The state's columns in the table's order.
    pub fn in_order<'s>(&self, state: &'s State) -> Vec<(&'s String, &'s Known)> {
        let mut columns: Vec<_> = state.iter().collect();
        columns.sort_by_cached_key(|(column, _)| self.facts.place(column));
        columns
    }

    /// The column that was asked for, by the name that it has now.
    pub fn has_column(&self, column: &str) -> Result<(), CliError> {
        let columns: Vec<&str> = self
            .facts
            .newest()
            .map_or_else(Vec::new, |shape| shape.columns.iter().map(|column| column.name.as_str()).collect());
        if columns.is_empty() || columns.contains(&column) || self.facts.place(column).0 != usize::MAX {
            return Ok(());
        }
        let hint = format!("its columns are {}", columns.join(", "));
        Err(CliError::new(format!("{} has no column {column}", self.table)).hint(hint).code(code::USAGE))
    }

    /// The error of a row that is not there, which says why.
    pub fn absent(&self, then: &Then<'_>, absent: &Absent) -> CliError {
        let row = format!("{} {}", self.table, self.given);
        let by = |at: &usize| then.versions.get(*at).map(|version| self.by(version)).unwrap_or_default();
        let filtered =
            self.facts.newest().and_then(|shape| shape.rules.as_ref()).is_some_and(|rules| rules.filter.is_some());
        let left = if filtered { ", or no longer fulfilled the table's `where`" } else { "" };
        let what = match absent {
            Absent::NeverSeen => format!("{row}: no version names this key"),
            Absent::NotYet => format!("{row} was not there yet"),
            Absent::BeforeCapture => format!("{row} was not seen yet: whether it existed then is not known"),
            Absent::Deleted(at) => format!("{row} was deleted{left}: {}", by(at)),
            Absent::Truncated(at) => format!("{row} was removed by TRUNCATE: {}", by(at)),
        };
        match self.strict.refuses(&self.coverage) {
            true => CliError::new(what).detail(self.coverage.to_string()).code(code::INCOMPLETE),
            false => CliError::new(what).code(code::NOT_FOUND),
        }
    }

    fn by(&self, version: &Version) -> String {
        let record = &version.record;
        let who =
            record.actor_id.as_deref().map_or_else(|| "by an unknown actor".to_owned(), |who| format!("by {who}"));
        format!("{who}, {} {}, position {}", self.time(record.committed_at), self.zone(), record.position)
    }
}

/// The word for programs.
pub fn absent_name(absent: &Absent) -> &'static str {
    match absent {
        Absent::NeverSeen => "never_seen",
        Absent::NotYet => "not_yet",
        Absent::BeforeCapture => "before_capture",
        Absent::Deleted(_) => "deleted",
        Absent::Truncated(_) => "truncated",
    }
}

/// The version that ended the row.
pub fn ended<'t>(then: &'t Then<'_>, absent: &Absent) -> Option<&'t Version> {
    match absent {
        Absent::Deleted(at) | Absent::Truncated(at) => then.versions.get(*at),
        _ => None,
    }
}

/// The row's state and shape; no values if it is not there.
pub fn side(found: &Found) -> (u32, State) {
    match found {
        Found::Row(standing) => (standing.schema_version, standing.state.clone()),
        Found::Absent(_) => (0, State::new()),
    }
}

/// `4 d 18 h`, `12 s`: the two largest units of a span of seconds.
pub fn span(seconds: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let (sign, mut rest) = if seconds < 0 { ("-", seconds.saturating_neg()) } else { ("", seconds) };
    let mut parts = Vec::new();
    for (length, unit) in UNITS {
        if rest >= length && parts.len() < 2 {
            parts.push(format!("{} {unit}", rest / length));
            rest %= length;
        } else if !parts.is_empty() {
            break;
        }
    }
    match parts.is_empty() {
        true => "0 s".to_owned(),
        false => format!("{sign}{}", parts.join(" ")),
    }
}

/// A value as people read it: a string without its quotes, `∅` for NULL.
pub fn text(json: &str) -> Cow<'_, str> {
    match json {
        "null" => Cow::Borrowed("∅"),
        json if json.starts_with('"') => unquote(json),
        json => Cow::Borrowed(json),
    }
}

/// What is known of a value: `~` marks one that is derived, `●` one that is protected, `?` one that is not known.
pub fn shown(facts: &Facts, schema_version: u32, column: &str, known: &Known) -> String {
    let protected = facts.rules(schema_version, column).is_some_and(|rules| rules.protection.is_some());
    let mark = if protected { "● " } else { "" };
    match known {
        Known::Stated(json) => format!("{mark}{}", cut(&text(json))),
        Known::Derived(json) => format!("~{mark}{}", cut(&text(json))),
        Known::Unknown(why) => format!("?  {why}"),
    }
}

/// Number of characters of a value that a table shows; `show --field` and `--json` show all of it.
const SHOWN_MAX: usize = 200;

fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// A word as a shell takes it.
pub fn shell(word: &str) -> String {
    match word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        let shown = [0, 59, 3_600, 16_200, 410_400, 86_401, -90].map(span);
        assert_eq!(shown, ["0 s", "59 s", "1 h", "4 h 30 min", "4 d 18 h", "1 d", "-1 min 30 s"]);
    }
}
