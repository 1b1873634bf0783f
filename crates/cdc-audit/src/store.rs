//! Which sink a question is put to.

use audit_history::Store;

use crate::config::{Config, SinkConfig};
use crate::error::{CliError, code};
use crate::role::Reader;
use crate::sinks::{DIVIDED, READABLE};

/// Opens the named sink for reading; without a name the one that answers soonest, a hot one before a lake: with a tenant one that
/// keeps tenants apart.
pub async fn open(
    config: &Config,
    name: Option<&str>,
    tenant: Option<&str>,
    reader: &Reader,
) -> Result<Store, CliError> {
    open_named(config, name, tenant, reader).await.map(|(_, store)| store)
}

/// The same, and the sink's name.
pub async fn open_named(
    config: &Config,
    name: Option<&str>,
    tenant: Option<&str>,
    reader: &Reader,
) -> Result<(String, Store), CliError> {
    let (name, sink) = chosen(config, name, tenant)?;
    Ok((name.to_owned(), sink.reader(tenant, config, reader).await?))
}

fn chosen<'c>(
    config: &'c Config,
    name: Option<&str>,
    tenant: Option<&str>,
) -> Result<(&'c String, &'c SinkConfig), CliError> {
    match name {
        Some(name) => config.sinks.get_key_value(name).ok_or_else(|| {
            let names: Vec<&str> = config.sinks.keys().map(String::as_str).collect();
            CliError::new(format!("there is no sink {name}"))
                .hint(format!("the sinks are {}", names.join(", ")))
                .code(code::USAGE)
        }),
        None => soonest(config, tenant).ok_or_else(|| {
            let hint = if tenant.is_some() { DIVIDED } else { READABLE };
            CliError::new("there is no sink to read from").hint(hint.to_owned()).code(code::USAGE)
        }),
    }
}

/// The sink that answers the question soonest.
fn soonest<'c>(config: &'c Config, tenant: Option<&str>) -> Option<(&'c String, &'c SinkConfig)> {
    let answering = config.sinks.iter().filter_map(|sink| Some((sink.1.answers(tenant, config)?, sink)));
    answering.min_by_key(|(answers, _)| *answers).map(|(_, sink)| sink)
}
