//! Which tables the operator's rules take: [`selects`].

use audit_core::rules::{Rules, matches};
use audit_core::shape::TableName;

/// Whether the rules take a table into the publication.
///
/// Rules name what is captured: as soon as one that does not say `capture = false` exists, a table must match such a
/// rule. Without any, every table is captured. `capture = false` takes out what it matches, unless a later rule says
/// `capture = true` again.
pub fn selects(rules: &Rules, table: &TableName) -> bool {
    let mut naming = rules.tables.iter().filter(|rule| rule.capture != Some(false)).peekable();
    let name = table.to_string();
    let named = naming.peek().is_none() || naming.any(|rule| matches(&rule.name, &name));
    named && rules.for_table(table).captured()
}

/// Whether some rule names exactly this table, without a pattern.
pub(crate) fn names(rules: &Rules, table: &TableName) -> bool {
    let name = table.to_string();
    rules.tables.iter().any(|rule| rule.name == name)
}

#[cfg(test)]
mod tests {
    use audit_core::rules::TableRule;

    use super::*;

    fn check(rules: &[(&str, Option<bool>)], expected: &[&str]) {
        let rule = |(name, capture): &(&str, Option<bool>)| TableRule {
            name: (*name).to_owned(),
            capture: *capture,
            ..TableRule::default()
        };
        let rules = Rules { tables: rules.iter().map(rule).collect(), ..Rules::default() };
        let tables = ["public.users", "public.logs", "sales.orders"];
        let taken = tables.iter().filter(|name| {
            let (schema, table) = name.split_once('.').unwrap_or_default();
            selects(&rules, &TableName::new(schema, table))
        });
        assert_eq!(taken.copied().collect::<Vec<_>>(), expected, "{rules:?}");
    }

    #[test]
    fn rules_name_what_is_captured() {
        check(&[], &["public.users", "public.logs", "sales.orders"]);
        check(&[("public.*", None)], &["public.users", "public.logs"]);
        check(&[("public.*", None), ("public.logs", Some(false))], &["public.users"]);
        check(&[("public.logs", Some(false))], &["public.users", "sales.orders"]);
        check(&[("*", Some(false)), ("sales.*", Some(true))], &["sales.orders"]);
        check(&[("nothing.*", None)], &[]);
    }
}
