//! The rules of a table that matter when its values are opened: [`Table`].

use std::collections::BTreeMap;

use audit_core::expand::JsonRule;
use audit_core::rules::{TableRule, matches};

/// What opening needs to know of a table's rules.
pub struct Table {
    /// The columns that ciphertexts are bound to now; before, it may have been fewer of them.
    pub(super) bind: Vec<String>,
    pub actor: Option<String>,
    pub reason: Option<String>,
    pub tenant: Option<String>,
    json: BTreeMap<String, JsonRule>,
}

impl Table {
    pub fn of(rule: TableRule) -> Table {
        let TableRule { bind, actor_column, reason_column, tenant, json, .. } = rule;
        Table { bind: bind.unwrap_or_default(), actor: actor_column, reason: reason_column, tenant, json }
    }

    /// The columns, with the path in their documents, that a name in `changes` may mean, where members are recorded one by one.
    pub fn expanded(&self, name: &str) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for (column, rule) in &self.json {
            let separator = rule.separator.as_str();
            let path = |column: &str, rest: &str| format!("{column}.{}", rest.replace(separator, "."));
            match &rule.label {
                Some(label) => {
                    let rest = name.strip_prefix(label.as_str()).and_then(|rest| rest.strip_prefix(separator));
                    all.extend(rest.map(|rest| (column.clone(), path(column, rest))));
                }
                None => {
                    let parts =
                        name.match_indices(separator).map(|(at, _)| (&name[..at], &name[at + separator.len()..]));
                    let meant = parts.filter(|(named, _)| matches(column, named));
                    all.extend(meant.map(|(named, rest)| (named.to_owned(), path(named, rest))));
                }
            }
        }
        all
    }
}
