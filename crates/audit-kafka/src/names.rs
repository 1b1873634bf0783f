//! Names of topics out of templates.

use audit_core::shape::TableName;

/// The longest name that Kafka allows.
const NAME_MAX: usize = 249;

/// Whether a template is text that Kafka allows, and names in braces that are known.
pub fn check(template: &str, known: &[&str]) -> Result<(), String> {
    let mut rest = template;
    while let Some((text, behind)) = rest.split_once('{') {
        let Some((name, behind)) = behind.split_once('}') else { return Err("a brace is not closed".to_owned()) };
        if !known.contains(&name) {
            return Err("a name in braces is not known".to_owned());
        }
        if !text.bytes().all(allowed) {
            return Err("a character is not allowed in a topic's name".to_owned());
        }
        rest = behind;
    }
    match rest.bytes().all(allowed) && !template.is_empty() && template.len() <= NAME_MAX {
        true => Ok(()),
        false => Err("not the name of a topic".to_owned()),
    }
}

fn allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// The names put in; each character of them that Kafka does not allow becomes `_`.
pub fn fill(template: &str, names: &[(&str, &str)]) -> String {
    names.iter().fold(template.to_owned(), |text, (name, value)| {
        let plain = |c: char| if c.is_ascii() && allowed(c as u8) { c } else { '_' };
        text.replace(&format!("{{{name}}}"), &value.chars().map(plain).collect::<String>())
    })
}

/// Whether a topic can have a name that was put together.
pub fn is_allowed(name: &str) -> bool {
    name.len() <= NAME_MAX && !matches!(name, "" | "." | "..")
}

/// The topic of a table; `None` where none can be called so.
pub fn topic(template: &str, source: &str, table: &TableName) -> Option<String> {
    let topic = fill(template, &[("source", source), ("schema", &table.schema), ("table", &table.table)]);
    is_allowed(&topic).then_some(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_topics_that_kafka_allows() {
        let name =
            |schema: &str, table: &str| topic("{source}.{schema}.{table}", "shop", &TableName::new(schema, table));
        assert_eq!(name("public", "users").as_deref(), Some("shop.public.users"));
        assert_eq!(name("public", "Größe \"x\"").as_deref(), Some("shop.public.Gr__e__x_"));
        assert_eq!(name("public", &"x".repeat(250)), None);
        assert_eq!(topic("{table}", "shop", &TableName::new("public", "..")), None);
        // What a name holds is not a template again.
        assert_eq!(name("{table}", "users").as_deref(), Some("shop._table_.users"));
    }

    #[test]
    fn templates_are_checked() {
        let known = ["source", "table"];
        for good in ["audit", "{source}", "a.{source}-{table}_z"] {
            assert_eq!(check(good, &known), Ok(()), "{good}");
        }
        for bad in ["", "a b", "{source", "{sauce}", "{source}/{table}", "a}"] {
            assert!(check(bad, &known).is_err(), "{bad}");
        }
    }
}
