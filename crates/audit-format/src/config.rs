//! What a sink of messages writes: keys that stand in the sink's own section, flattened.

use audit_config::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The form of messages.
// Unknown keys are found by audit-config, since serde cannot refuse them in a flattened struct.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FormatConfig {
    /// What a message's value is: `record`, the version record as JSON, as `history --json` shows it; `debezium`, the
    /// envelope of Debezium's connector for PostgreSQL, for consumers that were made for it; `cloudevents`, the version record in a
    /// CloudEvent.
    #[serde(default)]
    pub format: Format,

    /// Have a message without a value follow for a key that is gone: after a deletion, and for the old key where a row's key was
    /// changed. Topics that are compacted want it. Default: true for `debezium`, which does so itself, else false.
    pub tombstones: Option<bool>,

    /// `record`, `cloudevents`: `changes` is filled in for created, snapshot and deleted rows too, `[null, v]` or `[v, null]` for each column.
    /// Without it it is null there, since `after` or `before` says the same, and each value is in a message once.
    #[serde(default)]
    pub full_changes: bool,

    /// `debezium`: every message carries its own schema, as Debezium's default converter writes it. Without it messages are a
    /// fifth of the size, and sink connectors cannot read them.
    #[serde(default = "inline_schema")]
    pub inline_schema: bool,

    /// `debezium`: how `numeric` and `money` are written: `precise`, as bytes, which is Debezium's default; `string`, as text. It is
    /// Debezium's `decimal.handling.mode`.
    #[serde(default)]
    pub decimals: Decimals,

    /// `debezium`: the database that `source.db` names. Default: the source's.
    pub database: Option<String>,
}

impl Default for FormatConfig {
    fn default() -> FormatConfig {
        FormatConfig {
            format: Format::default(),
            tombstones: None,
            full_changes: false,
            inline_schema: inline_schema(),
            decimals: Decimals::default(),
            database: None,
        }
    }
}

/// What a message's value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Record,
    Debezium,
    CloudEvents,
}

/// How exact numbers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decimals {
    #[default]
    Precise,
    String,
}

impl FormatConfig {
    /// Checks what the types cannot express.
    pub fn check(&self, problems: &mut Problems) {
        if self.full_changes && self.format == Format::Debezium {
            let hint = "take the key out, or set another format";
            problems.push("full_changes", "messages in Debezium's form have no `changes`", hint);
        }
        let usual = FormatConfig::default();
        for (key, given) in [
            ("inline_schema", self.inline_schema != usual.inline_schema),
            ("decimals", self.decimals != usual.decimals),
            ("database", self.database != usual.database),
        ] {
            if given && self.format != Format::Debezium {
                problems.push(
                    key,
                    "only messages in Debezium's form know it",
                    "set format = \"debezium\", or take the key out",
                );
            }
        }
    }

    /// Tells whether a tombstone follows for a key that is gone.
    pub fn tombstones(&self) -> bool {
        self.tombstones.unwrap_or(self.format == Format::Debezium)
    }
}

fn inline_schema() -> bool {
    true
}
