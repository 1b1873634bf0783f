//! `cdc-audit search`.

use std::collections::{BTreeSet, HashMap};
use std::process::ExitCode;

use audit_core::position::{Micros, Position};
use audit_core::search::{Commit, Moment, Wanted};
use audit_core::stored::Record;
use audit_history::question::filter::{Attribute, Condition, Term, words};
use audit_history::question::matcher::UNTOLD_MAX;
use audit_history::question::time::Clock;
use audit_history::search::{Counts, Found, Group, Page, count, search, wanted};
use audit_history::{Coverage, Renames, Span, Timeline, renamed};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::json;

use super::covered::Strict;
use super::filters::{Asked, Asker, FilterArgs};
use crate::actors::{Actors, Named};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{argument, csv, print_exactly, print_json, table};
use crate::role::Reader;
use crate::store::{Explain, open, open_reachable};

mod cursor;
mod since;
mod what;

pub use what::{actor, time, what};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cdc-audit search orders 'state:open->paid' actor:31,32 since:8d\n  \
    cdc-audit search reason~refund -event:snapshot --json\n  \
    cdc-audit search orders 'total>1000' --group-by actor,day\n  \
    cdc-audit search @refunds --since-last nightly      the saved question [questions.refunds], only what is new\n\n\
    Filters: actor:31,32  event:deleted  key:42  reason~part  request:ID  xid:7311  since:3d  until:2026-02-01  in:2026-01;\n\
    state:  (touched)   state:open->paid   state:->paid   state:null->   state:paid   total>1000   note~part;   word:part.\n\
    A comma means \"or\", a leading - \"not\"; null is NULL, '\"null\"' the text. Quote < and > for the shell.")]
pub struct Args {
    /// A table, if any, then filters; or `@NAME`, a question of the configuration, then further filters.
    #[arg(value_name = "TABLE|FILTER")]
    words: Vec<String>,
    #[command(flatten)]
    flags: FilterArgs,
    /// Show each row once, with its newest version that matches.
    #[arg(long, conflicts_with_all = ["count", "group_by"])]
    rows: bool,
    /// Say only how many versions match.
    #[arg(long)]
    count: bool,
    /// Count by these, with commas between.
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    group_by: Vec<GroupBy>,
    /// At most so many answers.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Only older ones than the page that ended with this cursor.
    #[arg(long, value_name = "CURSOR")]
    before: Option<String>,
    /// Only versions at or before this position: the head of an earlier answer, which is then repeated.
    #[arg(long, value_name = "POSITION")]
    head: Option<Position>,
    #[command(flatten)]
    strict: Strict,
    /// Only what was recorded since the last answer under this name, and all of it.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["before", "head", "limit", "rows", "count", "group_by", "page"])]
    since_last: Option<String>,
    /// The sink to read from. Default: a hot one, else a lake.
    #[arg(long, value_name = "SINK")]
    from: Option<String>,
    /// Only what this tenant has, in a sink that keeps tenants apart. `-`: a line of standard input.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// One JSON record a line.
    #[arg(long, group = "form")]
    json: bool,
    /// Comma-separated values.
    #[arg(long, group = "form")]
    csv: bool,
    /// One JSON object: the answers as `items`, `next` for --before, `head` for --head, and `coverage`: what the answer covers.
    #[arg(long, group = "form")]
    page: bool,
    /// Columns under the names that they had then, and actors by their ids alone.
    #[arg(long, conflicts_with_all = ["count", "group_by"])]
    raw: bool,
    /// End with exit code 8 if nothing is found, and print nothing.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    explain: Explain,
    #[command(flatten)]
    reader: Reader,
}

/// What `--group-by` takes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum GroupBy {
    Actor,
    Event,
    Field,
    Table,
    Day,
}

impl GroupBy {
    fn group(self) -> Group {
        match self {
            GroupBy::Actor => Group::Actor,
            GroupBy::Event => Group::Event,
            GroupBy::Field => Group::Field,
            GroupBy::Table => Group::Table,
            GroupBy::Day => Group::Day,
        }
    }

    /// The name of its values, as in the record where it has one.
    fn name(self) -> &'static str {
        match self {
            GroupBy::Actor => "actor_id",
            GroupBy::Event => "event",
            GroupBy::Field => "field",
            GroupBy::Table => "table_name",
            GroupBy::Day => "day",
        }
    }
}

/// A question with what answers it.
struct Search<'a> {
    args: &'a Args,
    config: &'a Config,
    source: &'a str,
    store: Timeline,
    asked: Asked,
    wanted: Wanted,
    clock: Clock,
    coverage: Coverage,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    args.reader.check(config)?;
    let clock = args.flags.clock(config)?;
    let tenant = args.tenant.clone().map(argument).transpose()?;
    let from = args.from.as_deref();
    // ⚠ A series moves on after its answer, and would not come back to what a lake that cannot be read has.
    let store = match args.since_last {
        Some(_) => open(config, from, tenant.as_deref(), &args.reader).await?,
        None => open_reachable(config, from, tenant.as_deref(), &args.reader).await?,
    };
    let store = args.head.map_or(store.clone(), |head| store.up_to(head));
    args.explain.begin(&store);
    let words = saved(&args.words, config)?;
    let asker = Asker { config, store: &store, reader: &args.reader, action: "search" };
    let asked = asker.asked(&words, &args.flags, &clock).await?;
    let source = &config.source.name;
    let wanted = wanted(source, asked.tables.clone(), &asked.filter, &asked.matcher);
    let coverage = store.coverage_of(source, Span { since: wanted.since, until: wanted.until }).await?;
    let coverage = args.head.map_or(coverage.clone(), |head| coverage.up_to(head));
    let search = Search { args: &args, config, source, store, asked, wanted, clock, coverage };
    search.say_what_is_asked();
    let found = match (&args.since_last, args.count || !args.group_by.is_empty()) {
        (Some(name), _) => since::answer(&search, name).await?,
        (None, true) => search.count().await?,
        (None, false) => search.page().await?,
    };
    let code = match found {
        _ if !args.quiet => args.strict.close(&search.coverage, ExitCode::SUCCESS),
        _ if args.strict.refuses(&search.coverage) => ExitCode::from(code::INCOMPLETE),
        0 => ExitCode::from(code::NOT_FOUND),
        _ => ExitCode::SUCCESS,
    };
    args.explain.say(&search.store, args.json || args.page);
    Ok(code)
}

/// The words, with those of a saved question in place of its name.
fn saved(given: &[String], config: &Config) -> Result<Vec<String>, CliError> {
    let Some(name) = given.first().and_then(|first| first.strip_prefix('@')) else { return Ok(given.to_vec()) };
    let Some(question) = config.questions.get(name) else {
        let known: Vec<String> = config.questions.keys().map(|name| format!("@{name}")).collect();
        let hint = match known.is_empty() {
            true => format!("add [questions.{name}] with search = \"…\" to the configuration"),
            false => format!("the questions are {}", known.join(", ")),
        };
        return Err(CliError::new(format!("there is no question {name}")).hint(hint).code(code::USAGE));
    };
    let saved = words(&question.search);
    let saved = saved.map_err(|error| CliError::of(&error).hint(error.hint()).code(code::USAGE))?;
    Ok(saved.into_iter().chain(given[1..].iter().cloned()).collect())
}

impl Search<'_> {
    /// What was understood, on standard error.
    fn say_what_is_asked(&self) {
        if self.args.quiet {
            return;
        }
        let zone = &self.clock.zone;
        let bound = |at: Option<Micros>, none: &str| at.map_or_else(|| none.to_owned(), |at| time(at, zone));
        let tables = match self.asked.tables.as_slice() {
            [] => "no table can match".to_owned(),
            [table] => table.clone(),
            tables => format!("{} tables", tables.len()),
        };
        let about_rows = |term: &&Term| !matches!(term.condition, Condition::Is { of: Attribute::Table, .. });
        let terms = self.asked.filter.terms.iter().filter(about_rows).map(|term| format!(" {term}"));
        let filter: String = terms.collect();
        let (since, until) = (bound(self.wanted.since, "the beginning"), bound(self.wanted.until, "now"));
        let zone = zone.iana_name().map_or_else(|| time_zone(zone), str::to_owned);
        eprintln!(
            "{}",
            audit_config::visible(&format!("{tables}{filter} · {since} … {until} {zone} · {}", self.store.sink()))
        );
    }

    async fn count(&self) -> Result<u64, CliError> {
        let groups: Vec<Group> = self.args.group_by.iter().map(|group| group.group()).collect();
        let (matcher, zone, mut renames) = (&self.asked.matcher, &self.clock.zone, self.renames());
        let counts = count(&self.store, &self.wanted, matcher, &groups, zone, &mut renames).await;
        let counts = counts.map_err(|error| match error {
            audit_history::search::CountError::Store(error) => error.into(),
            error => CliError::of(&error).hint("count by fewer things, or search in a shorter time".to_owned()),
        })?;
        let total = if groups.is_empty() { counts.values().sum() } else { counts.len() as u64 };
        if !self.args.quiet {
            self.print_counts(counts)?;
            self.say_untold();
        }
        Ok(total)
    }

    fn print_counts(&self, counts: Counts) -> Result<(), CliError> {
        let names: Vec<&str> = self.args.group_by.iter().map(|group| group.name()).collect();
        if names.is_empty() {
            let count: u64 = counts.values().sum();
            return match self.args {
                Args { page: true, .. } => {
                    print_json(&json!({ "count": count, "head": self.coverage.head, "coverage": self.coverage }))
                }
                Args { json: true, .. } => print_json(&json!({ "count": count })),
                _ => print_exactly(count),
            };
        }
        let mut counts: Vec<(Vec<Option<String>>, u64)> = counts.into_iter().collect();
        // Days are a series; everything else is asked for its largest part.
        if !names.contains(&"day") {
            counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        }
        let header: Vec<&str> = names.iter().copied().chain(["count"]).collect();
        let (mut rows, mut items) = (table(&header), Vec::new());
        if self.args.csv {
            print_exactly(csv(&header))?;
        }
        for (values, count) in counts {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            let cells: Vec<String> = values.iter().map(text).chain([count.to_string()]).collect();
            if self.args.json || self.args.page {
                let mut line = serde_json::Map::new();
                line.extend(names.iter().zip(&values).map(|(name, value)| ((*name).to_owned(), json!(value))));
                line.insert("count".to_owned(), json!(count));
                items.push(line);
            } else if self.args.csv {
                print_exactly(csv(&cells))?;
            } else {
                rows.add_row(cells);
            }
        }
        match self.args {
            Args { page: true, .. } => self.print_page(&items, None),
            Args { json: true, .. } => items.iter().try_for_each(print_json),
            Args { csv: true, .. } => Ok(()),
            _ => rows.print(),
        }
    }

    fn print_page(&self, items: &[impl Serialize], next: Option<&str>) -> Result<(), CliError> {
        let (head, coverage) = (self.coverage.head, &self.coverage);
        print_json(&json!({ "items": items, "next": next, "head": head, "coverage": coverage }))
    }

    async fn page(&self) -> Result<u64, CliError> {
        let mut wanted = self.wanted.clone();
        if let Some(cursor) = &self.args.before {
            wanted.before = Some(cursor::read(cursor, &self.asked.filter)?);
        }
        let limit = if self.args.quiet { 1 } else { self.args.limit };
        let page =
            search(&self.store, &wanted, &self.asked.matcher, limit, self.args.rows, &self.config.rules()).await?;
        let found = page.found.len() as u64;
        if self.args.quiet {
            return Ok(found);
        }
        let next = page
            .found
            .last()
            .filter(|_| page.more)
            .map(|last| cursor::write(Moment::of(&last.record), &self.asked.filter));
        let page = Page { found: self.named(page.found).await?, ..page };
        self.print(&page, next.as_deref(), true).await?;
        self.say_untold();
        Ok(found)
    }

    fn renames(&self) -> Renames<'_> {
        Renames::new(&self.store, self.source, self.config.rules())
    }

    /// The versions as they are shown.
    async fn named(&self, found: Vec<Found>) -> Result<Vec<Found>, CliError> {
        if self.args.raw {
            return Ok(found);
        }
        let (mut renames, mut all) = (self.renames(), Vec::with_capacity(found.len()));
        for Found { record, mut derived } in found {
            let names = renames.of_table(&record.table_name).await?;
            derived.iter_mut().for_each(|name| *name = names.shown(record.schema_version, name).into_owned());
            all.push(Found { record: renamed(names, record), derived });
        }
        Ok(all)
    }

    /// `is_first`: of an answer that comes in several pages only the first begins with a header.
    async fn print(&self, page: &Page, next: Option<&str>, is_first: bool) -> Result<(), CliError> {
        let mut actors = Actors::new(self.config, self.args.raw || self.args.csv);
        actors.read(page.found.iter().map(|found| &found.record)).await;
        match self.args {
            Args { page: true, .. } => {
                let items: Vec<_> = page.found.iter().map(|found| named(found, &actors)).collect();
                self.print_page(&items, next)?;
            }
            Args { json: true, .. } => page.found.iter().try_for_each(|found| print_json(&named(found, &actors)))?,
            Args { csv: true, .. } => {
                if is_first {
                    print_exactly(csv(&CSV))?;
                }
                page.found.iter().try_for_each(|found| print_exactly(csv(&csv_cells(&found.record))))?;
            }
            _ => self.show(page, &actors).await?,
        }
        let rows: BTreeSet<_> = page.found.iter().map(|found| (&found.record.table_name, &found.record.key)).collect();
        eprintln!("{} versions of {} rows", page.found.len(), rows.len());
        if let Some(next) = next {
            eprintln!("older ones: --before {next}");
        }
        Ok(())
    }

    async fn show(&self, page: &Page, actors: &Actors<'_>) -> Result<(), CliError> {
        let commits: BTreeSet<(Commit, Micros)> =
            page.found.iter().map(|Found { record, .. }| (Commit::of(record.position), record.committed_at)).collect();
        let commits: Vec<(Commit, Micros)> = commits.into_iter().collect();
        let sizes = self.store.commit_sizes(self.source, &commits).await?;
        let mut rows = table(&["when", "row", "who", "what", "why", "transaction"]);
        for found in &page.found {
            rows.add_row(self.cells(found, &sizes, actors));
        }
        if page.found.is_empty() { Ok(()) } else { rows.print() }
    }

    fn cells(
        &self,
        Found { record, derived }: &Found,
        sizes: &HashMap<Commit, u64>,
        actors: &Actors<'_>,
    ) -> [String; 6] {
        let mark = if derived.is_empty() { "" } else { "~" };
        let others = sizes.get(&Commit::of(record.position)).map_or(0, |size| size.saturating_sub(1));
        let others = if others > 0 { format!(" (+{others})") } else { String::new() };
        [
            time(record.committed_at, &self.clock.zone),
            format!("{} {}", record.table_name, record.key.as_deref().unwrap_or_default()).trim_end().to_owned(),
            actor(record, actors),
            format!("{mark}{}", what(record)),
            record.reason.clone().unwrap_or_default(),
            format!("xid {}{others}", record.xid),
        ]
    }

    fn say_untold(&self) {
        match self.asked.matcher.untold() {
            0 => {}
            1 => eprintln!("1 version could not be told: what it changed is not known"),
            UNTOLD_MAX => eprintln!("{UNTOLD_MAX} versions or more could not be told: what they changed is not known"),
            untold => eprintln!("{untold} versions could not be told: what they changed is not known"),
        }
    }
}

fn named<'n>(found: &'n Found, actors: &'n Actors<'_>) -> Named<'n, Found> {
    Named { version: found, actor_name: actors.name(found.record.actor_id.as_deref()) }
}

const CSV: [&str; 10] =
    ["committed_at", "table_name", "key", "event", "actor_id", "reason", "changes", "xid", "position", "summary"];

fn csv_cells(record: &Record) -> [String; 10] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        record.committed_at.to_string(),
        record.table_name.clone(),
        text(&record.key),
        record.event.clone(),
        text(&record.actor_id),
        text(&record.reason),
        record.changes.as_deref().map(|changes| changes.get().to_owned()).unwrap_or_default(),
        record.xid.to_string(),
        record.position.to_string(),
        record.summary.clone(),
    ]
}

/// A zone without a name, by its offset now.
fn time_zone(zone: &TimeZone) -> String {
    zone.to_offset(Timestamp::UNIX_EPOCH).to_string()
}
