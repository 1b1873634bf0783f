//! What the configuration says about the captured database: [`SourceConfig`].

use std::collections::BTreeMap;

use audit_config::{Problems, Span};
use audit_connect::PgEndpoint;
use audit_core::context::Convention;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The captured database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Names the source in every record and checkpoint; never change it. Letters a to z, digits, `_` and `-`.
    #[schemars(example = &"shop")]
    pub name: String,

    #[serde(flatten)]
    pub endpoint: PgEndpoint,

    /// The logical replication slot, created by `setup`. Slots belong to a whole cluster: a second source in the same
    /// cluster needs another name.
    #[serde(default = "default_object_name")]
    pub slot: String,

    /// The publication, created by `setup`. It lists the tables whose changes are captured.
    #[serde(default = "default_object_name")]
    pub publication: String,

    /// How often a message is written into the source's WAL where nothing else moves the slot, so that WAL is not kept
    /// for hours because only untracked tables, or other databases of the cluster, change. `"0 s"` writes none.
    #[serde(default = "default_heartbeat")]
    pub heartbeat: Span,

    /// How often the server is told what is durable, even if nothing is new. Well below its `wal_sender_timeout`.
    #[serde(default = "default_status_interval")]
    pub status_interval: Span,

    /// What other tools' messages count as context too: `bemi` (prefix `_bemi`) and `sequin`
    /// (`sequin:transaction_annotations.set` and `.clear`). They are never verified.
    #[serde(default = "default_conventions")]
    pub conventions: Vec<Convention>,

    /// For applications that already say in settings of the session who works: `setup` puts a trigger on the tables named here,
    /// which passes the settings on. It fires once for each statement; docs/attribution.md says what that costs.
    pub session_context: Option<SessionContext>,
}

/// Settings of the application's sessions, and what they mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionContext {
    /// The tables that get the trigger: `schema.table`, with `*` and `?`.
    #[schemars(example = &["public.*"])]
    pub tables: Vec<String>,
    /// Setting to field of the context: `{ "app.current_user_id" = "actor_id", "app.reason" = "reason" }`.
    #[schemars(example = &BTreeMap::from([("app.current_user_id", "actor_id")]))]
    pub settings: BTreeMap<String, String>,
}

impl SessionContext {
    fn check(&self, problems: &mut Problems) {
        if self.tables.is_empty() {
            problems.push("tables", "names no table", "name some, or take the section out");
        }
        if self.settings.is_empty() {
            problems.push("settings", "names no setting", "{ \"app.current_user_id\" = \"actor_id\" }");
        }
        let word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        for (setting, field) in &self.settings {
            let parts: Vec<&str> = setting.split('.').collect();
            if parts.len() < 2 || setting.len() > NAME_MAX || !parts.iter().all(|part| word(part)) {
                let hint = "an application's own have a dot: \"app.current_user_id\"";
                problems.push("settings", format!("{setting:?} is not the name of such a setting"), hint);
            }
            if !word(field) || field.len() > NAME_MAX {
                let hint = "give a field like actor_id, reason, request_id, of letters, digits and `_`";
                problems.push("settings", format!("{field:?} cannot be a field of the context"), hint);
            }
        }
    }
}

fn default_object_name() -> String {
    "cdc_audit".to_owned()
}

fn default_heartbeat() -> Span {
    Span::secs(10)
}

fn default_conventions() -> Vec<Convention> {
    vec![Convention::Bemi, Convention::Sequin]
}

fn default_status_interval() -> Span {
    Span::secs(10)
}

/// Length of PostgreSQL's names in bytes (`NAMEDATALEN`).
const NAME_MAX: usize = 63;

impl SourceConfig {
    /// A source with every default.
    pub fn new(name: impl Into<String>, endpoint: PgEndpoint) -> SourceConfig {
        SourceConfig {
            name: name.into(),
            endpoint,
            slot: default_object_name(),
            publication: default_object_name(),
            heartbeat: default_heartbeat(),
            status_interval: default_status_interval(),
            conventions: default_conventions(),
            session_context: None,
        }
    }

    /// Checks what the types cannot express.
    pub fn check(&self, problems: &mut Problems) {
        let plain = |text: &str, also: char| {
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == also;
            !text.is_empty() && text.len() <= NAME_MAX && text.chars().all(allowed)
        };
        if !plain(&self.name, '-') {
            let hint = "use up to 63 of the letters a to z, digits, `_` and `-`";
            problems.push("name", "not a name that a source can have", hint);
        }
        if !plain(&self.slot, '_') {
            let hint = "use up to 63 of the letters a to z, digits and `_`";
            problems.push("slot", "not a name that a replication slot can have", hint);
        }
        if self.publication.is_empty() || self.publication.len() > NAME_MAX {
            problems.push("publication", "not a name that a publication can have", "use 1 to 63 bytes");
        }
        if self.status_interval.get().is_zero() {
            problems.push("status_interval", "must be more than nothing", "\"10 s\" suits most servers");
        }
        if let Some(session_context) = &self.session_context {
            problems.scope("session_context", |problems| session_context.check(problems));
        }
        if let Err(error) = self.endpoint.parse() {
            problems.push("url", error.to_string(), error.hint().as_deref());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    #[derive(Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct File {
        source: SourceConfig,
    }

    fn parse(text: &str) -> Result<SourceConfig, Problems> {
        let check = |file: &File, problems: &mut Problems| {
            problems.scope("source", |problems| file.source.check(problems));
        };
        audit_config::parse(Path::new("config.toml"), text, check).map(|file| file.source)
    }

    #[test]
    fn name_and_url_are_enough() {
        let config = parse("[source]\nname = 'shop'\nurl = 'postgres://cdc_audit@127.0.0.1/shop'\n").unwrap();
        assert_eq!(config, SourceConfig::new("shop", PgEndpoint::new("postgres://cdc_audit@127.0.0.1/shop")));
        assert_eq!((config.slot.as_str(), config.publication.as_str()), ("cdc_audit", "cdc_audit"));
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let text = "[source]\nname = 'Shop'\nurl = 'postgres://a@h/d?sslmode=maybe'\nslot = 'a-b'\npublication = ''\n\
                    status_interval = '0 s'\n";
        let problems = parse(text).unwrap_err();
        assert_eq!(problems.len(), 5, "{problems}");
        let unknown = parse("[source]\nname = 'shop'\nurl = ''\nslott = 'x'\n").unwrap_err().to_string();
        assert!(unknown.contains("did you mean `slot`?"), "{unknown}");
    }

    #[test]
    fn every_key_is_in_the_reference() {
        let reference = audit_config::reference::<File>();
        for key in ["name = ", "url = ", "# slot = \"cdc_audit\"", "# heartbeat = \"10 s\"", "# status_interval = "] {
            assert!(reference.contains(key), "{key} is missing in\n{reference}");
        }
    }
}
