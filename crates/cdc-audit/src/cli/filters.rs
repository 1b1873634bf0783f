//! Filters as people give them: words, or flags ([`FilterArgs`]).

use std::collections::HashMap;
use std::ffi::OsString;

use audit_core::mac::{Space, write_sha256};
use audit_core::method::{Algorithm, Method, MethodRule};
use audit_core::position::Micros;
use audit_core::protect::DEFAULT_CLASS;
use audit_core::rules::Rules;
use audit_history::Timeline;
use audit_history::question::filter::{Attribute, Condition, Filter};
use audit_history::question::matcher::{Columns, Matcher, Sought, Unfit};
use audit_history::question::time::Clock;
use audit_history::question::zone::zone;
use audit_keys::{Access, Opener, Searched};

use super::subject;
use crate::config::Config;
use crate::error::{CliError, code};
use crate::role::{Reader, os_user};

/// Filters as flags. Each says the same as the word of that name.
#[derive(Debug, Default, clap::Args)]
pub struct FilterArgs {
    /// Only these tables, with commas between.
    #[arg(long, value_name = "TABLES")]
    table: Option<String>,
    /// Only what these actors did; `null`: what nobody is known to have done.
    #[arg(long, value_name = "ACTORS")]
    actor: Option<String>,
    /// Only these events: `created`, `updated`, `deleted` and so on.
    #[arg(long, value_name = "EVENTS")]
    event: Option<String>,
    /// Only rows with these keys.
    #[arg(long, value_name = "KEYS")]
    key: Option<String>,
    /// Only versions whose reason has this part.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only versions with this request id.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Only these transactions.
    #[arg(long, value_name = "NUMBERS")]
    xid: Option<String>,
    /// Only versions that touched this column; with --old and --new only those that changed it so.
    #[arg(long, value_name = "COLUMN")]
    field: Option<String>,
    /// The value before.
    #[arg(long, value_name = "VALUE", requires = "field")]
    old: Option<String>,
    /// The value after.
    #[arg(long, value_name = "VALUE", requires = "field")]
    new: Option<String>,
    /// Committed at or after: `2026-01-31`, "2026-01-31 14:00", `14:00`, `yesterday`, `monday`, `3d`, "3 days ago".
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Committed before.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Committed in: `2026-01`, `yesterday`, `2026-01-01..2026-01-15`.
    #[arg(long = "in", value_name = "SPAN")]
    within: Option<String>,
    /// The time zone of times that are given and shown: `Europe/Rome`, `+02:00`. Default: the configured one, else UTC.
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
}

impl FilterArgs {
    /// Now, and the zone in which times are meant.
    pub fn clock(&self, config: &Config) -> Result<Clock, CliError> {
        clock(self.tz.as_deref(), config)
    }

    /// The flags as words.
    fn words(&self) -> Vec<String> {
        let named = [
            ("table:", &self.table),
            ("actor:", &self.actor),
            ("event:", &self.event),
            ("key:", &self.key),
            ("reason~", &self.reason),
            ("request:", &self.request),
            ("xid:", &self.xid),
            ("since:", &self.since),
            ("until:", &self.until),
            ("in:", &self.within),
        ];
        let word = |(name, value): (&str, &Option<String>)| value.as_ref().map(|value| format!("{name}{value}"));
        let mut words: Vec<String> = named.into_iter().filter_map(word).collect();
        if let Some(field) = &self.field {
            let side = |side: &Option<String>| side.clone().unwrap_or_default();
            words.push(format!(".{field}:{}->{}", side(&self.old), side(&self.new)));
        }
        words
    }
}

/// Now, and the zone that was asked for, else the configured one.
pub fn clock(tz: Option<&str>, config: &Config) -> Result<Clock, CliError> {
    let name = tz.unwrap_or(&config.display.time_zone);
    let zone = zone(name).map_err(|error| CliError::of(&error).hint(error.hint()).code(code::USAGE))?;
    Ok(Clock { now: Micros::now(), zone })
}

/// A question over tables: which, and what of them.
pub struct Asked {
    pub tables: Vec<String>,
    pub filter: Filter,
    pub matcher: Matcher,
}

/// Who asks, and of what.
pub struct Asker<'a> {
    pub config: &'a Config,
    pub store: &'a Timeline,
    pub reader: &'a Reader,
    /// The command that asks, as the access log names it.
    pub action: &'a str,
}

impl Asker<'_> {
    /// Reads a filter, of which the first word may be a table, and fits it to the tables that it is about.
    pub async fn asked(&self, words: &[String], flags: &FilterArgs, clock: &Clock) -> Result<Asked, CliError> {
        let known = self.store.tables(&self.config.source.name).await?;
        let rules = self.config.rules();
        let mut words = words.to_vec();
        let first = words.first().filter(|word| is_bare(word)).cloned();
        if let Some(name) = first {
            words[0] = format!("table:{}", quoted(&subject::named(&name, &known, &rules).map_err(no_table(&name))?));
        }
        words.extend(flags.words());
        let filter =
            Filter::read(&words, clock).map_err(|error| CliError::of(&error).hint(error.hint()).code(code::USAGE))?;
        self.fitted(filter, known, &rules, clock).await
    }

    /// Fits a filter to its tables.
    async fn fitted(
        &self,
        mut filter: Filter,
        known: Vec<String>,
        rules: &Rules,
        clock: &Clock,
    ) -> Result<Asked, CliError> {
        resolve(&mut filter, &known, rules)?;
        let only = filter.only(Attribute::Table);
        let mut tables = known;
        tables.retain(|table| only.is_empty() || only.contains(table));
        if let [table] = tables.as_slice() {
            self.store_keys(&mut filter, table).await?;
        }
        let mut matcher = Matcher::new(&filter);
        if filter.columns().next().is_some() {
            tables = self.bind(&filter, &mut matcher, tables, rules, clock).await?;
        }
        Ok(Asked { tables, filter, matcher })
    }

    /// Replaces keys by their stored form.
    async fn store_keys(&self, filter: &mut Filter, table: &str) -> Result<(), CliError> {
        for term in &mut filter.terms {
            if let Condition::Is { of: Attribute::Key, one_of } = &mut term.condition {
                let keys = subject::KeyOf::table(self.config, self.store, table).await?;
                for key in one_of.iter_mut().flatten() {
                    *key = keys.stored(key)?;
                }
            }
        }
        Ok(())
    }

    /// Prepares the conditions on columns. Returns the tables in which a version can match.
    async fn bind(
        &self,
        filter: &Filter,
        matcher: &mut Matcher,
        tables: Vec<String>,
        rules: &Rules,
        clock: &Clock,
    ) -> Result<Vec<String>, CliError> {
        let unfit = |error: Unfit| CliError::of(&error).hint(error.hint()).code(code::USAGE);
        let mut shaped = Vec::new();
        for table in tables {
            let shapes = self.store.shapes(&self.config.source.name, &table).await?;
            shaped.push((rules.for_name(table.clone()), shapes, table));
        }
        let columns: Vec<Columns<'_>> =
            shaped.iter().map(|(rules, shapes, table)| Columns::new(table, shapes, rules)).collect();
        for column in filter.columns() {
            if !columns.iter().any(|columns| columns.has(column)) {
                let mut known: Vec<String> = columns.iter().flat_map(Columns::names).map(str::to_owned).collect();
                known.sort_unstable();
                known.dedup();
                return Err(unfit(Unfit::NoColumn { column: column.to_owned(), known }));
            }
        }
        let mut sought = Vec::new();
        for columns in &columns {
            sought.extend(columns.sought(filter).map_err(unfit)?);
        }
        let stored = self.stored(sought).await?;
        let mut left = Vec::new();
        for columns in &columns {
            if matcher.bind(columns, &stored, clock).map_err(unfit)? {
                left.push(columns.table().to_owned());
            }
        }
        Ok(left)
    }

    /// The stored forms of plain values, for those who may use the keys. That they were asked for is logged first.
    async fn stored(&self, sought: Vec<(Sought, &MethodRule)>) -> Result<HashMap<Sought, Vec<String>>, CliError> {
        let mut stored: HashMap<Sought, Vec<String>> = HashMap::new();
        if sought.is_empty() {
            return Ok(stored);
        }
        let endpoint = self.reader.endpoint(self.config.key_store())?;
        let opener = Opener::new(&self.config.protection.keys, endpoint, &format!("cdc-audit {}", self.action))?;
        let hash_key = self.config.policy()?.hash_key;
        let mut searched = Vec::new();
        for (sought, rule) in sought {
            let space = match &rule.domain {
                Some(domain) => Space::domain(domain),
                None => Space::column(&sought.table, &sought.column),
            };
            let (source, mut text, mut key) = (self.config.source.name.clone(), String::new(), None);
            match (rule.method, &hash_key) {
                (Method::Token, _) => {
                    let class = rule.key.as_deref().unwrap_or(DEFAULT_CLASS);
                    let token = opener.token(&source, class, space.bytes(), &sought.plain).await;
                    let token = token.map_err(|error| CliError::of(&error))?;
                    (key, text) = token.map_or((None, text), |(key, token)| (Some(key), token));
                }
                (_, _) if rule.algorithm() == Algorithm::Sha256 => write_sha256(sought.plain.as_bytes(), &mut text),
                (_, Some(hash_key)) => hash_key.write(&space, sought.plain.as_bytes(), &mut text),
                (_, None) => return Err(CliError::new("there is no protection.hash_key").code(code::USAGE)),
            }
            searched.push(Searched { source, table: sought.table.clone(), field: sought.column.clone(), key });
            if !text.is_empty() {
                stored.entry(sought).or_default().push(text);
            }
        }
        let access = Access { os_user: os_user()?, requested_by: None, action: self.action.to_owned(), purpose: None };
        opener.log_searched(&access, &searched).await.map_err(|error| {
            CliError::of(&error).hint(
                "a search for a protected value must be logged, and cdc_audit.access_log cannot be written; `setup` makes \
                 it where the configuration has [protection.keys]"
                    .to_owned(),
            )
        })?;
        Ok(stored)
    }
}

/// Replaces names of tables by their whole names.
fn resolve(filter: &mut Filter, known: &[String], rules: &Rules) -> Result<(), CliError> {
    for term in &mut filter.terms {
        if let Condition::Is { of: Attribute::Table, one_of } = &mut term.condition {
            for name in one_of.iter_mut().flatten() {
                *name = subject::named(name, known, rules)?;
            }
        }
    }
    Ok(())
}

/// Whether a word has no operator, and so names a table where it comes first.
fn is_bare(word: &str) -> bool {
    !word.starts_with(['-', '!', '"']) && !word.contains([':', '=', '~', '<', '>'])
}

/// A name as a value of a filter.
pub fn quoted(name: &str) -> String {
    if name.contains('"') { name.to_owned() } else { format!("\"{name}\"") }
}

fn no_table(name: &str) -> impl FnOnce(CliError) -> CliError {
    let hint = format!("the first word names a table; to search for a word in all tables, write word:{name}");
    move |error| error.detail(hint)
}

/// Arguments in which words such as `-event:snapshot` cannot be taken for options: they begin with `!` instead.
pub fn arguments(given: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    given.map(|argument| {
        let not = argument.to_str().and_then(|text| text.strip_prefix('-')).filter(|rest| {
            rest.starts_with(|c: char| c.is_alphabetic() || c == '.') && rest.contains([':', '=', '~', '<', '>'])
        });
        not.map_or_else(|| argument.clone(), |rest| OsString::from(format!("!{rest}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_with_an_operator_lose_their_hyphen() {
        let given = ["-event:snapshot", "-total>5", "--since=3d", "-q", "-c", "-1", "-", "orders"].map(OsString::from);
        let read: Vec<OsString> = arguments(given.into_iter()).collect();
        assert_eq!(read, ["!event:snapshot", "!total>5", "--since=3d", "-q", "-c", "-1", "-", "orders"]);
    }
}
