//! `[protection.keys]`: classes of keys, and where the key store lies.

use audit_config::{Problems, quote};
use audit_connect::PgEndpoint;
use audit_core::method::Protect;
use audit_keys::Keyring;

use super::Config;
use super::check::is_name;
use crate::reveal::NamedDomain;

impl Config {
    /// What the types cannot say.
    pub(super) fn check_keys(&self, problems: &mut Problems) {
        for (name, class) in &self.protection.keys {
            let path = format!("protection.keys.{}", quote(name));
            if !is_name(name) {
                problems.push(&path, "a class's name may hold a-z, 0-9, - and _", "choose another name");
            }
            problems.scope(&path, |problems| class.check(problems));
        }
        let Some(name) = &self.protection.key_store else { return };
        if self.hot(name).is_none() {
            let hint = "name a hot sink of this file, or take the key out";
            problems.push("protection.key_store", "there is no hot sink of this name", hint);
        }
    }

    /// The database of the key store: a hot sink's, else the source.
    pub fn key_store(&self) -> &PgEndpoint {
        self.hot_or_source(self.protection.key_store.as_deref())
    }

    /// The domains of tokens that have names.
    pub fn domains(&self) -> Vec<NamedDomain> {
        let named = |table: &str, column: &str, protect: &Protect| {
            let of =
                |domain: &String| NamedDomain { table: table.into(), column: column.into(), domain: domain.clone() };
            protect.methods().iter().filter_map(|rule| rule.domain.as_ref().map(of)).collect::<Vec<_>>()
        };
        // Records have the name that the table had then.
        let names = self.tables.iter().flat_map(|rule| {
            let all = std::iter::once(&rule.name).chain(&rule.former_names);
            all.map(move |name| (name, &rule.protect))
        });
        let tables = names.flat_map(|(table, protect)| {
            protect.iter().flat_map(|(column, protect)| named(table, column, protect)).collect::<Vec<_>>()
        });
        let general = self.protection.rules.iter();
        let general = general.flat_map(|rule| named("*", rule.column.as_deref().unwrap_or("*"), &rule.method));
        let context = self.protection.context.iter().flat_map(|(field, protect)| named("context", field, protect));
        tables.chain(general).chain(context).collect()
    }

    /// What the daemon encrypts with; `None` where no class of keys is configured.
    pub fn keyring(&self) -> Result<Option<Keyring>, audit_keys::KeyError> {
        let keys = &self.protection.keys;
        if keys.is_empty() {
            return Ok(None);
        }
        Keyring::new(&self.source.name, keys, self.key_store().clone(), "cdc-audit keys").map(Some)
    }
}
