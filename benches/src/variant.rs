//! What is timed: the reference, the daemon with one sink or another, and a bare COPY of what the hot sink stored.

use std::cell::{Cell, OnceCell};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use audit_testkit::install::client_program;
use audit_testkit::{Kafka, ObjectKind, ObjectServer};

use crate::cluster::{Cluster, pg_recvlogical};
use crate::daemon::{Lake, Program, Sinks, Stream, lake_rows};
use crate::debezium;
use crate::process::{self, Cost};
use crate::workload::{DATABASE, Prepared, drop_slot};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// `pg_recvlogical` over TCP, to /dev/null.
    Reference,
    /// The daemon's loop, with a sink that keeps nothing.
    NoSink,
    Lake,
    Hot,
    Both,
    /// The lake behind an S3 server on this machine.
    LakeS3,
    Kafka,
    /// Kafka with Debezium's envelope, without inline schemas.
    KafkaDebezium,
    /// Hot, lake and Kafka at once.
    All,
    /// Debezium's embedded engine, tuned and warm, into the same broker.
    Debezium,
    /// librdkafka's own benchmark, with as many messages of the same size, compression and acks.
    Producer,
    /// psql's binary COPY of the rows that the hot sink stored, into the same table.
    BareCopy,
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Variant::Reference => "pg_recvlogical",
            Variant::NoSink => "no sink",
            Variant::Lake => "lake",
            Variant::Hot => "hot",
            Variant::Both => "hot and lake",
            Variant::LakeS3 => "lake on S3",
            Variant::Kafka => "Kafka",
            Variant::KafkaDebezium => "Kafka in Debezium's format",
            Variant::All => "hot, lake and Kafka",
            Variant::Debezium => "Debezium",
            Variant::Producer => "rdkafka_performance",
            Variant::BareCopy => "bare COPY",
        }
    }

    pub fn is_daemon(self) -> bool {
        !matches!(self, Variant::Reference | Variant::BareCopy | Variant::Producer | Variant::Debezium)
    }

    pub fn has_hot(self) -> bool {
        matches!(self, Variant::Hot | Variant::Both | Variant::All)
    }

    /// What of the daemon's stream goes to Kafka: further keys of that sink.
    fn stream(self) -> Option<&'static str> {
        match self {
            Variant::Kafka | Variant::All => Some(""),
            Variant::KafkaDebezium => Some("format = \"debezium\"\ninline_schema = false\n"),
            _ => None,
        }
    }

    /// The broker is not part of what is measured; its messages are.
    pub fn has_messages(self) -> bool {
        matches!(self, Variant::Kafka | Variant::KafkaDebezium | Variant::Producer)
    }
}

pub struct Bench {
    pub cluster: Cluster,
    pub program: Program,
    /// Started by the first workload that writes to it.
    kafka: OnceCell<Kafka>,
    /// The same for the lake on S3.
    objects: OnceCell<ObjectServer>,
    /// Of the last run to Kafka, in bytes: a version's key and value.
    message: Cell<u64>,
}

impl Bench {
    pub fn new(cluster: Cluster, program: Program) -> Bench {
        Bench { cluster, program, kafka: OnceCell::new(), objects: OnceCell::new(), message: Cell::new(0) }
    }

    /// A broker with room, in whose topics each run writes its own.
    pub fn stream(&self, source: &str, more: &'static str) -> Stream {
        Stream { brokers: self.kafka.get_or_init(Kafka::fast).brokers(), source: source.to_owned(), more }
    }

    fn objects(&self) -> &ObjectServer {
        self.objects.get_or_init(|| ObjectServer::start(ObjectKind::S3))
    }

    /// Runs the daemon with the Kafka sink, so that the size of its messages is known for [`Variant::Producer`].
    pub fn size(&self, prepared: &Prepared) -> Result<()> {
        self.run(prepared, Variant::Kafka).map(drop)
    }

    pub fn message_bytes(&self) -> u64 {
        self.message.get()
    }

    fn produce(&self, rows: u64) -> Result<Cost> {
        let program = audit_testkit::install::rdkafka_performance()?;
        let stream = self.stream(&audit_testkit::unique("performance"), "");
        let topic = stream.topic()?;
        let mut command = process::command(&program);
        command.args(["-P", "-q", "-t", &topic, "-p", "0", "-b", &stream.brokers]);
        command.args(["-c", &rows.to_string(), "-s", &self.message.get().max(1).to_string()]);
        for setting in ["acks=all", "enable.idempotence=true", "compression.codec=lz4"] {
            command.args(["-X", setting]);
        }
        self.cluster.settle()?;
        let cost = process::measure(command, self.cluster.postmaster)?;
        let (stored, _) = stream.rows()?;
        ensure!(stored == rows, "Kafka has {stored} of {rows} messages");
        Ok(cost)
    }

    /// Runs it once, and proves that every row arrived.
    pub fn run(&self, prepared: &Prepared, variant: Variant) -> Result<Cost> {
        let failed = || format!("{}, {}", variant.name(), prepared.workload);
        match variant {
            Variant::BareCopy => {
                let database = self.cluster.hot_database()?;
                let cost = self.copy(&database, &self.dump(), prepared.workload.rows).with_context(failed)?;
                self.cluster.drop_database(&database)?;
                Ok(cost)
            }
            Variant::Producer => self.produce(prepared.workload.rows).with_context(failed),
            Variant::Debezium => {
                debezium::drain(&self.cluster, prepared, |slot| self.stream(slot, "")).with_context(failed)
            }
            _ => self.drain(prepared, variant, |_| Ok(())).with_context(failed),
        }
    }

    /// Runs the daemon's loop without a sink, with the method on [`PROTECTED`](crate::workload::PROTECTED).
    pub fn protected(&self, prepared: &Prepared, method: Option<&str>) -> Result<Cost> {
        let server = &self.cluster.server;
        let slot = prepared.copy_slot(server)?;
        let mut command = process::command(&std::env::current_exe()?);
        command.arg("null").arg(server.url(DATABASE)).args([&slot, &prepared.workload.publication(), &prepared.end]);
        command.args(method.iter().flat_map(|method| ["--protect", method]));
        self.cluster.settle()?;
        let cost = process::measure(command, self.cluster.postmaster)?;
        let versions: u64 = cost.output.trim().parse().context("the number of versions")?;
        let rows = prepared.workload.rows;
        ensure!(versions == rows, "{versions} versions came of {rows} rows");
        drop_slot(server, &slot)?;
        Ok(cost)
    }

    /// Runs the daemon with the hot sink, and keeps what it stored for [`Variant::BareCopy`].
    pub fn record(&self, prepared: &Prepared) -> Result<()> {
        self.record_as(prepared, &self.dump(), None)
    }

    /// The same, to a file and with another expression in place of one column.
    pub fn record_as(&self, prepared: &Prepared, file: &Path, instead: Option<(&str, &str)>) -> Result<()> {
        let (column, expression) = instead.unwrap_or_default();
        let list = format!(
            "SELECT string_agg(CASE attname WHEN '{column}' THEN '{}' ELSE quote_ident(attname) END, ', ' ORDER BY attnum) \
             FROM pg_attribute WHERE attrelid = 'cdc_audit.versions'::regclass AND attnum > 0 AND NOT attisdropped;",
            expression.replace('\'', "''")
        );
        self.drain(prepared, Variant::Hot, |database| {
            let (columns, path) = (self.cluster.sql(database, &list)?, file.display());
            let copy = format!("\\copy (SELECT {columns} FROM cdc_audit.versions) TO '{path}' WITH (FORMAT binary)");
            self.cluster.sql(database, &copy).map(drop)
        })?;
        Ok(())
    }

    /// Brings such a file into an empty hot database.
    pub fn copy(&self, database: &str, file: &Path, rows: u64) -> Result<Cost> {
        self.cluster.settle()?;
        let mut command = process::command(&client_program("psql"));
        command.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-d", &self.cluster.server.url(database), "-c"]);
        command.arg(format!("\\copy cdc_audit.versions FROM '{}' WITH (FORMAT binary)", file.display()));
        let cost = process::measure(command, self.cluster.postmaster)?;
        self.expect_hot(database, rows)?;
        Ok(cost)
    }

    fn dump(&self) -> PathBuf {
        self.program.folder().join("versions.copy")
    }

    /// Drains a copy of the slot. `with_hot` sees the hot database before it goes.
    fn drain(&self, prepared: &Prepared, variant: Variant, with_hot: impl Fn(&str) -> Result<()>) -> Result<Cost> {
        let drain = Drain::new(self, prepared, variant)?;
        let command = drain.command(self, prepared, variant)?;
        self.cluster.settle()?;
        let cost = process::measure(command, self.cluster.postmaster)?;
        let rows = prepared.workload.rows;
        if variant == Variant::NoSink {
            let versions: u64 = cost.output.trim().parse().context("the number of versions")?;
            ensure!(versions == rows, "{versions} versions came of {rows} rows");
        }
        if let Some(database) = &drain.sinks.hot {
            self.expect_hot(database, rows)?;
            with_hot(database)?;
        }
        if let Some(lake) = &drain.sinks.lake {
            let stored = lake_rows(&lake.folder)?;
            ensure!(stored == rows, "the lake has {stored} of {rows} rows");
        }
        if let Some(stream) = &drain.sinks.stream {
            let (stored, bytes) = stream.rows()?;
            if variant == Variant::Kafka {
                self.message.set(bytes / stored.max(1));
            }
            ensure!(stored == rows, "Kafka has {stored} of {rows} rows");
        }
        drain.clear(self)?;
        Ok(cost)
    }

    fn expect_hot(&self, database: &str, rows: u64) -> Result<()> {
        let stored = self.cluster.sql(database, "SELECT count(*) FROM cdc_audit.versions;")?;
        ensure!(stored == rows.to_string(), "the hot table has {stored} of {rows} rows");
        Ok(())
    }

    /// One more run under `perf`; where the daemon's time went lies in `folder` then.
    pub fn profile(&self, prepared: &Prepared, variant: Variant, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let name = format!("{} {}", variant.name(), prepared.workload).replace(' ', "-").to_lowercase();
        let data = folder.join(format!("{name}.data"));
        let drain = Drain::new(self, prepared, variant)?;
        let command = drain.command(self, prepared, variant)?;
        let mut record = Command::new("perf");
        record.args(["record", "-q", "-F", "1999", "-o"]).arg(&data).arg("--");
        record.arg(command.get_program()).args(command.get_args());
        process::measure(record, self.cluster.postmaster)?;
        drain.clear(self)?;
        let mut report = Command::new("perf");
        report.args(["report", "--stdio", "--no-children", "--percent-limit", "0.4", "--sort", "comm,symbol", "-i"]);
        let text = report.arg(&data).output().context("cannot run perf")?.stdout;
        std::fs::write(folder.join(format!("{name}.txt")), text)?;
        Ok(())
    }
}

/// A copy of the slot, and empty sinks.
struct Drain {
    slot: String,
    sinks: Sinks,
}

impl Drain {
    fn new(bench: &Bench, prepared: &Prepared, variant: Variant) -> Result<Drain> {
        let slot = prepared.copy_slot(&bench.cluster.server)?;
        let hot = if variant.has_hot() { Some(bench.cluster.hot_database()?) } else { None };
        let lake = match variant {
            Variant::Lake | Variant::Both | Variant::All => {
                let folder = bench.program.folder().join(format!("lake_{slot}"));
                std::fs::create_dir(&folder)?;
                Some(Lake { place: format!("url = \"{}\"\n", folder.display()), folder })
            }
            Variant::LakeS3 => {
                let objects = bench.objects();
                Some(Lake { folder: objects.folder(&slot), place: objects.lake(&slot, objects.port()) })
            }
            _ => None,
        };
        let stream = variant.stream().map(|more| bench.stream(&slot, more));
        Ok(Drain { slot, sinks: Sinks { hot, lake, stream } })
    }

    fn command(&self, bench: &Bench, prepared: &Prepared, variant: Variant) -> Result<Command> {
        let (server, slot, publication) = (&bench.cluster.server, self.slot.as_str(), prepared.workload.publication());
        Ok(match variant {
            Variant::Reference | Variant::BareCopy | Variant::Producer | Variant::Debezium => {
                let mut command = process::command(&pg_recvlogical()?);
                let port = server.port().to_string();
                command.args(["-h", "127.0.0.1", "-U", "postgres", "-d", DATABASE, "-p", &port, "-S", slot]);
                command.args(["--start", "-f", "/dev/null", "--no-loop", "-s", "5", "--endpos", &prepared.end]);
                command.args(["-o", "proto_version=1", "-o", &format!("publication_names={publication}")]);
                command
            }
            Variant::NoSink => {
                let mut command = process::command(&std::env::current_exe()?);
                command.arg("null").arg(server.url(DATABASE)).args([slot, &publication, &prepared.end]);
                command
            }
            Variant::Lake
            | Variant::Hot
            | Variant::Both
            | Variant::LakeS3
            | Variant::Kafka
            | Variant::KafkaDebezium
            | Variant::All => {
                let config = bench.program.config(&bench.cluster, slot, &publication, &self.sinks)?;
                if self.sinks.stream.is_some() {
                    // The checkpoint's topic; in the source everything is there.
                    bench.program.set_up_sinks(&config)?;
                }
                bench.program.run(&config, Some(&prepared.end))
            }
        })
    }

    fn clear(self, bench: &Bench) -> Result<()> {
        drop_slot(&bench.cluster.server, &self.slot)?;
        if let Some(database) = &self.sinks.hot {
            bench.cluster.drop_database(database)?;
        }
        if let Some(lake) = &self.sinks.lake {
            std::fs::remove_dir_all(&lake.folder)?;
        }
        Ok(())
    }
}
