//! The fields of the version record that are made from others: JSON forms, lists of names, the summary.
//!
//! Every sink and every reader writes them through here, so that they agree to the byte.

use crate::batch::{Image, Version};
use crate::change::Value;
use crate::value::{Kind, write_json_string, write_json_value};
use crate::version::Event;

/// Appends a value: null, or the JSON form of its kind. What is unknown is null here and named in `unknown`.
pub fn write_value(out: &mut Vec<u8>, kind: &Kind, value: Value<&str>) {
    match value {
        Value::Text(text) => write_json_value(out, kind, text),
        Value::Null | Value::Unknown => out.extend_from_slice(b"null"),
    }
}

/// Appends the tracked columns of one side as an object; unknown ones are left out.
pub fn write_image(out: &mut Vec<u8>, image: Image<'_>) {
    let known = image.iter().filter(|(column, value)| column.tracked && !value.is_unknown());
    write_object(out, known.map(|(column, value)| (column.name.as_str(), &column.kind, value)));
}

/// Appends `{"column": [old, new]}` for the columns that changed; false, and nothing is appended, where the version has no `changes`.
pub fn write_changes(out: &mut Vec<u8>, version: &Version<'_>) -> bool {
    let (Some(changed), Some(before), Some(after)) = (version.changed(), version.before(), version.after()) else {
        return false;
    };
    out.push(b'{');
    let mut first = true;
    for (index, column) in version.table().columns.iter().enumerate().filter(|(index, _)| changed[*index]) {
        separate(out, &mut first);
        write_json_string(out, &column.name);
        out.extend_from_slice(b": [");
        write_value(out, &column.kind, before.get(index));
        out.extend_from_slice(b", ");
        write_value(out, &column.kind, after.get(index));
        out.push(b']');
    }
    out.push(b'}');
    true
}

/// Appends the columns configured `include`, from the row after, else before; false where there are none.
pub fn write_included(out: &mut Vec<u8>, version: &Version<'_>) -> bool {
    let Some(image) = version.after().or(version.before()) else { return false };
    if !version.table().columns.iter().any(|column| column.included) {
        return false;
    }
    let included = image.iter().filter(|(column, value)| column.included && !value.is_unknown());
    write_object(out, included.map(|(column, value)| (column.name.as_str(), &column.kind, value)));
    true
}

fn write_object<'a>(out: &mut Vec<u8>, fields: impl Iterator<Item = (&'a str, &'a Kind, Value<&'a str>)>) {
    out.push(b'{');
    let mut first = true;
    for (name, kind, value) in fields {
        separate(out, &mut first);
        write_json_string(out, name);
        out.extend_from_slice(b": ");
        write_value(out, kind, value);
    }
    out.push(b'}');
}

fn separate(out: &mut Vec<u8>, first: &mut bool) {
    if !std::mem::take(first) {
        out.extend_from_slice(b", ");
    }
}

/// Names of the changed columns, in the table's order; `None` where they are not known or there can be none.
pub fn changed_columns<'b>(version: &Version<'b>) -> Option<impl Iterator<Item = &'b str>> {
    let columns = version.table().columns.iter();
    let flags = version.changed()?.iter();
    Some(columns.zip(flags).filter(|(_, changed)| **changed).map(|(column, _)| column.name.as_str()))
}

/// Names of the tracked columns whose new value nobody has.
pub fn unknown_columns<'b>(version: &Version<'b>) -> impl Iterator<Item = &'b str> {
    let unknown = |(column, value): (&'b crate::table::Column, Value<&str>)| {
        (column.tracked && value.is_unknown()).then_some(column.name.as_str())
    };
    version.after().into_iter().flat_map(|image| image.iter()).filter_map(unknown)
}

/// One sentence for people, from protected JSON: `{"status": ["draft", "published"], "price": [null, 5]}` of an update reads
/// `Status changed from draft to published and price set to 5.` `changes` is what readers show: `[null, v]` for created and
/// snapshot, `[v, null]` for deleted. `before_known` is the record's.
pub fn summary(
    event: &str,
    changes: Option<&serde_json::Map<String, serde_json::Value>>,
    before_known: bool,
) -> String {
    let Some(changes) = changes.filter(|changes| !changes.is_empty()) else {
        return match event {
            "updated" if !before_known => "Updated; what changed is not known.".to_string(),
            "snapshot" => "Existed when capture began.".to_string(),
            "truncated" => "Table truncated.".to_string(),
            "gap" => "Changes were lost here.".to_string(),
            "error" => "A change was given up here.".to_string(),
            event => sentence(event.to_string()),
        };
    };
    let parts: Vec<String> = changes
        .iter()
        .filter_map(|(column, sides)| {
            let name = column.replace('_', " ");
            let (old, new) = (sides.get(0)?, sides.get(1)?);
            match (event, old.is_null(), new.is_null()) {
                ("deleted", ..) => (!old.is_null()).then(|| format!("{name} was {}", shown(old))),
                (_, _, true) => (!old.is_null()).then(|| format!("{name} cleared (was {})", shown(old))),
                (_, true, false) => Some(format!("{name} set to {}", shown(new))),
                ("updated", false, false) => Some(format!("{name} changed from {} to {}", shown(old), shown(new))),
                _ => Some(format!("{name} set to {}", shown(new))),
            }
        })
        .collect();
    match parts.as_slice() {
        [] => sentence(event.to_string()),
        [one] => sentence(one.clone()),
        [head @ .., last] => sentence(format!("{} and {last}", head.join(", "))),
    }
}

/// The longest value that a summary shows, in characters.
const SHOWN_MAX: usize = 60;

fn shown(value: &serde_json::Value) -> String {
    let text = match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn sentence(text: String) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), chars.as_str()),
        None => text,
    }
}

/// Whether the hot table stores one full image of the version, and which: the row after where there is none before or none known, the
/// row before where there is none after.
pub fn full_image<'b>(version: &Version<'b>) -> Option<(Side, Image<'b>)> {
    match version.event() {
        Event::Created | Event::Snapshot => version.after().map(|image| (Side::After, image)),
        Event::Deleted => version.before().map(|image| (Side::Before, image)),
        Event::Updated if version.changed().is_none() => version.after().map(|image| (Side::After, image)),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}
