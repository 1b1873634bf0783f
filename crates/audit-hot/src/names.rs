//! Chooses the names of further tables of versions.
//!
//! Values of rows become part of such a name. It is always quoted, so any character is allowed. Three requirements
//! remain: the name leaves room for the names of its partitions and its view, it is not one of our own names, and no
//! two tenants share it. The database ensures the last one (`schema/ensure_versions_table.sql`): the first tenant gets
//! the name that was wanted, any other tenant gets the one with a hash.

use audit_core::versions_table::NAME_MAX;
use sha2::{Digest, Sha256};

/// Names of our tables, in the hot database or in the source, which may be the same database.
pub(crate) const OURS: [&str; 17] = [
    "versions",
    "versions_tables",
    "checkpoints",
    "baselines",
    "shapes",
    "trail",
    "archive",
    "gaps",
    "data_keys",
    "subject_keys",
    "access_log",
    "chunks",
    "context_keys",
    "captured",
    "captured_names",
    "captured_since",
    "quarantine",
];

/// Number of hexadecimal digits of the hash after a name that was cut or is already taken.
const HASH: usize = 16;

/// Number of bytes of a table's name that the name of an index of it may begin with.
pub(crate) const INDEXED_MAX: usize = 63 - HASH - 1;

/// A hash that makes a name different from others.
pub(crate) fn hash(text: &str) -> String {
    let hash = Sha256::digest(text);
    hash.iter().take(HASH / 2).map(|byte| format!("{byte:02x}")).collect()
}

/// The names that a table may get, best first.
pub(crate) fn wishes(wanted: &str, tenant: &str) -> Vec<String> {
    let plain = (wanted.len() <= NAME_MAX && !is_ours(wanted)).then(|| wanted.to_owned());
    let hash = hash(&format!("{}:{wanted}{tenant}", wanted.len()));
    // A name that begins like a partition's and ends in a hash would look like a partition.
    let wanted = wanted.strip_prefix("v_").unwrap_or(wanted);
    let cut = &wanted[..wanted.floor_char_boundary(NAME_MAX - HASH - 1)];
    plain.into_iter().chain([format!("{cut}_{hash}")]).collect()
}

/// Whether one of our objects (a table, a partition, the view of a table) has this name or may get it later.
pub fn is_ours(name: &str) -> bool {
    let digits = |text: &str, min: usize, max: usize| {
        (min..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let mut parts = name.rsplit('_');
    let (last, before) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let is_partition = digits(last, 2, 2) && digits(before, 4, 6);
    let by_table =
        name.starts_with("v_") && matches!(last.len(), 8 | 16) && last.bytes().all(|byte| byte.is_ascii_hexdigit());
    let archived = name.strip_prefix("archived_").is_some_and(|id| digits(id, 1, 19));
    OURS.contains(&name) || archived || is_partition || by_table || last == "trail"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_is_kept_where_it_can_be() {
        for name in ["orders_versions", "tenant_Ä \"x\"/.._versions", "v_orders", "versions_1", "2026", &"a".repeat(52)]
        {
            assert_eq!(wishes(name, "")[0], name);
        }
        let long = "ä".repeat(40);
        for name in [
            "versions",
            "trail",
            "captured",
            "quarantine",
            "a_trail",
            "versions_2026_03",
            "x_10000_12",
            "archived_17",
            "v_orders_12345678",
            "v_orders_0123456789abcdef",
            long.as_str(),
        ] {
            let wishes = wishes(name, "");
            assert!(wishes.len() == 1 && !is_ours(&wishes[0]) && wishes[0].len() <= NAME_MAX, "{wishes:?}");
        }
    }

    #[test]
    fn names_that_are_not_kept_differ() {
        let wanted = ["a".repeat(60), "a".repeat(61), "versions".to_owned(), "Versions".to_owned()];
        let names: BTreeSet<String> = wanted
            .iter()
            .flat_map(|wanted| ["", "a", "b"].map(|tenant| wishes(wanted, tenant).pop().unwrap_or_default()))
            .collect();
        assert_eq!(names.len(), 12, "{names:?}");
    }
}
