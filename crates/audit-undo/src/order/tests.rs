#![allow(clippy::unwrap_used)]

use super::*;
use crate::catalog::{Column, Table, Unique};

/// Tables 0 and 1 with columns `id`, `parent` and `code`; `id` must have a value.
fn catalog(foreign: Vec<Foreign>) -> Catalog {
    let column = |name: &str, not_null| Column { name: name.to_owned(), not_null, ..Column::default() };
    let table = |oid: u32, name: &str| Table {
        oid,
        name: name.to_owned(),
        columns: vec![column("id", true), column("parent", false), column("code", false), column("fixed", true)],
        unique: vec![
            Unique { name: format!("{name}_pkey"), columns: vec!["id".to_owned()], deferrable: false },
            Unique { name: format!("{name}_code"), columns: vec!["code".to_owned()], deferrable: false },
        ],
        ..Table::default()
    };
    Catalog { tables: vec![table(1, "parents"), table(2, "children")], foreign }
}

fn foreign(child: u32, parent: u32, column: &str) -> Foreign {
    Foreign {
        name: format!("{column}_fkey"),
        child,
        child_columns: vec![column.to_owned()],
        parent,
        parent_columns: vec!["id".to_owned()],
        ..Foreign::default()
    }
}

type Values<'v> = Option<&'v [(&'v str, &'v str)]>;

fn row(table: usize, key: &str, now: Values<'_>, then: Values<'_>) -> Row {
    let image = |values: Values<'_>| {
        let value = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        values.map(|values| values.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect())
    };
    Row { table, key: key.to_owned(), now: image(now), then: image(then) }
}

fn shown(catalog: &Catalog, rows: &[Row]) -> Vec<String> {
    let image = |image: &Image| {
        let one = |(name, value): (&String, &Option<String>)| format!("{name}={}", value.as_deref().unwrap_or("∅"));
        image.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    let step = |step: &Step| {
        let name = format!("{} {}", &catalog.tables[rows[step.row].table].name[..1], rows[step.row].key);
        match &step.action {
            Write::Delete => format!("- {name}"),
            Write::Update(set) => format!("~ {name} {}", image(set)),
            Write::Insert(values) => format!("+ {name} {}", image(values)),
        }
    };
    order(catalog, rows).unwrap().steps.iter().map(step).collect()
}

#[test]
fn children_are_removed_before_their_parents_and_put_back_after_them() {
    let catalog = catalog(vec![foreign(2, 1, "parent")]);
    let (parent, child): (Values<'_>, Values<'_>) = (Some(&[("id", "1")]), Some(&[("id", "7"), ("parent", "1")]));
    let removed = [row(0, "1", parent, None), row(1, "7", child, None)];
    assert_eq!(shown(&catalog, &removed), ["- c 7", "- p 1"]);
    let put_back = [row(1, "7", None, child), row(0, "1", None, parent)];
    assert_eq!(shown(&catalog, &put_back), ["+ p 1 id=1", "+ c 7 id=7 parent=1"]);
}

/// A child goes back to a parent that is put back, and leaves one that is removed: neither order of kinds alone serves.
#[test]
fn a_child_moves_after_its_new_parent_is_there_and_before_its_old_one_goes() {
    let catalog = catalog(vec![foreign(2, 1, "parent")]);
    let rows = [
        row(0, "1", None, Some(&[("id", "1")])),
        row(0, "2", Some(&[("id", "2")]), None),
        row(1, "7", Some(&[("id", "7"), ("parent", "2")]), Some(&[("id", "7"), ("parent", "1")])),
    ];
    assert_eq!(shown(&catalog, &rows), ["+ p 1 id=1", "~ c 7 parent=1", "- p 2"]);
}

#[test]
fn rows_of_one_table_that_refer_to_each_other_are_ordered_and_a_row_may_refer_to_itself() {
    let catalog = catalog(vec![foreign(1, 1, "parent")]);
    let rows = [
        row(0, "1", None, Some(&[("id", "1"), ("parent", "2")])),
        row(0, "2", None, Some(&[("id", "2"), ("parent", "3")])),
        row(0, "3", None, Some(&[("id", "3"), ("parent", "3")])),
    ];
    assert_eq!(shown(&catalog, &rows), ["+ p 3 id=3 parent=3", "+ p 2 id=2 parent=3", "+ p 1 id=1 parent=2"]);
}

#[test]
fn a_circle_is_closed_by_an_update_or_opened_by_one() {
    let catalog = catalog(vec![foreign(1, 1, "parent")]);
    let (one, two): (Values<'_>, Values<'_>) =
        (Some(&[("id", "1"), ("parent", "2")]), Some(&[("id", "2"), ("parent", "1")]));
    let put_back = [row(0, "1", None, one), row(0, "2", None, two)];
    assert_eq!(shown(&catalog, &put_back), ["+ p 1 id=1 parent=∅", "+ p 2 id=2 parent=1", "~ p 1 parent=2"]);
    let removed = [row(0, "1", one, None), row(0, "2", two, None)];
    assert_eq!(shown(&catalog, &removed), ["~ p 1 parent=∅", "- p 2", "- p 1"]);
}

#[test]
fn a_circle_of_columns_that_must_have_a_value_is_refused_by_name_unless_it_is_deferred() {
    let (one, two): (Values<'_>, Values<'_>) =
        (Some(&[("id", "1"), ("fixed", "2")]), Some(&[("id", "2"), ("fixed", "1")]));
    let rows = [row(0, "1", None, one), row(0, "2", None, two)];
    let refused = order(&catalog(vec![foreign(1, 1, "fixed")]), &rows).unwrap_err();
    assert!(refused.to_string().contains("fixed_fkey"), "{refused}");
    assert_eq!(refused.details, ["parents 1", "parents 2"]);
    let deferred = Foreign { deferrable: true, ..foreign(1, 1, "fixed") };
    assert_eq!(shown(&catalog(vec![deferred.clone()]), &rows).len(), 2);
    // A cascade does not wait for the end of the transaction.
    let cascade = Foreign { on_delete: Action::Cascade, ..deferred };
    let removed = [row(0, "1", one, None), row(0, "2", two, None)];
    assert!(order(&catalog(vec![cascade]), &removed).is_err());
}

#[test]
fn a_unique_value_is_given_up_before_it_is_taken_and_exchanged_through_null() {
    let catalog = catalog(Vec::new());
    let rows = [
        row(0, "1", None, Some(&[("id", "1"), ("code", "x")])),
        row(0, "2", Some(&[("id", "2"), ("code", "x")]), Some(&[("id", "2"), ("code", "y")])),
    ];
    assert_eq!(shown(&catalog, &rows), ["~ p 2 code=y", "+ p 1 code=x id=1"]);
    let exchanged = [
        row(0, "1", Some(&[("id", "1"), ("code", "x")]), Some(&[("id", "1"), ("code", "y")])),
        row(0, "2", Some(&[("id", "2"), ("code", "y")]), Some(&[("id", "2"), ("code", "x")])),
    ];
    assert_eq!(shown(&catalog, &exchanged), ["~ p 1 code=∅", "~ p 2 code=x", "~ p 1 code=y"]);
    let keys = [
        row(0, "1", Some(&[("id", "1")]), Some(&[("id", "2")])),
        row(0, "2", Some(&[("id", "2")]), Some(&[("id", "1")])),
    ];
    let refused = order(&catalog, &keys).unwrap_err();
    assert!(refused.to_string().contains("parents_pkey"), "{refused}");
}

#[test]
fn what_a_cascade_writes_is_not_written_again() {
    let cascade = Foreign { on_update: Action::Cascade, ..foreign(2, 1, "parent") };
    let catalog = catalog(vec![cascade]);
    let parent = row(0, "1", Some(&[("id", "1")]), Some(&[("id", "9")]));
    let child = |code: &str| {
        let then = [("id", "7"), ("parent", "9"), ("code", code)];
        row(1, "7", Some(&[("id", "7"), ("parent", "1"), ("code", "x")]), Some(&then))
    };
    let only = [child("x"), parent.clone()];
    assert_eq!(shown(&catalog, &only), ["~ p 1 id=9"]);
    assert_eq!(order(&catalog, &only).unwrap().cascaded, [0]);
    assert_eq!(shown(&catalog, &[child("y"), parent]), ["~ p 1 id=9", "~ c 7 code=y"]);
}
