//! What a question is about, as people name it: a table, and the keys of its rows.

use audit_core::mac::MacKey;
use audit_core::rules::Rules;
use audit_history::{KeyForm, Timeline};

use crate::config::Config;
use crate::error::{CliError, code};

/// The whole name of the table that is meant: the one with versions that has this name, else the only one with this
/// name in any schema, or with this label (`item_type`).
pub async fn table(config: &Config, store: &Timeline, name: &str) -> Result<String, CliError> {
    named(name, &store.tables(&config.source.name).await?, &config.rules())
}

/// How the keys of a table are given. The row key is read only where some of a key is hashed.
pub struct KeyOf {
    form: KeyForm,
    row_key: Option<MacKey>,
}

impl KeyOf {
    /// `table` is the whole name.
    pub async fn table(config: &Config, store: &Timeline, table: &str) -> Result<KeyOf, CliError> {
        let form = store.key_form(&config.source.name, table, &config.rules()).await?;
        let row_key = match form.is_hashed() {
            true => config.policy()?.row_key,
            false => None,
        };
        Ok(KeyOf { form, row_key })
    }

    /// The key as it is stored.
    pub fn stored(&self, key: &str) -> Result<String, CliError> {
        self.form.stored(key, self.row_key.as_ref()).map_err(|error| CliError::from(error).code(code::USAGE))
    }
}

/// The same among these tables.
pub fn named(name: &str, tables: &[String], rules: &Rules) -> Result<String, CliError> {
    let suffix = format!(".{name}");
    let label = |table: &String| rules.for_name(table.clone()).rule.item_type;
    let is_called = |table: &&String| table.ends_with(&suffix) || label(table).as_deref() == Some(name);
    if tables.iter().any(|table| table == name) {
        return Ok(name.to_owned());
    }
    let called: Vec<&str> = tables.iter().filter(is_called).map(String::as_str).collect();
    match called.as_slice() {
        [table] => Ok((*table).to_owned()),
        [] => {
            let hint = match tables.is_empty() {
                true => "no table has versions yet".to_owned(),
                false => format!("tables with versions: {}", tables.join(", ")),
            };
            Err(CliError::new(format!("there are no versions of {name}")).hint(hint).code(code::USAGE))
        }
        several => Err(CliError::new(format!("there is more than one table {name}"))
            .hint(format!("give one of {}", several.join(", ")))
            .code(code::USAGE)),
    }
}

#[cfg(test)]
mod tests {
    use audit_core::rules::TableRule;

    use super::*;

    #[test]
    fn a_table_is_found_by_its_name_or_label_alone_where_there_is_one_of_it() {
        let tables =
            ["public.orders", "crm.contacts", "hr.contacts", "public.contacts_old", "hr.people"].map(str::to_owned);
        let label = |name: &str, label: &str| TableRule {
            name: name.to_owned(),
            item_type: Some(label.to_owned()),
            ..TableRule::default()
        };
        let rules =
            Rules { tables: vec![label("hr.people", "Person"), label("*.contacts", "Contact")], ..Rules::default() };
        let found = |name: &str| named(name, &tables, &rules).map_err(|error| error.to_string());
        assert_eq!(found("orders"), Ok("public.orders".into()));
        assert_eq!(found("hr.contacts"), Ok("hr.contacts".into()));
        assert_eq!(found("Person"), Ok("hr.people".into()));
        for several in ["contacts", "Contact"] {
            assert!(found(several).is_err_and(|error| error.contains("give one of crm.contacts, hr.contacts")));
        }
        assert!(found("rders").is_err_and(|error| error.contains("there are no versions of rders")));
    }
}
