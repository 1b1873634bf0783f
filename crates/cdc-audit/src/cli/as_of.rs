//! `cdc-audit as-of`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use audit_config::ByteSize;
use audit_core::position::Position;
use audit_core::rules::Rules;
use audit_history::question::point::Point;
use audit_history::rows::files::{Folder, RowsManifest, csv_header, csv_line};
use audit_history::rows::{Asked, Row, RowsError, TableAt, line};
use audit_history::{Coverage, Format, Timeline};

use super::filters::{Asked as Question, Asker, FilterArgs, quoted};
use super::row::{SourceArgs, shown};
use super::when::time;
use super::{point, subject};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{bytes, note, print, print_exactly, table};

/// Number of rows of each table that are shown to people without `--limit`.
const SHOWN: usize = 100;

/// The tables of records that belong to no table of the source.
const PSEUDO: [&str; 2] = ["cdc_audit.gap", "cdc_audit.error"];

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cdc-audit as-of '2026-01-15 12:00' orders\n  \
    cdc-audit as-of yesterday orders --where state:open --where 'total>1000' --json\n  \
    cdc-audit as-of 'before xid:7311' orders customers --to ./before --format csv\n  \
    cdc-audit as-of 2026-01-01 --to ./new-year --format parquet      all tables, at one position\n\n\
    Exit codes: 0 shown, 8 nothing was recorded then, or no such transaction, 9 --strict and something is missing.")]
pub struct Args {
    /// A time, a position, "before POSITION", "before xid:N", or `now`: for all tables it is one position, whole transactions only.
    point: String,
    /// Tables: by name, with the schema or without, or by label. Default: all tables.
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// Only rows with such a value, or such a key; may be given several times: `state:open`, `total>1000`, `note~late`, `key:42`.
    #[arg(long = "where", value_name = "FILTER")]
    filters: Vec<String>,
    /// Write a file for each table, and a manifest, into a folder that is empty or does not exist.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["json", "csv", "limit"])]
    to: Option<PathBuf>,
    /// The form of the files. Default: `jsonl`.
    #[arg(long, value_enum, requires = "to")]
    format: Option<super::export::Format>,
    /// Comma-separated values, of one table.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// At most so many rows of each table. Default: 100 in a table for people, else all.
    #[arg(long, value_name = "ROWS")]
    limit: Option<usize>,
    /// The memory that rows may take, about; what does not fit is read in further passes.
    #[arg(long, value_name = "SIZE", default_value = "256 MiB")]
    memory: ByteSize,
    #[command(flatten)]
    source: SourceArgs,
}

/// What was asked, and what answers it.
struct AsOf<'a> {
    args: &'a Args,
    source: &'a str,
    rules: Rules,
    question: Question,
    before: Position,
    told: Told,
}

/// What the answer says of itself at its end.
#[derive(Default)]
struct Told {
    rows: u64,
    /// Rows with a value that is not known.
    unknown: u64,
    /// Rows of which it is not known whether they fulfil the filters.
    untold: u64,
    left_out: Vec<String>,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let (store, clock) = args.source.open(config).await?;
    let source = config.source.name.as_str();
    let point = point::read(&args.point, &clock)?;
    let question = ask(&args, &store, config).await?;
    let before = point::before(&store, source, &point, &clock).await?;
    let at = before.previous().unwrap_or_default();
    let coverage = store.coverage(source).await?.up_to(match point {
        Point::At(position) => position,
        _ => at,
    });
    let meant = match point {
        Point::Time(at) => format!("{} {}, ", time(&clock, at), clock.zone.iana_name().unwrap_or("UTC")),
        _ => String::new(),
    };
    note(format!("as of {meant}position {at}"));
    let mut asked = AsOf { args: &args, source, rules: config.rules(), question, before, told: Told::default() };
    match &args.to {
        Some(to) => asked.write(&store, to, coverage.clone()).await?,
        None => asked.show(&store).await?,
    }
    asked.told.say();
    args.source.explain(&store);
    let code = args.source.strict.close(&coverage, ExitCode::SUCCESS);
    Ok(if asked.told.left_out.is_empty() { code } else { args.source.strict.code(false, code) })
}

/// The tables and what is asked of their rows.
async fn ask(args: &Args, store: &Timeline, config: &Config) -> Result<Question, CliError> {
    let mut words = Vec::new();
    let mut names = Vec::new();
    for name in &args.tables {
        names.push(quoted(&subject::table(config, store, name).await?));
    }
    if !names.is_empty() {
        words.push(format!("table:{}", names.join(",")));
    }
    words.extend(args.filters.iter().cloned());
    let asker = Asker { config, store, reader: &args.source.reader, action: "as-of" };
    let clock = super::when::clock(None, config)?;
    let mut question = asker.asked(&words, &FilterArgs::default(), &clock).await?;
    if let Some(term) = question.filter.terms.iter().find(|term| !term.is_about_rows()) {
        return Err(CliError::new(format!("{term} asks about versions, and as-of shows rows"))
            .hint("filter by values or keys: state:open, total>1000, note~late, key:42".to_owned())
            .code(code::USAGE));
    }
    question.tables.retain(|table| !PSEUDO.contains(&table.as_str()));
    if args.csv && question.tables.len() != 1 {
        return Err(CliError::new("--csv shows one table, because tables have different columns")
            .hint("name a table, or write a file for each with --to DIR --format csv".to_owned())
            .code(code::USAGE));
    }
    Ok(question)
}

/// The wanted tables of each part of the store, with its tenant.
pub async fn tables(
    store: &Timeline,
    (source, rules): (&str, &Rules),
    wanted: &[String],
    before: Position,
    memory: ByteSize,
) -> Result<Vec<(Option<String>, TableAt)>, CliError> {
    let mut tables = Vec::new();
    for part in store.parts(source).await?.into_iter().filter(|part| !part.gaps_only) {
        let known = part.store.tables(source).await?;
        for table in known.into_iter().filter(|table| wanted.contains(table)) {
            let memory = usize::try_from(memory.get()).unwrap_or(usize::MAX);
            let renames = rules.for_name(table.clone()).rule.renames;
            let asked = Asked { source: source.to_owned(), table, renames, before, memory };
            tables.push((part.tenant.as_deref().map(str::to_owned), TableAt::open(&part.store, asked).await?));
        }
    }
    Ok(tables)
}

impl AsOf<'_> {
    async fn tables(&self, store: &Timeline) -> Result<Vec<(Option<String>, TableAt)>, CliError> {
        tables(store, (self.source, &self.rules), &self.question.tables, self.before, self.args.memory).await
    }

    /// Gives each row that is part of the answer, until `each` says that it has enough.
    async fn rows(
        &mut self,
        table: &TableAt,
        mut each: impl FnMut(&Row) -> Result<bool, CliError>,
    ) -> Result<(), CliError> {
        let mut rows = table.rows();
        loop {
            let row = match rows.next().await {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(()),
                Err(error @ RowsError::NoKey { .. }) if self.args.tables.is_empty() => {
                    self.told.left_out.push(error.to_string());
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            match self.question.matcher.holds(table.name(), &row.key, &row.standing.state) {
                Some(false) => continue,
                None => self.told.untold += 1,
                Some(true) if !each(&row)? => return Ok(()),
                Some(true) => {
                    self.told.rows += 1;
                    self.told.unknown += u64::from(row.standing.has_unknown());
                }
            }
        }
    }

    async fn show(&mut self, store: &Timeline) -> Result<(), CliError> {
        for (tenant, table) in self.tables(store).await? {
            let tenant = tenant.as_deref();
            match (self.args.source.json, self.args.csv) {
                (true, _) => self.print(&table, |row| line(&table, tenant, row)).await?,
                (false, true) => {
                    let columns = table.columns();
                    print_exactly(csv_header(&columns))?;
                    self.print(&table, |row| csv_line(&columns, row)).await?;
                }
                (false, false) => self.draw(&table, tenant).await?,
            }
        }
        Ok(())
    }

    async fn print(&mut self, table: &TableAt, line: impl Fn(&Row) -> String) -> Result<(), CliError> {
        let mut left = self.args.limit.unwrap_or(usize::MAX);
        self.rows(table, |row| {
            if left == 0 {
                return Ok(false);
            }
            left -= 1;
            print_exactly(line(row)).map(|()| true)
        })
        .await
    }

    /// A table for people.
    async fn draw(&mut self, at: &TableAt, tenant: Option<&str>) -> Result<(), CliError> {
        let columns = at.columns();
        let header: Vec<&str> = columns.iter().map(String::as_str).collect();
        let (mut rows, mut count, mut more) = (table(&header), 0, false);
        let limit = self.args.limit.unwrap_or(SHOWN);
        self.rows(at, |row| {
            more = count == limit;
            if !more {
                count += 1;
                rows.add_row(cells(at, &columns, row));
            }
            Ok(!more)
        })
        .await?;
        let tenant = tenant.map(|tenant| format!(" of tenant {tenant}")).unwrap_or_default();
        let ending = if more { ", and more: --limit shows them" } else { "" };
        note(format!("{}{tenant}, rows: {count}{ending}", at.name()));
        if count > 0 { rows.print() } else { Ok(()) }
    }

    /// Files and a manifest.
    async fn write(&mut self, store: &Timeline, to: &Path, coverage: Coverage) -> Result<(), CliError> {
        let format: Format = self.args.format.map_or(Format::Jsonl, Into::into);
        let folder = Folder::open(to, format)?;
        let position = self.before.previous().unwrap_or_default();
        let mut manifest = RowsManifest::new(self.source, &self.args.point, position, format, coverage);
        for (tenant, at) in self.tables(store).await? {
            let mut file = folder.begin(&at, tenant.as_deref())?;
            let left_out = self.told.left_out.len();
            self.rows(&at, |row| Ok(file.push(&at, row).map(|()| true)?)).await?;
            match self.told.left_out.len() > left_out {
                true => file.discard()?,
                false => manifest.files.push(file.finish()?),
            }
        }
        manifest.rows = self.told.rows;
        manifest.left_out = self.told.left_out.clone();
        folder.finish(&manifest)?;
        let mut rows = table(&["file", "rows", "size", "sha256"]);
        for file in &manifest.files {
            let size = bytes(file.bytes);
            rows.add_row([file.path.clone(), file.rows.to_string(), size, file.sha256.clone()]);
        }
        rows.print()?;
        print(format!("{} rows in {}", manifest.rows, to.join("manifest.json").display()))
    }
}

/// The cells of a row; a value that is not known says why.
fn cells(table: &TableAt, columns: &[String], row: &Row) -> Vec<String> {
    let state = &row.standing.state;
    let cell = |column: &String| {
        let known = state.get(column)?;
        Some(shown(&table.facts, row.standing.schema_version, column, known))
    };
    columns.iter().map(|column| cell(column).unwrap_or_default()).collect()
}

impl Told {
    fn say(&self) {
        for what in &self.left_out {
            note(format!("left out: {what}"));
        }
        if self.unknown > 0 {
            note(format!(
                "in {} of {} rows a value is not known: it is marked with the reason",
                self.unknown, self.rows
            ));
        }
        if self.untold > 0 {
            note(format!(
                "rows that could not be told: {}, because a value that the filters ask for is not known",
                self.untold
            ));
        }
    }
}
