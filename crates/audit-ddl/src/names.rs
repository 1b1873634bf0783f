//! Names of objects: `public.order_items` becomes `public_order_items`.
//!
//! A name always belongs to the same table, whatever tables are added, because schema and table can be recovered from
//! it. A schema without `_` ends at the first `_`. Any other schema is followed by `__`, which neither part contains.
//! Names that do not fit this rule get a hash. The same is true of the schemas that are made for lakes.

use sha2::{Digest, Sha256};

/// Maximum length in bytes. Redshift's limit is 127 bytes, and the tables under the views have a prefix.
const LONGEST: usize = 110;

/// Makes the name of a table's view.
pub fn object(schema: &str, table: &str) -> String {
    let separator = if schema.contains('_') { "__" } else { "_" };
    let name = format!("{schema}{separator}{table}");
    match is_plain(schema) && is_plain(table) && name.len() <= LONGEST {
        true => name,
        false => hashed(&[schema, table]),
    }
}

/// Makes the name of a lake's schema from its source's name, and from its sink's if there are several lakes.
pub fn lake(source: &str, sink: Option<&str>) -> String {
    let parts: Vec<&str> = std::iter::once(source).chain(sink).collect();
    let name = parts.join("__");
    let fits = parts.iter().all(|part| is_plain(part)) && name.len() <= LONGEST;
    if fits { name } else { hashed(&parts) }
}

/// Makes a name from the parts' nearest plain names and a hash of the parts.
fn hashed(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\0"));
    let digits: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut name = parts.iter().map(|part| plain(part)).collect::<Vec<_>>().join("_");
    name.truncate(LONGEST - 10);
    format!("{}__{digits}", name.trim_end_matches('_'))
}

/// Tells whether a part has only lower-case ASCII letters, digits and single `_` between them, and begins with a
/// letter.
fn is_plain(part: &str) -> bool {
    let bytes = part.as_bytes();
    let fits = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
    bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.iter().all(fits)
        && !part.ends_with('_')
        && !part.contains("__")
}

/// Returns the nearest plain name, which is not unique.
fn plain(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
        if c != '_' || !name.ends_with('_') {
            name.push(c);
        }
    }
    let name = name.trim_matches('_');
    if name.starts_with(|c: char| c.is_ascii_lowercase()) { name.to_owned() } else { format!("t_{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lakes_share_a_schema() {
        let lakes = [
            ("shop", None),
            ("shop", Some("archive")),
            ("shop", Some("cold")),
            ("shop", Some("co-ld")),
            ("shop_archive", None),
            ("shop__archive", None),
            ("shop_eu", None),
            ("shop-eu", None),
            ("shop", Some("eu_archive")),
            ("shop_eu", Some("archive")),
            ("shop-eu", Some("archive")),
        ];
        let mut names: Vec<String> = lakes.iter().map(|(source, sink)| lake(source, *sink)).collect();
        assert_eq!(names[..2], ["shop", "shop__archive"]);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), lakes.len(), "{names:?}");
        assert!(lake(&"x".repeat(63), Some(&"y".repeat(63))).len() <= LONGEST);
    }

    #[test]
    fn no_two_tables_share_a_name() {
        let tables = [
            ("public", "order_items"),
            ("public", "order-items"),
            ("public", "Order_Items"),
            ("public_order", "items"),
            ("public", "order__items"),
            ("a_b", "c"),
            ("a", "b_c"),
            ("a_b", "_c"),
            ("a.b", "c"),
            ("a", "b.c"),
            ("ä", "ü"),
            ("ö", "ü"),
            ("public", "versions"),
        ];
        let mut names: Vec<String> = tables.iter().map(|(schema, table)| object(schema, table)).collect();
        assert_eq!(names[0], "public_order_items");
        assert_eq!(names[3], "public_order__items");
        assert!(names.iter().all(|name| name != "versions" && !name.starts_with("lake__")), "{names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), tables.len(), "{names:?}");
        let long = "x".repeat(63);
        assert!(object(&long, &long).len() <= LONGEST);
        assert_ne!(object(&long, &long), object(&long, &format!("{long}y")));
    }
}
