//! What a sink of messages writes: keys that stand in the sink's own section, flattened.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The form of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FormatConfig {
    /// What a message's value is: `record`, the version record as JSON, as `cdc-audit history --json` shows it.
    #[serde(default)]
    pub format: Format,

    /// Have a message without a value follow for a key that is gone: after a deletion, and for the old key where a row's key was
    /// changed. Topics that are compacted want it.
    #[serde(default)]
    pub tombstones: bool,
}

/// What a message's value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Record,
}
