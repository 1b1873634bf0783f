//! From the return of COMMIT until somebody sees the version: a reader of the hot table, a `read_committed` consumer of Kafka, and the same
//! consumer behind Debezium. One row at a time, on an idle machine.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use audit_testkit::{connect, unique};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::{Client, Statement};

use crate::daemon::Sinks;
use crate::debezium;
use crate::report::{Gate, Report};
use crate::variant::{Bench, Variant};
use crate::workload::{DATABASE, drop_slot};

/// A version that is not visible by then was lost.
const LIMIT: Duration = Duration::from_secs(60);

/// Commits that go by unmeasured: they wait for the daemon to come up, and for its caches.
const WARM_UP: i64 = 20;

/// Who looks for the versions.
enum Reader {
    /// Looks again and again without a pause, and so takes a core: what it adds is one answer of the server.
    Hot(Client, Statement),
    Kafka(BaseConsumer),
}

pub fn measure(bench: &Bench, commits: i64, only: &[String], report: &mut Report) -> Result<()> {
    let gates = [Some(Gate::AtMost(5.0)), Some(Gate::AtMost(25.0))];
    for (variant, gates) in [(Variant::Hot, gates), (Variant::Kafka, [None; 2]), (Variant::Debezium, [None; 2])] {
        if !only.is_empty() && !only.iter().any(|only| only == variant.name()) {
            continue;
        }
        let mut millis = of_variant(bench, variant, commits)?;
        millis.sort_by(f64::total_cmp);
        for (name, part, gate) in [("p50", 0.5, gates[0]), ("p99", 0.99, gates[1])] {
            let at = ((millis.len() as f64 * part) as usize).min(millis.len() - 1);
            report.value(format!("commit to visible, {}, {name}", variant.name()), millis[at], "ms", gate);
        }
    }
    Ok(())
}

fn of_variant(bench: &Bench, variant: Variant, commits: i64) -> Result<Vec<f64>> {
    let (cluster, server) = (&bench.cluster, &bench.cluster.server);
    let slot = unique("latency");
    cluster.sql(DATABASE, "TRUNCATE latency;")?;
    cluster.sql(DATABASE, &format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput');"))?;
    let mut sinks = Sinks::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (mut command, reader) = match variant {
        Variant::Hot => {
            let database = cluster.hot_database()?;
            let reader = runtime.block_on(hot(&server.url(&database)))?;
            sinks.hot = Some(database);
            (bench.program.run(&bench.program.config(cluster, &slot, "pub_latency", &sinks)?, None), reader)
        }
        Variant::Kafka => {
            let stream = bench.stream(&slot, "");
            let topic = stream.topic_called(format!("{slot}.public.latency"))?;
            let reader = Reader::Kafka(consumer(&stream.brokers, &topic)?);
            sinks.stream = Some(stream);
            let config = bench.program.config(cluster, &slot, "pub_latency", &sinks)?;
            bench.program.set_up_sinks(&config)?;
            (bench.program.run(&config, None), reader)
        }
        _ => {
            let stream = bench.stream(&slot, "");
            let topic = stream.topic()?;
            let reader = Reader::Kafka(consumer(&stream.brokers, &topic)?);
            let slots = [(slot.as_str(), topic.as_str())];
            (debezium::engine(cluster, "pub_latency", "latency", &stream, 0, &slots)?, reader)
        }
    };
    cluster.settle()?;
    let mut process = start(&mut command, bench)?;
    let measured = runtime.block_on(async {
        let source = connect(&server.url(DATABASE)).await;
        commit_and_look(&source, &reader, commits, &mut process).await
    });
    stop(&mut process)?;
    drop_slot(server, &slot)?;
    if let Some(database) = &sinks.hot {
        drop(reader);
        cluster.drop_database(database)?;
    }
    measured
}

async fn hot(url: &str) -> Result<Reader> {
    let client = connect(url).await;
    let look = "SELECT 1 FROM cdc_audit.versions WHERE table_name = 'public.latency' AND left(key, 200) = $1";
    let look = client.prepare(look).await?;
    Ok(Reader::Hot(client, look))
}

fn consumer(brokers: &str, topic: &str) -> Result<BaseConsumer> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers).set("group.id", "latency").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = client.set("isolation.level", "read_committed").create()?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&assignment)?;
    Ok(consumer)
}

async fn commit_and_look(source: &Client, reader: &Reader, commits: i64, process: &mut Child) -> Result<Vec<f64>> {
    let insert = source.prepare("INSERT INTO latency VALUES ($1, repeat('x', 60))").await?;
    let mut millis = Vec::new();
    for id in 0..WARM_UP + commits {
        source.execute(&insert, &[&id]).await?;
        let committed = Instant::now();
        while !reader.sees(id).await? {
            if let Some(status) = process.try_wait()? {
                bail!("the process ended ({status}) while latency was measured");
            }
            if committed.elapsed() > LIMIT {
                bail!("a version was not visible {LIMIT:?} after its commit");
            }
        }
        if id >= WARM_UP {
            millis.push(committed.elapsed().as_secs_f64() * 1e3);
        }
        // 5 to 24 ms, so that nothing falls in step with a timer.
        tokio::time::sleep(Duration::from_millis(5 + (id * 7 % 20) as u64)).await;
    }
    Ok(millis)
}

impl Reader {
    /// Whether row `id`, which was the last to be committed, is there.
    async fn sees(&self, id: i64) -> Result<bool> {
        match self {
            Reader::Hot(client, look) => Ok(!client.query(look, &[&id.to_string()]).await?.is_empty()),
            // Messages come in the order of commits, each once.
            Reader::Kafka(consumer) => match consumer.poll(Duration::from_millis(100)) {
                Some(message) => Ok(message?.key_len() > 0),
                None => Ok(false),
            },
        }
    }
}

fn start(command: &mut Command, bench: &Bench) -> Result<Child> {
    let log = std::fs::File::create(bench.program.folder().join("latency.log"))?;
    Ok(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?)
}

fn stop(process: &mut Child) -> Result<()> {
    if let Some(pid) = i32::try_from(process.id()).ok().and_then(Pid::from_raw) {
        // One that has ended already needs no signal.
        let _ = kill_process(pid, Signal::TERM);
    }
    process.wait()?;
    Ok(())
}
