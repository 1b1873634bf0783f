//! `cdc-audit status`.

use std::process::ExitCode;
use std::time::Duration;

use audit_pipeline::status::{Phase, StatusReport, UncapturedReport};

use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{bytes, print, print_json, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cdc-audit status\n  cdc-audit status --json | jq .lag_bytes")]
pub struct Args {
    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let report = match ask(config).await {
        Ok(report) => report,
        Err(error) => return not_running(args, config, error).await,
    };
    if report.source != config.source.name {
        return Err(CliError::new(format!(
            "the daemon on {} captures {}, not {}",
            config.http.listen, report.source, config.source.name
        ))
        .hint("give each daemon a port of its own: http.listen".to_string())
        .code(code::NOT_READY));
    }
    if args.json {
        print_json(&report)?
    } else {
        show(&report)?
    }
    Ok(ExitCode::SUCCESS)
}

/// What the daemon says of itself.
pub async fn ask(config: &Config) -> Result<StatusReport, String> {
    let url = format!("http://{}/status", config.http.listen);
    let asked = tokio::task::spawn_blocking(move || get(&url)).await;
    asked.map_err(|error| error.to_string())?
}

fn get(url: &str) -> Result<StatusReport, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().into();
    let mut response = agent.get(url).call().map_err(|error| error.to_string())?;
    let body = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
    serde_json::from_str(&body).map_err(|error| error.to_string())
}

/// No daemon answers: what the server itself knows of the slot is still worth saying.
async fn not_running(args: Args, config: &Config, error: String) -> Result<ExitCode, CliError> {
    let slot = match audit_connect::connect(&config.source.endpoint, "cdc-audit status").await {
        Ok(client) => audit_capture::slot::read(&client, &config.source.slot).await.ok().flatten(),
        Err(_) => None,
    };
    if args.json {
        let slot = slot.as_ref().map(|slot| {
            serde_json::json!({
                "name": slot.name, "confirmed_flush_lsn": slot.confirmed_flush_lsn, "lag_bytes": slot.lag_bytes(),
                "retained_bytes": slot.retained_bytes(), "holder": slot.holder.as_ref().map(ToString::to_string),
            })
        });
        print_json(&serde_json::json!({ "phase": "not_running", "source": config.source.name, "slot": slot }))?;
    } else {
        print(format!("The daemon does not run: nobody answers on {} ({error}).", config.http.listen))?;
        match slot {
            Some(slot) => print(format!(
                "Slot {}: {} behind, {} of WAL kept{}.",
                slot.name,
                slot.lag_bytes().map_or("?".to_string(), bytes),
                slot.retained_bytes().map_or("?".to_string(), bytes),
                slot.holder.map_or(String::new(), |holder| format!(", held by {holder}")),
            ))?,
            None => print(format!(
                "Slot {} was not found, or the source cannot be reached: `cdc-audit check` says more.",
                config.source.slot
            ))?,
        }
    }
    Ok(ExitCode::from(code::NOT_READY))
}

fn show(report: &StatusReport) -> Result<(), CliError> {
    let phase = match &report.phase {
        Phase::Starting => "starting".to_string(),
        Phase::Waiting { holder } => format!("waiting for the slot, which {holder} holds"),
        Phase::Streaming => "streaming".to_string(),
        Phase::WaitingForKey { class } => format!("waiting for a key of class {class}"),
        Phase::Retrying => "retrying".to_string(),
        Phase::Stopping => "stopping".to_string(),
    };
    // Known once the sinks were asked.
    let epoch = if report.epoch > 0 { format!(", epoch {}", report.epoch) } else { String::new() };
    print(format!("{}: {phase}{epoch}", report.source))?;
    print(format!(
        "slot {}: {} behind ({:.1} s), acknowledged {}, server at {}",
        report.slot,
        bytes(report.lag_bytes),
        report.lag_seconds,
        report.acknowledged,
        report.wal_end
    ))?;
    print(format!(
        "{} changes, {} versions, {} transactions; memory {} of {}",
        report.changes,
        report.versions,
        report.transactions,
        bytes(report.memory_used_bytes),
        bytes(report.memory_limit_bytes)
    ))?;
    if report.synchronous_standby {
        print(
            "COMMITs of the source wait for this daemon: synchronous_standby_names matches it, see `cdc-audit check`",
        )?;
    }
    let mut sinks = table(&["sink", "stands at", "behind", "seconds", "versions", "held", "errors", ""]);
    for sink in &report.sinks {
        let mark = match (&report.held_back_by, sink.failing) {
            (_, true) => "failing",
            (Some(name), _) if *name == sink.name => "holds the others back",
            _ => "",
        };
        sinks.add_row([
            sink.name.clone(),
            sink.position.clone(),
            bytes(sink.lag_bytes),
            format!("{:.1}", sink.lag_seconds),
            sink.versions.to_string(),
            bytes(sink.held_bytes),
            sink.errors.to_string(),
            mark.to_string(),
        ]);
    }
    sinks.print()?;
    if !report.tables.is_empty() {
        let mut tables = table(&["table", "versions", "bytes"]);
        for (name, count) in &report.tables {
            tables.add_row([name.clone(), count.versions.to_string(), bytes(count.bytes)]);
        }
        tables.print()?;
    }
    for entry in report.baseline.iter().filter(|entry| !entry.done) {
        print(format!("baseline of {}: {} of about {} rows", entry.table, entry.rows, entry.rows_estimated))?;
        if let Some(failure) = &entry.failure {
            print(format!("  it cannot go on: {failure}"))?;
        }
    }
    for sink in &report.sinks {
        for trouble in &sink.troubles {
            print(format!("{}: {trouble}", sink.name))?;
        }
    }
    show_uncaptured(&report.uncaptured)?;
    let failures = report.sinks.iter().filter(|sink| sink.failing).filter_map(|sink| sink.last_error.as_ref());
    for failure in report.last_error.iter().chain(failures) {
        print(format!("last error, {}: {}", failure.at, failure.message))?;
        if let Some(hint) = &failure.hint {
            print(format!("  hint: {hint}"))?;
        }
    }
    Ok(())
}

/// What the rules take and the publication does not send.
fn show_uncaptured(uncaptured: &UncapturedReport) -> Result<(), CliError> {
    for (what, names) in [
        ("not captured, for the publication does not have them", &uncaptured.tables),
        ("of these were captured until they left the publication", &uncaptured.left),
        ("changes that the publication does not have", &uncaptured.operations),
    ] {
        if !names.is_empty() {
            print(format!("{what}: {}", names.join(", ")))?;
        }
    }
    if uncaptured.partitions_by_name {
        print("partitions are published under their own names, not under that of their partitioned table")?;
    }
    Ok(())
}
