//! Whether a month may leave the hot tables: [`due`].

use audit_core::position::Micros;
use audit_core::rules::{Months, Rules};
use serde::Serialize;

/// Tables of records that belong to no captured table: they leave with the others.
const OWN: &str = "cdc_audit.";

/// Whether a month may leave the hot tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Due {
    Now,
    /// The rules of a table keep it for some time yet.
    Later {
        table: String,
    },
    /// The rules of a table keep it for ever.
    Never {
        table: String,
    },
    /// It holds no versions.
    Empty,
}

/// Whether a month that ends at `to` may leave at `now`. `tables` are the captured tables that have versions in it: each
/// of them must allow it.
pub fn due(rules: &Rules, tables: &[String], to: Micros, now: Micros) -> Due {
    let captured = || tables.iter().filter(|table| !table.starts_with(OWN));
    let kept = |table: &String| rules.for_name(table.clone()).rule.hot;
    if let Some(table) = captured().find(|table| kept(table).is_none()) {
        return Due::Never { table: table.clone() };
    }
    let early = |table: &&String| kept(table).is_some_and(|months| !is_over(to, months, now));
    match captured().find(early) {
        Some(table) => Due::Later { table: table.clone() },
        None if captured().next().is_none() => Due::Empty,
        None => Due::Now,
    }
}

/// The reason why no rule can let a month go that ends at `to`, whichever tables it holds.
pub(crate) fn undue(rules: &Rules, to: Micros, now: Micros) -> Option<Due> {
    let hot = rules.tables.iter().filter_map(|rule| Some((&rule.name, rule.hot?)));
    match hot.min_by_key(|(_, months)| *months) {
        None => Some(Due::Never { table: "*".to_owned() }),
        Some((name, months)) => (!is_over(to, months, now)).then(|| Due::Later { table: name.clone() }),
    }
}

/// Whether so many months have passed since the end of a month.
fn is_over(to: Micros, months: Months, now: Micros) -> bool {
    let count = |time: Micros| {
        let (year, month, _) = time.date();
        i64::from(year) * 12 + i64::from(month)
    };
    // The end of a month is the first instant of the next one.
    count(now) - count(to) >= i64::from(months.get())
}

#[cfg(test)]
mod tests {
    use audit_core::rules::TableRule;

    use super::*;

    fn rules() -> Rules {
        let rule = |name: &str, hot: Option<&str>| TableRule {
            name: name.to_owned(),
            hot: hot.map(|hot| hot.parse().unwrap()),
            ..TableRule::default()
        };
        Rules {
            tables: vec![rule("public.*", Some("12 mo")), rule("public.notes", Some("1 mo")), rule("crm.*", None)],
            ..Rules::default()
        }
    }

    fn found(tables: &[&str], now: &str) -> Due {
        let tables: Vec<String> = tables.iter().map(|table| (*table).to_owned()).collect();
        due(&rules(), &tables, "2026-04-01T00:00:00Z".parse().unwrap(), now.parse().unwrap())
    }

    #[test]
    fn a_month_leaves_when_all_its_tables_allow_it() {
        let later = |table: &str| Due::Later { table: table.to_owned() };
        assert_eq!(found(&["public.notes"], "2026-04-30T23:59:59.999999Z"), later("public.notes"));
        assert_eq!(found(&["public.notes"], "2026-05-01T00:00:00Z"), Due::Now);
        assert_eq!(found(&["public.notes", "public.orders"], "2026-05-01T00:00:00Z"), later("public.orders"));
        assert_eq!(found(&["public.notes", "public.orders"], "2027-03-31T00:00:00Z"), later("public.orders"));
        assert_eq!(found(&["public.notes", "public.orders", "cdc_audit.gap"], "2027-04-01T00:00:00Z"), Due::Now);
    }

    #[test]
    fn a_month_that_no_rule_lets_go_is_not_read() {
        let found =
            |rules: &Rules, now: &str| undue(rules, "2026-04-01T00:00:00Z".parse().unwrap(), now.parse().unwrap());
        assert_eq!(found(&rules(), "2026-04-30T00:00:00Z"), Some(Due::Later { table: "public.notes".to_owned() }));
        assert_eq!(found(&rules(), "2026-05-01T00:00:00Z"), None);
        assert_eq!(found(&Rules::default(), "2099-01-01T00:00:00Z"), Some(Due::Never { table: "*".to_owned() }));
    }

    #[test]
    fn nothing_leaves_that_no_rule_lets_go() {
        let never = |table: &str| Due::Never { table: table.to_owned() };
        assert_eq!(found(&["public.notes", "crm.leads"], "2099-01-01T00:00:00Z"), never("crm.leads"));
        assert_eq!(found(&["other.table"], "2099-01-01T00:00:00Z"), never("other.table"));
        assert_eq!(found(&["cdc_audit.gap"], "2099-01-01T00:00:00Z"), Due::Empty);
        assert_eq!(found(&[], "2099-01-01T00:00:00Z"), Due::Empty);
    }
}
