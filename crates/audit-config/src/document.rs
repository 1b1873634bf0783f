//! Parses a TOML document, keeps the line of every key, and deserialises it into types.
//!
//! We have our own deserialiser for one reason: serde's usual messages quote the value that did not fit, and a value
//! may be a password. [`Fault`] drops values before they are formatted and holds the path instead.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use crate::problems::{Problems, join, quote};

pub(crate) type Value<'i> = Spanned<DeValue<'i>>;
type Entry<'i> = (Spanned<DeString<'i>>, Value<'i>);

/// Parses `text`. The returned problems are still empty and hold the line of every key.
pub(crate) fn parse<'i>(file: &Path, text: &'i str) -> Result<(Value<'i>, Problems), Problems> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let table = Spanned::new(table.span(), DeValue::Table(table.into_inner()));
    let mut lines = BTreeMap::new();
    record_lines(text, "", &table, &mut lines);
    let mut problems = Problems::new(file, lines);
    for error in errors {
        let line = error.span().map(|span| line_of(text, span.start));
        problems.push_text(line, error.message().to_owned(), None);
    }
    Ok((table, problems.none_or_err()?))
}

fn record_lines(text: &str, path: &str, value: &Value<'_>, lines: &mut BTreeMap<String, usize>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                let path = join(path, &quote(key.get_ref()));
                lines.insert(path.clone(), line_of(text, key.span().start));
                record_lines(text, &path, value, lines);
            }
        }
        DeValue::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                let path = format!("{path}[{index}]");
                lines.insert(path.clone(), line_of(text, value.span().start));
                record_lines(text, &path, value, lines);
            }
        }
        _ => {}
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Returns the integer. `None` if no integer type could hold it.
pub(crate) fn integer(digits: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(digits.as_str(), digits.radix()).ok()
}

/// The reason why a value cannot become its type, and its path. It never contains the value.
#[derive(Debug)]
pub(crate) struct Fault {
    pub path: String,
    pub message: String,
}

impl Fault {
    fn under(self, key: &str) -> Fault {
        Fault { path: join(key, &self.path), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Fault {
        Fault { path: String::new(), message: message.to_string() }
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Fault {
        Fault::custom(format_args!("expected {expected}"))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Fault {
        Fault::custom(format_args!("expected {expected}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Fault {
        Fault::custom(format_args!("expected one of `{}`", expected.join("`, `")))
    }
}

/// Deserialises a value into a type.
pub(crate) struct Reader<'i>(pub Value<'i>);

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.into_inner() {
            DeValue::String(text) => visitor.visit_str(&text),
            DeValue::Integer(digits) => visit_integer(&digits, visitor),
            DeValue::Float(digits) => visitor.visit_f64(digits.as_str().parse().map_err(de::Error::custom)?),
            DeValue::Boolean(value) => visitor.visit_bool(value),
            DeValue::Datetime(time) => visitor.visit_string(time.to_string()),
            DeValue::Array(list) => visitor.visit_seq(Items(list.into_iter().enumerate())),
            DeValue::Table(table) => visitor.visit_map(Entries { entries: table.into_iter(), value: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0.into_inner() {
            DeValue::String(word) => {
                let word: StrDeserializer<'_, Fault> = word.as_ref().into_deserializer();
                word.deserialize_enum(name, variants, visitor)
            }
            DeValue::Table(table) => {
                let entries = Entries { entries: table.into_iter(), value: None };
                MapAccessDeserializer::new(entries).deserialize_enum(name, variants, visitor)
            }
            _ => Err(de::Error::unknown_variant("", variants)),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

fn visit_integer<'de, V: Visitor<'de>>(digits: &DeInteger<'_>, visitor: V) -> Result<V::Value, Fault> {
    let Some(number) = integer(digits) else {
        return Err(de::Error::custom("number out of range"));
    };
    match (i64::try_from(number), u64::try_from(number)) {
        (Ok(number), _) => visitor.visit_i64(number),
        (_, Ok(number)) => visitor.visit_u64(number),
        _ => visitor.visit_i128(number),
    }
}

struct Entries<I, V> {
    entries: I,
    /// The value whose key was returned last, with that key.
    value: Option<(String, V)>,
}

impl<'de, 'i, I: Iterator<Item = Entry<'i>>> MapAccess<'de> for Entries<I, Value<'i>> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        let name = key.into_inner();
        self.value = Some((quote(&name), value));
        let key: StrDeserializer<'_, Fault> = name.as_ref().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, value)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(Reader(value)).map_err(|fault| fault.under(&key))
    }
}

struct Items<I>(I);

impl<'de, 'i, I: Iterator<Item = (usize, Value<'i>)>> SeqAccess<'de> for Items<I> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((index, value)) = self.0.next() else { return Ok(None) };
        seed.deserialize(Reader(value)).map(Some).map_err(|fault| fault.under(&format!("[{index}]")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    #[serde(tag = "type")]
    enum Tagged {
        A { list: Vec<bool> },
    }

    #[derive(Debug, Deserialize)]
    enum Word {
        A,
    }

    fn fault<T: for<'de> Deserialize<'de> + fmt::Debug>(text: &str) -> Fault {
        let (value, _) = parse(Path::new("x.toml"), text).unwrap();
        BTreeMap::<String, T>::deserialize(Reader(value)).unwrap_err()
    }

    #[test]
    fn a_fault_has_its_path_and_never_the_value() {
        let faults = [
            fault::<bool>("a = 'hunter2'"),
            fault::<Vec<u8>>("a = [1, 'hunter2']"),
            fault::<char>("a = 'hunter2'"),
            fault::<Word>("a = 'hunter2'"),
            fault::<Word>("a = 7"),
            fault::<Tagged>("a = { type = 'hunter2' }"),
            fault::<Tagged>("a = { type = 'A', list = ['hunter2'] }"),
            fault::<u8>("a = 300"),
        ];
        let shown = faults.map(|fault| format!("{}: {fault}\n", fault.path)).concat();
        expect_test::expect![[r#"
            a: expected a boolean
            a[1]: expected u8
            a: expected a character
            a: expected one of `A`
            a: expected one of `A`
            a.type: expected one of `A`
            a: expected a boolean
            a: expected u8
        "#]]
        .assert_eq(&shown);
    }
}
