//! The key of a row, as people give it and as it is stored: [`KeyForm`].

use audit_core::mac::MacKey;
use audit_core::rules::Rules;
use audit_core::shape::Shape;
use audit_core::value::{Kind, write_json_value};
use serde_json::value::RawValue;

use crate::store::StoreError;
use crate::timeline::Timeline;

/// How the keys of one table are stored: the text of one column, or a JSON array of several, without spaces. The value of a
/// protected column is stored as its HMAC.
#[derive(Debug)]
pub struct KeyForm {
    table: String,
    columns: Vec<KeyColumn>,
}

#[derive(Debug)]
struct KeyColumn {
    name: String,
    kind: Option<Kind>,
    is_protected: bool,
}

/// A key was given that is none of the table's.
#[derive(Debug, thiserror::Error)]
#[error("the key of this table is ({columns})")]
pub struct NotAKey {
    columns: String,
    words: String,
    array: String,
}

impl NotAKey {
    /// What a person can do.
    pub fn hint(&self) -> String {
        format!("give {}, or a JSON array in that order, such as '{}'", self.words, self.array)
    }
}

impl Timeline {
    /// How keys of the table are stored, under these rules. `table` is the whole name.
    pub async fn key_form(&self, source: &str, table: &str, rules: &Rules) -> Result<KeyForm, StoreError> {
        let shape = self.shape(source, table).await?;
        Ok(KeyForm::new(table, shape.as_ref(), rules))
    }
}

impl KeyForm {
    fn new(table: &str, shape: Option<&Shape>, rules: &Rules) -> KeyForm {
        let columns = shape.map_or_else(Vec::new, |shape| {
            let rules = rules.for_table(&shape.name());
            let column = |name: &String| {
                let known = shape.columns.iter().find(|column| column.name == *name);
                KeyColumn {
                    name: name.clone(),
                    kind: known.map(|column| column.kind.clone()),
                    is_protected: known.is_some_and(|column| !rules.methods(column).is_empty()),
                }
            };
            rules.rule.key.as_ref().unwrap_or(&shape.key).iter().map(column).collect()
        });
        KeyForm { table: table.to_owned(), columns }
    }

    /// Whether some of it is stored as an HMAC, for which [`KeyForm::stored`] needs the row key.
    pub fn is_hashed(&self) -> bool {
        self.columns.iter().any(|column| column.is_protected)
    }

    /// The key as it is stored. Anyone who knows the raw key, and may read the row key, can still ask for it.
    ///
    /// A key of several columns is a JSON array (`[42,3]`), its values in key order (`42,3`), or its columns by name
    /// (`order_id=42 line=3`). Names are understood for one column too, unless its values are text and might look so.
    ///
    /// # Errors
    /// Returns [`NotAKey`] if the table has a key of several columns, and `key` does not have a value for each.
    pub fn stored(&self, key: &str, row_key: Option<&MacKey>) -> Result<String, NotAKey> {
        let row_key = |column: &KeyColumn| row_key.filter(|_| column.is_protected);
        match self.columns.as_slice() {
            [] => Ok(key.to_owned()),
            [column] => {
                let named = || by_name(&self.columns, key)?.pop();
                let text = named().filter(|_| column.is_distinct_from_words()).unwrap_or_else(|| key.to_owned());
                Ok(row_key(column).map_or_else(|| text.clone(), |row_key| self.hashed(row_key, column, &text)))
            }
            columns => {
                let parts = array(columns, key).or_else(|| by_name(columns, key)).or_else(|| in_order(columns, key));
                let parts = parts.ok_or_else(|| self.not_a_key())?;
                let part = |(column, text): (&KeyColumn, String)| match row_key(column) {
                    Some(row_key) => {
                        serde_json::Value::from(self.hashed(row_key, column, &unquoted(&text))).to_string()
                    }
                    None => text,
                };
                let parts: Vec<String> = columns.iter().zip(parts).map(part).collect();
                Ok(format!("[{}]", parts.join(",")))
            }
        }
    }

    fn hashed(&self, row_key: &MacKey, column: &KeyColumn, text: &str) -> String {
        row_key.hash(&self.table, &column.name, text.as_bytes())
    }

    fn not_a_key(&self) -> NotAKey {
        let value = |column: &KeyColumn| match column.kind {
            Some(Kind::Int2 | Kind::Int4 | Kind::Int8) => "42",
            Some(Kind::Bool) => "true",
            _ => "\"a\"",
        };
        let list = |each: &dyn Fn(&KeyColumn) -> String, between: &str| {
            self.columns.iter().map(each).collect::<Vec<String>>().join(between)
        };
        NotAKey {
            columns: list(&|column| column.name.clone(), ", "),
            words: list(&|column| format!("{}={}", column.name, unquoted(value(column))), " "),
            array: format!("[{}]", list(&|column| value(column).to_owned(), ", ")),
        }
    }
}

impl KeyColumn {
    /// Whether no value of the column can look like a name with a value.
    fn is_distinct_from_words(&self) -> bool {
        !matches!(self.kind, None | Some(Kind::Text | Kind::Json | Kind::Jsonb | Kind::Array(_)))
    }

    /// A value as a part of the stored array. Words say `true`, where PostgreSQL's own text is `t`.
    fn part(&self, text: &str) -> String {
        let kind = self.kind.as_ref().unwrap_or(&Kind::Text);
        let text = match (kind, text) {
            (Kind::Bool, "true") => "t",
            (Kind::Bool, "false") => "f",
            _ => text,
        };
        let mut out = Vec::new();
        write_json_value(&mut out, kind, text);
        String::from_utf8(out).unwrap_or_default()
    }
}

/// Reads a JSON array of as many values. Numbers stay text, because of their digits.
fn array(columns: &[KeyColumn], key: &str) -> Option<Vec<String>> {
    let parts: Vec<&RawValue> = serde_json::from_str(key).ok()?;
    let part = |part: &RawValue| match serde_json::from_str::<String>(part.get()) {
        Ok(text) => serde_json::Value::from(text).to_string(),
        Err(_) => part.get().to_owned(),
    };
    (parts.len() == columns.len()).then(|| parts.into_iter().map(part).collect())
}

/// Reads `42,3`.
fn in_order(columns: &[KeyColumn], key: &str) -> Option<Vec<String>> {
    let parts: Vec<&str> = key.split(',').map(str::trim).collect();
    let fits = parts.len() == columns.len() && !key.trim_start().starts_with('[');
    fits.then(|| columns.iter().zip(parts).map(|(column, text)| column.part(text)).collect())
}

/// Reads `order_id=42 line=3`, in any order; each column once. A value may have spaces.
fn by_name(columns: &[KeyColumn], key: &str) -> Option<Vec<String>> {
    let mut values: Vec<Option<String>> = vec![None; columns.len()];
    let mut current: Option<usize> = None;
    for word in key.split(' ').filter(|word| !word.is_empty()) {
        let named = word
            .split_once('=')
            .and_then(|(name, value)| Some((columns.iter().position(|column| column.name == name)?, value)));
        match (named, current) {
            (Some((at, value)), _) if values[at].is_none() => {
                values[at] = Some(value.to_owned());
                current = Some(at);
            }
            (None, Some(at)) => values[at].get_or_insert_default().push_str(&format!(" {word}")),
            _ => return None,
        }
    }
    let one = columns.len() == 1;
    let part =
        |(column, text): (&KeyColumn, Option<String>)| text.map(|text| if one { text } else { column.part(&text) });
    columns.iter().zip(values).map(part).collect()
}

/// The text of a JSON string; of another value its JSON.
fn unquoted(json: &str) -> String {
    serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use audit_core::position::Position;
    use audit_core::shape::{KeySource, ShapeColumn};
    use serde_json::json;

    use super::*;

    const TABLE: &str = "public.users";

    /// The key has these columns, of which `email` is protected.
    fn form(key: &[(&str, Kind)]) -> KeyForm {
        let column = |(name, kind): &(&str, Kind)| ShapeColumn {
            name: (*name).to_owned(),
            type_oid: 0,
            typmod: -1,
            type_name: String::new(),
            holds: Vec::new(),
            kind: kind.clone(),
            attnum: None,
            in_identity: true,
        };
        let shape = Shape {
            schema: "public".to_owned(),
            table: "users".to_owned(),
            schema_version: 1,
            digest: String::new(),
            first: Position::default(),
            columns: key.iter().map(column).collect(),
            key: key.iter().map(|(name, _)| (*name).to_owned()).collect(),
            key_source: KeySource::Catalog,
            oid: None,
            partitioned: None,
            rules: None,
            seal: None,
        };
        let rule = serde_json::from_value(json!({ "name": TABLE, "protect": { "email": "hash" } })).unwrap();
        KeyForm::new(TABLE, Some(&shape), &Rules { tables: vec![rule], ..Rules::default() })
    }

    #[test]
    fn one_column_is_stored_as_its_text_and_a_protected_one_as_its_hmac() {
        let row_key = MacKey::new("r1", &[7; 32]);
        let plain = form(&[("id", Kind::Int8)]);
        assert!(!plain.is_hashed());
        assert_eq!(plain.stored("42", None).unwrap(), "42");
        let hashed = form(&[("email", Kind::Text)]);
        assert!(hashed.is_hashed());
        let stored = hashed.stored("ann@example.com", Some(&row_key)).unwrap();
        assert_eq!(stored, row_key.hash(TABLE, "email", b"ann@example.com"));
        assert_eq!(KeyForm::new(TABLE, None, &Rules::default()).stored("as it is", None).unwrap(), "as it is");
    }

    #[test]
    fn several_columns_are_an_array_in_which_numbers_keep_their_digits() {
        let row_key = MacKey::new("r1", &[7; 32]);
        let form = form(&[("id", Kind::Numeric(None)), ("email", Kind::Text), ("name", Kind::Text)]);
        let stored = form.stored(r#" [ 1.50, "ann@example.com", "Ann \"A\"" ] "#, Some(&row_key)).unwrap();
        let hash = row_key.hash(TABLE, "email", b"ann@example.com");
        assert_eq!(stored, format!(r#"[1.50,"{hash}","Ann \"A\""]"#));
    }

    #[test]
    fn a_key_of_another_length_is_refused_with_an_example() {
        let form = form(&[("id", Kind::Int4), ("active", Kind::Bool), ("name", Kind::Text)]);
        for key in ["42", "[42]", r#"[42,true,"a","b"]"#, "no JSON"] {
            let error = form.stored(key, None).unwrap_err();
            assert_eq!(error.to_string(), "the key of this table is (id, active, name)");
            let hint = r#"give id=42 active=true name=a, or a JSON array in that order, such as '[42, true, "a"]'"#;
            assert_eq!(error.hint(), hint);
        }
    }

    #[test]
    fn keys_may_be_written_in_words() {
        let form = form(&[("id", Kind::Int4), ("active", Kind::Bool), ("name", Kind::Text)]);
        for key in [
            "42,true,Ann Smith",
            "id=42 active=true name=Ann Smith",
            "name=Ann Smith id=42 active=t",
            "42, t, Ann Smith",
        ] {
            assert_eq!(form.stored(key, None).unwrap(), r#"[42,true,"Ann Smith"]"#, "{key}");
        }
        for key in
            ["id=42 active=true", "id=42 id=43 active=t name=a", "x id=42 active=t name=a", "42,true", "42,true,a,b"]
        {
            assert!(form.stored(key, None).is_err(), "{key}");
        }
        let one = |kind| super::tests::form(&[("id", kind)]).stored("id=42", None).unwrap();
        assert_eq!((one(Kind::Int8), one(Kind::Text)), ("42".to_owned(), "id=42".to_owned()));
    }
}
