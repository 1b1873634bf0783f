//! The fields of the version record that are made from others: JSON forms, lists of names, the summary.
//!
//! Every sink and every reader writes them through this module, so that they agree to the byte.

use std::borrow::Cow;
use std::ops::Range;

use crate::batch::{Image, Version};
use crate::change::Value;
use crate::table::{Column, Table, companion_of};
use crate::value::{Kind, write_json_string, write_json_value};
use crate::version::Event;

/// Appends a value: null, or the JSON form of its kind. An unknown value is null here and its column is named in
/// `unknown`.
pub fn write_value(out: &mut Vec<u8>, kind: &Kind, value: Value<&str>) {
    match value {
        Value::Text(text) => write_json_value(out, kind, text),
        Value::Null | Value::Unknown => out.extend_from_slice(b"null"),
    }
}

/// Appends the tracked columns of one side as an object, without unknown ones.
pub fn write_image(out: &mut Vec<u8>, image: Image<'_>) {
    let known = image.iter().filter(|(column, value)| column.tracked && !value.is_unknown());
    write_object(out, known.map(|(column, value)| (column.name.as_str(), &column.kind, value)));
}

/// Does the same, and tells `each` for every column where its name (with the quotes) and its value were written.
pub fn write_image_noting(out: &mut Vec<u8>, image: Image<'_>, mut each: impl FnMut(Range<usize>, Range<usize>)) {
    let known = image.iter().filter(|(column, value)| column.tracked && !value.is_unknown());
    out.push(b'{');
    let mut first = true;
    for (column, value) in known {
        separate(out, &mut first);
        let start = out.len();
        write_json_string(out, &column.name);
        let name = start..out.len();
        out.extend_from_slice(b": ");
        let start = out.len();
        write_value(out, &column.kind, value);
        each(name, start..out.len());
    }
    out.push(b'}');
}

/// One entry of `changes`: a column, or a member of an expanded one, with both its sides.
#[derive(Clone, Copy)]
pub struct Entry<'b> {
    pub name: &'b str,
    pub column: &'b Column,
    pub old: Shown<'b>,
    pub new: Shown<'b>,
}

/// A side of an entry.
#[derive(Clone, Copy)]
pub enum Shown<'b> {
    Value(Value<&'b str>),
    /// A JSON text; `None` for a member that does not exist.
    Member(Option<&'b str>),
}

impl Shown<'_> {
    /// Appends the side as JSON.
    pub fn write(self, out: &mut Vec<u8>, kind: &Kind) {
        match self {
            Shown::Value(value) => write_value(out, kind, value),
            Shown::Member(json) => out.extend_from_slice(json.unwrap_or("null").as_bytes()),
        }
    }
}

/// Which entries of `changes` are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The stored entries: those of updates, and of all versions of tables with expanded columns.
    Stored,
    /// The entries that readers are shown: those of created, snapshot and deleted versions too.
    All,
}

/// Passes each entry of a version's `changes` to `each`, in the table's order; returns false if the version has none.
pub fn each_change<'b>(version: &Version<'b>, extent: Extent, mut each: impl FnMut(Entry<'b>)) -> bool {
    let (before, after) = (version.before(), version.after());
    let table: &'b Table = version.table();
    let whole = || extent == Extent::All || table.expands();
    let known = |image: Image<'b>, index: usize| Some(image.get(index)).filter(|value| !value.is_unknown());
    let pair = |index: usize| match (version.changed(), before, after) {
        (Some(changed), Some(before), Some(after)) => changed[index].then(|| (before.get(index), after.get(index))),
        (_, None, Some(after)) => known(after, index).map(|value| (Value::Null, value)),
        (_, Some(before), None) => known(before, index).map(|value| (value, Value::Null)),
        _ => None,
    };
    let has = match (version.changed(), version.event()) {
        (Some(_), _) => before.is_some() && after.is_some(),
        (None, Event::Created | Event::Snapshot) => after.is_some() && whole(),
        (None, Event::Deleted) => before.is_some() && whole(),
        _ => false,
    };
    if !has {
        return false;
    }
    let mut members = version.members().peekable();
    for (index, column) in table.columns.iter().enumerate().filter(|(_, column)| column.tracked) {
        if column.expansion.is_some() {
            while let Some(member) = members.next_if(|member| member.column == index) {
                let (old, new) = (Shown::Member(member.old), Shown::Member(member.new));
                each(Entry { name: member.name, column, old, new });
            }
        } else if let Some((old, new)) = pair(index) {
            each(Entry { name: &column.name, column, old: Shown::Value(old), new: Shown::Value(new) });
        }
    }
    true
}

/// Appends `{"column": [old, new]}` for the stored changes. Returns false, and appends nothing, if the version has no
/// `changes`.
pub fn write_changes(out: &mut Vec<u8>, version: &Version<'_>) -> bool {
    let start = out.len();
    out.push(b'{');
    let mut first = true;
    let has = each_change(version, Extent::Stored, |entry| {
        separate(out, &mut first);
        write_json_string(out, entry.name);
        out.extend_from_slice(b": [");
        entry.old.write(out, &entry.column.kind);
        out.extend_from_slice(b", ");
        entry.new.write(out, &entry.column.kind);
        out.push(b']');
    });
    match has {
        true => out.push(b'}'),
        false => out.truncate(start),
    }
    has
}

/// Appends the columns that are configured as `include`, from the row after or else from the row before. Returns false
/// if there are none.
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

/// Names of the changed columns, in the table's order; for expanded columns, those of their members. `None` if they are
/// not known or cannot exist. Companion columns are left out, because they are not columns of the table.
pub fn changed_columns<'b>(version: &Version<'b>) -> Option<impl Iterator<Item = &'b str>> {
    version.changed()?;
    let (version, table) = (*version, version.table());
    let own = |name: &str, column: &Column| !column.companion && companion_of(name).is_none_or(|_| column.name == name);
    let named = table.columns.iter().enumerate().flat_map(move |(index, column)| {
        let changed = version.changed().is_some_and(|changed| changed[index]);
        let plain = (changed && column.expansion.is_none()).then_some(column.name.as_str());
        let members = changed && column.expansion.is_some();
        let members =
            version.members().filter(move |member| members && member.column == index).map(|member| member.name);
        plain.into_iter().chain(members).filter(move |name| own(name, column))
    });
    Some(named)
}

/// Names of the tracked columns whose new value is unknown.
pub fn unknown_columns<'b>(version: &Version<'b>) -> impl Iterator<Item = &'b str> {
    let unknown = |(column, value): (&'b Column, Value<&str>)| {
        (column.tracked && !column.companion && value.is_unknown()).then_some(column.name.as_str())
    };
    version.after().into_iter().flat_map(|image| image.iter()).filter_map(unknown)
}

/// The old and the new value of a column as JSON texts: `null` if that side has no value.
pub struct Sides<'a> {
    pub column: Cow<'a, str>,
    pub old: &'a [u8],
    pub new: &'a [u8],
}

/// Appends one sentence for people, from protected values: an update of `status` from `"draft"` to `"published"` and of
/// `price` from `null` to `5` reads `Status changed from draft to published and price set to 5.` `sides` are those of
/// the `changes` that readers are shown, in their order; `before_known` is the record's. For a column with several
/// methods it shows what the first one left.
pub fn write_summary<'a>(out: &mut String, event: &str, before_known: bool, sides: impl Iterator<Item = Sides<'a>>) {
    let start = out.len();
    // The place of the last comma, which may have to become an "and".
    let (mut any, mut comma, mut last) = (false, None, Cow::Borrowed(""));
    for Sides { column, old, new } in sides {
        any = true;
        if companion_of(&column) == Some(&*last) {
            continue;
        }
        let empty = out.len();
        if empty > start {
            out.push_str(", ");
        }
        let name = out.len();
        out.extend(column.chars().map(|c| if c == '_' { ' ' } else { c }));
        last = column;
        match (event, old == NULL, new == NULL) {
            (_, true, true) | ("deleted", true, _) => {
                out.truncate(empty);
                continue;
            }
            ("deleted", ..) => write_shown(out, " was ", old),
            (_, false, true) => {
                write_shown(out, " cleared (was ", old);
                out.push(')');
            }
            ("updated" | "discarded" | "restored", false, false) => {
                write_shown(out, " changed from ", old);
                write_shown(out, " to ", new);
            }
            _ => write_shown(out, " set to ", new),
        }
        comma = (name > empty).then_some(empty).or(comma);
    }
    if let Some(comma) = comma {
        out.replace_range(comma..comma + 1, " and");
    }
    match (out.len() > start, event) {
        (true, _) => {}
        (_, "updated") if !any && !before_known => return out.push_str("Updated; what changed is not known."),
        (_, "snapshot") if !any => return out.push_str("Existed when capture began."),
        (_, "truncated") if !any => return out.push_str("Table truncated."),
        (_, "gap") if !any => return out.push_str("Changes were lost here."),
        (_, "error") if !any => return out.push_str("A change was quarantined here."),
        _ => out.push_str(event),
    }
    if let Some(first) = out[start..].chars().next() {
        let upper: String = first.to_uppercase().collect();
        out.replace_range(start..start + first.len_utf8(), &upper);
    }
    out.push('.');
}

const NULL: &[u8] = b"null";

/// Length of the longest value that a summary shows, in characters.
const SHOWN_MAX: usize = 60;

/// Number of bytes of a JSON text that can matter: a character takes twelve bytes at most, as a pair of escapes.
const SHOWN_BYTES: usize = 12 * (SHOWN_MAX + 1);

/// Appends the beginning of a value: the characters of a string, and the JSON text of anything else.
fn write_shown(out: &mut String, before: &str, json: &[u8]) {
    out.push_str(before);
    let head = &json[..json.len().min(SHOWN_BYTES)];
    // A character that the cut went through comes after those that are shown.
    let head = match std::str::from_utf8(head) {
        Ok(head) => head,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    match head.strip_prefix('"') {
        Some(string) => cut(out, unescaped(string)),
        None => cut(out, head.chars()),
    }
}

fn cut(out: &mut String, mut text: impl Iterator<Item = char>) {
    out.extend(text.by_ref().take(SHOWN_MAX));
    if text.next().is_some() {
        out.push('…');
    }
}

/// The characters of a JSON string after its opening quote (RFC 8259, section 7).
fn unescaped(text: &str) -> impl Iterator<Item = char> {
    let mut chars = text.chars();
    std::iter::from_fn(move || match chars.next()? {
        '"' => None,
        '\\' => Some(match chars.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let code = chars.by_ref().take(4).try_fold(0, |code, c| Some(code << 4 | c.to_digit(16)?))?;
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            c => c,
        }),
        c => Some(c),
    })
    .fuse()
}

/// Whether the hot table stores one full image of the version, and which one: the row after if there is no row before
/// or it is not known, and the row before if there is no row after.
pub fn full_image<'b>(version: &Version<'b>) -> Option<(Side, Image<'b>)> {
    match version.event() {
        Event::Created | Event::Snapshot => version.after().map(|image| (Side::After, image)),
        Event::Deleted => version.before().map(|image| (Side::Before, image)),
        event if event.is_update() && version.changed().is_none() => version.after().map(|image| (Side::After, image)),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}
