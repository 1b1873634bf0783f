//! Hot tables.

use audit_config::Problems;
use audit_core::sink::Checkpoint;
use audit_history::Store;
use audit_hot::{HotConfig, HotReader, HotSink};
use audit_pipeline::NamedSink;

use super::{Answers, Needs, Probed, head, unusable};
use crate::config::Config;
use crate::error::CliError;
use crate::role::Reader;

pub fn check(hot: &HotConfig, problems: &mut Problems) {
    hot.check(problems);
}

pub const HOLDS_MEMORY: bool = false;

pub fn build(hot: &HotConfig, name: &str) -> Result<NamedSink, CliError> {
    Ok(NamedSink::new(name, HotSink::new(name, hot)))
}

pub async fn probe(hot: &HotConfig, name: &str, config: &Config) -> Probed {
    let probed = audit_hot::probe(hot, &config.source.name, name).await;
    let said = format!("written to {} and rolled back", hot.endpoint.describe());
    Probed::new(probed.map(|()| said).map_err(|error| unusable(&error, error.hint.clone())))
}

pub fn unverified(hot: &HotConfig) -> Option<(String, String)> {
    hot.endpoint.unverified()
}

pub async fn stored(hot: &HotConfig, name: &str, config: &Config) -> Option<Checkpoint> {
    head(reader(hot, None, config, &Reader::default()).await, name, config).await
}

pub fn answers(tenant: Option<&str>, config: &Config) -> Option<Answers> {
    let mut own = config.tables.iter().filter_map(|rule| rule.versions_table.as_ref());
    (tenant.is_none() || own.any(|own| own.has_tenant())).then_some(Answers::AtOnce)
}

pub async fn reader(
    hot: &HotConfig,
    tenant: Option<&str>,
    config: &Config,
    reader: &Reader,
) -> Result<Store, CliError> {
    let hot = HotReader::connect(&reader.endpoint(&hot.endpoint)?).await?;
    Ok(Store::Hot(match tenant {
        Some(tenant) => hot.of_tenant(&config.source.name, tenant).await?,
        None => hot,
    }))
}

pub fn needs(hot: &HotConfig) -> Needs<'_> {
    Needs::Tables { endpoint: &hot.endpoint, versions: Some(hot) }
}

/// `teardown` drops all of it.
pub fn remains() -> Option<String> {
    None
}
