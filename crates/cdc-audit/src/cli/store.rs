//! Which sink a question is put to.

use audit_history::Store;
use audit_hot::HotReader;
use audit_lake::LakeReader;

use crate::config::{Config, SinkConfig};
use crate::error::{CliError, code};

const UNREAD: &str = "questions are put to a hot sink or a lake";

/// Opens the named sink for reading; without a name a hot one, which answers faster, else a lake.
pub async fn open(config: &Config, name: Option<&str>) -> Result<Store, CliError> {
    let sink = match name {
        Some(name) => config.sinks.get(name).ok_or_else(|| {
            let names: Vec<&str> = config.sinks.keys().map(String::as_str).collect();
            CliError::new(format!("there is no sink {name}"))
                .hint(format!("the sinks are {}", names.join(", ")))
                .code(code::USAGE)
        })?,
        None => config
            .sinks
            .values()
            .find(|sink| matches!(sink, SinkConfig::Hot(_)))
            .or_else(|| config.sinks.values().find(|sink| matches!(sink, SinkConfig::Lake(_))))
            .ok_or_else(|| CliError::new("there is no sink to read from").hint(UNREAD.to_owned()).code(code::USAGE))?,
    };
    match sink {
        SinkConfig::Hot(hot) => HotReader::connect(&hot.endpoint)
            .await
            .map(Store::Hot)
            .map_err(|error| CliError::of(&error).hint(error.hint())),
        SinkConfig::Lake(lake) => {
            LakeReader::open(lake).map(Store::Lake).map_err(|error| CliError::of(&error).hint(error.hint()))
        }
        SinkConfig::Kafka(_) | SinkConfig::Webhook(_) => {
            Err(CliError::new("what was sent to Kafka or a webhook is not read back")
                .hint(UNREAD.to_owned())
                .code(code::USAGE))
        }
    }
}
