//! The local port: health, readiness, metrics, status.

use std::sync::Arc;

use audit_core::position::Micros;
use audit_pipeline::status::{Phase, StatusReport, TableCount};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// Gives the status of the moment.
pub type Report = Arc<dyn Fn() -> StatusReport + Send + Sync>;

/// Not ready when nothing has moved for this long although there is something to move.
const STUCK_SECONDS: f64 = 300.0;

/// Serves until the task is dropped.
pub async fn serve(listener: tokio::net::TcpListener, report: Report) -> std::io::Result<()> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics { report: report.clone() }));
    let registry = Arc::new(registry);
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/status", get(|State(report): State<Report>| async move { Json(report()) }))
        .route("/metrics", get(move || metrics(registry.clone())))
        .with_state(report);
    axum::serve(listener, app).await
}

/// Ready means progressing, not merely alive.
async fn readyz(State(report): State<Report>) -> Response {
    match not_ready(&report()) {
        None => (StatusCode::OK, "ready\n".to_string()).into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

fn not_ready(report: &StatusReport) -> Option<String> {
    let idle = Micros::now().0 as f64 / 1e6 - report.last_progress;
    match &report.phase {
        Phase::Streaming => {}
        Phase::WaitingForKey { class } => return Some(format!("there is no key of class {class}")),
        Phase::Waiting { holder } => return Some(format!("the slot is held by {holder}")),
        phase => return Some(format!("{phase:?}").to_lowercase()),
    }
    if let Some(sink) = report.sinks.iter().find(|sink| sink.failing) {
        return Some(format!("sink {} is failing", sink.name));
    }
    let waits = report.received > report.acknowledged;
    (waits && idle > STUCK_SECONDS).then(|| format!("nothing has moved for {idle:.0} s"))
}

async fn metrics(registry: Arc<Registry>) -> Response {
    let mut body = String::new();
    match text::encode(&mut body, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Turns the status into metrics when they are asked for.
struct Metrics {
    report: Report,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let report = (self.report)();
        let ready = not_ready(&report).is_none();
        let streaming = report.phase == Phase::Streaming;
        for (name, help, value) in [
            ("up", "1 while the stream is followed", f64::from(u8::from(streaming))),
            ("ready", "1 while the daemon makes progress", f64::from(u8::from(ready))),
            ("slot_lag_bytes", "WAL that the slot holds back", report.lag_bytes as f64),
            ("slot_lag_seconds", "Age of the last commit that is not acknowledged", report.lag_seconds),
            ("memory_used_bytes", "Batches between the stream and the sinks", report.memory_used_bytes as f64),
            ("memory_limit_bytes", "The configured limit", report.memory_limit_bytes as f64),
            ("last_progress_timestamp_seconds", "When something last moved", report.last_progress),
            ("epoch", "The epoch of the source's positions", f64::from(report.epoch)),
            (
                "tables_not_published",
                "Tables that the rules take and that are not published",
                report.uncaptured.tables.len() as f64,
            ),
            (
                "tables_left",
                "Tables that were captured and are not published any more",
                report.uncaptured.left.len() as f64,
            ),
            (
                "operations_not_published",
                "Kinds of changes (insert, update, delete, truncate) that the publication leaves out",
                report.uncaptured.operations.len() as f64,
            ),
            (
                "partitions_by_name",
                "1 while partitions are published under their own names",
                f64::from(u8::from(report.uncaptured.partitions_by_name)),
            ),
            (
                "synchronous_standby",
                "1 while COMMITs of the source wait for the daemon, by synchronous_standby_names",
                f64::from(u8::from(report.synchronous_standby)),
            ),
        ] {
            gauge(&mut encoder, name, help, value)?;
        }
        for (name, help, value) in [
            ("changes", "Changes received", report.changes),
            ("versions", "Versions made", report.versions),
            ("transactions", "Transactions received", report.transactions),
            (
                "versions_without_actor",
                "Versions without an actor in tables that require one",
                report.versions_without_actor,
            ),
            (
                "versions_without_reason",
                "Versions without a reason in tables that require one",
                report.versions_without_reason,
            ),
            ("gaps", "Lost stretches of WAL that were accepted", report.gaps),
        ] {
            let metric = ConstCounter::new(value);
            let name = format!("cdc_audit_{name}");
            metric.encode(encoder.encode_descriptor(&name, help, None, metric.metric_type())?)?;
        }
        self.tables(&mut encoder, &report)?;
        self.sinks(&mut encoder, &report)
    }
}

impl Metrics {
    /// Only of tables that have something to show: a source may have thousands.
    fn tables(&self, encoder: &mut DescriptorEncoder, report: &StatusReport) -> Result<(), std::fmt::Error> {
        type Count = fn(&TableCount) -> u64;
        let counters: [(&str, &str, Count); 2] = [
            ("table_versions_without_actor", "Versions without the actor that the table requires", |t| t.without_actor),
            ("table_versions_without_reason", "Versions without the reason that the table requires", |t| {
                t.without_reason
            }),
        ];
        for (name, help, read) in counters {
            let metric = ConstCounter::new(0u64);
            let name = format!("cdc_audit_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, metric.metric_type())?;
            for (table, count) in report.tables.iter().filter(|(_, count)| read(count) > 0) {
                let labels = [("table", table.as_str())];
                ConstCounter::new(read(count)).encode(family.encode_family(&labels)?)?;
            }
        }
        let gauges: [(&str, &str, Count); 2] = [
            ("withheld_columns", "Columns that no rule decides about, and that are not recorded", |t| t.withheld),
            ("lost_protection", "Columns, or the table, whose rules name what they were called before a rename", |t| {
                t.lost_protection
            }),
        ];
        for (name, help, read) in gauges {
            let metric = ConstGauge::new(0.0);
            let name = format!("cdc_audit_table_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, metric.metric_type())?;
            for (table, count) in report.tables.iter().filter(|(_, count)| read(count) > 0) {
                ConstGauge::new(read(count) as f64).encode(family.encode_family(&[("table", table.as_str())])?)?;
            }
        }
        Ok(())
    }

    fn sinks(&self, encoder: &mut DescriptorEncoder, report: &StatusReport) -> Result<(), std::fmt::Error> {
        type Read = fn(&StatusReport, usize) -> f64;
        let gauges: [(&str, &str, Read); 5] = [
            ("sink_lag_bytes", "WAL that the sink has not stored", |r, i| r.sinks[i].lag_bytes as f64),
            ("sink_lag_seconds", "Seconds since the last commit that the sink has not stored", |r, i| {
                r.sinks[i].lag_seconds
            }),
            ("sink_held_bytes", "Memory of versions that are not durable yet", |r, i| r.sinks[i].held_bytes as f64),
            ("sink_failing", "1 while the sink fails", |r, i| f64::from(u8::from(r.sinks[i].failing))),
            ("sink_troubles", "Tables of the sink that fail while the others go on", |r, i| {
                r.sinks[i].troubles.len() as f64
            }),
        ];
        for (name, help, read) in gauges {
            let metric = ConstGauge::new(0.0);
            let name = format!("cdc_audit_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, metric.metric_type())?;
            for (index, sink) in report.sinks.iter().enumerate() {
                let labels = [("sink", sink.name.as_str())];
                ConstGauge::new(read(report, index)).encode(family.encode_family(&labels)?)?;
            }
        }
        type Count = fn(&StatusReport, usize) -> u64;
        let counters: [(&str, &str, Count); 2] = [
            ("sink_versions", "Versions taken in", |r, i| r.sinks[i].versions),
            ("sink_errors", "Failed attempts", |r, i| r.sinks[i].errors),
        ];
        for (name, help, read) in counters {
            let metric = ConstCounter::new(0u64);
            let name = format!("cdc_audit_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, metric.metric_type())?;
            for (index, sink) in report.sinks.iter().enumerate() {
                let labels = [("sink", sink.name.as_str())];
                ConstCounter::new(read(report, index)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: f64) -> Result<(), std::fmt::Error> {
    let metric = ConstGauge::new(value);
    let name = format!("cdc_audit_{name}");
    metric.encode(encoder.encode_descriptor(&name, help, None, metric.metric_type())?)
}

/// The names of all metrics, as Prometheus knows them.
#[cfg(test)]
pub(crate) fn names() -> Vec<String> {
    let report: StatusReport = serde_json::from_value(serde_json::json!({
        "source": "shop", "slot": "cdc_audit", "phase": "streaming", "epoch": 1, "wal_end": "0/0", "received": "0/0",
        "acknowledged": "0/0", "lag_bytes": 0, "lag_seconds": 0.0, "changes": 0, "versions": 0, "transactions": 0,
        "versions_without_actor": 0, "gaps": 0, "memory_used_bytes": 0, "memory_limit_bytes": 0,
        "waited_for_memory_seconds": 0.0, "sinks": [], "held_back_by": null, "tables": {}, "baseline": [],
        "last_error": null, "last_progress": 0.0,
    }))
    .unwrap_or_else(|error| unreachable!("{error}"));
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics { report: Arc::new(move || report.clone()) }));
    let mut text = String::new();
    let encoded = text::encode(&mut text, &registry);
    assert!(encoded.is_ok());
    let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    described.map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() }).collect()
}
