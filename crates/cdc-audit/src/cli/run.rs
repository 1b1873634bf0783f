//! `cdc-audit run`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use audit_capture::baseline::Progress;
use audit_config::Chain;
use audit_core::position::Lsn;
use audit_core::sink::Action;
use audit_pipeline::daemon::Daemon;
use audit_pipeline::error::RunError;
use audit_pipeline::status::{BaselineReport, StatusReport, UncapturedReport};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};

use crate::config::{Config, LogFormat};
use crate::error::{CliError, code};
use crate::http;
use crate::wiring;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cdc-audit run\n  cdc-audit --config shop.toml run --accept-gap --new-baseline")]
pub struct Args {
    /// Go on, once, where WAL was lost; a `gap` record in every sink says what is missing. If the daemon is killed before every sink has
    /// that record, give it again: no sink stores the record twice.
    #[arg(long)]
    accept_gap: bool,
    /// Where a gap was accepted, read every table anew: what the lost changes left behind becomes a baseline of the next number.
    #[arg(long, requires = "accept_gap")]
    new_baseline: bool,
    /// Stop once everything that committed before this WAL position is durable in every sink.
    #[arg(long, value_name = "LSN")]
    until: Option<Lsn>,
}

pub async fn run(args: Args, config: Config) -> Result<ExitCode, CliError> {
    if args.new_baseline && !config.baseline.enabled {
        return Err(CliError::new("baselines are turned off, and --new-baseline asks for one")
            .hint("set baseline.enabled = true".to_string())
            .code(code::USAGE));
    }
    let daemon = Arc::new(Daemon {
        accept_gap: AtomicBool::new(args.accept_gap),
        new_baseline: args.new_baseline,
        until: args.until,
        ..wiring::daemon(&config)?
    });
    let listener = tokio::net::TcpListener::bind(&config.http.listen).await.map_err(|error| {
        CliError::new(format!("cannot listen on {}", config.http.listen))
            .detail(error.to_string())
            .hint("another daemon may run here: set http.listen to a free port".to_string())
            .code(code::USAGE)
    })?;
    let reported = daemon.clone();
    let serving = tokio::spawn(http::serve(listener, Arc::new(move || report(&reported))));
    let stop = stop_signal()?;
    show_baseline(daemon.baseline_progress.clone());
    let ended = audit_pipeline::run::run(&daemon, stop).await;
    serving.abort();
    match ended {
        Ok(lsn) => {
            if lsn > Lsn::ZERO {
                info!(at = %lsn, "everything before is durable in every sink");
            }
            Ok(ExitCode::SUCCESS)
        }
        // Whoever collects lines of JSON gets one; a person reads what every command says of its error.
        Err(error) if config.log.format == LogFormat::Json => {
            error!(error = %Chain(&error), hint = error.hint(), "the daemon ends");
            Ok(ExitCode::from(exit_code(&error)))
        }
        Err(error) => {
            let code = exit_code(&error);
            Err(CliError::from(error).code(code))
        }
    }
}

fn exit_code(error: &RunError) -> u8 {
    match error {
        RunError::Gap { .. } | RunError::LostSlot { .. } | RunError::NoSlot { .. } => code::GAP,
        error if error.is_discontinuity() => code::GAP,
        RunError::Sink(end) if end.error.action == Action::Fenced => code::FENCED,
        _ => code::FAILED,
    }
}

/// Turns true at SIGTERM or SIGINT. A second signal ends the program at once: nothing is lost by it, for what is durable is known.
fn stop_signal() -> Result<watch::Receiver<bool>, CliError> {
    let listen =
        |kind| signal(kind).map_err(|error| CliError::new("signals cannot be listened to").detail(error.to_string()));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (asked, stop) = watch::channel(false);
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if *asked.borrow() {
                std::process::exit(i32::from(code::FAILED));
            }
            info!("stopping: finishing what is under way");
            let _ = asked.send(true);
        }
    });
    Ok(stop)
}

/// The status of the moment.
fn report(daemon: &Daemon) -> StatusReport {
    let sinks = daemon.sinks.iter().map(|sink| (sink.name.as_ref(), sink.gauge.as_ref()));
    let baseline = daemon.baseline_progress.report();
    let open = baseline.open.iter().map(|table| BaselineReport {
        table: table.table.to_string(),
        rows: table.rows,
        rows_estimated: table.estimate,
        done: false,
        failure: table.failure.as_ref().map(|failure| failure.message.clone()),
    });
    let uncaptured = baseline.uncaptured;
    let uncaptured = UncapturedReport {
        tables: uncaptured.tables.into_iter().collect(),
        left: uncaptured.left.into_iter().collect(),
        operations: uncaptured.operations.into_iter().map(str::to_owned).collect(),
        partitions_by_name: uncaptured.partitions_by_name,
    };
    daemon.shared.report(sinks, open.collect(), uncaptured)
}

/// Draws a baseline's progress where somebody watches; it ends with the program.
fn show_baseline(progress: Arc<Progress>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    tokio::spawn(async move {
        let style = ProgressStyle::with_template("baseline {bar:30} {human_pos} of about {human_len} rows  {msg}");
        let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let report = progress.report();
            if report.tables == report.tables_done {
                bar.reset();
                continue;
            }
            bar.set_length(report.rows_expected);
            bar.set_position(report.rows);
            let left = report.remaining.map_or(String::new(), |left| format!(", {} s left", left.as_secs()));
            bar.set_message(format!(
                "{:.0} rows/s{left}, {} of {} tables",
                report.rows_per_second, report.tables_done, report.tables
            ));
        }
    });
}
