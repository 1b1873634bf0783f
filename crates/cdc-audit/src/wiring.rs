//! Puts the daemon together: the only place that knows every crate.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use audit_capture::baseline::Progress;
use audit_core::protect::Policy;
use audit_format::FormatConfig;
use audit_hot::HotSink;
use audit_kafka::{KafkaConfig, KafkaSink};
use audit_lake::LakeSink;
use audit_pipeline::NamedSink;
use audit_pipeline::run::Daemon;
use audit_pipeline::status::{BaselineReport, Shared, StatusReport, UncapturedReport};
use audit_webhook::{WebhookConfig, WebhookSink};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::run::Args as RunArgs;
use crate::config::{Config, SinkConfig};
use crate::error::{CliError, code};

/// Builds everything that can be built without a connection.
pub fn daemon(config: &Config, args: &RunArgs) -> Result<Daemon, CliError> {
    let policy = config.policy().map_err(|error| CliError::of(&error).hint(error.hint()).code(code::USAGE))?;
    let keyring = config.keyring().map_err(|error| CliError::of(&error).hint(error.hint()).code(code::USAGE))?;
    let keyring = keyring.map(Arc::new);
    let policy = Policy { sealer: keyring.as_ref().map(|keyring| Arc::clone(keyring.sealer())), ..policy };
    let memory = config
        .pipeline
        .memory()
        .ok_or_else(|| CliError::new("pipeline.memory_limit is too small").code(code::USAGE))?;
    let buffers = |sink: &&SinkConfig| matches!(sink, SinkConfig::Lake(_) | SinkConfig::Kafka(_));
    let buffering = config.sinks.values().filter(buffers).count().max(1) as u64;
    let each = (memory.sinks / buffering) as usize;
    let sinks = config.sinks.iter().map(|(name, sink)| {
        Ok(match sink {
            SinkConfig::Hot(hot) => NamedSink::new(name.as_str(), HotSink::new(name.as_str(), hot.clone())),
            SinkConfig::Lake(lake) => {
                let sink = LakeSink::new(name.as_str(), lake, each)
                    .map_err(|error| CliError::of(&error).hint(error.hint()))?;
                NamedSink::new(name.as_str(), sink)
            }
            SinkConfig::Kafka(kafka) => {
                let kafka = KafkaConfig { format: format(&kafka.format, config)?, ..kafka.as_ref().clone() };
                NamedSink::new(name.as_str(), KafkaSink::new(name.as_str(), &kafka, each))
            }
            SinkConfig::Webhook(webhook) => {
                let checkpoint = config.checkpoint_endpoint(webhook).clone();
                let webhook = WebhookConfig { format: format(&webhook.format, config)?, ..webhook.as_ref().clone() };
                let sink = WebhookSink::new(name.as_str(), &webhook, checkpoint)
                    .map_err(|error| CliError::of(&error).hint(error.hint.clone()))?;
                NamedSink::new(name.as_str(), sink)
            }
        })
    });
    Ok(Daemon {
        source: config.source.clone(),
        rules: config.rules(),
        policy,
        keyring,
        sinks: sinks.collect::<Result<_, CliError>>()?,
        config: config.pipeline.clone(),
        baseline: config.baseline.clone(),
        baseline_progress: Arc::default(),
        memory,
        shared: Arc::new(Shared::default()),
        accept_gap: AtomicBool::new(args.accept_gap),
        new_baseline: args.new_baseline,
        until: args.until,
    })
}

/// A sink's format, with what only the source's section says.
fn format(format: &FormatConfig, config: &Config) -> Result<FormatConfig, CliError> {
    let mut format = format.clone();
    if format.database.is_none() {
        format.database = Some(config.source.endpoint.parse()?.dbname().to_owned());
    }
    Ok(format)
}

/// The status of the moment.
pub fn report(daemon: &Daemon) -> StatusReport {
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
pub fn show_baseline(progress: Arc<Progress>) {
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

/// Arms the fault points of a test build. `CDC_AUDIT_FAULTS="hot::before_commit=kill@3;lake::after_put=hang"` ends the process at
/// the third passage of the first, as SIGKILL would, and holds the second for ever; `FAILPOINTS` is the `fail` crate's own language.
#[cfg(feature = "fault-points")]
pub fn arm_fault_points() {
    use std::sync::atomic::{AtomicU64, Ordering};

    std::mem::forget(fail::FailScenario::setup());
    for fault in std::env::var("CDC_AUDIT_FAULTS").unwrap_or_default().split(';').filter(|fault| !fault.is_empty()) {
        let Some((name, action)) = fault.split_once('=') else { continue };
        let (action, passage) = action.split_once('@').unwrap_or((action, "1"));
        let (kill, left) = (action == "kill", AtomicU64::new(passage.parse().unwrap_or(1)));
        let armed = fail::cfg_callback(name, move || {
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                if kill {
                    std::process::abort();
                }
                loop {
                    std::thread::park();
                }
            }
        });
        if let Err(error) = armed {
            eprintln!("fault point {name}: {error}");
        }
    }
}
