//! Topics of a separate source, on the broker that all tests share.

use std::time::{Duration, Instant};

use audit_kafka::{KafkaConfig, KafkaSink, set_up};
use audit_testkit::{Kafka, unique};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::suite::{Found, Place, SINK};

/// Memory of the sink, in bytes.
const MEMORY: usize = 24 << 20;
/// Maximum time that a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(60);
/// The topic of a table whose versions are refused if they are large.
const LIMITED: &str = "users";

pub struct Topics {
    config: KafkaConfig,
    source: String,
}

impl Topics {
    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.config.brokers[0]).set("group.id", "conformance");
        client.set("enable.partition.eof", "true").set("enable.auto.commit", "false");
        client
    }

    fn consumer(&self, isolation: &str) -> BaseConsumer {
        self.client().set("isolation.level", isolation).create().unwrap()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    fn checkpoint_topic(&self) -> String {
        self.config.checkpoint_topic(&self.source, SINK)
    }

    /// Lists the partitions of every topic of this source.
    fn partitions(&self) -> Vec<(String, i32)> {
        let (tables, checkpoint) = (format!("{}.", self.source), self.checkpoint_topic());
        let metadata = self.consumer("read_committed").fetch_metadata(None, ANSWER).unwrap();
        let ours = metadata.topics().iter().filter(|t| t.name().starts_with(&tables) || t.name() == checkpoint);
        ours.flat_map(|topic| topic.partitions().iter().map(|part| (topic.name().to_owned(), part.id()))).collect()
    }

    /// Reads what consumers of committed records get, after the broker has marked every transaction that ended.
    fn read(&self) -> Vec<OwnedMessage> {
        let places = self.partitions();
        let (consumer, all) = (self.consumer("read_committed"), self.consumer("read_uncommitted"));
        let end = |consumer: &BaseConsumer, (topic, partition): &(String, i32)| {
            consumer.fetch_watermarks(topic, *partition, ANSWER).unwrap().1
        };
        let begun = Instant::now();
        while places.iter().any(|place| end(&consumer, place) < end(&all, place)) && begun.elapsed() < ANSWER {
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut assignment = TopicPartitionList::new();
        for (topic, partition) in &places {
            assignment.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let (mut messages, mut ended) = (Vec::new(), 0);
        while ended < places.len() {
            match consumer.poll(ANSWER).unwrap() {
                Ok(message) => messages.push(message.detach()),
                Err(KafkaError::PartitionEOF(_)) => ended += 1,
                Err(error) => panic!("{error}"),
            }
        }
        messages
    }

    async fn make_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let new = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let options = AdminOptions::new().operation_timeout(Some(ANSWER));
        self.admin().create_topics([&new], &options).await.unwrap().remove(0).unwrap();
    }
}

impl Place for Topics {
    type Sink = KafkaSink;
    type Backup = Vec<OwnedMessage>;

    async fn new() -> Topics {
        let mut config = KafkaConfig::at(Kafka::shared().await.brokers());
        config.plain_text = true;
        let topics = Topics { config, source: unique("shop") };
        set_up(&topics.config, &topics.source, SINK).await.unwrap();
        topics
    }

    fn source(&self) -> &str {
        &self.source
    }

    fn sink(&self) -> KafkaSink {
        KafkaSink::new(SINK, &self.config, MEMORY)
    }

    async fn found(&self) -> Vec<Found> {
        let checkpoint = self.checkpoint_topic();
        let messages = self.read().into_iter().filter(|message| message.topic() != checkpoint);
        messages
            .map(|message| {
                let headers = message.headers().unwrap();
                let header = |name: &str| {
                    let found = headers.iter().find(|header| header.key == name).and_then(|header| header.value);
                    String::from_utf8(found.unwrap().to_vec()).unwrap()
                };
                Found { position: header("position"), event: header("event") }
            })
            .collect()
    }

    async fn backup(&self) -> Vec<OwnedMessage> {
        self.read()
    }

    /// Makes every topic again, with these records.
    async fn restore(&self, backup: Vec<OwnedMessage>) {
        let (partitions, checkpoint) = (self.partitions(), self.checkpoint_topic());
        let mut names: Vec<&str> = partitions.iter().map(|(topic, _)| topic.as_str()).collect();
        names.dedup();
        let options = AdminOptions::new().operation_timeout(Some(ANSWER));
        self.admin().delete_topics(&names, &options).await.unwrap();
        let begun = Instant::now();
        while !self.partitions().is_empty() {
            assert!(begun.elapsed() < ANSWER, "topics are deleted");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for name in names {
            let count = partitions.iter().filter(|(topic, _)| topic == name).count();
            if name == checkpoint {
                set_up(&self.config, &self.source, SINK).await.unwrap();
            } else {
                self.make_topic(name, i32::try_from(count).unwrap(), &[]).await;
            }
        }
        let producer: BaseProducer = self.client().create().unwrap();
        for message in &backup {
            let mut record = BaseRecord::to(message.topic()).partition(message.partition());
            record.key = message.key();
            record.payload = message.payload();
            record.headers = message.headers().cloned();
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(ANSWER).unwrap();
    }

    async fn refuse(&self) -> Option<String> {
        let name = format!("{}.public.{LIMITED}", self.source);
        self.make_topic(&name, 1, &[("max.message.bytes", "100000")]).await;
        // Text that looks random does not get smaller by compression.
        Some((0_u64..30_000).map(|n| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect())
    }
}
