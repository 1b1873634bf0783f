//! A Kafka Connect worker with Debezium's JDBC sink connector: [`Connect`].

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::guard::Guard;
use crate::install;
use crate::os::free_port;

/// A worker process, killed when dropped.
pub struct Connect {
    child: Child,
    guard: Option<Guard>,
    folder: TempDir,
}

impl Connect {
    /// Starts a worker that writes every topic that `topics` matches into the database at `port`, with a table for each
    /// topic. Messages must contain their schemas.
    pub fn to_postgres(brokers: &str, topics: &str, port: u16, database: &str) -> Connect {
        let folder = tempfile::Builder::new().prefix("cdc-audit-connect-").tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        let converter = "org.apache.kafka.connect.json.JsonConverter";
        let worker = format!(
            "bootstrap.servers={brokers}\nkey.converter={converter}\nvalue.converter={converter}\n\
             offset.storage.file.filename={}\nlisteners=http://127.0.0.1:{}\nplugin.discovery=only_scan\n\
             consumer.isolation.level=read_committed\nconsumer.auto.offset.reset=earliest\nconsumer.metadata.max.age.ms=500\n",
            path("offsets").display(),
            free_port(),
        );
        let connector = format!(
            "name=sink\nconnector.class=io.debezium.connector.jdbc.JdbcSinkConnector\ntopics.regex={topics}\n\
             connection.url=jdbc:postgresql://127.0.0.1:{port}/{database}\nconnection.username=postgres\nconnection.password=unused\n\
             insert.mode=upsert\nprimary.key.mode=record_key\ndelete.enabled=true\nschema.evolution=basic\n",
        );
        for (name, text) in [("worker.properties", worker), ("connector.properties", connector)] {
            fs::write(path(name), text).expect("a file of the worker");
        }
        let jars = install::connect().unwrap_or_else(|error| panic!("{error:#}"));
        let log = || File::create(path("log")).expect("the worker's log");
        let child = Command::new("java")
            .args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(jars.join("*"))
            .arg("org.apache.kafka.connect.cli.ConnectStandalone")
            .args([path("worker.properties"), path("connector.properties")])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log())
            .spawn()
            .expect("Java runs");
        let guard = Some(Guard::over_process(child.id()));
        Connect { child, guard, folder }
    }

    /// Reads what the worker has written to its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        self.guard.take();
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
