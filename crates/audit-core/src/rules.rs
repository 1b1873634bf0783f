//! What the operator decided about tables: `[[tables]]` and `[protection]`, and the one set of rules that results for a table.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::events::{Columns, Required, RowEvent};
use crate::shape::TableName;

/// How a sensitive column is protected before it leaves memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// `[REDACTED]` in place of every value, NULL included.
    Full,
    /// HMAC-SHA-256 under `protection.hash_key`, stored as `hmac-sha256:<key id>:<64 hex>`. Equal values stay equal; NULL stays NULL.
    Hash,
    /// The column is absent.
    Drop,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::Full => "full",
            Method::Hash => "hash",
            Method::Drop => "drop",
        }
    }
}

/// Rules for the tables that `name` matches. Rules are read in order; a later one that matches adds to and overrides earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableRule {
    /// `schema.table`, with `*` for any run of characters and `?` for one.
    #[schemars(extend("example" = "public.*"))]
    pub name: String,
    /// `false` leaves these tables out. `true` takes them; as soon as one rule says so, tables that no rule takes are left out.
    /// Without either every table is captured.
    pub capture: Option<bool>,
    /// The label of a row in the trail. Default: the table's name.
    pub item_type: Option<String>,
    /// Track only these columns (names or patterns). Not together with `ignore`.
    pub only: Option<Vec<String>>,
    /// Do not record these columns (names or patterns).
    pub ignore: Option<Vec<String>>,
    /// Capture only rows for which this is true, an SQL expression over the table's columns: `status <> 'draft'`. `setup` gives it to the publication
    /// (PostgreSQL 15 and later). A row that comes to fulfil it is `created`, one that no longer does is `deleted`.
    #[serde(rename = "where")]
    #[schemars(extend("example" = "status <> 'draft'"))]
    pub row_filter: Option<String>,
    /// Make versions of these events only: `created`, `updated`, `deleted`, `truncated`, `discarded`, `restored`. Default: all.
    #[schemars(extend("example" = ["created", "deleted"]))]
    pub events: Option<Vec<RowEvent>>,
    /// Columns that name a row in the trail, for tables without a primary key that serves. Each must be one of the table's.
    pub key: Option<Vec<String>>,
    /// The column, or columns, by which the application marks a row as deleted: from null, or false, to anything else is event `discarded`, the way
    /// back `restored`. The old value has to be known (REPLICA IDENTITY FULL).
    #[schemars(extend("example" = "discarded_at"))]
    pub soft_delete: Option<Columns>,
    /// Record these columns, but make no version where nothing else changed. Default: `updated_at`, `modified_at`, `lock_version`.
    pub ignore_alone: Option<Vec<String>>,
    /// Columns to keep on every version, changed or not: owner, parent, tenant.
    pub include: Option<Vec<String>>,
    /// Column (name or pattern) to method: `{ password_digest = "full", email = "hash" }`.
    #[serde(default)]
    pub protect: BTreeMap<String, Method>,
    /// The column that names the tenant.
    pub tenant: Option<String>,
    /// The column that names who changed the row, for applications that send no context.
    pub actor_column: Option<String>,
    /// The column that says why the row was changed.
    pub reason_column: Option<String>,
    /// Flag and count versions that have no actor: `true`, or only those of some events, `["deleted", "updated"]`. `cdc-audit check
    /// --attribution` lists them.
    pub require_actor: Option<Required>,
    /// The same for versions without a reason.
    pub require_reason: Option<Required>,
    /// Record the rows that existed before capture began. Default: true.
    pub baseline: Option<bool>,
    /// The sinks that versions of these tables go to, by name. Default: all.
    pub sinks: Option<Vec<String>>,
}

/// Protects columns by name in every table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProtectionRule {
    /// The column's name, with `*` and `?`; case does not matter.
    #[schemars(extend("example" = "*_token"))]
    pub column: String,
    pub method: Method,
}

/// Names that commonly hold secrets: the default rule set, always `full`. A rule of the operator's own comes first.
pub const DEFAULT_PROTECTED: &[&str] = &[
    "*password*",
    "*passwd*",
    "*passphrase*",
    "*pwd*",
    "*secret*",
    "*token",
    "*_tokens",
    "*token_hash*",
    "*api_key*",
    "*apikey*",
    "*private_key*",
    "*access_key*",
    "*credential*",
    "ssn",
    "*_ssn",
    "ssn_*",
    "*social_security*",
    "*card_number*",
    "*cardnumber*",
    "pan",
    "cvv",
    "cvv2",
    "cvc",
    "*_cvv",
    "*_cvc",
    "*_pin",
    "pin",
    "pin_*",
    "*iban*",
    "*otp_*",
    "*encrypted_*",
    "*_salt",
    "salt",
];

/// Columns that by default make no version by themselves.
pub const DEFAULT_IGNORE_ALONE: &[&str] = &["updated_at", "modified_at", "lock_version"];

/// Every rule, in the operator's order.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub tables: Vec<TableRule>,
    pub protection: Vec<ProtectionRule>,
    /// Whether [`DEFAULT_PROTECTED`] applies.
    pub default_protection: bool,
}

/// The rules that hold for one table.
#[derive(Clone, Debug)]
pub struct TableRules {
    pub rule: TableRule,
    captured: bool,
    protection: Vec<(String, Method)>,
}

impl Rules {
    /// Merges what matches `table`: scalars and lists of a later rule replace those of an earlier one, `protect` adds up.
    pub fn for_table(&self, table: &TableName) -> TableRules {
        let name = table.to_string();
        let mut merged = TableRule { name: name.clone(), ..TableRule::default() };
        for rule in self.tables.iter().filter(|rule| matches(&rule.name, &name)) {
            let TableRule {
                name: _,
                capture,
                item_type,
                only,
                ignore,
                row_filter,
                events,
                key,
                soft_delete,
                ignore_alone,
                include,
                protect,
                tenant,
                actor_column,
                reason_column,
                require_actor,
                require_reason,
                baseline,
                sinks,
            } = rule.clone();
            merged.capture = capture.or(merged.capture);
            merged.item_type = item_type.or(merged.item_type);
            merged.only = only.or(merged.only);
            merged.ignore = ignore.or(merged.ignore);
            merged.row_filter = row_filter.or(merged.row_filter);
            merged.events = events.or(merged.events);
            merged.key = key.or(merged.key);
            merged.soft_delete = soft_delete.or(merged.soft_delete);
            merged.ignore_alone = ignore_alone.or(merged.ignore_alone);
            merged.include = include.or(merged.include);
            merged.protect.extend(protect);
            merged.tenant = tenant.or(merged.tenant);
            merged.actor_column = actor_column.or(merged.actor_column);
            merged.reason_column = reason_column.or(merged.reason_column);
            merged.require_actor = require_actor.or(merged.require_actor);
            merged.require_reason = require_reason.or(merged.require_reason);
            merged.baseline = baseline.or(merged.baseline);
            merged.sinks = sinks.or(merged.sinks);
        }
        let own = merged.protect.iter().map(|(column, method)| (column.clone(), *method));
        let general = self.protection.iter().map(|rule| (rule.column.to_lowercase(), rule.method));
        let defaults =
            DEFAULT_PROTECTED.iter().filter(|_| self.default_protection).map(|p| (p.to_string(), Method::Full));
        let protection = own.chain(general).chain(defaults).collect();
        // A rule that protects or labels one table must not leave the others out: only `capture = true` does.
        let captured = merged.capture.unwrap_or(!self.tables.iter().any(|rule| rule.capture == Some(true)));
        TableRules { rule: merged, captured, protection }
    }
}

impl TableRules {
    pub fn captured(&self) -> bool {
        self.captured
    }

    pub fn wants_baseline(&self) -> bool {
        self.captured() && self.rule.baseline.unwrap_or(true)
    }

    pub fn goes_to(&self, sink: &str) -> bool {
        self.rule.sinks.as_ref().is_none_or(|sinks| sinks.iter().any(|name| name == sink))
    }

    pub fn is_tracked(&self, column: &str) -> bool {
        let listed = |patterns: &Option<Vec<String>>| patterns.as_ref().map(|list| any_matches(list, column));
        listed(&self.rule.only).unwrap_or(true) && !listed(&self.rule.ignore).unwrap_or(false)
    }

    pub fn is_ignored_alone(&self, column: &str) -> bool {
        match &self.rule.ignore_alone {
            Some(patterns) => any_matches(patterns, column),
            None => DEFAULT_IGNORE_ALONE.contains(&column),
        }
    }

    pub fn is_included(&self, column: &str) -> bool {
        self.rule.include.as_ref().is_some_and(|patterns| any_matches(patterns, column))
    }

    /// The table's own `protect` decides first, an exact name before a pattern; then the general rules, then the default set.
    pub fn method(&self, column: &str) -> Option<Method> {
        if let Some(method) = self.rule.protect.get(column) {
            return Some(*method);
        }
        let lower = column.to_lowercase();
        self.protection.iter().find(|(pattern, _)| matches(&pattern.to_lowercase(), &lower)).map(|(_, method)| *method)
    }
}

fn any_matches(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

/// Whether `name` fits `pattern`, where `*` stands for any run of characters and `?` for one.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on if the text after the last star does not fit: the star takes one character more.
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((star, taken)) => {
                    retry = Some((star, taken + 1));
                    p = star + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("public.*", "public.users", true),
            ("public.*", "publicx.users", false),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?", "é", true),
            ("users", "users2", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn later_rules_add_to_and_override_earlier_ones() {
        let rule = |name: &str| TableRule { name: name.into(), ..TableRule::default() };
        let rules = Rules {
            tables: vec![
                TableRule {
                    ignore: Some(vec!["search_vector".into()]),
                    protect: [("email".to_string(), Method::Hash)].into(),
                    ..rule("public.*")
                },
                TableRule {
                    ignore: Some(vec!["cache_*".into()]),
                    protect: [("note".to_string(), Method::Full)].into(),
                    ..rule("public.users")
                },
            ],
            protection: vec![ProtectionRule { column: "*_Token".into(), method: Method::Drop }],
            default_protection: true,
        };
        let users = rules.for_table(&TableName::new("public", "users"));
        assert!(users.is_tracked("search_vector") && !users.is_tracked("cache_key"));
        let methods = ["email", "note", "api_token", "Password_Digest", "name"].map(|c| users.method(c));
        assert_eq!(methods, [Some(Method::Hash), Some(Method::Full), Some(Method::Drop), Some(Method::Full), None]);
        let other = rules.for_table(&TableName::new("public", "orders"));
        assert!(!other.is_tracked("search_vector") && other.method("note").is_none());
    }
}
