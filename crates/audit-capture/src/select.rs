//! Which tables the operator's rules select: [`selects`].

use audit_core::rules::Rules;
use audit_core::shape::TableName;

/// Whether the rules select a table for the publication. The stage that records changes uses the same decision.
pub fn selects(rules: &Rules, table: &TableName) -> bool {
    rules.for_table(table).captured()
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
    fn only_capture_true_leaves_other_tables_out() {
        check(&[], &["public.users", "public.logs", "sales.orders"]);
        check(&[("public.users", None)], &["public.users", "public.logs", "sales.orders"]);
        check(&[("public.*", Some(true))], &["public.users", "public.logs"]);
        check(&[("public.*", Some(true)), ("public.logs", Some(false))], &["public.users"]);
        check(&[("public.logs", Some(false))], &["public.users", "sales.orders"]);
        check(&[("*", Some(false)), ("sales.*", Some(true))], &["sales.orders"]);
        check(&[("nothing.*", Some(true))], &[]);
    }
}
