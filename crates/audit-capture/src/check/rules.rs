//! Compares the rules with the existing tables: names that no table, and no column, has.
//!
//! A pattern may match nothing today; a name that is written out is meant for something.

use audit_config::nearest;
use audit_core::events::Columns;
use audit_core::rules::{Rules, TableRule, is_path, is_pattern, matches};
use audit_core::value::Kind;

use super::{Area, Report};
use crate::catalog::PublishedTable;

pub(super) fn check(report: &mut Report, rules: &Rules, published: &[PublishedTable]) {
    for (index, rule) in rules.tables.iter().enumerate() {
        let place = format!("tables[{index}]");
        let tables: Vec<&PublishedTable> =
            published.iter().filter(|table| rule.covers(&table.name.to_string())).collect();
        if tables.is_empty() && rule.capture != Some(false) {
            no_table(report, &place, rule, published);
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
            // A column that should be protected and is not must never be overlooked.
            let protects = key == "protect" && !is_pattern(&name);
            let renamed =
                "if the column was renamed, name it as it is called now; if it was dropped, take the name out";
            let other = if protects { renamed } else { "take it out, or name a column of the table" };
            let fix = meant(&name, &columns).unwrap_or_else(|| other.to_owned());
            match protects {
                true => report.fail(Area::Protection, subject, message, fix),
                false => report.warn(Area::Table, subject, message, fix),
            }
        }
    }
}

/// Reports a rule that no table matches. ⚠ After a rename of the table or its schema, what the rule protects may be
/// under another name, so the advice is never to remove the rule.
fn no_table(report: &mut Report, place: &str, rule: &TableRule, published: &[PublishedTable]) {
    let names: Vec<String> = published.iter().map(|table| table.name.to_string()).collect();
    let message = format!("no published table is called {}", rule.name);
    let renamed = format!(
        "if the table or its schema was renamed, write the name that it has now, and `former_names = [\"{}\"]` beside it; else publish the table",
        rule.name
    );
    let fix = meant(&rule.name, &names).map_or(renamed.clone(), |meant| format!("{meant} {renamed}"));
    match rule.protect.is_empty() || published.is_empty() {
        true => report.warn(Area::Table, place, message, fix),
        false => report.fail(Area::Protection, place, format!("{message}, and the rule protects columns"), fix),
    }
}

/// Members are recorded only for documents: a column of another type keeps its values whole, whatever the rule says.
fn documents(report: &mut Report, place: &str, name: &str, tables: &[&PublishedTable]) {
    let named = || tables.iter().flat_map(|table| &table.catalog.columns).filter(|column| matches(name, &column.name));
    let is_document = |kind: &Kind| matches!(kind, Kind::Json | Kind::Jsonb);
    let Some(column) = named().next().filter(|_| !named().any(|column| is_document(&column.kind))) else { return };
    let message =
        format!("column {} is {}, no document whose members could be recorded", column.name, column.type_name);
    report.warn(Area::Table, place, message, "take it out of `json`, or name a column of type json or jsonb");
}

/// Every column name in a rule, with the key of the rule that contains it.
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
