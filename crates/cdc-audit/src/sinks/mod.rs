//! What each type of sink is to the program, beside the writing, which is [`audit_core::sink::Sink`].
//!
//! One file for each type, with the same functions in the same order; here each of them is one `match`. Nothing else in the
//! program asks what type a sink has.

pub mod hot;
mod kafka;
pub mod lake;
pub mod webhook;

use audit_capture::check::{Pace, ProbeError};
use audit_config::{Chain, Problems};
use audit_connect::PgEndpoint;
use audit_core::sink::Checkpoint;
use audit_format::FormatConfig;
use audit_history::Store;
use audit_hot::HotConfig;
use audit_pipeline::NamedSink;

use crate::config::{Config, SinkConfig};
use crate::error::{CliError, code};
use crate::role::Reader;

/// What came of trying whether the daemon could write.
pub struct Probed {
    /// What was done; or why the sink cannot be used, and what to do.
    pub outcome: Result<String, ProbeError>,
    /// How often it writes, where that is a matter of settings.
    pub pace: Option<Pace>,
    /// What is risky, each with what can be done.
    pub warnings: Vec<(String, String)>,
}

impl Probed {
    fn new(outcome: Result<String, ProbeError>) -> Probed {
        Probed { outcome, pace: None, warnings: Vec::new() }
    }
}

/// What `setup` makes for a sink.
pub enum Needs<'c> {
    Nothing,
    /// Tables in a database: for its checkpoint and, as this sink configures them, for versions.
    Tables {
        endpoint: &'c PgEndpoint,
        versions: Option<&'c HotConfig>,
    },
    /// The topic of its checkpoint.
    Topic {
        place: String,
        topic: String,
    },
}

/// How soon a sink answers questions; the sooner is the smaller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answers {
    AtOnce,
    AfterAScan,
}

impl SinkConfig {
    /// What the types of its section cannot say.
    pub fn check(&self, config: &Config, problems: &mut Problems) {
        match self {
            SinkConfig::Hot(hot) => hot::check(hot, problems),
            SinkConfig::Lake(lake) => lake::check(lake, problems),
            SinkConfig::Kafka(kafka) => kafka::check(kafka, problems),
            SinkConfig::Webhook(webhook) => webhook::check(webhook, config, problems),
        }
    }

    /// Whether it holds versions in memory that are not durable yet.
    pub fn holds_memory(&self) -> bool {
        match self {
            SinkConfig::Hot(_) => hot::HOLDS_MEMORY,
            SinkConfig::Lake(_) => lake::HOLDS_MEMORY,
            SinkConfig::Kafka(_) => kafka::HOLDS_MEMORY,
            SinkConfig::Webhook(_) => webhook::HOLDS_MEMORY,
        }
    }

    /// Makes the sink, which connects to nothing yet. `memory` is what it may hold in bytes, where it holds any.
    pub fn build(&self, name: &str, config: &Config, memory: usize) -> Result<NamedSink, CliError> {
        match self {
            SinkConfig::Hot(hot) => hot::build(hot, name),
            SinkConfig::Lake(lake) => lake::build(lake, name, memory),
            SinkConfig::Kafka(kafka) => kafka::build(kafka, name, config, memory),
            SinkConfig::Webhook(webhook) => webhook::build(webhook, name, config),
        }
    }

    /// Whether the daemon could write there now. Takes nothing over.
    pub async fn probe(&self, name: &str, config: &Config) -> Probed {
        match self {
            SinkConfig::Hot(hot) => hot::probe(hot, name, config).await,
            SinkConfig::Lake(lake) => lake::probe(lake, config).await,
            SinkConfig::Kafka(kafka) => kafka::probe(kafka, name, config).await,
            SinkConfig::Webhook(webhook) => webhook::probe(webhook, name, config).await,
        }
    }

    /// What nobody verifies on the way to it, and what to do.
    pub fn unverified(&self) -> Option<(String, String)> {
        match self {
            SinkConfig::Hot(hot) => hot::unverified(hot),
            SinkConfig::Lake(_) => lake::unverified(),
            SinkConfig::Kafka(kafka) => kafka::unverified(kafka),
            SinkConfig::Webhook(webhook) => webhook::unverified(webhook),
        }
    }

    /// What it has durably; `None` also where that cannot be read.
    pub async fn stored(&self, name: &str, config: &Config) -> Option<Checkpoint> {
        match self {
            SinkConfig::Hot(hot) => hot::stored(hot, name, config).await,
            SinkConfig::Lake(lake) => lake::stored(lake, name, config).await,
            SinkConfig::Kafka(kafka) => kafka::stored(kafka, name, config).await,
            SinkConfig::Webhook(webhook) => webhook::stored(webhook, name, config).await,
        }
    }

    /// Whether questions can be put to it: about everything, or about what one tenant has.
    pub fn answers(&self, tenant: Option<&str>, config: &Config) -> Option<Answers> {
        match self {
            SinkConfig::Hot(_) => hot::answers(tenant, config),
            SinkConfig::Lake(lake) => lake::answers(lake, tenant),
            SinkConfig::Kafka(_) => kafka::answers(),
            SinkConfig::Webhook(_) => webhook::answers(),
        }
    }

    /// Whether there is nothing to open yet, because no daemon has written to it.
    pub fn is_not_made(&self) -> bool {
        match self {
            SinkConfig::Lake(lake) => lake::is_not_made(lake),
            SinkConfig::Hot(_) | SinkConfig::Kafka(_) | SinkConfig::Webhook(_) => false,
        }
    }

    /// Opens it for reading: all of it, or what one tenant has.
    pub async fn reader(&self, tenant: Option<&str>, config: &Config, reader: &Reader) -> Result<Store, CliError> {
        if tenant.is_some() && self.answers(tenant, config).is_none() {
            return Err(undivided());
        }
        match self {
            SinkConfig::Hot(hot) => hot::reader(hot, tenant, config, reader).await,
            SinkConfig::Lake(lake) => lake::reader(lake, tenant).await.map(Store::Lake),
            SinkConfig::Kafka(_) => kafka::reader(),
            SinkConfig::Webhook(_) => webhook::reader(),
        }
    }

    /// What `setup` makes for it.
    pub fn needs<'c>(&'c self, name: &str, config: &'c Config) -> Needs<'c> {
        match self {
            SinkConfig::Hot(hot) => hot::needs(hot),
            SinkConfig::Lake(_) => lake::needs(),
            SinkConfig::Kafka(kafka) => kafka::needs(kafka, name, config),
            SinkConfig::Webhook(webhook) => webhook::needs(webhook, config),
        }
    }

    /// Makes what it needs, unless it is there. Tables are made by the statements that `setup` prints.
    pub async fn set_up(&self, name: &str, config: &Config) -> Result<(), CliError> {
        match self {
            SinkConfig::Kafka(kafka) => kafka::set_up(kafka, name, config).await,
            SinkConfig::Hot(_) | SinkConfig::Lake(_) | SinkConfig::Webhook(_) => Ok(()),
        }
    }

    /// What of it `teardown` leaves as it is, for whoever wants it removed.
    pub fn remains(&self) -> Option<String> {
        match self {
            SinkConfig::Hot(_) => hot::remains(),
            SinkConfig::Lake(lake) => lake::remains(lake),
            SinkConfig::Kafka(kafka) => kafka::remains(kafka),
            SinkConfig::Webhook(_) => webhook::remains(),
        }
    }
}

/// Why a sink cannot be used, with everything that led to it.
fn unusable(error: &(dyn std::error::Error + 'static), hint: Option<String>) -> ProbeError {
    ProbeError { message: Chain(error).to_string(), hint }
}

/// A sink's format, with what only the source's section says.
fn format(format: &FormatConfig, config: &Config) -> Result<FormatConfig, CliError> {
    let mut format = format.clone();
    if format.database.is_none() {
        format.database = Some(config.source.endpoint.parse()?.dbname().to_owned());
    }
    Ok(format)
}

/// What a sink has durably, as it answers questions about itself.
async fn head(store: Result<Store, CliError>, name: &str, config: &Config) -> Option<Checkpoint> {
    store.ok()?.head(&config.source.name, name).await.ok()?.map(|head| head.checkpoint)
}

/// What a person is told who wants to read from any other sink.
pub const READABLE: &str = "questions are put to a hot sink or a lake";

/// What a person is told who wants to read what one tenant has from any other sink.
pub const DIVIDED: &str = "name a lake whose `url` has `{tenant}` in it, or a hot sink where some `versions_table` has, or leave --tenant out";

fn unreadable() -> CliError {
    CliError::new("what was sent to Kafka or a webhook is not read back").hint(READABLE.to_owned()).code(code::USAGE)
}

fn undivided() -> CliError {
    CliError::new("this sink does not keep tenants apart").hint(DIVIDED.to_owned()).code(code::USAGE)
}
