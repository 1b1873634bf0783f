//! `cdc-audit check`.

use std::process::ExitCode;

use audit_capture::check::{Area, Finding, Input, ProbeError, SinkProbe, State, check, would_start};
use comfy_table::{Cell, Color};
use serde_json::json;

use crate::cli::output::{print, print_json, table, wants_json};
use crate::config::{Config, SinkConfig};
use crate::error::{CliError, code};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit check\n  cdc-audit check --json | jq '.findings[] | select(.state == \"fail\")'\n\n\
    Exit code 0 only if `cdc-audit run` would start."
)]
pub struct Args {
    /// All findings, as JSON.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let mut sinks = Vec::new();
    for (name, sink) in &config.sinks {
        sinks.push(probe(config, name, sink).await);
    }
    let input = Input {
        source: &config.source,
        rules: &config.rules(),
        row_key: config.protection.row_key.is_some(),
        hash_key: config.protection.hash_key.is_some(),
        sinks: &sinks,
    };
    let mut findings = check(&input, "cdc-audit check").await;
    findings.extend(keys(config));
    let ready = would_start(&findings);
    match wants_json(args.json) {
        true => show_json(&findings, ready)?,
        false => show(&findings, ready)?,
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::from(code::NOT_READY) })
}

async fn probe(config: &Config, name: &str, sink: &SinkConfig) -> SinkProbe {
    let (outcome, file_age) = match sink {
        SinkConfig::Hot(hot) => {
            let probed = audit_hot::probe(hot, &config.source.name, name).await;
            let place = hot.endpoint.describe();
            (
                probed.map(|()| format!("written to {place} and rolled back")).map_err(|e| failure(&e, e.hint.clone())),
                None,
            )
        }
        SinkConfig::Lake(lake) => {
            let probed = audit_lake::probe(lake, &config.source.name).await;
            let place = lake.url.clone();
            let outcome = probed.map(|()| format!("written to {place}, read, removed"));
            (outcome.map_err(|error| failure(&error, error.hint())), Some(lake.file_age.get()))
        }
    };
    SinkProbe { name: name.to_owned(), outcome, file_age }
}

fn failure(error: &dyn std::error::Error, hint: Option<String>) -> ProbeError {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    ProbeError { message, hint }
}

/// Keys that the configuration names and nobody can read.
fn keys(config: &Config) -> Option<Finding> {
    let error = config.policy().err()?;
    Some(Finding {
        area: Area::Protection,
        subject: "keys".to_owned(),
        state: State::Fail,
        message: failure(&error, None).message,
        fix: Some(error.hint()),
    })
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Warn => "warn",
        State::Fail => "fail",
    }
}

fn show_json(findings: &[Finding], ready: bool) -> Result<(), CliError> {
    let finding = |finding: &Finding| {
        json!({
            "area": finding.area.name(), "subject": finding.subject, "state": word(finding.state),
            "message": finding.message, "fix": finding.fix,
        })
    };
    print_json(&json!({ "would_start": ready, "findings": findings.iter().map(finding).collect::<Vec<_>>() }))
}

/// Findings of one area and state that are shown; a source with thousands of tables has thousands.
const SHOWN_MAX: usize = 12;

fn show(findings: &[Finding], ready: bool) -> Result<(), CliError> {
    let mut rows = table(&["", "", "what", "finding"]);
    for (index, finding) in findings.iter().enumerate() {
        let alike = |other: &&Finding| other.area == finding.area && other.state == finding.state;
        match findings[..index].iter().filter(alike).count() {
            before if before < SHOWN_MAX => rows.add_row(row(finding)),
            SHOWN_MAX => {
                let more = findings.iter().filter(alike).count() - SHOWN_MAX;
                rows.add_row([
                    String::new(),
                    String::new(),
                    "…".to_owned(),
                    format!("and {more} more like these: --json has all"),
                ])
            }
            _ => &mut rows,
        };
    }
    print(rows)?;
    let count = |state: State| findings.iter().filter(|finding| finding.state == state).count();
    let verdict =
        if ready { "`cdc-audit run` would start" } else { "`cdc-audit run` would not start, or would do harm" };
    print(format!("{verdict}: {} failures, {} warnings", count(State::Fail), count(State::Warn)))
}

fn row(finding: &Finding) -> [Cell; 4] {
    let color = match finding.state {
        State::Ok => Color::Green,
        State::Warn => Color::Yellow,
        State::Fail => Color::Red,
    };
    let text = match &finding.fix {
        Some(fix) => format!("{}\n→ {fix}", finding.message),
        None => finding.message.clone(),
    };
    [Cell::new(word(finding.state)).fg(color), Cell::new(finding.area), Cell::new(&finding.subject), Cell::new(text)]
}
