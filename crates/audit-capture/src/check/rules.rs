//! Rules against the tables that there are: names that no table, and no column, has.
//!
//! Patterns may match nothing, today; whoever writes a name means something by it.

use audit_config::nearest;
use audit_core::events::Columns;
use audit_core::rules::{Rules, TableRule, matches};
use audit_core::value::Kind;

use super::{Area, Report};
use crate::catalog::PublishedTable;

pub(super) fn check(report: &mut Report, rules: &Rules, published: &[PublishedTable]) {
    for (index, rule) in rules.tables.iter().enumerate() {
        let place = format!("tables[{index}]");
        let tables: Vec<&PublishedTable> =
            published.iter().filter(|table| matches(&rule.name, &table.name.to_string())).collect();
        if tables.is_empty() && rule.capture != Some(false) {
            let names: Vec<String> = published.iter().map(|table| table.name.to_string()).collect();
            let fix = meant(&rule.name, &names).unwrap_or_else(|| "take the rule out, or publish the table".to_owned());
            report.warn(Area::Table, &place, format!("no published table is called {}", rule.name), fix);
            continue;
        }
        for name in rule.json.keys() {
            documents(report, &format!("{place}.json"), name, &tables);
        }
        let columns: Vec<String> =
            tables.iter().flat_map(|table| &table.catalog.columns).map(|c| c.name.clone()).collect();
        for (key, name) in names(rule) {
            let known = |column: &String| match name.contains(['*', '?']) {
                true => matches(&name.to_lowercase(), &column.to_lowercase()),
                false => name == *column || is_path(&name, column),
            };
            if tables.is_empty() || columns.iter().any(known) {
                continue;
            }
            let (subject, message) = (format!("{place}.{key}"), format!("no column of {} is called {name}", rule.name));
            let fix = meant(&name, &columns).unwrap_or_else(|| "take it out, or name a column of the table".to_owned());
            // A column that is meant to be protected, and is not, is what nobody may overlook.
            match key == "protect" && !name.contains(['*', '?']) {
                true => report.fail(Area::Protection, subject, message, fix),
                false => report.warn(Area::Table, subject, message, fix),
            }
        }
    }
}

/// Members are recorded of documents only: a column of another type keeps its values whole, whatever the rule says.
fn documents(report: &mut Report, place: &str, name: &str, tables: &[&PublishedTable]) {
    let named = || tables.iter().flat_map(|table| &table.catalog.columns).filter(|column| matches(name, &column.name));
    let is_document = |kind: &Kind| matches!(kind, Kind::Json | Kind::Jsonb);
    let Some(column) = named().next().filter(|_| !named().any(|column| is_document(&column.kind))) else { return };
    let message =
        format!("column {} is {}, no document whose members could be recorded", column.name, column.type_name);
    report.warn(Area::Table, place, message, "take it out of `json`, or name a column of type json or jsonb");
}

/// Whether a name leads into the documents of a column.
fn is_path(name: &str, column: &str) -> bool {
    name.strip_prefix(column).is_some_and(|rest| rest.starts_with('.'))
}

/// Every name of a column in a rule, with its key.
fn names(rule: &TableRule) -> Vec<(&'static str, String)> {
    let lists = [
        ("only", &rule.only),
        ("ignore", &rule.ignore),
        ("ignore_alone", &rule.ignore_alone),
        ("include", &rule.include),
        ("allow", &rule.allow),
        ("bind", &rule.bind),
    ];
    let single = [
        ("tenant", &rule.tenant),
        ("subject", &rule.subject),
        ("actor_column", &rule.actor_column),
        ("reason_column", &rule.reason_column),
    ];
    let lists = lists.into_iter().flat_map(|(key, list)| list.iter().flatten().map(move |name| (key, name.clone())));
    let single = single.into_iter().filter_map(|(key, name)| Some((key, name.clone()?)));
    let marks = rule.soft_delete.iter().flat_map(Columns::names).map(|name| ("soft_delete", name.clone()));
    let expanded = rule.json.keys().map(|name| ("json", name.clone()));
    let protected = rule.protect.keys().map(|name| ("protect", name.clone()));
    lists.chain(single).chain(marks).chain(expanded).chain(protected).collect()
}

fn meant(name: &str, known: &[String]) -> Option<String> {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    nearest(name, &known).map(|near| format!("did you mean {near}?"))
}
