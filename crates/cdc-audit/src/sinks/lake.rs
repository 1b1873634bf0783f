//! Lakes.

use audit_capture::check::Pace;
use audit_config::Problems;
use audit_core::sink::Checkpoint;
use audit_history::Store;
use audit_lake::place::Place;
use audit_lake::{LakeConfig, LakeReader, LakeSink};
use audit_pipeline::NamedSink;

use super::{Answers, Needs, Probed, head, undivided, unusable};
use crate::config::{Config, SinkConfig};
use crate::error::{CliError, code};

pub fn check(lake: &LakeConfig, problems: &mut Problems) {
    lake.check(problems);
}

pub const HOLDS_MEMORY: bool = true;

pub fn build(lake: &LakeConfig, name: &str, memory: usize) -> Result<NamedSink, CliError> {
    Ok(NamedSink::new(name, LakeSink::new(name, lake, memory)?))
}

pub async fn probe(lake: &LakeConfig, config: &Config) -> Probed {
    let place = lake.home_url();
    let outcome = audit_lake::probe(lake, &config.source.name).await.map(|tenants| match &lake.home {
        Some(_) => format!("written to {place}, read, removed; {tenants} tenants are known"),
        None => format!("written to {place}, read, removed"),
    });
    Probed { pace: pace(lake), ..Probed::new(outcome.map_err(|error| unusable(&error, error.hint()))) }
}

fn pace(lake: &LakeConfig) -> Option<Pace> {
    let file_age = lake.file_age.get();
    let rolls = lake.data_bytes.get() > 0 && lake.home_url().contains("://") && !lake.home_url().starts_with("file:");
    (!file_age.is_zero()).then(|| Pace { file_age, roll_age: rolls.then(|| lake.roll_age.get()) })
}

/// Stores are verified, unless `allow_http` says that they need not be.
pub fn unverified() -> Option<(String, String)> {
    None
}

pub async fn stored(lake: &LakeConfig, name: &str, config: &Config) -> Option<Checkpoint> {
    head(reader(lake, None).await.map(Store::Lake), name, config).await
}

pub fn answers(lake: &LakeConfig, tenant: Option<&str>) -> Option<Answers> {
    (tenant.is_none() || lake.home.is_some()).then_some(Answers::AfterAScan)
}

/// Whether its folder is not there, because no daemon has written to it yet.
pub fn is_not_made(lake: &LakeConfig) -> bool {
    matches!(Place::parse(lake.home_url()), Ok(Place::Folder(folder)) if !folder.exists())
}

/// Opens it for reading: all of it, or what one tenant has.
pub async fn reader(lake: &LakeConfig, tenant: Option<&str>) -> Result<LakeReader, CliError> {
    if answers(lake, tenant).is_none() {
        return Err(undivided());
    }
    let reader = LakeReader::open(lake)?;
    Ok(match tenant {
        Some(tenant) => reader.of_tenant(tenant).await?,
        None => reader,
    })
}

/// The folder or bucket is the operator's; what is in it the daemon makes.
pub fn needs() -> Needs<'static> {
    Needs::Nothing
}

pub fn remains(lake: &LakeConfig) -> Option<String> {
    Some(format!("the lake {} stays; remove it yourself if nobody needs it", lake.url))
}

/// The lakes among the sinks.
pub fn all(config: &Config) -> Vec<(&str, &LakeConfig)> {
    let lakes = config.sinks.iter().filter_map(|(name, sink)| match sink {
        SinkConfig::Lake(lake) => Some((name.as_str(), &**lake)),
        _ => None,
    });
    lakes.collect()
}

/// The named lake, or the first.
pub fn named<'c>(config: &'c Config, name: Option<&str>) -> Result<(&'c str, &'c LakeConfig), CliError> {
    let lakes = all(config);
    let wanted = lakes.iter().find(|(known, _)| name.is_none_or(|name| name == *known));
    wanted.copied().ok_or_else(|| {
        let names: Vec<&str> = lakes.iter().map(|(name, _)| *name).collect();
        let error = CliError::new(match name {
            Some(name) => format!("there is no lake {name}"),
            None => "there is no lake among the sinks".to_owned(),
        });
        let error = if names.is_empty() { error } else { error.hint(format!("the lakes are {}", names.join(", "))) };
        error.code(code::USAGE)
    })
}
