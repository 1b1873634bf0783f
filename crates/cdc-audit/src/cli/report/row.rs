//! The changes of one row, for whoever asks what happened to it.

use audit_core::position::Micros;
use audit_core::stored::{Json, Record};
use audit_history::{Coverage, Span, Timeline};
use serde::Serialize;

use super::Format;
use crate::cli::subject::KeyOf;
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{print_json, table};

/// Maximum number of changes that are listed.
const CHANGES_MAX: usize = 10_000;

/// Versions that are read at a time.
const PAGE: u32 = 1_000;

#[derive(Serialize)]
struct Row<'c> {
    record_id: String,
    /// Oldest first.
    changes: Vec<Change>,
    coverage: &'c Coverage,
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
) -> Result<Coverage, CliError> {
    if format == Format::Html {
        return Err(CliError::new("the report of a row has no page")
            .hint("use --format table, md or json".to_owned())
            .code(code::USAGE));
    }
    let stored = KeyOf::table(config, store, name).await?.stored(key)?;
    let source = &config.source.name;
    let is_asked = |version: &Record| since <= version.committed_at && version.committed_at < until;
    let (mut versions, mut before) = (Vec::new(), None);
    // ⚠ Commit times are not in the order of positions, so that nothing says that older versions are not of the span.
    while versions.len() <= CHANGES_MAX {
        let page = store.history_before(source, (name, &stored), before, PAGE).await?;
        let is_last = page.len() < PAGE as usize;
        before = page.last().map(|version| version.position).or(before);
        versions.extend(page.into_iter().filter(is_asked));
        if is_last {
            break;
        }
    }
    let mut coverage = store.coverage_of(source, Span { since: Some(since), until: Some(until) }).await?;
    if versions.len() > CHANGES_MAX {
        versions.truncate(CHANGES_MAX);
        coverage.complete = false;
        coverage.lacks.push(format!("only the newest {CHANGES_MAX} changes of the span are listed"));
    }
    versions.reverse();
    if format == Format::Json {
        print_json(&Row {
            record_id: stored,
            changes: versions.into_iter().map(change).collect(),
            coverage: &coverage,
        })?;
        return Ok(coverage);
    }
    let mut rows = table(&["when (UTC)", "event", "who", "what", "why"]);
    for version in versions {
        let when = version.committed_at.to_string().replace('T', " ");
        let (who, why) = (version.actor_id.unwrap_or_default(), version.reason.unwrap_or_default());
        rows.add_row([when.trim_end_matches('Z'), &version.event, &who, &version.summary, &why]);
    }
    rows.print()?;
    Ok(coverage)
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
