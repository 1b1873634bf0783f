//! What can be done with a sensitive value, and how the configuration writes it: [`Protect`].
//!
//! ```toml
//! protect = { email = "hash", ssn = ["partial", "encrypt"], phone = { method = "hash", domain = "phone" } }
//! ```

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{self, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::mask::Mask;

/// How a sensitive column is protected before it leaves memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// `[REDACTED]` in place of every value, NULL included.
    Full,
    /// A part of the value by which people recognise it: see [`crate::mask`].
    Partial,
    /// HMAC-SHA-256 under `protection.hash_key`, stored as `hmac-sha256:<key id>:<64 hex>`. Equal values stay equal; NULL stays NULL.
    Hash,
    /// Deterministic encryption: equal values stay equal, and who has the right gets them back.
    Token,
    /// Encryption, each value by itself.
    Encrypt,
    /// The column is absent.
    Drop,
}

impl Method {
    pub const ALL: [Method; 6] =
        [Method::Full, Method::Partial, Method::Hash, Method::Token, Method::Encrypt, Method::Drop];

    pub fn name(self) -> &'static str {
        match self {
            Method::Full => "full",
            Method::Partial => "partial",
            Method::Hash => "hash",
            Method::Token => "token",
            Method::Encrypt => "encrypt",
            Method::Drop => "drop",
        }
    }

    /// Whether it may be combined with another method on one column. `full` hides even whether there is a value, which
    /// another method would show; `drop` leaves nothing to combine with.
    pub fn combines(self) -> bool {
        !matches!(self, Method::Full | Method::Drop)
    }
}

/// What the method `hash` computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    #[default]
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// Without a key: who guesses a value can prove the guess.
    #[serde(rename = "sha256")]
    Sha256,
}

/// A method and what it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MethodRule {
    /// `full`, `partial`, `hash`, `token`, `encrypt` or `drop`.
    pub method: Method,
    /// The class of keys, for `encrypt` and `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// For `hash` and `token`: equal values of all columns of one domain look alike. Default: the column is a domain of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Of `hash`. Default: `hmac-sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// Of `partial`: what is shown, as in `"{2}***{-4}"` (the first two characters and the last four). Default: by the value's shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Mask>,
}

impl From<Method> for MethodRule {
    fn from(method: Method) -> MethodRule {
        MethodRule { method, key: None, domain: None, algorithm: None, pattern: None }
    }
}

impl MethodRule {
    fn is_plain(&self) -> bool {
        *self == MethodRule::from(self.method)
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm.unwrap_or_default()
    }

    /// Whether the shape of the value decides what is left of it.
    pub(crate) fn shape_decides(&self) -> bool {
        self.method == Method::Partial && self.pattern.is_none()
    }

    /// Whether the method needs `protection.hash_key`.
    pub fn needs_hash_key(&self) -> bool {
        self.method == Method::Hash && self.algorithm() == Algorithm::HmacSha256
    }
}

/// The method with its options.
impl fmt::Display for MethodRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MethodRule { method, key, domain, algorithm, pattern } = self;
        f.write_str(method.name())?;
        let algorithm = algorithm.filter(|algorithm| *algorithm == Algorithm::Sha256).map(|_| "sha256".to_owned());
        let key = key.as_ref().map(|key| format!("key {key}"));
        let domain = domain.as_ref().map(|domain| format!("domain {domain}"));
        let pattern = pattern.as_ref().map(|pattern| format!("pattern {pattern}"));
        let told: Vec<String> = [algorithm, key, domain, pattern].into_iter().flatten().collect();
        if told.is_empty() { Ok(()) } else { write!(f, " ({})", told.join(", ")) }
    }
}

/// The methods of a column, as configured: one method by its name or with its options, or a list of such. What the
/// first one leaves is in the column itself, what each further one leaves is in a column `<column>__<method>` beside
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protect(Vec<MethodRule>);

impl Protect {
    pub fn methods(&self) -> &[MethodRule] {
        &self.0
    }
}

impl From<Method> for Protect {
    fn from(method: Method) -> Protect {
        Protect(vec![method.into()])
    }
}

impl From<Vec<MethodRule>> for Protect {
    fn from(methods: Vec<MethodRule>) -> Protect {
        Protect(methods)
    }
}

/// The forms in which methods may be written, for their schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)]
enum Written {
    Word(Method),
    Rule(MethodRule),
    List(Vec<WrittenOne>),
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code)]
enum WrittenOne {
    Word(Method),
    Rule(MethodRule),
}

impl JsonSchema for Protect {
    fn schema_name() -> Cow<'static, str> {
        "Protect".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Written::json_schema(generator)
    }
}

impl Serialize for Protect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => One(one).serialize(serializer),
            several => serializer.collect_seq(several.iter().map(One)),
        }
    }
}

struct One<'a>(&'a MethodRule);

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_plain() { self.0.method.serialize(serializer) } else { self.0.serialize(serializer) }
    }
}

/// Does not try one form after another, because that would lose the reason why the intended form is wrong.
impl<'de> Deserialize<'de> for Protect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Protect, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Protect;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a method, a table with a method, or a list of those")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Protect, E> {
                let word: StrDeserializer<'_, E> = word.into_deserializer();
                Method::deserialize(word).map(Protect::from)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Protect, A::Error> {
                MethodRule::deserialize(MapAccessDeserializer::new(map)).map(|rule| Protect(vec![rule]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Protect, A::Error> {
                let mut methods = Vec::new();
                // An item that is a list itself adds its methods; the schema has refused such a list before.
                while let Some(Protect(item)) = list.next_element()? {
                    methods.extend(item);
                }
                Ok(Protect(methods))
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_come_back_as_they_were_written() {
        for json in [
            r#""hash""#,
            r#"["partial","encrypt"]"#,
            r#"{"method":"hash","domain":"phone"}"#,
            r#"["partial",{"method":"encrypt","key":"medical"}]"#,
            r#"{"method":"hash","algorithm":"sha256"}"#,
            r#"{"method":"partial","pattern":"{2}***{-4}"}"#,
        ] {
            let protect: Protect = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&protect).unwrap(), json);
        }
    }

    #[test]
    fn a_bad_pattern_is_named_with_its_place() {
        let error = serde_json::from_str::<Protect>(r#"[{"method":"partial","pattern":"***{x}"}]"#).unwrap_err();
        assert!(error.to_string().contains("character 4"), "{error}");
    }
}
