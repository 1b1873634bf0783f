//! `cdc-audit plan`.

mod sample;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use audit_capture::catalog::{PublishedTable, published};
use audit_capture::former_names;
use audit_core::inside::Form;
use audit_core::method::{Method, MethodRule};
use audit_core::position::Position;
use audit_core::rules::TableRules;
use audit_core::shape::{History, Shape, ShapeColumn};
use audit_core::table::{Table, hides_in_key};
use comfy_table::Color;
use serde::{Deserialize, Serialize};

use self::sample::samples;
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{print, print_json, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cdc-audit plan\n  cdc-audit plan --table public.users --json\n  \
    cdc-audit plan --since plan.json --save plan.json      in a pipeline: what changed since the last run?\n\n\
    Exit code 0 if nothing is undecided and nothing changed since the file, 6 if something changed, 7 if a strict table has columns that no rule decides \
    about, 2 if the rules cannot hold.")]
pub struct Args {
    /// Only this table (schema.table).
    #[arg(long)]
    table: Option<String>,
    /// Compare with what was saved; a file that does not exist counts as empty.
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// Save what would be stored, for `--since` of the next run.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// All of it, as JSON.
    #[arg(long)]
    json: bool,
}

/// What would be stored of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Planned {
    #[serde(rename = "type")]
    type_name: String,
    /// `as it is`, methods, or why it is absent.
    stored: String,
    /// The rule that decided, as a path in the configuration.
    rule: Option<String>,
    /// Of a column that is stored as it is: what in it is not searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_searched: Option<String>,
    /// Made-up values, protected: by the name under which they would be stored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    samples: BTreeMap<String, String>,
}

/// Columns in the table's order.
#[derive(Clone, Debug, Serialize)]
struct PlannedTable {
    table: String,
    /// The table of hot sinks that takes its versions, where that is not the common one.
    #[serde(skip_serializing_if = "Option::is_none")]
    versions_table: Option<String>,
    columns: Vec<PlannedColumn>,
    /// Why the table cannot be recorded under its rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct PlannedColumn {
    column: String,
    #[serde(flatten)]
    planned: Planned,
    undecided: bool,
}

/// Tables, columns, and what would be stored of each.
type Saved = BTreeMap<String, BTreeMap<String, Planned>>;

#[derive(Clone, Debug, Serialize)]
struct Change {
    table: String,
    column: String,
    was: Option<String>,
    is: Option<String>,
}

#[derive(Serialize)]
struct Report {
    tables: Vec<PlannedTable>,
    undecided: usize,
    /// Null where nothing was compared.
    changes: Option<Vec<Change>>,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let client = audit_connect::connect(&config.source.endpoint, "cdc-audit plan").await?;
    let publication = &config.source.publication;
    let found = published(&client, publication).await?;
    let wanted = |table: &&PublishedTable| {
        table.name.schema != "cdc_audit" && args.table.as_ref().is_none_or(|wanted| *wanted == table.name.to_string())
    };
    let found: Vec<&PublishedTable> = found.iter().filter(wanted).collect();
    if found.is_empty() {
        return Err(CliError::new(format!("the publication {publication} has no such tables"))
            .hint("`cdc-audit setup` makes it; --table takes schema.table".to_owned())
            .code(code::USAGE));
    }
    let rules = config.rules();
    let names = former_names::known(&client, &config.source.name)
        .await
        .map_err(|error| CliError::of(&error).hint(error.hint().map(str::to_owned)))?;
    let plan = |table: &&PublishedTable| {
        let rules = names.rules_now(&rules, &table.name, table.catalog.oid);
        rules.captured().then(|| planned(table, &rules, config))
    };
    let tables: Vec<PlannedTable> = found.iter().filter_map(plan).collect();
    let saved = as_saved(&tables);
    let before = args.since.as_deref().map(read).transpose()?;
    if let Some(file) = &args.save {
        write(file, &saved)?;
    }
    let undecided = tables.iter().flat_map(|table| &table.columns).filter(|column| column.undecided).count();
    let changes = before.map(|before| differences(&before, &saved, args.table.as_deref()));
    let report = Report { tables, undecided, changes };
    match args.json {
        true => print_json(&report)?,
        false => show(&report)?,
    }
    Ok(exit_code(&report))
}

fn exit_code(report: &Report) -> ExitCode {
    if report.tables.iter().any(|table| table.error.is_some()) {
        ExitCode::from(code::USAGE)
    } else if report.undecided > 0 {
        ExitCode::from(code::UNDECIDED)
    } else if report.changes.as_ref().is_some_and(|changes| !changes.is_empty()) {
        ExitCode::from(code::CHANGED)
    } else {
        ExitCode::SUCCESS
    }
}

fn planned(published: &PublishedTable, rules: &TableRules, config: &Config) -> PlannedTable {
    let shape = History::default().add(&published.relation(), Some(&published.catalog), Position::default());
    let recorded = Table::new(shape.clone(), rules, config.protection.row_key.is_some()).map(Arc::new);
    let samples = recorded.as_ref().map(|table| samples(table, config)).unwrap_or_default();
    let columns = shape.columns.iter().map(|column| {
        let undecided = !rules.is_decided(column);
        let own = |name: &String| match audit_core::table::companion_of(name) {
            Some(beside) => beside == column.name || *name == column.name,
            None => *name == column.name,
        };
        let samples = samples.iter().filter(|(name, _)| own(name)).cloned().collect();
        let (stored, rule) = stored(&shape, column, rules, undecided);
        let not_searched = not_searched(column, rules).filter(|_| stored.starts_with(AS_IT_IS));
        let planned = Planned { type_name: column.type_name.clone(), stored, rule, not_searched, samples };
        PlannedColumn { column: column.name.clone(), planned, undecided }
    });
    let error = recorded.as_ref().err();
    let own = |table: &Arc<Table>| table.versions_table.as_ref().map(|own| own.fill(&table.shape, "{tenant}"));
    PlannedTable {
        table: published.name.to_string(),
        versions_table: recorded.as_ref().ok().and_then(own),
        columns: columns.collect(),
        error: error.map(ToString::to_string),
        hint: error.map(|error| error.hint()),
    }
}

/// What the stored form of a column begins with that is not protected.
const AS_IT_IS: &str = "as it is";

/// What of a column's values is stored without a look at it.
fn not_searched(column: &ShapeColumn, rules: &TableRules) -> Option<String> {
    let Some(inside) = rules.inside(column) else {
        let why = match (rules.decision(column), Form::of(column)) {
            (Some(_), _) => "a rule allows all of it",
            (None, None) => "values of this type hold no text",
            (None, Some(_)) => "there are no rules for names and content",
        };
        return Some(why.to_owned());
    };
    let by_type = match (inside.form, column.type_oid) {
        (Form::Text, XML) => Some("names of its elements and attributes"),
        (Form::Text, TSVECTOR) => Some("words of other columns that are protected"),
        (Form::Parts, _) if !column.type_name.ends_with("[]") => Some("names of its fields, if it has any"),
        _ => None,
    };
    by_type.map(str::to_owned)
}

const XML: u32 = 142;
const TSVECTOR: u32 = 3614;

/// What would be stored, and who says so.
fn stored(shape: &Shape, column: &ShapeColumn, rules: &TableRules, undecided: bool) -> (String, Option<String>) {
    let decision = rules.decision(column);
    let by = decision.map(|decision| decision.by.to_string());
    let methods = decision.map(|decision| decision.methods).unwrap_or_default();
    let key = rules.rule.key.as_ref().unwrap_or(&shape.key).contains(&column.name);
    let in_key = match hides_in_key(rules, column) {
        _ if !key => "",
        Some(_) => "; an HMAC in `key`",
        None => "; as it is in `key`",
    };
    if methods.iter().any(|rule| rule.method == Method::Drop) {
        return (format!("absent: dropped{in_key}"), by);
    }
    if !rules.is_tracked(&column.name) {
        return (format!("absent: not tracked{in_key}"), Some("`only` or `ignore`".to_owned()));
    }
    if undecided {
        return ("withheld: no rule decides".to_owned(), None);
    }
    if methods.is_empty() {
        let searched = rules.inside(column).map(|inside| inside.describe()).filter(|what| !what.is_empty());
        return (searched.map_or_else(|| AS_IT_IS.to_owned(), |what| format!("{AS_IT_IS}, without {what}")), by);
    }
    let whose = rules.rule.subject.as_ref().map(|subject| format!(" under the key of its {subject}"));
    let shown = |rule: &MethodRule| match &whose {
        Some(whose) if rule.method == Method::Encrypt => format!("{rule}{whose}"),
        _ => rule.to_string(),
    };
    let methods: Vec<String> = methods.iter().map(shown).collect();
    (format!("{}{in_key}", methods.join(" + ")), by)
}

fn as_saved(tables: &[PlannedTable]) -> Saved {
    let columns = |table: &PlannedTable| {
        let plain = |planned: &Planned| Planned { samples: BTreeMap::new(), ..planned.clone() };
        table.columns.iter().map(|column| (column.column.clone(), plain(&column.planned))).collect()
    };
    tables.iter().map(|table| (table.table.clone(), columns(table))).collect()
}

fn read(file: &Path) -> Result<Saved, CliError> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Saved::new()),
        Err(error) => {
            let message = format!("{} cannot be read", file.display());
            return Err(CliError::new(message).detail(error.to_string()).code(code::USAGE));
        }
    };
    serde_json::from_str(&text).map_err(|error| {
        CliError::new(format!("{} is no saved plan", file.display()))
            .detail(error.to_string())
            .hint("name a file that `cdc-audit plan --save` wrote".to_owned())
            .code(code::USAGE)
    })
}

fn write(file: &Path, saved: &Saved) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::new(format!("{} cannot be written", file.display())).detail(error.to_string())
    };
    let text = serde_json::to_string_pretty(saved).map_err(|error| failed(error.into()))?;
    // It tells which columns are worth looking at.
    let mut out = File::options().write(true).create(true).truncate(true).mode(0o600).open(file).map_err(failed)?;
    out.write_all((text + "\n").as_bytes()).map_err(failed)
}

/// What is stored otherwise than before; a rule that moved within the configuration changes nothing.
fn differences(before: &Saved, after: &Saved, only: Option<&str>) -> Vec<Change> {
    let tables = before.keys().chain(after.keys().filter(|table| !before.contains_key(*table)));
    let empty = BTreeMap::new();
    let mut changes = Vec::new();
    for table in tables.filter(|table| only.is_none_or(|only| only == table.as_str())) {
        let (was, is) = (before.get(table).unwrap_or(&empty), after.get(table).unwrap_or(&empty));
        for column in was.keys().chain(is.keys().filter(|column| !was.contains_key(*column))) {
            let shown = |planned: Option<&Planned>| planned.map(|p| format!("{} ({})", p.stored, p.type_name));
            let (was, is) = (shown(was.get(column)), shown(is.get(column)));
            if was != is {
                changes.push(Change { table: table.clone(), column: column.clone(), was, is });
            }
        }
    }
    changes
}

/// A ciphertext says nothing beyond its first characters.
fn short(sample: &str) -> String {
    match audit_cipher::PREFIXES.iter().any(|prefix| sample.starts_with(prefix)) {
        true => sample.chars().take(SHOWN).chain(['…']).collect(),
        false => sample.to_owned(),
    }
}

/// Characters of a ciphertext: its method, its key, and a little.
const SHOWN: usize = 40;

fn show(report: &Report) -> Result<(), CliError> {
    for planned in &report.tables {
        match &planned.versions_table {
            Some(own) => print(format!("{}, in hot sinks in cdc_audit.{own}", planned.table))?,
            None => print(&planned.table)?,
        }
        let mut rows = table(&["column", "type", "stored", "made up, as it would be", "by"]);
        for PlannedColumn { column, planned, undecided } in &planned.columns {
            let samples: Vec<String> = planned
                .samples
                .iter()
                .map(|(name, sample)| (name, short(sample)))
                .map(|(name, sample)| if name == column { sample } else { format!("{name}: {sample}") })
                .collect();
            let not_searched = planned.not_searched.iter().map(|what| format!("not searched: {what}"));
            let stored = [planned.stored.clone()].into_iter().chain(not_searched).collect();
            rows.add_lines([
                (vec![column.clone()], None),
                (vec![planned.type_name.clone()], None),
                (stored, undecided.then_some(Color::Red)),
                (samples, None),
                (vec![planned.rule.clone().unwrap_or_else(|| "–".to_owned())], None),
            ]);
        }
        rows.print()?;
        if let Some(error) = &planned.error {
            print(format!("error: {error}"))?;
        }
        planned.hint.as_ref().map_or(Ok(()), |hint| print(format!("  hint: {hint}")))?;
        print("")?;
    }
    for Change { table, column, was, is } in report.changes.iter().flatten() {
        let (was, is) = (was.as_deref().unwrap_or("not there"), is.as_deref().unwrap_or("not there"));
        print(format!("changed: {table}.{column}: {was} → {is}"))?;
    }
    match (&report.changes, report.undecided) {
        (_, count @ 1..) => {
            print(format!("{count} columns of strict tables are not recorded until a rule decides about them"))
        }
        (Some(changes), _) if changes.is_empty() => print("Nothing changed."),
        _ => Ok(()),
    }
}
