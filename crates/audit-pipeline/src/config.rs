//! `[pipeline]`: memory, patience and pace.

use audit_config::units::{ByteSize, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Memory, patience and pace of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PipelineConfig {
    /// The memory that the daemon may take; give its container or service a fifth more, for what the allocator keeps. The largest
    /// single row it can carry is a quarter of what is above 64 MiB; PostgreSQL's own bound on one is 1 GB.
    pub memory_limit: ByteSize,
    /// How often a position is stored while nothing is written that concerns us, so that the server can drop old WAL.
    pub idle_after: Span,
    /// The same, by the amount of WAL that went by.
    pub idle_bytes: ByteSize,
    /// How long a stop may take to finish what is under way.
    pub stop_timeout: Span,
}

impl Default for PipelineConfig {
    fn default() -> PipelineConfig {
        PipelineConfig {
            memory_limit: ByteSize::mib(256),
            idle_after: Span::secs(60),
            idle_bytes: ByteSize::mib(64),
            stop_timeout: Span::secs(30),
        }
    }
}

/// Memory in bytes that the program, its connections and its buffers take before the first row.
const BASE: u64 = 64 << 20;

/// The memory limit, divided. The largest message is held as received and as a protected batch; then as a batch and by
/// a sink that encodes it: as rows, as a page, and as the compressed page. Therefore there are four parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub limit: u64,
    /// The largest message, in bytes.
    pub message_max: u64,
    /// All batches between the stream and the slowest sink, in bytes.
    pub queue: u64,
    /// What all buffering sinks together may hold, in bytes.
    pub sinks: u64,
}

impl PipelineConfig {
    /// Divides the memory limit; `None` if it leaves no room above the base.
    pub fn memory(&self) -> Option<Memory> {
        let limit = self.memory_limit.get();
        let part = limit.checked_sub(BASE)? / 4;
        (part >= 4 << 20).then_some(Memory { limit, message_max: part, queue: part, sinks: part })
    }
}
