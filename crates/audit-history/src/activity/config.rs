//! The rules, as the configuration has them.

use std::collections::BTreeMap;

use audit_config::{Problems, Span, quote};
use jiff::civil::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::question::zone::zone;

/// What `cdc-audit activity` looks for. Without rules it looks for many changes of one row, mass deletions, and versions without a required
/// actor or reason.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ActivityConfig {
    /// Each rule has a name of your choosing.
    pub rules: BTreeMap<String, Rule>,
}

/// A rule, by what it looks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "find", rename_all = "snake_case")]
pub enum Rule {
    /// Many versions in a short time, of one row by one actor, or by one actor in one table.
    ManyChanges(ManyChanges),
    /// Changes of a row whose state before was final.
    FinalState(FinalState),
    /// Versions that lack the actor or the reason that their table requires.
    Unattributed(Unattributed),
    /// Versions that were committed outside of working hours.
    OffHours(OffHours),
    /// Many deletions in one table by one actor in a short time, and each truncation.
    MassDelete(MassDelete),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ManyChanges {
    /// `row`: versions of one row by one actor; `actor`: versions in one table by one actor.
    pub of: Of,
    /// More versions than this are a finding.
    pub more_than: u32,
    /// The time in which they were committed.
    pub within: Span,
    /// Names of tables, or patterns. Default: all.
    pub tables: Vec<String>,
    pub severity: Severity,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FinalState {
    /// Names of tables, or patterns.
    #[schemars(extend("example" = ["public.orders"]))]
    pub tables: Vec<String>,
    /// The column that holds the state. Where it is `include`d, no earlier version has to be looked up.
    #[schemars(extend("example" = "state"))]
    pub column: String,
    /// The values after which a row should not change.
    #[schemars(extend("example" = ["completed", "cancelled"]))]
    pub states: Vec<String>,
    #[serde(default = "Severity::high")]
    pub severity: Severity,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unattributed {
    /// `actor` or `reason`.
    #[schemars(extend("example" = "actor"))]
    pub what: What,
    /// Names of tables, or patterns. Default: all.
    #[serde(default)]
    pub tables: Vec<String>,
    #[serde(default = "Severity::medium")]
    pub severity: Severity,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OffHours {
    /// When work ends. From then on versions are a finding.
    #[schemars(extend("example" = "20:00"))]
    pub from: String,
    /// When work begins; it may be on the next day.
    #[schemars(extend("example" = "06:00"))]
    pub until: String,
    /// The time zone: UTC, an offset such as +02:00, or a name such as Europe/Rome.
    #[serde(default = "utc")]
    pub zone: String,
    /// Whether Saturdays and Sundays are outside of working hours as a whole.
    #[serde(default)]
    pub weekends: bool,
    /// Names of tables, or patterns. Default: all.
    #[serde(default)]
    pub tables: Vec<String>,
    #[serde(default = "Severity::low")]
    pub severity: Severity,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MassDelete {
    /// More deletions than this are a finding.
    pub more_than: u32,
    /// The time in which they were committed.
    pub within: Span,
    /// Names of tables, or patterns. Default: all.
    pub tables: Vec<String>,
    pub severity: Severity,
}

/// Whose versions are counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    #[default]
    Row,
    Actor,
}

/// What a version may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Actor,
    Reason,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    #[default]
    High,
    Medium,
    Low,
}

impl Severity {
    fn high() -> Severity {
        Severity::High
    }

    fn medium() -> Severity {
        Severity::Medium
    }

    fn low() -> Severity {
        Severity::Low
    }
}

impl Default for ManyChanges {
    fn default() -> ManyChanges {
        ManyChanges {
            of: Of::Row,
            more_than: 10,
            within: Span::secs(3600),
            tables: Vec::new(),
            severity: Severity::High,
        }
    }
}

impl Default for MassDelete {
    fn default() -> MassDelete {
        MassDelete { more_than: 100, within: Span::secs(600), tables: Vec::new(), severity: Severity::High }
    }
}

fn utc() -> String {
    "UTC".to_owned()
}

impl What {
    /// As a version says that it is missing.
    pub fn word(self) -> &'static str {
        match self {
            What::Actor => "actor",
            What::Reason => "reason",
        }
    }
}

impl OffHours {
    pub(super) fn hours(&self) -> Option<(Time, Time)> {
        let time = |text: &str| Time::strptime("%H:%M", text).ok();
        Some((time(&self.from)?, time(&self.until)?))
    }
}

impl ActivityConfig {
    /// The configured rules, or if there are none those that need no knowledge of the application.
    pub fn in_force(&self) -> BTreeMap<String, Rule> {
        if !self.rules.is_empty() {
            return self.rules.clone();
        }
        let lacking = |what| Rule::Unattributed(Unattributed { what, tables: Vec::new(), severity: Severity::Medium });
        let rules = [
            ("many-changes", Rule::ManyChanges(ManyChanges::default())),
            ("mass-delete", Rule::MassDelete(MassDelete::default())),
            ("no-actor", lacking(What::Actor)),
            ("no-reason", lacking(What::Reason)),
        ];
        rules.map(|(name, rule)| (name.to_owned(), rule)).into()
    }

    pub fn check(&self, problems: &mut Problems) {
        for (name, rule) in &self.rules {
            let path = |key: &str| format!("rules.{}.{key}", quote(name));
            match rule {
                Rule::FinalState(rule) if rule.tables.is_empty() => {
                    problems.push(&path("tables"), "names no table", Some("name the tables that have the column"));
                }
                Rule::FinalState(rule) if rule.states.is_empty() => {
                    problems.push(&path("states"), "names no state", Some("name at least one value of the column"));
                }
                Rule::OffHours(rule) => {
                    if rule.hours().is_none() {
                        problems.push(
                            &path("from"),
                            "not two times of day",
                            Some("give `from` and `until` like \"20:00\""),
                        );
                    }
                    if let Err(error) = zone(&rule.zone) {
                        problems.push(&path("zone"), error.to_string(), Some(error.hint().as_str()));
                    }
                }
                _ => {}
            }
        }
    }
}
