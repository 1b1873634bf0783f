//! Everything that was written, as bytes, and a search in it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use aho_corasick::AhoCorasick;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use audit_testkit::Daemon;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio_postgres::Client;

use crate::world::World;

/// Places where bytes were found, and the bytes.
#[derive(Default)]
pub struct Traces(Vec<(String, Vec<u8>)>);

/// Time for which a daemon that does not end is watched.
const WATCHED: Duration = Duration::from_secs(4);

impl Traces {
    fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Adds what its port and `status` say, until it ends by itself or was watched for long enough.
    pub fn while_it_runs(&mut self, world: &World, daemon: &mut Daemon) {
        let begun = Instant::now();
        while daemon.ended().is_none() && begun.elapsed() < WATCHED {
            for path in ["metrics", "status", "readyz"] {
                self.add(path, get(world.http, path).unwrap_or_default());
            }
            self.command(&["status"], &world.command(&["status"]));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub fn text(&mut self, what: &str, text: String) {
        self.add(what, text);
    }

    /// Adds everything that it wrote; it is killed if it runs.
    pub fn output(&mut self, what: &str, mut daemon: Daemon) {
        if daemon.ended().is_none() {
            daemon.kill();
        }
        self.add(format!("the daemon's output, {what}"), daemon.output());
    }

    pub fn command(&mut self, arguments: &[&str], output: &Output) {
        // Only the first word names the command, because an argument may be a secret.
        let what = arguments.iter().take(1).copied().collect::<String>();
        self.add(format!("what {what} prints"), [output.stdout.as_slice(), &output.stderr].concat());
    }

    /// Adds every file under a folder as it is, and its name.
    pub fn folder(&mut self, what: &str, folder: &Path) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries {
            let path = entry.expect("an entry").path();
            self.add(format!("names in {what}"), path.to_string_lossy().as_bytes());
            match path.is_dir() {
                true => self.folder(what, &path),
                false => self.add(format!("{what}: {}", path.display()), std::fs::read(&path).unwrap_or_default()),
            }
        }
    }

    /// Adds the lake's files as they are, and the values in its Parquet files.
    pub fn lake(&mut self, folder: &Path) {
        self.folder("the lake", folder);
        for path in parquet_files(folder) {
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).expect("a file")).expect("Parquet");
            let batches: Vec<_> = reader.build().expect("a reader").collect::<Result<_, _>>().expect("rows");
            for column in batches.iter().flat_map(|batch| batch.columns()) {
                let options = FormatOptions::default();
                let cells = ArrayFormatter::try_new(column, &options).expect("a type that can be shown");
                let text: String = (0..column.len()).map(|row| format!("{}\n", cells.value(row))).collect();
                self.add(format!("values of {}", path.display()), text);
            }
        }
    }

    /// Adds every message of every topic, committed or not.
    pub fn kafka(&mut self, brokers: &str) {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", brokers).set("group.id", "search").set("isolation.level", "read_uncommitted");
        client.set("enable.partition.eof", "true").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = client.create().expect("a consumer");
        let answer = Duration::from_secs(60);
        let metadata = consumer.fetch_metadata(None, answer).expect("the broker answers");
        for topic in metadata.topics().iter().filter(|topic| !topic.name().starts_with("__")) {
            for partition in topic.partitions() {
                let (_, end) = consumer.fetch_watermarks(topic.name(), partition.id(), answer).expect("offsets");
                let mut place = TopicPartitionList::new();
                place.add_partition_offset(topic.name(), partition.id(), Offset::Beginning).expect("a place");
                consumer.assign(&place).expect("an assignment");
                let mut at = 0;
                // Markers of transactions have offsets too, so the end may come after the last message without another.
                while at < end {
                    let message = match consumer.poll(answer).expect("the broker answers") {
                        Ok(message) => message,
                        Err(KafkaError::PartitionEOF(_)) => break,
                        Err(error) => panic!("{error}"),
                    };
                    at = message.offset() + 1;
                    let mut bytes = [message.key().unwrap_or_default(), message.payload().unwrap_or_default()].concat();
                    for header in message.headers().iter().flat_map(|headers| headers.iter()) {
                        bytes.extend_from_slice(header.value.unwrap_or_default());
                    }
                    self.add(format!("topic {}", topic.name()), bytes);
                }
            }
        }
    }

    /// Adds every row of every table of the schema as text.
    pub async fn database(&mut self, client: &Client) {
        let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'cdc_audit'";
        for table in client.query(tables, &[]).await.expect("tables") {
            let table: String = table.get(0);
            for row in client.query(&format!("SELECT t::text FROM {table} t"), &[]).await.expect("rows") {
                self.add(format!("table {table}"), row.get::<_, String>(0));
            }
        }
    }

    /// Checks that the search would find what was recorded: each of these places contains these texts.
    pub fn hold(&self, places: &[&str], texts: &[&str]) {
        for place in places {
            for text in texts {
                assert!(self.has(place, text), "there is no {text} in {place}");
            }
        }
    }

    fn has(&self, place: &str, text: &str) -> bool {
        let text = text.as_bytes();
        let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        self.0.iter().any(|(at, bytes)| at.starts_with(place) && holds(bytes))
    }

    /// Finds forbidden bytes and returns their names with their places.
    pub fn search(&self, forms: &[(String, Vec<u8>)]) -> Vec<(String, String)> {
        // Search for all words in one pass, because there are megabytes to search for hundreds of words.
        let words = AhoCorasick::new(forms.iter().map(|(_, form)| form)).expect("words to search for");
        let mut found = Vec::new();
        for (place, bytes) in &self.0 {
            let seen: BTreeSet<usize> =
                words.find_overlapping_iter(bytes).map(|hit| hit.pattern().as_usize()).collect();
            found.extend(seen.into_iter().map(|index| (forms[index].0.clone(), place.clone())));
        }
        found
    }
}

/// Returns the answer of the daemon's port while it listens.
fn get(port: u16, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn parquet_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => parquet_files(&path),
            false if path.extension().is_some_and(|extension| extension == "parquet") => vec![path],
            false => Vec::new(),
        })
        .collect()
}
