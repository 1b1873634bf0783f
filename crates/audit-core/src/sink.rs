//! What a sink is: a place for versions, which stores its checkpoint together with its data.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::batch::{Batch, Progress};
use crate::position::{Lsn, Position};
use crate::quarantine::Quarantine;
use crate::shape::Shape;

/// What one sink has stored durably of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub source: String,
    /// The cluster's system identifier.
    pub system_id: u64,
    pub timeline: u32,
    /// Where that timeline began, because two restores may give their timelines the same number. `None` if an earlier
    /// release wrote the checkpoint.
    #[serde(default)]
    pub timeline_start: Option<Lsn>,
    /// The last change that is durable or does not have to be; its `epoch` is the checkpoint's.
    pub position: Position,
    /// Start of that change's WAL record; zero before the first change.
    pub change_lsn: Lsn,
    /// Every transaction that committed before here is durable.
    pub flushed_lsn: Lsn,
}

impl Checkpoint {
    pub fn new(identity: &Identity, progress: Progress) -> Checkpoint {
        let Identity { source, system_id, timeline, timeline_start } = identity.clone();
        let timeline_start = Some(timeline_start);
        let Progress { position, change_lsn, flushed_lsn } = progress;
        Checkpoint { source, system_id, timeline, timeline_start, position, change_lsn, flushed_lsn }
    }

    pub fn progress(&self) -> Progress {
        Progress { position: self.position, change_lsn: self.change_lsn, flushed_lsn: self.flushed_lsn }
    }
}

/// How far a table's baseline is in one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkProgress {
    pub baseline: u32,
    /// The last whole chunk that is stored.
    pub chunk: u32,
    /// Whether that chunk was the last one of the baseline.
    pub done: bool,
}

/// The progress of each table, by its name.
pub type Baselines = BTreeMap<String, ChunkProgress>;

/// What a sink reports at the start, after it was taken over.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// `None` before the first write.
    pub checkpoint: Option<Checkpoint>,
    pub baselines: Baselines,
    /// The shapes of all tables of which this sink has rows.
    pub shapes: Vec<Shape>,
}

/// Whether a place `has` less than it `had`: it was restored to an earlier state, or a lagging copy took over. What a
/// sink reported as durable may already be acknowledged to the source, so the sink must not continue from there as if
/// nothing were missing.
pub fn went_back(had: (Option<&Checkpoint>, &Baselines), has: (Option<&Checkpoint>, &Baselines)) -> bool {
    let number = |progress: &ChunkProgress| (progress.baseline, progress.chunk, progress.done);
    let lost = |(table, had): (&String, &ChunkProgress)| has.1.get(table).map(number) < Some(number(had));
    had.1.iter().any(lost)
        || match (had.0, has.0) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(had), Some(has)) => {
                let same_epoch = had.position.epoch == has.position.epoch;
                has.position < had.position || (same_epoch && has.flushed_lsn < had.flushed_lsn)
            }
        }
}

/// The source as it is now, as each new checkpoint records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub source: String,
    pub system_id: u64,
    pub timeline: u32,
    /// Where the timeline began; zero for the first timeline.
    pub timeline_start: Lsn,
}

/// A place for versions. It commits its checkpoint together with its data, so that neither is ever ahead of the other.
///
/// A sink is used by one task. `take` comes first; after [`Action::Retry`] the failed function may be called again with
/// the same arguments.
pub trait Sink: Send {
    /// Raises the owner epoch by compare and set, so that a previous owner can no longer write; then reads what is
    /// stored.
    fn take(&mut self, identity: &Identity) -> impl Future<Output = Result<Stored, SinkError>> + Send;

    /// Says where the stream will begin: nothing at or before `start` has to be stored. Called once, after `take` and
    /// before the first `write`. The sink stores `start` with its first data, or at once if it has nothing yet.
    fn begin(&mut self, start: Progress) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Takes the batches. Versions at or below the stored position are skipped, and stored chunks too, so a repeat
    /// changes nothing. May return before the batches are durable; [`Sink::durable`] reports when they are.
    fn write(&mut self, batches: &[&Batch]) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Makes durable what is due by its age, or everything if `all` is set.
    fn flush(&mut self, all: bool) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// The time at which `flush(false)` will next have something to do.
    fn due(&self) -> Option<Instant>;

    /// How far the stream is durable.
    fn durable(&self) -> Progress;

    /// Sets the versions that this sink refused and an operator quarantined: an `error` record takes the place of each.
    fn quarantine(&mut self, quarantine: Arc<Quarantine>);

    /// Memory that the sink holds for versions that are not durable yet, in bytes.
    fn held_bytes(&self) -> usize;

    /// What fails in one part of the sink, such as one table, while everything else continues: each text names the part
    /// and the error.
    fn troubles(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What happens next after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Call the same function again, after a pause.
    Retry,
    /// The sink lost what it held in memory, so the stream has to begin again from what is durable.
    Restart,
    /// Someone must act; nothing continues by itself.
    Stop,
    /// Another daemon owns the sink.
    Fenced,
}

/// A sink could not do what was requested.
#[derive(Debug)]
pub struct SinkError {
    pub action: Action,
    /// What happened, and to what.
    pub message: String,
    /// What a person can do about it.
    pub hint: Option<String>,
    /// The version that the sink refuses, if that is the cause.
    pub refused: Option<Position>,
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl SinkError {
    pub fn new(action: Action, message: impl Into<String>) -> SinkError {
        SinkError { action, message: message.into(), hint: None, refused: None, source: None }
    }

    pub fn retry(message: impl Into<String>) -> SinkError {
        SinkError::new(Action::Retry, message)
    }

    pub fn stop(message: impl Into<String>) -> SinkError {
        SinkError::new(Action::Stop, message)
    }

    pub fn fenced(message: impl Into<String>) -> SinkError {
        SinkError::new(Action::Fenced, message)
    }

    /// The error of a sink that was given work before [`Sink::take`], or after an error that ended what `take` began.
    pub fn not_taken(sink: &str) -> SinkError {
        SinkError::new(Action::Restart, format!("sink {sink} is not taken over"))
    }

    /// The error for [`went_back`]. `place` names what holds the checkpoint.
    pub fn went_back(place: &str) -> SinkError {
        SinkError::new(Action::Restart, format!("{place} went back to an earlier state than this process has stored"))
            .hint(
                "a backup was restored, or a copy that lagged took over. What is missing there is sent again as far as the slot still has \
                 it; else the daemon stops and names the gap",
            )
    }

    /// The sink refuses a version, and continues without it once an operator quarantines it. `advice` says what else
    /// may help.
    pub fn refusing(sink: &str, position: Position, message: impl Into<String>, advice: Option<&str>) -> SinkError {
        let advice = advice.map_or(String::new(), |advice| format!("{advice}, or go on without it: "));
        let command = quarantine_command(sink, position);
        SinkError::stop(message)
            .hint(format!("{advice}`{command}` leaves an `error` record in its place"))
            .refused(position)
    }

    pub fn hint(self, hint: impl Into<String>) -> SinkError {
        SinkError { hint: Some(hint.into()), ..self }
    }

    pub fn refused(self, position: Position) -> SinkError {
        SinkError { refused: Some(position), ..self }
    }

    pub fn source(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SinkError {
        SinkError { source: Some(source.into()), ..self }
    }
}

/// The command by which an operator leaves a version out. `sink` is [`ALL_SINKS`] for a change that cannot be decoded.
pub fn quarantine_command(sink: &str, position: Position) -> String {
    format!("cdc-audit resume --sink {sink} --quarantine {position}")
}

/// The name that [`quarantine_command`] takes for a change that cannot be given to any sink.
pub const ALL_SINKS: &str = "all";

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
