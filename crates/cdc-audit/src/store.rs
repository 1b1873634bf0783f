//! Which sink a question is put to.

use audit_history::Store;
use audit_hot::HotReader;
use audit_lake::{LakeConfig, LakeError, LakeReader};

use crate::config::{Config, SinkConfig};
use crate::error::{CliError, code};
use crate::role::Reader;

const UNREAD: &str = "questions are put to a hot sink or a lake";
const UNDIVIDED: &str = "name a lake whose `url` has `{tenant}` in it, or a hot sink where some `versions_table` has, or leave --tenant out";

/// Opens the named sink for reading; without a name a hot one, which answers faster, else a lake: with a tenant one that keeps
/// tenants apart.
pub async fn open(
    config: &Config,
    name: Option<&str>,
    tenant: Option<&str>,
    reader: &Reader,
) -> Result<Store, CliError> {
    let (_, sink) = chosen(config, name, tenant)?;
    read(config, sink, tenant, reader).await
}

/// The same, and the sink's name.
pub async fn open_named(
    config: &Config,
    name: Option<&str>,
    tenant: Option<&str>,
    reader: &Reader,
) -> Result<(String, Store), CliError> {
    let (name, sink) = chosen(config, name, tenant)?;
    Ok((name.to_owned(), read(config, sink, tenant, reader).await?))
}

fn divided(config: &Config) -> bool {
    config.tables.iter().filter_map(|rule| rule.versions_table.as_ref()).any(|own| own.has_tenant())
}

/// Whether the question can be put to this sink.
fn answers(config: &Config, sink: &SinkConfig, tenant: Option<&str>) -> bool {
    match sink {
        SinkConfig::Hot(_) => tenant.is_none() || divided(config),
        SinkConfig::Lake(lake) => tenant.is_none() || lake.home.is_some(),
        SinkConfig::Kafka(_) | SinkConfig::Webhook(_) => false,
    }
}

fn chosen<'c>(
    config: &'c Config,
    name: Option<&str>,
    tenant: Option<&str>,
) -> Result<(&'c str, &'c SinkConfig), CliError> {
    let first = || {
        let mut sinks = config.sinks.iter().filter(|(_, sink)| answers(config, sink, tenant)).collect::<Vec<_>>();
        sinks.sort_by_key(|(_, sink)| !matches!(sink, SinkConfig::Hot(_)));
        sinks.first().copied()
    };
    let (name, sink) = match name {
        Some(name) => config.sinks.get_key_value(name).ok_or_else(|| {
            let names: Vec<&str> = config.sinks.keys().map(String::as_str).collect();
            CliError::new(format!("there is no sink {name}"))
                .hint(format!("the sinks are {}", names.join(", ")))
                .code(code::USAGE)
        })?,
        None => first().ok_or_else(|| {
            let hint = if tenant.is_some() { UNDIVIDED } else { UNREAD };
            CliError::new("there is no sink to read from").hint(hint.to_owned()).code(code::USAGE)
        })?,
    };
    Ok((name, sink))
}

async fn read(config: &Config, sink: &SinkConfig, tenant: Option<&str>, reader: &Reader) -> Result<Store, CliError> {
    match sink {
        SinkConfig::Lake(lake) => Ok(Store::Lake(lake_reader(lake, tenant).await?)),
        sink if tenant.is_some() && !answers(config, sink, tenant) => Err(undivided()),
        SinkConfig::Hot(hot) => {
            let failed = |error: audit_hot::ReadError| CliError::of(&error).hint(error.hint());
            let hot = HotReader::connect(&reader.endpoint(&hot.endpoint)?).await.map_err(failed)?;
            match tenant {
                Some(tenant) => hot.of_tenant(&config.source.name, tenant).await.map(Store::Hot).map_err(failed),
                None => Ok(Store::Hot(hot)),
            }
        }
        SinkConfig::Kafka(_) | SinkConfig::Webhook(_) => {
            Err(CliError::new("what was sent to Kafka or a webhook is not read back")
                .hint(UNREAD.to_owned())
                .code(code::USAGE))
        }
    }
}

/// Opens a lake for reading: all of it, or what one tenant has.
pub async fn lake_reader(lake: &LakeConfig, tenant: Option<&str>) -> Result<LakeReader, CliError> {
    if tenant.is_some() && lake.home.is_none() {
        return Err(undivided());
    }
    let failed = |error: LakeError| CliError::of(&error).hint(error.hint());
    let reader = LakeReader::open(lake).map_err(failed)?;
    match tenant {
        Some(tenant) => reader.of_tenant(tenant).await.map_err(failed),
        None => Ok(reader),
    }
}

fn undivided() -> CliError {
    CliError::new("this sink does not keep tenants apart").hint(UNDIVIDED.to_owned()).code(code::USAGE)
}

/// The named lake, or the first.
pub fn lake<'c>(config: &'c Config, name: Option<&str>) -> Result<(&'c str, &'c LakeConfig), CliError> {
    let lakes = config.sinks.iter().filter_map(|(name, sink)| match sink {
        SinkConfig::Lake(lake) => Some((name.as_str(), &**lake)),
        _ => None,
    });
    let lakes: Vec<(&str, &LakeConfig)> = lakes.collect();
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
