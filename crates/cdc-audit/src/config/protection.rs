//! `[protection]`, and what `[[tables]]` says of protection.

use std::collections::BTreeMap;

use audit_config::secret::{Secret, SecretRef};
use audit_config::{Problems, quote};
use audit_core::method::{Algorithm, Method, MethodRule, Protect};
use audit_core::protect::{DEFAULT_CLASS, MacKey, Policy};
use audit_core::rules::{ProtectionRule, Rules, TableRule};
use audit_keys::KeyClass;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::is_name;
use crate::error::CliError;

/// What happens to sensitive columns in every table. A table's own `protect` comes first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProtectionConfig {
    /// Protect columns whose names commonly hold secrets (`*password*`, `*secret*`, `*_token`, `ssn`, `*card_number*` and the like) with `full`, and
    /// mask payment cards' numbers inside of text and documents (`paid with ****9012`) in columns that no rule decides about.
    pub defaults: bool,
    /// Fields of the context that applications send, at any depth (names or patterns), and what happens to them: `{ ip = "partial" }`. General rules by
    /// name, the default ones and those for content hold there too.
    #[schemars(extend("example" = {"ip": "partial"}))]
    pub context: BTreeMap<String, Protect>,
    /// Rules by column name, type and content, before the default ones.
    pub rules: Vec<ProtectionRule>,
    /// The secret for the method `hash`: 32 random bytes or more (`openssl rand -hex 32`).
    pub hash_key: Option<SecretRef>,
    /// The name under which stored hashes mention the key.
    pub hash_key_id: String,
    /// The secret under which protected key columns become part of `key`. It must never change: a row's key would.
    pub row_key: Option<SecretRef>,
    /// Classes of keys for `encrypt` and `token`, each with a master key of its own; a column that names none takes `default`.
    pub keys: BTreeMap<String, KeyClass>,
    /// The hot sink in whose database wrapped keys lie. Default: the first hot sink; without one, the source's database.
    pub key_store: Option<String>,
}

impl Default for ProtectionConfig {
    fn default() -> ProtectionConfig {
        ProtectionConfig {
            defaults: true,
            context: BTreeMap::new(),
            rules: Vec::new(),
            hash_key: None,
            hash_key_id: "k1".to_string(),
            row_key: None,
            keys: BTreeMap::new(),
            key_store: None,
        }
    }
}

impl ProtectionConfig {
    pub(super) fn check(&self, problems: &mut Problems) {
        if !is_name(&self.hash_key_id) {
            problems.push("hash_key_id", "may hold a-z, 0-9, - and _", "choose another id");
        }
        for (index, rule) in self.rules.iter().enumerate() {
            problems.scope(&format!("rules[{index}]"), |problems| {
                if rule.column.is_none() && rule.type_name.is_none() && rule.content.is_none() {
                    problems.push("", "names neither columns nor content", "give `column`, `type` or `content`");
                }
                let replaces = [Method::Full, Method::Partial, Method::Hash];
                let alone = |methods: &[MethodRule]| methods.len() == 1 && replaces.contains(&methods[0].method);
                if rule.content.is_some() && !alone(rule.method.methods()) {
                    let hint = "take `full`, `partial` or `hash`, alone";
                    problems.push("method", "content inside of a text is replaced by one method", hint);
                } else {
                    self.check_protect("method", &rule.method, problems);
                }
                for (key, pattern) in [("column", &rule.column), ("type", &rule.type_name)] {
                    if pattern.as_ref().is_some_and(String::is_empty) {
                        problems.push(key, "is empty", "name columns, with `*` for any run of characters");
                    }
                }
            });
        }
        for (field, protect) in &self.context {
            let path = format!("context.{}", quote(field));
            if protect.methods().iter().any(|rule| rule.method == Method::Encrypt) {
                let hint = "take `token`, `hash` or `partial`";
                problems.push(&path, "a context stands in no row, to which an encrypted value is bound", hint);
            }
            self.check_protect(&path, protect, problems);
        }
    }

    /// ⚠ More names than can be searched for together would leave members of documents as they are.
    pub(super) fn check_names(&self, rules: &Rules, problems: &mut Problems) {
        if let Some(place) = rules.too_many_names() {
            let message = format!("the patterns that hold for {place} are too many to be searched for together");
            problems.push("protection", message, "take patterns together, with `*`, or leave some out");
        }
    }

    /// What a rule for tables says of protection.
    pub(super) fn check_table(&self, rule: &TableRule, problems: &mut Problems) {
        for (column, protect) in &rule.protect {
            self.check_protect(&format!("protect.{}", quote(column)), protect, problems);
        }
        if rule.subject.is_some() && self.keys.is_empty() {
            let hint = "add [protection.keys.default] with a master key, or take the key out";
            problems.push("subject", "a data subject's key needs a class of keys", hint);
        }
        if rule.bind.is_some() && self.keys.is_empty() {
            let hint = "add [protection.keys.default] with a master key, or take the key out";
            problems.push("bind", "there are no ciphertexts to bind: they need a class of keys", hint);
        }
        for column in rule.bind.iter().flatten() {
            if column.contains(['*', '?']) {
                problems.push(
                    "bind",
                    format!("{column} is a pattern"),
                    "name columns as they are, in an order of your own",
                );
            } else if rule.protect.contains_key(column) {
                let hint = "take it out of one of the two: who opens a ciphertext must see what it is bound to";
                problems.push("bind", format!("column {column} is also in `protect`"), hint);
            }
        }
        for column in rule.allow.iter().flatten().filter(|column| rule.protect.contains_key(*column)) {
            let message = format!("column {column} is also in `protect`");
            problems.push("allow", message, "take it out of one of the two");
        }
    }

    fn check_protect(&self, path: &str, protect: &Protect, problems: &mut Problems) {
        let methods = protect.methods();
        if methods.is_empty() {
            problems.push(path, "names no method", "give one, or take the key out");
        }
        for (index, rule) in methods.iter().enumerate() {
            let path = if methods.len() > 1 { format!("{path}[{index}]") } else { path.to_owned() };
            let name = rule.method.name();
            if methods.len() > 1 && !rule.method.combines() {
                let hint = match rule.method {
                    Method::Full => "keep it alone: it hides even whether there is a value, which the other would show",
                    _ => "keep it alone: it leaves no column that the other could stand beside",
                };
                problems.push(&path, format!("`{name}` cannot stand beside another method"), hint);
            }
            if methods[..index].iter().any(|before| before.method == rule.method) {
                problems.push(&path, format!("`{name}` is named twice"), "each method has one companion column");
            }
            problems.scope(&path, |problems| self.check_rule(rule, problems));
        }
    }

    /// One method with what it is told.
    fn check_rule(&self, rule: &MethodRule, problems: &mut Problems) {
        let MethodRule { method, key, domain, algorithm, pattern } = rule;
        let keyed = matches!(method, Method::Encrypt | Method::Token);
        let joins = matches!(method, Method::Hash | Method::Token);
        let wrong = [
            ("key", key.is_some() && !keyed, "`encrypt` and `token`"),
            ("domain", domain.is_some() && !joins, "`hash` and `token`"),
            ("algorithm", algorithm.is_some() && *method != Method::Hash, "`hash`"),
            ("pattern", pattern.is_some() && *method != Method::Partial, "`partial`"),
        ];
        for (key, _, methods) in wrong.into_iter().filter(|(_, wrong, _)| *wrong) {
            let message = format!("the method `{}` has no {key}", method.name());
            problems.push(key, message, format!("only {methods} can be told one").as_str());
        }
        for (key, name) in [("key", key), ("domain", domain)] {
            if name.as_ref().is_some_and(String::is_empty) {
                problems.push(key, "is empty", "give a name, or take the key out");
            }
        }
        if *algorithm == Some(Algorithm::Sha256) && domain.is_some() {
            let hint = "take it out: equal values are equal everywhere";
            problems.push("domain", "a bare SHA-256 knows no domain", hint);
        }
        if rule.needs_hash_key() && self.hash_key.is_none() {
            let hint = "set protection.hash_key to a file or variable that holds one";
            problems.push("", "the method `hash` needs a key", hint);
        }
        let class = key.as_deref().unwrap_or(DEFAULT_CLASS);
        if keyed && !self.keys.contains_key(class) {
            let message = format!("the method `{}` needs keys of class {class:?}", method.name());
            let classes: Vec<&str> = self.keys.keys().map(String::as_str).collect();
            let hint = match classes.is_empty() {
                true => format!("add [protection.keys.{class}] with a master key"),
                false => format!("the classes are {}", classes.join(", ")),
            };
            problems.push("", message, hint.as_str());
        }
    }

    /// Reads the keys. `Err` names the one that cannot be had.
    pub fn policy(&self) -> Result<Policy, KeyError> {
        let hash_key = read_key("protection.hash_key", &self.hash_key)?;
        if let Some(hash_key) = &hash_key {
            check_key("protection.hash_key", hash_key)?;
        }
        let row_key = self.read_row_key()?;
        if hash_key.is_some() && hash_key == row_key {
            return Err(KeyError::Same);
        }
        let key = |id: &str, secret: Option<Secret>| secret.map(|secret| MacKey::new(id, secret.expose().as_bytes()));
        Ok(Policy { hash_key: key(&self.hash_key_id, hash_key), row_key: key("row", row_key), sealer: None })
    }

    /// What is weak about `row_key`. It is used all the same: with another one, every protected row would get another name.
    pub fn row_key_weakness(&self) -> Result<Option<KeyError>, KeyError> {
        let row_key = self.read_row_key()?;
        Ok(row_key.and_then(|row_key| check_key(ROW_KEY, &row_key).err()))
    }

    fn read_row_key(&self) -> Result<Option<Secret>, KeyError> {
        let row_key = read_key(ROW_KEY, &self.row_key)?;
        match row_key.as_ref().map(|row_key| row_key.expose().len()) {
            Some(length) if length < ROW_KEY_MIN => Err(KeyError::Short { which: ROW_KEY, length }),
            _ => Ok(row_key),
        }
    }
}

/// A key of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key {which} cannot be read")]
    Unreadable { which: &'static str, source: audit_config::secret::SecretError },
    #[error("the key {which} is too short to protect anything: {length} characters")]
    Short { which: &'static str, length: usize },
    #[error("the key {which} begins or ends with blanks, which somebody will lose one day")]
    Blanks { which: &'static str },
    #[error("protection.hash_key and protection.row_key are the same secret: one is rotated, the other never changes")]
    Same,
}

impl KeyError {
    pub fn hint(&self) -> &'static str {
        match self {
            KeyError::Unreadable { source, .. } => source.hint(),
            KeyError::Short { which: ROW_KEY, length } if *length < ROW_KEY_MIN => {
                "make one of 32 random bytes: openssl rand -hex 32"
            }
            KeyError::Short { which: ROW_KEY, .. } | KeyError::Blanks { which: ROW_KEY } => {
                "keep it if a trail was written with it, because it must never change; for a new trail: openssl rand -hex 32"
            }
            KeyError::Short { .. } | KeyError::Same | KeyError::Blanks { .. } => {
                "make another hash_key (openssl rand -hex 32), and change hash_key_id together with it"
            }
        }
    }
}

impl From<KeyError> for CliError {
    fn from(error: KeyError) -> CliError {
        CliError::of(&error).hint(error.hint().to_owned())
    }
}

const ROW_KEY: &str = "protection.row_key";

/// Less was never taken, so no trail was written with less.
const ROW_KEY_MIN: usize = 16;

/// Thirty-two characters of hex are 128 bits: below that, trying out keys comes within reach.
const KEY_MIN: usize = 32;

fn read_key(which: &'static str, reference: &Option<SecretRef>) -> Result<Option<Secret>, KeyError> {
    let secret = reference.as_ref().map(SecretRef::resolve).transpose();
    secret.map_err(|source| KeyError::Unreadable { which, source })
}

fn check_key(which: &'static str, secret: &Secret) -> Result<(), KeyError> {
    let (text, length) = (secret.expose(), secret.expose().trim().len());
    match length {
        length if length < KEY_MIN => Err(KeyError::Short { which, length }),
        length if length < text.len() => Err(KeyError::Blanks { which }),
        _ => Ok(()),
    }
}
