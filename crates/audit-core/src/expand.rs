//! JSON columns as paths: which members of a document a change concerns, under which names.
//!
//! What changed is found in the raw documents, and what is shown comes from what protection left of them: a member may
//! have changed even if both its protected sides look alike. Lists are not taken apart, a different order of keys is
//! not a change, and a missing member counts as null.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::companion::companion_of;
use crate::json::{members, same, unquote};

/// How a column's documents are taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JsonRule {
    /// How deep: 1 names the members of the document, 2 those of its members too, as far as they are objects.
    #[schemars(range(min = 1, max = 8))]
    pub levels: u8,
    /// What paths begin with, in place of the column's name.
    pub label: Option<String>,
    /// What stands between the parts of a path.
    pub separator: String,
}

impl Default for JsonRule {
    fn default() -> JsonRule {
        JsonRule { levels: 1, label: None, separator: ".".to_owned() }
    }
}

/// The same rule with its defaults filled in for a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expansion {
    pub levels: u8,
    pub label: String,
    pub separator: String,
}

impl Expansion {
    pub fn of(rule: &JsonRule, column: &str) -> Expansion {
        let label = rule.label.clone().unwrap_or_else(|| column.to_owned());
        Expansion { levels: rule.levels, label, separator: rule.separator.clone() }
    }
}

/// A path and its two sides, as JSON texts; `None` if the member does not exist on that side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub name: String,
    pub old: Option<String>,
    pub new: Option<String>,
}

/// The document before and after the change; `None` for NULL, and for a side that does not exist.
#[derive(Clone, Copy)]
pub(crate) struct Documents<'t> {
    pub old: Option<&'t str>,
    pub new: Option<&'t str>,
}

/// The members that differ in `raw`, with the values that are in `shown`.
pub(crate) fn changed(expansion: &Expansion, raw: Documents<'_>, shown: Documents<'_>) -> Vec<Member> {
    let (raw_old, raw_new) = (Paths::of(expansion, raw.old), Paths::of(expansion, raw.new));
    let differs = |name: &str| match (raw_old.get(name), raw_new.get(name)) {
        (None, None) => false,
        (Some(old), Some(new)) => !same(old, new),
        _ => true,
    };
    let (old, new) = (Paths::of(expansion, shown.old), Paths::of(expansion, shown.new));
    let names = new.names().chain(old.names().filter(|name| !new.has(name)));
    let concerned = |name: &&str| {
        let known = |name: &str| raw_old.has(name) || raw_new.has(name);
        match companion_of(name).filter(|_| !known(name)) {
            Some(member) if known(member) => differs(member),
            _ if known(name) => differs(name),
            // If something in the name itself was protected, the member has another name in the shown document.
            _ => old.get(name) != new.get(name),
        }
    };
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let found: Vec<Member> = names
        .filter(concerned)
        .map(|name| Member { name: name.to_owned(), old: owned(old.get(name)), new: owned(new.get(name)) })
        .collect();
    if found.is_empty() && raw.old.is_some() != raw.new.is_some() {
        // The document changed from NULL to an empty document, or back.
        return vec![Member { name: expansion.label.clone(), old: owned(shown.old), new: owned(shown.new) }];
    }
    found
}

/// Whether a change of a document, whose text has already been found to differ, concerns any of its members.
pub(crate) fn differs(expansion: &Expansion, raw: Documents<'_>) -> bool {
    raw.old.is_some() != raw.new.is_some() || !changed(expansion, raw, raw).is_empty()
}

/// A document taken apart.
struct Paths<'t> {
    list: Vec<(String, &'t str)>,
    /// Index of each path in `list`; of equal paths the last one counts.
    at: HashMap<String, usize>,
}

impl<'t> Paths<'t> {
    fn of(expansion: &Expansion, document: Option<&'t str>) -> Paths<'t> {
        let mut paths = Paths { list: Vec::new(), at: HashMap::new() };
        if let Some(document) = document {
            paths.take_apart(expansion, expansion.label.clone(), document.trim(), expansion.levels);
        }
        paths
    }

    /// Recurses once for each level.
    fn take_apart(&mut self, expansion: &Expansion, name: String, value: &'t str, levels: u8) {
        let top = levels == expansion.levels;
        let mut inner = members(value).peekable();
        if levels == 0 || !value.starts_with('{') || (inner.peek().is_none() && !top) {
            self.at.insert(name.clone(), self.list.len());
            self.list.push((name, value));
            return;
        }
        for (key, value) in inner {
            let name = format!("{name}{}{}", expansion.separator, unquote(key));
            self.take_apart(expansion, name, value, levels - 1);
        }
    }

    /// The paths in the document's order, each once.
    fn names(&self) -> impl Iterator<Item = &str> {
        let last =
            |(index, (name, _)): (usize, &'_ (String, &'t str))| (self.at.get(name) == Some(&index)).then_some(index);
        self.list.iter().enumerate().filter_map(last).map(|index| self.list[index].0.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.at.contains_key(name)
    }

    fn get(&self, name: &str) -> Option<&'t str> {
        // A member that is null counts as missing.
        self.at.get(name).map(|index| self.list[*index].1).filter(|value| *value != "null")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(levels: u8, old: Option<&str>, new: Option<&str>) -> String {
        let expansion = Expansion { levels, label: "config".into(), separator: ".".into() };
        let documents = Documents { old, new };
        let side = |side: Option<String>| side.unwrap_or_else(|| "null".into());
        let text = |member: Member| format!("{}: [{}, {}]", member.name, side(member.old), side(member.new));
        changed(&expansion, documents, documents).into_iter().map(text).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn members_that_differ_are_named_by_their_paths() {
        for (levels, old, new, expected) in [
            (
                1,
                Some(r#"{"max_retries": 3, "x": 1}"#),
                Some(r#"{"max_retries": 5, "x": 1}"#),
                "config.max_retries: [3, 5]",
            ),
            (1, Some(r#"{"a": 1, "b": 2}"#), Some(r#"{"b":2,"a":1}"#), ""),
            (1, Some(r#"{"a": [1, 2]}"#), Some(r#"{"a": [1, 3]}"#), "config.a: [[1, 2], [1, 3]]"),
            (1, Some(r#"{"a": 1}"#), Some(r#"{"b": 1}"#), "config.b: [null, 1]; config.a: [1, null]"),
            (1, None, Some(r#"{"a": 1, "b": null}"#), "config.a: [null, 1]"),
            (1, Some(r#"{"a": 1}"#), None, "config.a: [1, null]"),
            (1, Some(r#"{"a": {"x": 1}}"#), Some(r#"{"a": {"x": 2}}"#), r#"config.a: [{"x": 1}, {"x": 2}]"#),
            (2, Some(r#"{"a": {"x": 1, "y": 1}}"#), Some(r#"{"a": {"x": 2, "y": 1}}"#), "config.a.x: [1, 2]"),
            (2, Some(r#"{"a": {}}"#), Some(r#"{"a": {"x": 2}}"#), "config.a.x: [null, 2]; config.a: [{}, null]"),
            (1, Some("5"), Some(r#"{"a": 1}"#), "config.a: [null, 1]; config: [5, null]"),
            (1, Some("[1]"), Some("[2]"), "config: [[1], [2]]"),
            (1, None, Some("{}"), "config: [null, {}]"),
            (1, Some(r#"{"a": 1, "a": 2}"#), Some(r#"{"a": 2}"#), ""),
            (1, Some(r#"{"a\"b": 1}"#), Some(r#"{"a\"b": 2}"#), "config.a\"b: [1, 2]"),
        ] {
            assert_eq!(shown(levels, old, new), expected, "{old:?} {new:?}");
        }
    }

    #[test]
    fn a_change_is_found_in_what_is_raw_and_shown_as_protection_left_it() {
        let expansion = Expansion { levels: 1, label: "cf".into(), separator: ":".into() };
        let raw =
            Documents { old: Some(r#"{"pin": 1, "ssn": 1, "x": 1}"#), new: Some(r#"{"pin": 2, "ssn": 2, "x": 1}"#) };
        let left = Some(r#"{"pin": "[REDACTED]", "ssn": "a", "ssn__hash": "b", "x": 1}"#);
        let found = changed(&expansion, raw, Documents { old: left, new: left });
        let names: Vec<&str> = found.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["cf:pin", "cf:ssn", "cf:ssn__hash"]);
    }
}
