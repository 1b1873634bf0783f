//! The changes of one row, for whoever asks what happened to it.

use std::process::ExitCode;

use audit_core::position::Micros;
use audit_core::stored::{Json, Record};
use audit_history::Timeline;
use serde::Serialize;

use super::Format;
use crate::cli::subject::KeyOf;
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{print_json, table};

/// Maximum number of versions of the row that are looked at.
const VERSIONS_MAX: u32 = 10_000;

#[derive(Serialize)]
struct Row {
    record_id: String,
    /// Oldest first.
    changes: Vec<Change>,
}

#[derive(Serialize)]
struct Change {
    timestamp: String,
    user_id: Option<String>,
    /// The name that the application gave, if it gave one.
    user_name: Option<String>,
    event: String,
    reason: Option<String>,
    changes: Option<Json>,
}

pub async fn run(
    config: &Config,
    store: &Timeline,
    (name, key): (&str, &str),
    (since, until): (Micros, Micros),
    format: Format,
) -> Result<ExitCode, CliError> {
    if format == Format::Html {
        return Err(CliError::new("the report of a row has no page")
            .hint("use --format table, md or json".to_owned())
            .code(code::USAGE));
    }
    let stored = KeyOf::table(config, store, name).await?.stored(key)?;
    let mut versions = store.history(&config.source.name, name, &stored, VERSIONS_MAX).await?;
    if versions.len() as u32 == VERSIONS_MAX {
        eprintln!("warning: only the newest {VERSIONS_MAX} versions of the row were looked at");
    }
    versions.reverse();
    versions.retain(|version| since <= version.committed_at && version.committed_at < until);
    if format == Format::Json {
        print_json(&Row { record_id: stored, changes: versions.into_iter().map(change).collect() })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table(&["when (UTC)", "event", "who", "what", "why"]);
    for version in versions {
        let when = version.committed_at.to_string().replace('T', " ");
        let (who, why) = (version.actor_id.unwrap_or_default(), version.reason.unwrap_or_default());
        rows.add_row([when.trim_end_matches('Z'), &version.event, &who, &version.summary, &why]);
    }
    rows.print()?;
    Ok(ExitCode::SUCCESS)
}

fn change(version: Record) -> Change {
    #[derive(serde::Deserialize)]
    struct Actor {
        name: Option<String>,
    }
    let actor = version.actor.as_deref().and_then(|actor| serde_json::from_str::<Actor>(actor.get()).ok());
    Change {
        timestamp: version.committed_at.to_string(),
        user_id: version.actor_id,
        user_name: actor.and_then(|actor| actor.name),
        event: version.event,
        reason: version.reason,
        changes: version.changes,
    }
}
