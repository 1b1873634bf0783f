//! What was captured of a table, and how it was protected: [`ShapeRules`].
//!
//! The rules are part of a shape, so every version says by its `schema_version` under which rules it was made. Whoever
//! derives a value from an earlier version needs that: between two versions updates may not have been captured, and a
//! protected value says the same on both sides only if method and key are the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Parts;
use crate::inside::Inside;
use crate::method::{Method, MethodRule};
use crate::table::{Column, Table};
use crate::version::Event;

/// The rules of a table in one shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShapeRules {
    /// Names of the events that made versions.
    pub events: Vec<String>,
    /// The condition on rows, as the configuration had it.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// The tracked columns, companions included.
    pub columns: BTreeMap<String, ColumnRules>,
}

/// The rules of a tracked column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnRules {
    /// Whether an update of nothing else made no version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignored_alone: bool,
    /// The method of protection, and the id of its key if all values are under one key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<ColumnProtection>,
    /// What was protected inside values that were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<InsideRules>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnProtection {
    pub method: Method,
    /// The method with its options.
    pub rule: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The rules inside a column's values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsideRules {
    /// Identifies the rules.
    pub digest: String,
    /// Whether some values may hold ciphertexts, of which two differ for equal values.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypts: bool,
    /// Whether some are masked by a pattern of the operator's, which may leave any text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub patterns: bool,
}

impl ShapeRules {
    /// `filter` is the table's condition on rows, `hash_key` the id of the key for the method `hash`.
    pub fn of(table: &Table, filter: Option<&str>, hash_key: Option<&str>) -> ShapeRules {
        let events = Event::ALL.iter().filter(|event| table.events.contains(**event));
        let tracked = table.columns.iter().filter(|column| column.tracked);
        ShapeRules {
            events: events.map(|event| event.name().to_owned()).collect(),
            filter: filter.map(str::to_owned),
            columns: tracked.map(|column| (column.name.clone(), ColumnRules::of(column, hash_key))).collect(),
        }
    }

    /// Whether nothing that can happen to a living row stayed without a version: its updates, and the beginning of
    /// another row under its key.
    pub fn captures_updates(&self) -> bool {
        let has = |event: Event| self.events.iter().any(|name| name == event.name());
        let updates = [Event::Updated, Event::Discarded, Event::Restored].into_iter().all(has);
        updates && (has(Event::Created) || has(Event::Deleted) && has(Event::Truncated))
    }
}

impl ColumnRules {
    fn of(column: &Column, hash_key: Option<&str>) -> ColumnRules {
        let protection = column.protection.as_ref().map(|protection| ColumnProtection {
            method: protection.rule.method,
            rule: protection.rule.to_string(),
            key: hash_key.filter(|_| protection.rule.needs_hash_key()).map(str::to_owned),
        });
        ColumnRules {
            ignored_alone: !column.makes_version,
            protection,
            inside: column.inside.as_deref().map(|inside| InsideRules::of(inside, hash_key)),
        }
    }
}

impl InsideRules {
    fn of(inside: &Inside, hash_key: Option<&str>) -> InsideRules {
        let mut parts = Parts::default();
        inside.each_part(|part| parts.add(part.as_bytes()));
        if inside.methods().any(MethodRule::needs_hash_key) {
            parts.add(hash_key.unwrap_or_default().as_bytes());
        }
        let ciphers = |rule: &MethodRule| matches!(rule.method, Method::Encrypt | Method::Token);
        InsideRules {
            digest: parts.digest(),
            encrypts: inside.methods().any(ciphers),
            patterns: inside.methods().any(|rule| rule.pattern.is_some()),
        }
    }
}
