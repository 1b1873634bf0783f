//! The names that columns have now: [`ColumnNames`].
//!
//! A column is followed by its attribute number, which PostgreSQL never gives twice within a table. The number says
//! something only within one object (the oid) and one epoch: a restored or newly made table has other numbers. What
//! numbers cannot show, an operator declares ([`Rename`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Former, Shape, ShapeColumn};
use crate::table::companion_of;

/// A column that got another name in a way that the catalog does not show: by a restore, or because it was dropped and
/// added under another name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// The column's name before.
    #[schemars(extend("example" = "content"))]
    pub from: String,
    /// The column's name after.
    #[schemars(extend("example" = "body"))]
    pub to: String,
}

/// A column of one object: epoch, oid, attribute number.
type Number = (u16, u32, i16);

/// The columns of one table under the names that they have now.
#[derive(Clone, Debug, Default)]
pub struct ColumnNames {
    /// By schema version: the columns that are called otherwise now, as stored and as shown.
    renamed: HashMap<u32, Vec<(String, String)>>,
    /// The names that columns have now, or had last.
    shown: HashSet<String>,
    /// By former name: the present name of the column that had it last.
    meant: HashMap<String, String>,
    /// By present name: the names that a column had before, the latest first.
    former: BTreeMap<String, Vec<String>>,
}

impl ColumnNames {
    /// `shapes` are all that the table has had.
    pub fn of(shapes: &[Shape], declared: &[Rename]) -> ColumnNames {
        let mut shapes: Vec<&Shape> = shapes.iter().collect();
        shapes.sort_by_key(|shape| (shape.first, shape.schema_version));
        let last = last_names(&shapes);
        let present: HashSet<Number> = shapes.last().into_iter().flat_map(|shape| numbers(shape)).collect();
        let mut names = ColumnNames::default();
        for shape in shapes.iter().rev() {
            let pairs = shown_in(shape, &last, &present, declared);
            names.shown.extend(pairs.iter().map(|(_, shown)| shown.clone()));
            let renamed: Vec<_> = pairs.into_iter().filter(|(stored, shown)| stored != shown).collect();
            for (stored, shown) in &renamed {
                names.meant.entry(stored.clone()).or_insert_with(|| shown.clone());
                let former = names.former.entry(shown.clone()).or_default();
                if !former.contains(stored) {
                    former.push(stored.clone());
                }
            }
            if !renamed.is_empty() {
                names.renamed.insert(shape.schema_version, renamed);
            }
        }
        names
    }

    /// Whether columns of a shape are called otherwise now.
    pub fn renames(&self, schema_version: u32) -> bool {
        self.renamed.contains_key(&schema_version)
    }

    /// The name that a column of a shape has now. A column that was dropped keeps its last name, unless another column
    /// has taken it.
    pub fn shown<'n>(&self, schema_version: u32, stored: &'n str) -> Cow<'n, str> {
        let shown =
            |name: &str| self.pair(schema_version, |(stored, _)| stored == name).map(|(_, shown)| shown.clone());
        with_companion(stored, shown).map_or(Cow::Borrowed(stored), Cow::Owned)
    }

    /// The name under which a shape has the column that is called `shown` now, if it has the column.
    pub fn stored<'n>(&self, schema_version: u32, shown: &'n str) -> Cow<'n, str> {
        let stored =
            |name: &str| self.pair(schema_version, |(_, shown)| shown == name).map(|(stored, _)| stored.clone());
        with_companion(shown, stored).map_or(Cow::Borrowed(shown), Cow::Owned)
    }

    /// The same. ⚠ `None` if the shape has another column under that name: what a name meant then says nothing of the
    /// column that has it now.
    pub fn find<'n>(&self, schema_version: u32, shown: &'n str) -> Option<Cow<'n, str>> {
        let is_other = |name: &str| self.pair(schema_version, |(stored, _)| stored == name).is_some();
        let found = self.stored(schema_version, shown);
        let base = companion_of(shown).filter(|_| !is_other(shown)).unwrap_or(shown);
        (found != shown || !is_other(base)).then_some(found)
    }

    /// The column that is meant by a name: the one that is called so now, else the one that was called so last.
    pub fn meant<'n>(&self, name: &'n str) -> Cow<'n, str> {
        let now = |name: &str| self.meant.get(name).filter(|_| !self.shown.contains(name)).cloned();
        with_companion(name, now).filter(|_| !self.shown.contains(name)).map_or(Cow::Borrowed(name), Cow::Owned)
    }

    /// Whether a column is called so now, or was called so last.
    pub fn has(&self, shown: &str) -> bool {
        self.shown.contains(shown)
    }

    /// Every name that a column has had: the one that it has now, then those before, the latest first.
    pub fn all<'n>(&'n self, shown: &'n str) -> impl Iterator<Item = String> + 'n {
        let base = companion_of(shown).filter(|base| self.former.contains_key(*base)).unwrap_or(shown);
        let beside = shown.strip_prefix(base).unwrap_or_default();
        let former = self.former.get(base).into_iter().flatten();
        std::iter::once(shown.to_owned()).chain(former.map(move |name| format!("{name}{beside}")))
    }

    /// All former names, for rules that were written for them.
    pub fn all_former(&self) -> Former {
        Former { names: self.former.clone(), ..Former::default() }
    }

    fn pair(&self, schema_version: u32, is: impl Fn(&(String, String)) -> bool) -> Option<&(String, String)> {
        self.renamed.get(&schema_version)?.iter().find(|pair| is(pair))
    }
}

/// Translates a column's name; what a further method of protection left of a column is renamed with it.
fn with_companion(name: &str, of: impl Fn(&str) -> Option<String>) -> Option<String> {
    let companion = || {
        let base = companion_of(name)?;
        Some(format!("{}{}", of(base)?, name.strip_prefix(base)?))
    };
    of(name).or_else(companion)
}

fn number(shape: &Shape, column: &ShapeColumn) -> Option<Number> {
    Some((shape.first.epoch, shape.oid?, column.attnum?))
}

fn numbers(shape: &Shape) -> impl Iterator<Item = Number> {
    shape.columns.iter().filter_map(|column| number(shape, column))
}

/// The name that each numbered column had last. Of several columns of one object the latest keeps a name, and the
/// others are told from it.
fn last_names(shapes: &[&Shape]) -> HashMap<Number, String> {
    let mut names: HashMap<Number, String> = HashMap::new();
    let mut taken: HashMap<(u16, u32, &str), u32> = HashMap::new();
    for shape in shapes.iter().rev() {
        for column in &shape.columns {
            let Some(number) = number(shape, column).filter(|number| !names.contains_key(number)) else { continue };
            let before = taken.entry((number.0, number.1, column.name.as_str())).or_default();
            let name = match *before {
                0 => column.name.clone(),
                1 => format!("{} (dropped)", column.name),
                more => format!("{} (dropped {more})", column.name),
            };
            *before += 1;
            names.insert(number, name);
        }
    }
    names
}

/// The columns of a shape, as stored and as shown.
fn shown_in(
    shape: &Shape,
    last: &HashMap<Number, String>,
    present: &HashSet<Number>,
    declared: &[Rename],
) -> Vec<(String, String)> {
    let named = |column: &ShapeColumn| {
        let last = number(shape, column).and_then(|number| last.get(&number));
        last.unwrap_or(&column.name).clone()
    };
    let mut shown: Vec<String> = shape.columns.iter().map(named).collect();
    for (at, column) in shape.columns.iter().enumerate() {
        let is_present = number(shape, column).is_some_and(|number| present.contains(&number));
        let name = follow(&shown[at], declared);
        // ⚠ Where both names are columns of one row, they are two columns, whatever was declared.
        if !is_present && !shown.contains(&name) {
            shown[at] = name;
        }
    }
    shape.columns.iter().map(|column| column.name.clone()).zip(shown).collect()
}

/// The name at the end of the declared renames.
fn follow(name: &str, declared: &[Rename]) -> String {
    let mut name = name;
    for _ in declared {
        match declared.iter().find(|rename| rename.from == name) {
            Some(rename) => name = &rename.to,
            None => break,
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    /// A shape by its number, oid, epoch and columns: name and attribute number, 0 for none.
    fn shape(version: u32, oid: u32, epoch: u16, columns: &[(&str, i16)]) -> Shape {
        let column = |(name, attnum): &(&str, i16)| {
            json!({"name": name, "type_oid": 25, "typmod": -1, "type_name": "text", "kind": "text",
                "attnum": (*attnum > 0).then_some(*attnum), "in_identity": false})
        };
        serde_json::from_value(json!({
            "schema": "public", "table": "notes", "schema_version": version, "digest": "", "key": [], "oid": oid,
            "key_source": "none", "first": format!("{epoch:04x}:{version:016x}:0000000000"),
            "columns": columns.iter().map(column).collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    fn declared(pairs: &[(&str, &str)]) -> Vec<Rename> {
        pairs.iter().map(|(from, to)| Rename { from: (*from).into(), to: (*to).into() }).collect()
    }

    #[test]
    fn a_column_is_found_under_its_newest_and_its_former_names() {
        let shapes = [
            shape(1, 9, 1, &[("id", 1), ("text", 2)]),
            shape(2, 9, 1, &[("id", 1), ("content", 2)]),
            shape(3, 9, 1, &[("id", 1), ("body", 2)]),
        ];
        let names = ColumnNames::of(&shapes, &[]);
        assert_eq!((names.shown(1, "text"), names.shown(2, "content")), ("body".into(), "body".into()));
        assert_eq!(
            (names.meant("text"), names.meant("content"), names.meant("body")),
            ("body".into(), "body".into(), "body".into())
        );
        assert_eq!((names.find(1, "body"), names.find(3, "body")), (Some("text".into()), Some("body".into())));
        assert_eq!(names.all("body").collect::<Vec<_>>(), ["body", "content", "text"]);
        assert_eq!(names.all("body__hash").last(), Some("text__hash".into()));
        assert_eq!(
            (names.shown(1, "text__hash"), names.find(1, "body__hash")),
            ("body__hash".into(), Some("text__hash".into()))
        );
    }

    #[test]
    fn a_name_that_another_column_has_now_means_that_column() {
        let shapes = [shape(1, 9, 1, &[("text", 2)]), shape(2, 9, 1, &[("body", 2), ("text", 3)])];
        let names = ColumnNames::of(&shapes, &[]);
        assert_eq!(names.meant("text"), "text");
        assert_eq!((names.find(1, "text"), names.find(2, "text")), (None, Some("text".into())));
        assert_eq!((names.find(1, "text__hash"), names.meant("text__hash")), (None, "text__hash".into()));
    }

    #[test]
    fn a_column_that_was_dropped_and_added_again_is_another() {
        let shapes = [1, 2, 3].map(|version| shape(version, 9, 1, &[("text", version as i16 + 1)]));
        let names = ColumnNames::of(&shapes, &[]);
        assert_eq!(
            [1, 2, 3].map(|version| names.shown(version, "text").into_owned()),
            ["text (dropped 2)", "text (dropped)", "text"]
        );
        assert_eq!([1, 2, 3].map(|version| names.find(version, "text").is_some()), [false, false, true]);
    }

    #[test]
    fn numbers_of_another_object_or_epoch_show_nothing_and_a_declared_rename_does() {
        let later = [shape(2, 10, 1, &[("body", 2)]), shape(2, 9, 2, &[("body", 2)])];
        for later in later {
            let shapes = [shape(1, 9, 1, &[("text", 2)]), later];
            assert_eq!(ColumnNames::of(&shapes, &[]).shown(1, "text"), "text");
            let names = ColumnNames::of(&shapes, &declared(&[("text", "content"), ("content", "body")]));
            assert_eq!((names.shown(1, "text"), names.meant("content")), ("body".into(), "content".into()));
        }
    }

    #[test]
    fn a_declared_rename_holds_where_the_columns_did_not_exist_together() {
        let shapes = [
            shape(1, 9, 1, &[("text", 2)]),
            shape(2, 9, 1, &[("text", 2), ("body", 3)]),
            shape(3, 9, 1, &[("body", 3)]),
        ];
        let names = ColumnNames::of(&shapes, &declared(&[("text", "body")]));
        assert_eq!([1, 2].map(|version| names.shown(version, "text").into_owned()), ["body", "text"]);
        // A circle ends, and a column that is there keeps its name.
        let circle = declared(&[("text", "body"), ("body", "text")]);
        assert_eq!(ColumnNames::of(&shapes, &circle).shown(3, "body"), "body");
    }
}
