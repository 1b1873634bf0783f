//! To which sinks a question is put.

use audit_history::{Absence, Store, Timeline};

use crate::config::{Config, SinkConfig};
use crate::error::{CliError, code};
use crate::role::Reader;
use crate::sinks::{Answers, DIVIDED, READABLE};

type Named<'c> = (&'c String, &'c SinkConfig);

/// Opens the named sink for reading; without a name the first hot one and the first lake as one. What one tenant has is
/// read from a single sink that keeps tenants apart, hot before lake.
pub async fn open(
    config: &Config,
    name: Option<&str>,
    tenant: Option<&str>,
    reader: &Reader,
) -> Result<Timeline, CliError> {
    let chosen = chosen(config, name, tenant)?;
    let opened = open_all(config, &chosen, tenant, reader).await?;
    let why = if name.is_some() { Absence::NotAsked } else { Absence::Apart };
    let answering = config.sinks.iter().filter(|(_, sink)| sink.answers(tenant, config).is_some());
    // Without a name, a second sink of the same kind is none of those that are asked.
    let others =
        answering.filter(|(other, _)| name.or(tenant).is_some() && chosen.iter().all(|(known, _)| known != other));
    Ok(others.fold(opened, |opened, (other, _)| opened.without(other, why.clone())))
}

/// The same for questions that hot tables can answer alone: a lake that cannot be read is left out, and the answer's coverage says so.
pub async fn open_reachable(
    config: &Config,
    name: Option<&str>,
    tenant: Option<&str>,
    reader: &Reader,
) -> Result<Timeline, CliError> {
    let error = match open(config, name, tenant, reader).await {
        Ok(opened) => return Ok(opened),
        Err(error) => error,
    };
    let chosen = chosen(config, name, tenant)?;
    let [hot, (lake, _)] = chosen.as_slice() else { return Err(error) };
    // Where hot tables cannot be read either, the first error says more.
    let Ok(opened) = open_all(config, &[*hot], tenant, reader).await else { return Err(error) };
    Ok(opened.without(lake, Absence::Unreadable(error.in_one_line())))
}

async fn open_all(
    config: &Config,
    chosen: &[Named<'_>],
    tenant: Option<&str>,
    reader: &Reader,
) -> Result<Timeline, CliError> {
    let mut stores = Vec::new();
    for (name, sink) in chosen {
        // ⚠ A lake that is gone is an error, unless the other store shows that nothing was ever written.
        if sink.is_not_made() && !stores.is_empty() {
            let others = Timeline::open(&config.source.name, stores.clone()).await?;
            if others.head().is_none() {
                return Ok(others);
            }
        }
        stores.push(((*name).clone(), sink.reader(tenant, config, reader).await?));
    }
    Ok(Timeline::open(&config.source.name, stores).await?)
}

/// Whether a question is explained.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Explain {
    /// After the answer, on standard error: what was read, and by which indexes. With --json as one JSON object.
    #[arg(long)]
    explain: bool,
}

impl Explain {
    /// Has the stores note what they read from now on.
    pub fn begin(self, timeline: &Timeline) {
        if self.explain {
            timeline.explain();
        }
    }

    /// Says what they have read, if that is asked for.
    pub fn say(self, timeline: &Timeline, json: bool) {
        if !self.explain {
            return;
        }
        let explained = timeline.explained();
        let text = match json {
            true => serde_json::to_string(&explained).unwrap_or_else(|_| "null".to_owned()),
            false => explained.to_string(),
        };
        eprintln!("{}", audit_config::visible_lines(&text));
    }
}

/// Opens a single sink for reading, and gives its name: the named one, else a hot one before a lake.
pub async fn open_one(
    config: &Config,
    name: Option<&str>,
    tenant: Option<&str>,
    reader: &Reader,
) -> Result<(String, Store), CliError> {
    let chosen = chosen(config, name, tenant)?;
    let (name, sink) = chosen.first().ok_or_else(|| CliError::new("there is no sink to read from"))?;
    Ok(((*name).clone(), sink.reader(tenant, config, reader).await?))
}

fn chosen<'c>(config: &'c Config, name: Option<&str>, tenant: Option<&str>) -> Result<Vec<Named<'c>>, CliError> {
    if let Some(name) = name {
        let named = config.sinks.get_key_value(name).ok_or_else(|| {
            let names: Vec<&str> = config.sinks.keys().map(String::as_str).collect();
            CliError::new(format!("there is no sink {name}"))
                .hint(format!("the sinks are {}", names.join(", ")))
                .code(code::USAGE)
        });
        return named.map(|named| vec![named]);
    }
    let first = |kind| config.sinks.iter().find(|(_, sink)| sink.answers(tenant, config) == Some(kind));
    let mut sinks: Vec<Named<'c>> = [Answers::AtOnce, Answers::AfterAScan].into_iter().filter_map(first).collect();
    if tenant.is_some() {
        sinks.truncate(1);
    }
    if sinks.is_empty() {
        let hint = if tenant.is_some() { DIVIDED } else { READABLE };
        return Err(CliError::new("there is no sink to read from").hint(hint.to_owned()).code(code::USAGE));
    }
    Ok(sinks)
}
