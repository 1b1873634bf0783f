//! Makes names of topics from templates.

use audit_core::shape::TableName;
use sha2::{Digest, Sha256};

/// The longest name that Kafka allows, in bytes.
const NAME_MAX: usize = 249;

/// Checks that a template consists of text that Kafka allows and of known names in braces.
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

/// Fills in the names; each of their characters that Kafka does not allow becomes `_`.
pub fn fill(template: &str, names: &[(&str, &str)]) -> String {
    names.iter().fold(template.to_owned(), |text, (name, value)| {
        let plain = |c: char| if c.is_ascii() && allowed(c as u8) { c } else { '_' };
        text.replace(&format!("{{{name}}}"), &value.chars().map(plain).collect::<String>())
    })
}

/// Whether Kafka allows this name for a topic.
pub fn is_allowed(name: &str) -> bool {
    name.len() <= NAME_MAX && !matches!(name, "" | "." | "..")
}

/// The topic of a table; `None` if no topic can have this name. A table's name that could become the same as another
/// one's gets a hash of its own: otherwise anyone who may make a table could write into another table's topic.
pub fn topic(template: &str, source: &str, table: &TableName) -> Option<String> {
    let own = if is_plain(&table.schema) && is_plain(&table.table) { table.table.clone() } else { hashed(table) };
    let topic = fill(template, &[("source", source), ("schema", &table.schema), ("table", &own)]);
    is_allowed(&topic).then_some(topic)
}

/// Whether a name needs no hash: all its characters are kept, and it cannot be mistaken for another one. `.` separates
/// names, and a hash comes at the end, so names that contain a `.` or end like a hash are not plain.
fn is_plain(name: &str) -> bool {
    let hash = name.rsplit_once('-').map_or("", |(_, end)| end);
    let is_hash = hash.len() == HASH && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')) && !is_hash
}

/// Number of hexadecimal digits of the hash.
const HASH: usize = 8;

fn hashed(table: &TableName) -> String {
    let digest = Sha256::digest(format!("{}:{}{}", table.schema.len(), table.schema, table.table));
    let hash: String = digest.iter().take(HASH / 2).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{hash}", table.table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_topics_that_kafka_allows() {
        let name =
            |schema: &str, table: &str| topic("{source}.{schema}.{table}", "shop", &TableName::new(schema, table));
        assert_eq!(name("public", "users").as_deref(), Some("shop.public.users"));
        assert_eq!(name("public", "Größe \"x\"").as_deref(), Some("shop.public.Gr__e__x_-960e93d7"));
        assert_eq!(name("public", &"x".repeat(250)), None);
        let dots = topic("{table}", "shop", &TableName::new("public", ".."));
        assert!(dots.is_some_and(|dots| dots.starts_with("..-")), "Kafka has no topic `..`");
        // The names that are filled in are not treated as templates themselves.
        assert_eq!(name("{table}", "users").as_deref(), Some("shop._table_.users-35c1f4c4"));
    }

    #[test]
    fn no_two_tables_have_the_same_topic() {
        let tables = [
            ("public", "patient_s"),
            ("public", "patient s"),
            ("public", "patient\u{301}s"),
            ("public", "patient/s"),
            ("a", "b.c"),
            ("a.b", "c"),
            ("a_b", "c"),
        ];
        let mut names: Vec<String> = tables
            .iter()
            .filter_map(|(schema, table)| topic("{schema}.{table}", "shop", &TableName::new(*schema, *table)))
            .collect();
        // No table's plain name equals the name that another table gets with its hash.
        let forged = names[1].split_once('.').map_or("", |(_, table)| table).to_owned();
        names.extend(topic("{schema}.{table}", "shop", &TableName::new("public", forged)));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!((count, names.len()), (8, 8), "{names:?}");
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
