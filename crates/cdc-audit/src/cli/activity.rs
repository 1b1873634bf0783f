//! `cdc-audit activity`.

use std::process::ExitCode;

use audit_history::Span;
use audit_history::activity::{self, ActivityRequest, Finding, Rule, Severity};

use crate::cli::covered::Strict;
use crate::cli::subject;
use crate::cli::when::When;
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{argument, print, print_json, table};
use crate::role::Reader;
use crate::store::open_reachable;

/// Days of the span where none is given.
const DAYS: i64 = 1;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit activity\n  cdc-audit activity --since 7d --rule mass-delete --json\n  \
    cdc-audit activity --since yesterday --until today --tz Europe/Rome || mail -s 'look at this' audit@example.com\n\n\
    The rules are those of [activity.rules.NAME] in the configuration. The exit code is 10 if something was found,\n\
    and 9 with --strict if something may be missing, whether something was found or not."
)]
pub struct Args {
    #[command(flatten)]
    when: When,
    /// Only this rule; several times for several.
    #[arg(long, value_name = "NAME")]
    rule: Vec<String>,
    /// Only this table; several times for several.
    #[arg(long)]
    table: Vec<String>,
    /// First say what each rule looks for, on standard error.
    #[arg(long)]
    explain: bool,
    /// One finding a line, as JSON.
    #[arg(long)]
    json: bool,
    /// The sink to read from. Default: hot tables and lake as one.
    #[arg(long, value_name = "SINK")]
    from: Option<String>,
    /// Only what this tenant has, in a sink that keeps tenants apart. `-`: a line of standard input.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    #[command(flatten)]
    strict: Strict,
    #[command(flatten)]
    reader: Reader,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    args.reader.check(config)?;
    let rules = rules(&args.rule, config)?;
    let clock = args.when.clock()?;
    let (since, until) = args.when.span(&clock, DAYS)?;
    let tenant = args.tenant.map(argument).transpose()?;
    let store = open_reachable(config, args.from.as_deref(), tenant.as_deref(), &args.reader).await?;
    let mut tables = Vec::new();
    for table in &args.table {
        tables.push(subject::table(config, &store, table).await?);
    }
    if args.explain {
        for (name, rule) in &rules {
            eprintln!(
                "{} {}: {}",
                severity(rule.severity()),
                audit_config::visible(name),
                audit_config::visible(&rule.says())
            );
        }
    }
    let request = ActivityRequest { source: config.source.name.clone(), tables, since, until, rules };
    let found = activity::activity(&store, &request).await?;
    for untold in &found.untold {
        eprintln!("warning: {}", audit_config::visible(untold));
    }
    if args.json {
        found.findings.iter().try_for_each(print_json)?;
    } else {
        show(&found.findings)?;
        eprintln!("{} findings in {} versions · {since} to before {until}", found.findings.len(), found.versions);
    }
    let coverage = store.coverage_of(&config.source.name, Span { since: Some(since), until: Some(until) }).await?;
    let code = if found.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(code::FINDINGS) };
    Ok(args.strict.close(&coverage, code))
}

/// The rules in force, or those of them that were named.
fn rules(named: &[String], config: &Config) -> Result<Vec<(String, Rule)>, CliError> {
    let mut rules = config.activity.in_force();
    if let Some(unknown) = named.iter().find(|name| !rules.contains_key(*name)) {
        let names: Vec<&str> = rules.keys().map(String::as_str).collect();
        return Err(CliError::new(format!("there is no rule {unknown}"))
            .hint(format!("the rules are {}", names.join(", ")))
            .code(code::USAGE));
    }
    rules.retain(|name, _| named.is_empty() || named.contains(name));
    Ok(rules.into_iter().collect())
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::High => "HIGH",
        Severity::Medium => "MEDIUM",
        Severity::Low => "LOW",
    }
}

fn show(findings: &[Finding]) -> Result<(), CliError> {
    if findings.is_empty() {
        return print("Nothing was found.");
    }
    let mut rows = table(&["", "rule", "row", "what", "when (UTC)"]);
    for finding in findings {
        let row =
            finding.key.as_ref().map_or(finding.table_name.clone(), |key| format!("{} {key}", finding.table_name));
        let when = finding.to.get(..19).unwrap_or(&finding.to).replace('T', " ");
        rows.add_row([severity(finding.severity), &finding.rule, &row, &finding.text, &when]);
    }
    rows.print()
}
