//! Names of objects: `public.order_items` becomes `public_order_items`.
//!
//! A name belongs to one table for ever, whatever tables come: it can be told which schema and which table it is made of. A schema that holds
//! no `_` ends at the first one; after any other stands `__`, which then is in neither part. What does not fit into that carries a hash.

use sha2::{Digest, Sha256};

/// Redshift's limit is 127 bytes; the tables under the views have a prefix.
const LONGEST: usize = 110;

/// The name for a table's view.
pub fn object(schema: &str, table: &str) -> String {
    let separator = if schema.contains('_') { "__" } else { "_" };
    let name = format!("{schema}{separator}{table}");
    if is_plain(schema) && is_plain(table) && name.len() <= LONGEST {
        return name;
    }
    let mut hash = Sha256::new();
    hash.update(schema.as_bytes());
    hash.update([0]);
    hash.update(table.as_bytes());
    let digits: String = hash.finalize()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut name = format!("{}_{}", plain(schema), plain(table));
    name.truncate(LONGEST - 10);
    format!("{}__{digits}", name.trim_end_matches('_'))
}

/// Lower-case ASCII letters, digits and single `_` between them, a letter first.
fn is_plain(part: &str) -> bool {
    let bytes = part.as_bytes();
    let fits = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
    bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.iter().all(fits)
        && !part.ends_with('_')
        && !part.contains("__")
}

/// The nearest plain name; not unique.
pub fn plain(text: &str) -> String {
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
