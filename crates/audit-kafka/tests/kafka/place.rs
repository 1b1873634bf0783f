use std::time::{Duration, Instant};

use audit_core::batch::{Batch, Progress};
use audit_core::position::Lsn;
use audit_core::sink::{Action, Identity, Sink, SinkError, Stored};
use audit_kafka::{KafkaConfig, KafkaSink};
use audit_testkit::{Kafka, unique};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

pub const MEMORY: usize = 24 << 20;
const ANSWER: Duration = Duration::from_secs(30);
/// How long a coordinator may take until every partition has the mark that a transaction is committed.
const MARKED: Duration = Duration::from_secs(180);

/// A source of its own, on a broker.
pub struct Place {
    pub source: String,
    pub config: KafkaConfig,
    brokers: String,
}

/// A record as a consumer gets it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub partition: i32,
    pub key: Option<String>,
    pub value: Option<serde_json::Value>,
    pub headers: Vec<(String, String)>,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

impl Place {
    /// A place where the topic of the sink's checkpoint exists.
    pub async fn on(kafka: &Kafka) -> Place {
        let place = Place::bare(kafka);
        audit_kafka::set_up(&place.config, &place.source, "stream").await.unwrap();
        place
    }

    /// A place without any topic.
    pub fn bare(kafka: &Kafka) -> Place {
        let mut config = KafkaConfig::at(kafka.brokers());
        config.plain_text = true;
        config.transaction_timeout = "10 s".parse().unwrap();
        Place { source: unique("shop"), config, brokers: kafka.brokers() }
    }

    pub fn identity(&self) -> Identity {
        Identity { source: self.source.clone(), system_id: 7, timeline: 1, timeline_start: Lsn::ZERO }
    }

    pub fn sink(&self) -> KafkaSink {
        KafkaSink::new("stream", &self.config, MEMORY)
    }

    /// A sink that was taken over and continues after everything that is stored.
    pub async fn taken(&self) -> KafkaSink {
        let mut sink = self.sink();
        self.take(&mut sink).await;
        sink
    }

    /// Takes the sink over, trying as often as needed.
    pub async fn take(&self, sink: &mut KafkaSink) -> Stored {
        loop {
            match sink.take(&self.identity()).await {
                Ok(stored) => {
                    let start = stored.checkpoint.as_ref().map(|c| c.progress()).unwrap_or_default();
                    sink.begin(start).await.unwrap();
                    return stored;
                }
                Err(error) if error.action == Action::Retry => eprintln!("taken again: {}", shown(&error)),
                Err(error) => panic!("{}", shown(&error)),
            }
        }
    }

    /// Writes and commits, and begins again whenever the sink asks for it.
    pub async fn deliver(&self, sink: &mut KafkaSink, batches: &[Batch]) -> Result<Progress, SinkError> {
        let batches: Vec<&Batch> = batches.iter().collect();
        loop {
            let done = match sink.write(&batches).await {
                Ok(()) => sink.flush(true).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => return Ok(sink.durable()),
                Err(error) if error.action == Action::Restart => {
                    eprintln!("begun again: {}", shown(&error));
                    self.take(sink).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub fn topic(&self, table: &str) -> String {
        format!("{}.public.{table}", self.source)
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        client
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    pub async fn make_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let options = AdminOptions::new().operation_timeout(Some(ANSWER));
        self.admin().create_topics([&new], &options).await.unwrap().remove(0).unwrap();
    }

    pub async fn delete_topic(&self, topic: &str) {
        let options = AdminOptions::new().operation_timeout(Some(ANSWER));
        self.admin().delete_topics(&[topic], &options).await.unwrap().remove(0).unwrap();
    }

    /// Makes the checkpoint's topic again, with only these records.
    pub async fn put_back(&self, topic: &str, records: &[Seen]) {
        self.delete_topic(topic).await;
        while audit_kafka::set_up(&self.config, &self.source, "stream").await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let producer: BaseProducer = self.client().create().unwrap();
        for Seen { key, value, .. } in records {
            let value = value.as_ref().map(|value| value.to_string());
            let mut record = BaseRecord::to(topic).partition(0).key(key.as_deref().unwrap());
            record.payload = value.as_ref();
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(ANSWER).unwrap();
    }

    /// All records of a topic, partition by partition.
    pub fn read(&self, topic: &str) -> Vec<Seen> {
        self.read_as(topic, "read_committed")
    }

    pub fn read_as(&self, topic: &str, isolation: &str) -> Vec<Seen> {
        let mut client = self.client();
        client.set("group.id", unique("reader")).set("enable.partition.eof", "true");
        client.set("enable.auto.commit", "false").set("isolation.level", isolation);
        let consumer: BaseConsumer = client.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER).unwrap();
        let partitions: Vec<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
        let mut assignment = TopicPartitionList::new();
        for partition in &partitions {
            assignment.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let (mut seen, mut ended) = (Vec::new(), 0);
        while ended < partitions.len() {
            match consumer.poll(ANSWER).expect("the broker answers") {
                Ok(message) => seen.push(Seen {
                    partition: message.partition(),
                    key: message.key().map(|key| String::from_utf8(key.to_vec()).unwrap()),
                    value: message.payload().map(|value| serde_json::from_slice(value).unwrap()),
                    headers: message.headers().map_or(Vec::new(), |headers| {
                        let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
                        headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
                    }),
                }),
                Err(KafkaError::PartitionEOF(_)) => ended += 1,
                Err(error) => panic!("{error}"),
            }
        }
        seen.sort_by_key(|seen| seen.partition);
        seen
    }

    /// Checks that the topic has the versions of these batches, each once. A coordinator answers that a transaction is
    /// committed before every partition has the mark, and long before if its broker has just started.
    pub fn holds(&self, topic: &str, batches: &[Batch]) {
        let expected = expected(batches);
        let mut positions = self.positions(topic);
        let begun = Instant::now();
        while positions.len() < expected.len() && begun.elapsed() < MARKED {
            std::thread::sleep(Duration::from_millis(50));
            positions = self.positions(topic);
        }
        assert_eq!(positions, expected);
    }

    /// The positions in a topic, sorted.
    pub fn positions(&self, topic: &str) -> Vec<String> {
        let mut positions: Vec<String> =
            self.read(topic).iter().map(|seen| seen.header("position").to_owned()).collect();
        positions.sort();
        positions
    }
}

/// The positions of batches, as they must be written.
pub fn expected(batches: &[Batch]) -> Vec<String> {
    batches.iter().flat_map(|batch| batch.versions().map(|version| version.position().to_string())).collect()
}

pub fn shown(error: &SinkError) -> String {
    let mut text = format!("{:?} {error}", error.action);
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    format!("{text} ({})", error.hint.as_deref().unwrap_or_default())
}
