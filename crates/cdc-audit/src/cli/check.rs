//! `cdc-audit check`.

use std::process::ExitCode;
use std::sync::Arc;

use audit_capture::check::{Area, Finding, Input, SinkProbe, State, check, would_start};
use audit_config::{Chain, visible};
use audit_pipeline::error::RunError;
use comfy_table::Color;
use serde_json::json;

use crate::config::{Config, SinkConfig};
use crate::error::{CliError, code};
use crate::output::{on_terminal, print, print_json, table};
use crate::sinks::Probed;

mod attribution;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit check\n  cdc-audit check --json | jq '.findings[] | select(.state == \"fail\")'\n  \
    cdc-audit check --attribution --since 2026-01-01 --as postgres://ann@audit.internal/audit\n\n\
    Exit code 0 only if `cdc-audit run` would start; with --attribution, only if nothing is missing."
)]
pub struct Args {
    /// All findings, as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    attribution: attribution::Args,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    if args.attribution.attribution {
        return attribution::run(&args.attribution, args.json, config).await;
    }
    let (mut sinks, mut warnings) = (Vec::new(), Vec::new());
    for (name, sink) in &config.sinks {
        sinks.push(probe(config, name, sink, &mut warnings).await);
    }
    let input = Input {
        source: &config.source,
        rules: &config.rules(),
        row_key: config.protection.row_key.is_some(),
        hash_key: config.protection.hash_key.is_some(),
        sinks: &sinks,
    };
    let mut findings = check(&input, "cdc-audit check").await;
    findings.extend(warnings);
    findings.extend(unverified(config));
    findings.extend(continuity(config).await);
    findings.extend(keys(config));
    findings.extend(key_classes(config).await);
    let ready = would_start(&findings);
    match args.json {
        true => show_json(&findings, ready)?,
        false => show(&findings, ready)?,
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::from(code::NOT_READY) })
}

async fn probe(config: &Config, name: &str, sink: &SinkConfig, findings: &mut Vec<Finding>) -> SinkProbe {
    let Probed { outcome, pace, warnings } = sink.probe(name, config).await;
    findings.extend(warnings.into_iter().map(|said| warning(Area::Sink, name, said)));
    SinkProbe { name: name.to_owned(), outcome, pace }
}

fn warning(area: Area, subject: &str, (message, fix): (String, String)) -> Finding {
    Finding { area, subject: subject.to_owned(), state: State::Warn, message, fix: Some(fix) }
}

/// Whether the stream would continue what the sinks have. What cannot be reached or read at all is said by others.
async fn continuity(config: &Config) -> Vec<Finding> {
    let mut checkpoints = Vec::new();
    for (name, sink) in &config.sinks {
        if let Some(checkpoint) = sink.stored(name, config).await {
            checkpoints.push((Arc::from(name.as_str()), Some(checkpoint)));
        }
    }
    let finding = |subject: &str, state: State, message: String, fix: Option<String>| Finding {
        area: Area::Slot,
        subject: subject.to_owned(),
        state,
        message,
        fix,
    };
    let slot = config.source.slot.as_str();
    if checkpoints.is_empty() {
        return Vec::new();
    }
    match audit_pipeline::slot::look(&config.source).await {
        Ok(None) => Vec::new(),
        Ok(Some(server)) => {
            let gaps = audit_pipeline::continuity::judge(&server, &checkpoints).gaps;
            if gaps.is_empty() {
                return vec![finding(slot, State::Ok, "continues what the sinks have".to_owned(), None)];
            }
            let fix =
                "undo what was done, if that is possible; else `cdc-audit run --accept-gap` records what is missing";
            gaps.iter().map(|gap| finding(slot, State::Fail, gap.to_string(), Some(fix.to_owned()))).collect()
        }
        Err(RunError::NoSlot { .. }) => {
            let has =
                checkpoints.iter().filter_map(|(sink, checkpoint)| Some((sink, checkpoint.as_ref()?.flushed_lsn)));
            let fix = "`cdc-audit run --accept-gap` makes the slot anew and records what is missing";
            let lost = |sink: &str, at| format!("sink {sink} has everything to {at}: what was changed since is lost");
            has.map(|(sink, at)| finding(slot, State::Fail, lost(sink, at), Some(fix.to_owned()))).collect()
        }
        Err(_) => Vec::new(),
    }
}

/// Connections on whose way anybody could read along, or pose as the other side; and what receivers cannot verify.
fn unverified(config: &Config) -> Vec<Finding> {
    let sink = |(name, sink): (&String, &SinkConfig)| Some(warning(Area::Sink, name, sink.unverified()?));
    let source = config.source.endpoint.unverified().map(|said| warning(Area::Server, &config.source.name, said));
    source.into_iter().chain(config.sinks.iter().filter_map(sink)).collect()
}

/// Keys that the configuration names and nobody can read, or that are weak.
fn keys(config: &Config) -> Option<Finding> {
    let (state, error) = match config.policy() {
        Err(error) => (State::Fail, error),
        Ok(_) => (State::Warn, config.row_key_weakness().ok()??),
    };
    Some(Finding {
        area: Area::Protection,
        subject: "keys".to_owned(),
        state,
        message: Chain(&error).to_string(),
        fix: Some(error.hint().to_owned()),
    })
}

/// Whether each class's master key wraps, and the key store can be read.
async fn key_classes(config: &Config) -> Vec<Finding> {
    let finding =
        |subject: String, state, message: String, fix| Finding { area: Area::Protection, subject, state, message, fix };
    let keyring = match config.keyring() {
        Ok(Some(keyring)) => keyring,
        Ok(None) => return Vec::new(),
        Err(error) => {
            let message = Chain(&error).to_string();
            return vec![finding("keys".to_owned(), State::Fail, message, Some(error.hint()))];
        }
    };
    let probed = keyring.probe().await;
    let found = probed.into_iter().map(|(class, result)| match result {
        Ok(()) => {
            finding(format!("keys of class {class}"), State::Ok, "can be made, wrapped and stored".to_owned(), None)
        }
        Err(error) => {
            let message = Chain(&error).to_string();
            finding(format!("keys of class {class}"), State::Fail, message, Some(error.hint()))
        }
    });
    found.collect()
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
    let lines = lines(findings);
    if on_terminal() {
        let mut rows = table(&["", "", "what", "finding"]);
        for line in &lines {
            match line {
                Line::Finding(finding) => rows.add_lines(row(finding)),
                Line::More(more) => rows.add_row(["", "", "…", more.as_str()]),
            };
        }
        rows.print()?;
    } else {
        plain(&lines)?;
    }
    let count = |state: State| findings.iter().filter(|finding| finding.state == state).count();
    let verdict =
        if ready { "`cdc-audit run` would start" } else { "`cdc-audit run` would not start, or would do harm" };
    print(format!("{verdict}: {} failures, {} warnings", count(State::Fail), count(State::Warn)))
}

enum Line<'f> {
    Finding(&'f Finding),
    More(String),
}

fn lines(findings: &[Finding]) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for (index, finding) in findings.iter().enumerate() {
        let alike = |other: &&Finding| other.area == finding.area && other.state == finding.state;
        match findings[..index].iter().filter(alike).count() {
            before if before < SHOWN_MAX => lines.push(Line::Finding(finding)),
            SHOWN_MAX => {
                let more = findings.iter().filter(alike).count() - SHOWN_MAX;
                lines.push(Line::More(format!("and {more} more like these: --json has all")));
            }
            _ => {}
        }
    }
    lines
}

/// The widest subject that others are aligned to.
const SUBJECT_MAX: usize = 32;

/// A line for each finding, and one for what to do about it.
fn plain(lines: &[Line<'_>]) -> Result<(), CliError> {
    let subject = |line: &Line<'_>| match line {
        Line::Finding(finding) => finding.subject.chars().count(),
        Line::More(_) => 0,
    };
    let width = lines.iter().map(subject).max().unwrap_or_default().min(SUBJECT_MAX);
    for line in lines {
        match line {
            Line::Finding(finding) => {
                let (state, area) = (word(finding.state), finding.area);
                let (subject, message) = (visible(&finding.subject), visible(&finding.message));
                print(format!("{state:<4}  {area:<11}  {subject:<width$}  {message}"))?;
                finding.fix.as_ref().map_or(Ok(()), |fix| print(format!("      fix: {}", visible(fix))))?;
            }
            Line::More(more) => print(format!("      {more}"))?,
        }
    }
    Ok(())
}

fn row(finding: &Finding) -> [(Vec<String>, Option<Color>); 4] {
    let color = match finding.state {
        State::Ok => Color::Green,
        State::Warn => Color::Yellow,
        State::Fail => Color::Red,
    };
    let fix = finding.fix.iter().map(|fix| format!("→ {fix}"));
    [
        (vec![word(finding.state).to_owned()], Some(color)),
        (vec![finding.area.to_string()], None),
        (vec![finding.subject.clone()], None),
        ([finding.message.clone()].into_iter().chain(fix).collect(), None),
    ]
}
