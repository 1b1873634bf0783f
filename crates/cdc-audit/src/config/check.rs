//! What the types of the configuration cannot say.

use std::net::SocketAddr;
use std::path::Path;

use audit_config::{Problems, quote};
use audit_core::rules::TableRule;
use audit_core::versions_table::COMMON;

use super::Config;

impl Config {
    /// Reads and checks the file: all problems in one go, before anything is touched.
    pub fn load(path: &Path) -> Result<Config, Problems> {
        audit_config::load(path, |config: &Config, problems| config.check(problems))
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        problems.scope("source", |problems| self.source.check(problems));
        problems.scope("baseline", |problems| self.baseline.check(problems));
        problems.scope("actors", |problems| self.actors.check(problems));
        problems.scope("activity", |problems| self.activity.check(problems));
        for (name, sink) in &self.sinks {
            problems.scope(&format!("sinks.{}", quote(name)), |problems| sink.check(self, problems));
        }
        if self.sinks.is_empty() {
            problems.push("sinks", "there is no sink", Some("name at least one: [sinks.hot] or [sinks.archive]"));
        }
        for name in self.sinks.keys().filter(|name| !is_name(name)) {
            let path = format!("sinks.{}", quote(name));
            problems.push(&path, "a sink's name may hold a-z, 0-9, - and _", Some("choose another name"));
        }
        if self.http.listen.parse::<SocketAddr>().is_err() {
            problems.push("http.listen", "not an address with a port", Some("give one like \"127.0.0.1:9187\""));
        }
        if self.pipeline.memory().is_none() {
            problems.push("pipeline.memory_limit", "too small", Some("give at least \"80 MiB\""));
        }
        self.check_keys(problems);
        self.protection.check_names(&self.rules(), problems);
        problems.scope("protection", |problems| self.protection.check(problems));
        for (index, rule) in self.tables.iter().enumerate() {
            let path = format!("tables[{index}]");
            if rule.only.is_some() && rule.ignore.is_some() {
                problems.push(&format!("{path}.only"), "given together with `ignore`", Some("keep one of the two"));
            }
            if rule.only.as_ref().is_some_and(Vec::is_empty) {
                let hint = "name some columns, or say `capture = false` to leave tables out";
                problems.push(&format!("{path}.only"), "names no column", Some(hint));
            }
            if rule.events.as_ref().is_some_and(Vec::is_empty) {
                let hint = "say `capture = false` to leave tables out";
                problems.push(&format!("{path}.events"), "selects no event", Some(hint));
            }
            if rule.key.as_ref().is_some_and(Vec::is_empty) {
                problems.push(&format!("{path}.key"), "names no column", Some("name some, or take the key out"));
            }
            for name in rule.sinks.iter().flatten().filter(|name| !self.sinks.contains_key(*name)) {
                let names: Vec<&str> = self.sinks.keys().map(String::as_str).collect();
                let hint = format!("the sinks are {}", names.join(", "));
                problems.push(&format!("{path}.sinks"), format!("there is no sink {name:?}"), Some(hint.as_str()));
            }
            if rule.sinks.as_ref().is_some_and(Vec::is_empty) {
                problems.push(
                    &format!("{path}.sinks"),
                    "names no sink",
                    Some("say `capture = false` to leave tables out"),
                );
            }
            problems.scope(&path, |problems| {
                self.check_versions_table(rule, problems);
                self.protection.check_table(rule, problems);
            });
        }
    }

    fn check_versions_table(&self, rule: &TableRule, problems: &mut Problems) {
        const KEY: &str = "versions_table";
        let Some(own) = &rule.versions_table else { return };
        if own.literal().is_some_and(|name| name != COMMON && audit_hot::is_ours(name)) {
            let hint = "choose another: this one is of cdc-audit, or may once be a partition's or a view's";
            problems.push(KEY, "the name is not free", hint);
        }
        if own.has_tenant() && rule.tenant.is_none() {
            problems.push(KEY, "nothing says who the tenant is", "name the column in `tenant`, beside it");
        }
        if self.hot_sinks().next().is_none() {
            problems.push(KEY, "there is no hot sink", "add one with type = \"hot\", or take the key out");
        }
    }
}

/// Whether a sink or a class of keys may have this name.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}
