//! Writes versions that may hold what `jsonb` does not take: value by value, with a marker for each value that is too
//! large, and with members of `json` columns made valid by [`audit_core::jsonb`].
//!
//! Sizes are judged by an upper bound of what the server will need, before anything is written, so that a value of
//! hundreds of megabytes that does not fit costs nothing.

use std::borrow::Cow;

use audit_core::batch::{Image, Version};
use audit_core::change::Value;
use audit_core::jsonb::fit;
use audit_core::record::{Extent, Shown, each_change};
use audit_core::table::Column;
use audit_core::value::{Kind, write_json_string};

/// The columns whose values did not fit, each named once, and the number of those values.
#[derive(Debug, Default)]
pub(crate) struct Names<'b> {
    pub names: Vec<&'b str>,
    pub count: u64,
}

/// Bytes of the texts that a version holds.
pub(crate) fn bytes(version: &Version<'_>) -> usize {
    let bytes = |image: Option<Image<'_>>| {
        image.map_or(0, |image| image.iter().map(|(_, value)| value.text().map_or(0, str::len)).sum::<usize>())
    };
    bytes(version.before()) + bytes(version.after())
}

/// Upper bound of the bytes that any field of a version with this many [`bytes`] needs. It is usually far too high, and
/// only decides whether each value is checked. A control character takes six bytes as JSON, and an array of one-digit
/// numbers takes four times its text as `jsonb`.
pub(crate) fn upper_bound(bytes: usize) -> usize {
    bytes.saturating_mul(6)
}

/// Writes the same as [`audit_core::record::write_changes`], with markers for values that do not fit.
pub(crate) fn write_changes<'b>(out: &mut Vec<u8>, version: &Version<'b>, max: usize, lost: &mut Names<'b>) -> bool {
    let start = out.len();
    let mut object = Object::open(out, max, lost);
    let has = each_change(version, Extent::Stored, |entry| {
        object.name(entry.name);
        object.out.push(b'[');
        object.shown(entry.column, entry.old);
        object.out.extend_from_slice(b", ");
        object.shown(entry.column, entry.new);
        object.out.push(b']');
    });
    match has {
        true => object.close(),
        false => out.truncate(start),
    }
    has
}

/// Writes the same as [`audit_core::record::write_image`] for the columns that are `wanted`, with markers for values
/// that do not fit.
pub(crate) fn write_image<'b>(
    out: &mut Vec<u8>,
    image: Image<'b>,
    wanted: impl Fn(&Column) -> bool,
    max: usize,
    lost: &mut Names<'b>,
) {
    let mut object = Object::open(out, max, lost);
    for (column, value) in image.iter().filter(|(column, value)| wanted(column) && !value.is_unknown()) {
        object.name(&column.name);
        object.value(column, value);
    }
    object.close();
}

/// Writes the same as [`audit_core::record::write_included`], with markers for values that do not fit.
pub(crate) fn write_included<'b>(out: &mut Vec<u8>, version: &Version<'b>, max: usize, lost: &mut Names<'b>) -> bool {
    let Some(image) = version.after().or(version.before()) else { return false };
    if !version.table().columns.iter().any(|column| column.included) {
        return false;
    }
    write_image(out, image, |column| column.included, max, lost);
    true
}

/// Writes the marker that replaces a value that does not fit; `bytes` is the length of its text.
pub(crate) fn write_marker(out: &mut Vec<u8>, bytes: usize) {
    out.extend_from_slice(b"{\"$too_large\": ");
    out.extend_from_slice(bytes.to_string().as_bytes());
    out.push(b'}');
}

struct Object<'o, 'l, 'b> {
    out: &'o mut Vec<u8>,
    left: usize,
    first: bool,
    lost: &'l mut Names<'b>,
}

impl<'o, 'l, 'b> Object<'o, 'l, 'b> {
    fn open(out: &'o mut Vec<u8>, max: usize, lost: &'l mut Names<'b>) -> Object<'o, 'l, 'b> {
        out.push(b'{');
        Object { out, left: max, first: true, lost }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.extend_from_slice(b", ");
        }
        match name.contains('\0') {
            true => write_json_string(self.out, &name.replace('\0', "\u{fffd}")),
            false => write_json_string(self.out, name),
        }
        self.out.extend_from_slice(b": ");
    }

    fn value(&mut self, column: &'b Column, value: Value<&str>) {
        self.shown(column, Shown::Value(value));
    }

    fn shown(&mut self, column: &'b Column, shown: Shown<'_>) {
        if let (Kind::Json, Shown::Member(Some(json))) = (&column.kind, shown)
            && let Cow::Owned(fit) = fit(json)
        {
            return self.fitting(column, Shown::Member(Some(&fit)));
        }
        self.fitting(column, shown);
    }

    fn fitting(&mut self, column: &'b Column, shown: Shown<'_>) {
        let (text, needed) = match shown {
            Shown::Value(Value::Text(text)) => (text, weight(&column.kind, text)),
            Shown::Member(Some(json)) => (json, weight(&Kind::Jsonb, json)),
            Shown::Value(Value::Null | Value::Unknown) | Shown::Member(None) => ("", 4),
        };
        match self.left.checked_sub(needed) {
            None if !text.is_empty() => {
                write_marker(self.out, text.len());
                self.lost.count += 1;
                if !self.lost.names.contains(&column.name.as_str()) {
                    self.lost.names.push(&column.name);
                }
            }
            left => {
                self.left = left.unwrap_or(0);
                shown.write(self.out, &column.kind);
            }
        }
    }

    fn close(self) {
        self.out.push(b'}');
    }
}

/// The bytes that a value needs, as JSON text or as `jsonb`, whichever is more, or a little above that.
fn weight(kind: &Kind, text: &str) -> usize {
    // Every element of an array or object takes 4 bytes in addition to itself, a number at least 8, for at least 3
    // bytes of text.
    let elements = |text: &str| text.bytes().filter(|b| *b == b',').count() * 9;
    match kind {
        Kind::Jsonb => text.len() + elements(text),
        Kind::Array(_) => escaped(text) + elements(text),
        _ => escaped(text),
    }
}

fn escaped(text: &str) -> usize {
    let extra = |b: u8| match b {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0..0x20 => 5,
        _ => 0,
    };
    2 + text.len() + text.bytes().map(extra).sum::<usize>()
}
