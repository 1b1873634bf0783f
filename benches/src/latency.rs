//! From the return of COMMIT until a reader of the hot table sees the version: one row at a time, on an idle machine.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use audit_testkit::connect;
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::{Client, Statement};

use crate::daemon::Sinks;
use crate::report::{Gate, Report};
use crate::variant::Bench;
use crate::workload::{DATABASE, drop_slot};

/// A version that is not visible by then was lost.
const LIMIT: Duration = Duration::from_secs(30);

/// Commits that go by unmeasured: they wait for the daemon to come up, and for its caches.
const WARM_UP: i64 = 20;

/// The reader looks again and again without a pause, and so takes a core: what it adds is one answer of the server.
pub fn measure(bench: &Bench, commits: i64, report: &mut Report) -> Result<()> {
    let server = &bench.cluster.server;
    let slot = audit_testkit::unique("latency");
    bench.cluster.sql(DATABASE, &format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput');"))?;
    let database = bench.cluster.hot_database()?;
    let sinks = Sinks { hot: Some(database.clone()), ..Sinks::default() };
    let config = bench.program.config(&bench.cluster, &slot, "pub_latency", &sinks)?;
    bench.cluster.settle()?;
    let log = std::fs::File::create(bench.program.folder().join("latency.log"))?;
    let mut command = bench.program.run(&config, None);
    let mut daemon = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let measured = runtime.block_on(async {
        let source = connect(&server.url(DATABASE)).await;
        let hot = connect(&server.url(&database)).await;
        commit_and_look(&source, &hot, commits, &mut daemon).await
    });
    stop(&mut daemon)?;
    let mut millis = measured?;
    millis.sort_by(f64::total_cmp);
    let quantile = |part: f64| {
        let at = ((millis.len() as f64 * part) as usize).min(millis.len() - 1);
        millis[at]
    };
    report.value("commit to visible in hot, p50", quantile(0.5), "ms", Some(Gate::AtMost(5.0)));
    report.value("commit to visible in hot, p99", quantile(0.99), "ms", Some(Gate::AtMost(25.0)));
    drop_slot(server, &slot)?;
    bench.cluster.drop_database(&database)
}

async fn commit_and_look(source: &Client, hot: &Client, commits: i64, daemon: &mut Child) -> Result<Vec<f64>> {
    let insert = source.prepare("INSERT INTO latency VALUES ($1, repeat('x', 60))").await?;
    let look = hot
        .prepare("SELECT 1 FROM cdc_audit.versions WHERE table_name = 'public.latency' AND left(key, 200) = $1")
        .await?;
    let mut millis = Vec::new();
    for id in 0..WARM_UP + commits {
        source.execute(&insert, &[&id]).await?;
        let committed = Instant::now();
        wait(hot, &look, id, daemon).await?;
        if id >= WARM_UP {
            millis.push(committed.elapsed().as_secs_f64() * 1e3);
        }
        // 5 to 24 ms, so that nothing falls in step with a timer.
        tokio::time::sleep(Duration::from_millis(5 + (id * 7 % 20) as u64)).await;
    }
    Ok(millis)
}

async fn wait(hot: &Client, look: &Statement, id: i64, daemon: &mut Child) -> Result<()> {
    let (key, begun) = (id.to_string(), Instant::now());
    while hot.query(look, &[&key]).await?.is_empty() {
        if let Some(status) = daemon.try_wait()? {
            bail!("the daemon ended ({status}) while latency was measured");
        }
        if begun.elapsed() > LIMIT {
            bail!("a version was not visible {LIMIT:?} after its commit");
        }
    }
    Ok(())
}

fn stop(daemon: &mut Child) -> Result<()> {
    if let Some(pid) = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw) {
        // One that has ended already needs no signal.
        let _ = kill_process(pid, Signal::TERM);
    }
    daemon.wait()?;
    Ok(())
}
