//! The key of a row, as people give it and as it is stored: [`KeyForm`].

use audit_core::mac::MacKey;
use audit_core::rules::Rules;
use audit_core::shape::Shape;
use audit_core::value::Kind;
use serde_json::value::RawValue;

use crate::store::{Store, StoreError};

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
    example: String,
}

impl NotAKey {
    /// What a person can do.
    pub fn hint(&self) -> String {
        format!("give a JSON array in that order, such as '{}'", self.example)
    }
}

impl Store {
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
    /// # Errors
    /// The table has a key of several columns, and `key` is no JSON array of as many.
    pub fn stored(&self, key: &str, row_key: Option<&MacKey>) -> Result<String, NotAKey> {
        let hashed = |column: &KeyColumn, text: &str| {
            let row_key = row_key.filter(|_| column.is_protected)?;
            Some(row_key.hash(&self.table, &column.name, text.as_bytes()))
        };
        match self.columns.as_slice() {
            [] => Ok(key.to_owned()),
            [column] => Ok(hashed(column, key).unwrap_or_else(|| key.to_owned())),
            columns => {
                let parts: Option<Vec<&RawValue>> = serde_json::from_str(key).ok();
                let parts = parts.filter(|parts| parts.len() == columns.len()).ok_or_else(|| self.not_a_key())?;
                let part = |(column, part): (&KeyColumn, &RawValue)| {
                    // Numbers stay text, because of their digits.
                    let string = serde_json::from_str::<String>(part.get()).ok();
                    let text = string.as_deref().unwrap_or(part.get());
                    match hashed(column, text).or(string.clone()) {
                        Some(text) => serde_json::Value::from(text).to_string(),
                        None => text.to_string(),
                    }
                };
                let parts: Vec<String> = columns.iter().zip(parts).map(part).collect();
                Ok(format!("[{}]", parts.join(",")))
            }
        }
    }

    fn not_a_key(&self) -> NotAKey {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        let value = |column: &KeyColumn| match column.kind {
            Some(Kind::Int2 | Kind::Int4 | Kind::Int8) => "42",
            Some(Kind::Bool) => "true",
            _ => "\"a\"",
        };
        let values: Vec<&str> = self.columns.iter().map(value).collect();
        NotAKey { columns: names.join(", "), example: format!("[{}]", values.join(", ")) }
    }
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
            assert_eq!(error.hint(), r#"give a JSON array in that order, such as '[42, true, "a"]'"#);
        }
    }
}
