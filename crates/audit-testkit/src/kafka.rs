//! A Kafka broker on 127.0.0.1 that is its own controller: [`Kafka`].
//!
//! It has five listeners: in plain text, in plain text behind a [`Proxy`] that it announces as its address, with SASL,
//! with SASL over TLS, and with TLS that requires a client certificate.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::guard::Guard;
use crate::os::{self, Signal, free_port};
use crate::proxy::Proxy;
use crate::tls::{Authority, Identity};
use crate::wait::eventually;
use audit_install::kafka;

/// A broker, stopped and removed when dropped.
pub struct Kafka {
    ports: Ports,
    proxy: Proxy,
    authority: Authority,
    machine: Machine,
    process: Option<Child>,
    guard: Option<Guard>,
    folder: TempDir,
}

/// The settings of the broker's Java.
#[derive(Clone, Copy)]
enum Machine {
    /// A small machine for a short-lived broker, which must start quickly.
    Small,
    Fast,
}

impl Machine {
    fn options(self) -> &'static [&'static str] {
        match self {
            Machine::Small => &["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"],
            Machine::Fast => &["-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"],
        }
    }
}

#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    proxied: u16,
    sasl: u16,
    sasl_tls: u16,
    tls: u16,
    controller: u16,
}

/// Name and password of the user for PLAIN and SCRAM.
pub const KAFKA_USER: (&str, &str) = ("alice", "alice-secret");

/// The cluster's id. It may be the same for all, because each broker is a separate cluster.
const CLUSTER: &str = "q1Sh-9_ISia_zwGINzRvyQ";

impl Kafka {
    pub fn start() -> Kafka {
        Kafka::launch(Machine::Small)
    }

    /// Starts a broker for measurements.
    pub fn fast() -> Kafka {
        Kafka::launch(Machine::Fast)
    }

    fn launch(machine: Machine) -> Kafka {
        let folder = tempfile::Builder::new().prefix("cdc-audit-kafka-").tempdir().expect("a temporary folder");
        let ports = Ports {
            plain: free_port(),
            proxied: free_port(),
            sasl: free_port(),
            sasl_tls: free_port(),
            tls: free_port(),
            controller: free_port(),
        };
        let (proxy, authority) = (Proxy::to(ports.proxied), Authority::new());
        let Identity { certificate, key } = authority.server(&["127.0.0.1", "localhost"]);
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file of the broker");
        write("broker.pem", &format!("{key}{certificate}"));
        write("ca.pem", authority.certificate());
        write("server.properties", &properties(ports, proxy.port(), folder.path()));
        let (user, password) = KAFKA_USER;
        let mut format = java(Machine::Small, folder.path(), "kafka.tools.StorageTool");
        format.args(["format", "-t", CLUSTER, "-c"]).arg(folder.path().join("server.properties"));
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            format.args(["--add-scram", &format!("{mechanism}=[name={user},password={password}]")]);
        }
        audit_install::run(&mut format).unwrap_or_else(|error| panic!("{error:#}"));
        let mut broker = Kafka { ports, proxy, authority, machine, process: None, guard: None, folder };
        broker.start_again();
        broker
    }

    /// Returns the broker that all tests of this process share. The first call starts it.
    pub async fn shared() -> &'static Kafka {
        static BROKER: OnceLock<Kafka> = OnceLock::new();
        tokio::task::spawn_blocking(|| BROKER.get_or_init(Kafka::start)).await.expect("the broker starts")
    }

    /// Starts it with its existing data. Waits until it serves.
    pub fn start_again(&mut self) {
        let log = self.folder.path().join("log");
        let output = fs::File::create(&log).expect("a log");
        let mut command = java(self.machine, self.folder.path(), "kafka.Kafka");
        command.arg(self.folder.path().join("server.properties")).stdin(Stdio::null());
        command.stdout(output.try_clone().expect("a log")).stderr(output);
        let mut process = command.spawn().expect("java starts");
        self.guard = Some(Guard::over_process_in(process.id(), self.folder.path()));
        eventually("the broker serves", || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(matches!(process.try_wait(), Ok(None)), "the broker ended:\n{said}");
            said.contains("Kafka Server started")
        });
        self.process = Some(process);
    }

    /// Ends it normally.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// Ends it at once.
    pub fn kill9(&mut self) {
        self.end(Signal::KILL);
    }

    fn end(&mut self, signal: Signal) {
        // Dismiss the guard first, because it would remove the folder.
        self.guard = None;
        if let Some(mut process) = self.process.take() {
            os::signal(process.id(), signal);
            drop(process.wait());
        }
    }

    /// The address for clients in plain text.
    pub fn brokers(&self) -> String {
        address(self.ports.plain)
    }

    /// The address for clients in plain text through [`Kafka::proxy`].
    pub fn through_proxy(&self) -> String {
        address(self.proxy.port())
    }

    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// The address for SASL in plain text: PLAIN, SCRAM, and OAUTHBEARER with unsigned tokens.
    pub fn sasl(&self) -> String {
        address(self.ports.sasl)
    }

    /// The address for SASL over TLS.
    pub fn sasl_tls(&self) -> String {
        address(self.ports.sasl_tls)
    }

    /// The address for TLS; a client must show a certificate of [`Kafka::authority`].
    pub fn tls(&self) -> String {
        address(self.ports.tls)
    }

    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn java(machine: Machine, folder: &Path, class: &str) -> Command {
    let jars = kafka().unwrap_or_else(|error| panic!("{error:#}"));
    let mut command = Command::new("java");
    command.args(machine.options()).args(["-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
    command.args(["-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info", "-cp"]);
    command.arg(jars.join("*")).arg(class).current_dir(folder);
    command
}

fn properties(ports: Ports, announced: u16, folder: &Path) -> String {
    let Ports { plain, proxied, sasl, sasl_tls, tls, controller } = ports;
    let (folder, (user, password)) = (folder.display(), KAFKA_USER);
    let security = "org.apache.kafka.common.security";
    let logins: String = ["sasl", "saslssl"]
        .iter()
        .map(|listener| {
            format!(
                "listener.name.{listener}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
                 listener.name.{listener}.plain.sasl.jaas.config={security}.plain.PlainLoginModule required user_{user}=\"{password}\";\n\
                 listener.name.{listener}.scram-sha-256.sasl.jaas.config={security}.scram.ScramLoginModule required;\n\
                 listener.name.{listener}.scram-sha-512.sasl.jaas.config={security}.scram.ScramLoginModule required;\n\
                 listener.name.{listener}.oauthbearer.sasl.jaas.config={security}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";\n"
            )
        })
        .collect();
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
         listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{proxied},SASL://127.0.0.1:{sasl},\
         SASLSSL://127.0.0.1:{sasl_tls},SSL://127.0.0.1:{tls},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{plain},PROXIED://127.0.0.1:{announced},SASL://127.0.0.1:{sasl},\
         SASLSSL://127.0.0.1:{sasl_tls},SSL://127.0.0.1:{tls}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,SASL:SASL_PLAINTEXT,SASLSSL:SASL_SSL,SSL:SSL,\
         CONTROLLER:PLAINTEXT\n{logins}\
         ssl.keystore.type=PEM\nssl.keystore.location={folder}/broker.pem\n\
         ssl.truststore.type=PEM\nssl.truststore.location={folder}/ca.pem\nlistener.name.ssl.ssl.client.auth=required\n\
         log.dirs={folder}/data\nauto.create.topics.enable=false\nnum.partitions=3\ndefault.replication.factor=1\n\
         min.insync.replicas=1\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=1\n\
         share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
         transaction.abort.timed.out.transaction.cleanup.interval.ms=500\ngroup.initial.rebalance.delay.ms=0\n"
    )
}
