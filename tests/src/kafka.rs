//! Reads topics back as a consumer with `read_committed` does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::hot::{Kinds, Shapes, changes, image};
use crate::trail::{Version, lsn};

const ANSWER: Duration = Duration::from_secs(60);

/// Reads all versions in the tables' topics of a source in the order of their positions, and lists keys that are not in
/// order or not in one partition.
pub fn trail(brokers: &str, source: &str, shapes: &Shapes) -> (Vec<Version>, Vec<String>) {
    let places = places(brokers, source);
    committed(brokers, &places);
    let (mut trail, mut wrong) = (Vec::new(), Vec::new());
    let mut partitions: HashMap<(String, String), BTreeSet<i32>> = HashMap::new();
    let mut last: HashMap<(String, String), (i64, String)> = HashMap::new();
    read(brokers, &places, |topic, (partition, offset), key, value, headers| {
        let position = headers.get("position").cloned().unwrap_or_default();
        if let Some(key) = key {
            let place = (format!("{topic}/{partition}"), key.to_owned());
            let before = last.insert(place, (offset, position.clone()));
            if let Some((at, earlier)) = before.filter(|(_, earlier)| *earlier >= position) {
                wrong.push(format!("{topic}/{partition} {key}: {position} at {offset} after {earlier} at {at}"));
            }
            partitions.entry((topic.to_owned(), key.to_owned())).or_default().insert(partition);
        }
        let version = version(value.expect("a record"), shapes);
        if version.position != position {
            wrong.push(format!("{topic}: the header says {position}, the record {}", version.position));
        }
        trail.push(version);
    });
    trail.sort_by(|a, b| a.position.cmp(&b.position));
    let scattered = partitions.iter().filter(|(_, places)| places.len() > 1);
    wrong.extend(scattered.map(|((topic, key), places)| format!("{topic} {key} is in partitions {places:?}")));
    wrong.truncate(10);
    (trail, wrong)
}

/// The partitions of a source's topics.
fn places(brokers: &str, source: &str) -> Vec<(String, i32)> {
    let prefix = format!("{source}.");
    let metadata = consumer(brokers).fetch_metadata(None, ANSWER).expect("the broker answers");
    let topics = metadata.topics().iter().filter(|topic| topic.name().starts_with(&prefix));
    topics
        .flat_map(|topic| topic.partitions().iter().map(|partition| (topic.name().to_owned(), partition.id())))
        .collect()
}

/// Tells, for positions that a reader of committed records does not see, where a reader of all records sees them, and
/// how far either can read there: whether the records were aborted, still belong to an open transaction, or never came.
pub fn whereabouts(brokers: &str, source: &str, positions: &BTreeSet<&str>) -> Vec<String> {
    let (all, committed) = (isolated(brokers, "read_uncommitted"), consumer(brokers));
    let mut found = Vec::new();
    let mut missing = positions.clone();
    read_with(&all, &places(brokers, source), |topic, (partition, offset), key, _, headers| {
        if let Some(position) = headers.get("position").and_then(|position| missing.take(position.as_str())) {
            let end = |consumer: &BaseConsumer| consumer.fetch_watermarks(topic, partition, ANSWER).map(|(_, end)| end);
            let (end, stable) = (end(&all), end(&committed));
            found.push(format!(
                "{position} is in {topic}/{partition} at {offset} under {key:?}, uncommitted or aborted; \
                 it ends at {end:?}, committed at {stable:?}"
            ));
        }
    });
    found.extend(missing.into_iter().map(|position| format!("{position} is in no topic")));
    found
}

/// Reads the LSN before which everything that committed is in Kafka, according to the checkpoint. 0 before the first
/// checkpoint.
pub fn flushed(brokers: &str, checkpoint_topic: &str) -> u64 {
    let mut flushed = 0;
    read(brokers, &[(checkpoint_topic.to_owned(), 0)], |_, _, key, value, _| {
        if key == Some("checkpoint") {
            let value: serde_json::Value = serde_json::from_str(value.expect("a checkpoint")).expect("JSON");
            flushed = value["flushed_lsn"].as_str().map_or(0, lsn);
        }
    });
    flushed
}

/// Counts the tables whose baseline is complete, according to the checkpoint's topic.
pub fn baselines_done(brokers: &str, checkpoint_topic: &str) -> usize {
    let mut done: BTreeMap<String, bool> = BTreeMap::new();
    read(brokers, &[(checkpoint_topic.to_owned(), 0)], |_, _, key, value, _| {
        if let Some(table) = key.and_then(|key| key.strip_prefix("baseline/")) {
            let value: serde_json::Value = serde_json::from_str(value.expect("progress")).expect("JSON");
            done.insert(table.to_owned(), value["done"] == true);
        }
    });
    done.values().filter(|done| **done).count()
}

fn consumer(brokers: &str) -> BaseConsumer {
    isolated(brokers, "read_committed")
}

fn isolated(brokers: &str, isolation: &str) -> BaseConsumer {
    let mut client = ClientConfig::new();
    for (key, value) in [
        ("bootstrap.servers", brokers),
        ("group.id", "reader"),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("isolation.level", isolation),
        ("fetch.wait.max.ms", "10"),
    ] {
        client.set(key, value);
    }
    client.create().expect("a consumer")
}

fn read(
    brokers: &str,
    places: &[(String, i32)],
    each: impl FnMut(&str, (i32, i64), Option<&str>, Option<&str>, &BTreeMap<String, String>),
) {
    read_with(&consumer(brokers), places, each);
}

fn read_with(
    consumer: &BaseConsumer,
    places: &[(String, i32)],
    mut each: impl FnMut(&str, (i32, i64), Option<&str>, Option<&str>, &BTreeMap<String, String>),
) {
    let mut assignment = TopicPartitionList::new();
    for (topic, partition) in places {
        assignment.add_partition_offset(topic, *partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&assignment).expect("an assignment");
    let mut ended = 0;
    while ended < places.len() {
        match consumer.poll(ANSWER).expect("the broker answers") {
            Ok(message) => {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
                let (key, value) = (message.key().map(text), message.payload().map(text));
                let headers = message.headers().map_or(BTreeMap::new(), |headers| {
                    headers.iter().map(|h| (h.key.to_owned(), h.value.map(text).unwrap_or_default())).collect()
                });
                each(
                    message.topic(),
                    (message.partition(), message.offset()),
                    key.as_deref(),
                    value.as_deref(),
                    &headers,
                );
            }
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            // The broker was killed a moment ago; the read continues.
            Err(error) => eprintln!("reading topics: {error}"),
        }
    }
}

/// Waits until every partition shows that its transactions are committed, because the coordinator reports that earlier.
/// The wait is limited, because a transaction may be open.
fn committed(brokers: &str, places: &[(String, i32)]) {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers).set("isolation.level", "read_uncommitted");
    let (all, consumer): (BaseConsumer, _) = (client.create().expect("a consumer"), consumer(brokers));
    let end = |consumer: &BaseConsumer, place: &(String, i32)| {
        consumer.fetch_watermarks(&place.0, place.1, ANSWER).map(|(_, end)| end).unwrap_or(-1)
    };
    let begun = Instant::now();
    for place in places {
        while end(&consumer, place) < end(&all, place) && begun.elapsed() < MARKED {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Maximum time that partitions may take to learn of a commit.
const MARKED: Duration = Duration::from_secs(10);

/// The record as in its JSON, with raw values.
#[derive(Deserialize)]
struct Record<'r> {
    source: String,
    position: String,
    table_name: String,
    item_type: String,
    key: Option<String>,
    old_key: Option<String>,
    event: String,
    #[serde(borrow)]
    changes: Option<&'r RawValue>,
    #[serde(borrow)]
    before: Option<&'r RawValue>,
    #[serde(borrow)]
    after: Option<&'r RawValue>,
    changed: Option<Vec<String>>,
    before_known: bool,
    unknown: Vec<String>,
    #[serde(borrow)]
    included: Option<&'r RawValue>,
    actor_id: Option<String>,
    actor: Option<serde_json::Value>,
    reason: Option<String>,
    context: Option<serde_json::Value>,
    actor_source: Option<String>,
    context_verified: Option<bool>,
    xid: i64,
    commit_lsn: String,
    lsn: String,
    seq: i64,
    committed_at: String,
    schema_version: i32,
    baseline: Option<i32>,
    tenant: Option<String>,
}

fn version(json: &str, shapes: &Shapes) -> Version {
    let record: Record<'_> = serde_json::from_str(json).expect("a version record");
    let none = Kinds::new();
    let kinds = shapes.get(&(record.table_name.clone(), record.schema_version)).unwrap_or(&none);
    let row = |value: Option<&RawValue>| value.map(|value| image(value.get(), kinds));
    let mut before = row(record.before);
    if record.event == "deleted" && !record.before_known {
        // Only the key is known, and no part of a key is NULL.
        before.iter_mut().for_each(|row| row.retain(|_, value| value.is_some()));
    }
    // Messages may have changes of created and deleted rows too, but the other sinks store none for them.
    let changed = record.changes.filter(|_| record.event == "updated");
    let committed_at: jiff::Timestamp = record.committed_at.parse().expect("a time");
    Version {
        source: record.source,
        position: record.position,
        item_type: record.item_type,
        key: record.key,
        old_key: record.old_key,
        changes: changed.map(|json| changes(json.get(), kinds)),
        before,
        after: row(record.after),
        changed: record.changed,
        before_known: record.before_known,
        unknown: record.unknown,
        included: row(record.included),
        actor_id: record.actor_id,
        actor: record.actor,
        reason: record.reason,
        context: record.context,
        actor_source: record.actor_source,
        context_verified: record.context_verified,
        xid: record.xid,
        commit_lsn: lsn(&record.commit_lsn),
        lsn: lsn(&record.lsn),
        seq: record.seq,
        committed_at: committed_at.as_microsecond(),
        schema_version: record.schema_version,
        baseline: record.baseline,
        tenant: record.tenant,
        table: record.table_name,
        event: record.event,
    }
}
