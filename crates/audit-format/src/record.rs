//! Writes `format = "record"`: the version record, byte for byte as [`audit_core::stored::Record`] is serialised.
//!
//! `before` and `after` are whole, as far as they are known. `changes` has only what is stored, so that no value is in
//! a message twice. With `full_changes` it has what readers are shown: `[null, v]` for created and snapshot,
//! `[v, null]` for deleted.

use std::ops::Range;

use audit_core::batch::{Image, Version};
use audit_core::json::unquote;
use audit_core::position::Micros;
use audit_core::record::{self, Extent, Side, Sides};
use audit_core::value::write_json_string;
use audit_core::version::Event;

use crate::stamp::{Stamp, write_lsn, write_number, write_position};

/// For a row with more bytes of text than this, all of the needed memory is reserved at once: doubling the buffer would
/// use more memory than planned.
const LARGE: usize = 16 << 10;

/// Writes records of one source.
#[derive(Debug)]
pub(crate) struct RecordWriter {
    /// `{"source":"…","position":"`
    head: Vec<u8>,
    /// Says which `changes` are written.
    extent: Extent,
    committed_at: Stamp,
    recorded_at: Stamp,
    changes: Vec<ChangeAt>,
    summary: String,
}

/// The ranges of a change's name and sides in the written bytes. `None` for a side that does not exist.
#[derive(Debug)]
struct ChangeAt {
    /// The column's name, including its quotes.
    name: Range<usize>,
    old: Option<Range<usize>>,
    new: Option<Range<usize>>,
}

impl RecordWriter {
    pub fn new(source: &str, full_changes: bool) -> RecordWriter {
        let mut head = br#"{"source":"#.to_vec();
        write_json_string(&mut head, source);
        head.extend_from_slice(br#","position":""#);
        RecordWriter {
            head,
            extent: if full_changes { Extent::All } else { Extent::Stored },
            committed_at: Stamp::default(),
            recorded_at: Stamp::default(),
            changes: Vec::new(),
            summary: String::new(),
        }
    }

    /// Appends the record of a version.
    pub fn write(&mut self, out: &mut Vec<u8>, version: &Version<'_>, recorded_at: Micros) {
        if version.is_larger_than(LARGE) {
            out.reserve_exact(room(version));
        }
        out.extend_from_slice(&self.head);
        write_position(out, version.position());
        out.extend_from_slice(br#"","table_name":"#);
        write_json_string(out, &version.table().name);
        out.extend_from_slice(br#","item_type":"#);
        write_json_string(out, &version.table().item_type);
        text(out, r#","key":"#, version.key());
        text(out, r#","old_key":"#, version.old_key());
        self.changes.clear();
        self.content(out, version);
        self.place(out, version, recorded_at);
        text(out, r#","tenant":"#, version.tenant());
        self.summary(out, version);
        out.push(b'}');
    }

    /// Writes the fields from `event` to `context_verified`.
    fn content(&mut self, out: &mut Vec<u8>, version: &Version<'_>) {
        text(out, r#","event":"#, Some(version.event().name()));
        out.extend_from_slice(br#","changes":"#);
        let told = self.changes(out, version);
        let gone = version.event() == Event::Deleted;
        out.extend_from_slice(br#","before":"#);
        self.image(out, version.before(), (!told && gone).then_some(Side::Before));
        out.extend_from_slice(br#","after":"#);
        let made = matches!(version.event(), Event::Created | Event::Snapshot);
        self.image(out, version.after(), (!told && made).then_some(Side::After));
        out.extend_from_slice(br#","changed":"#);
        match record::changed_columns(version) {
            Some(names) => list(out, names),
            None => null(out),
        }
        boolean(out, r#","before_known":"#, version.before_known());
        out.extend_from_slice(br#","unknown":"#);
        list(out, record::unknown_columns(version));
        out.extend_from_slice(br#","carried":[],"included":"#);
        if !record::write_included(out, version) {
            null(out);
        }
        text(out, r#","actor_id":"#, version.actor_id());
        document(out, r#","actor":"#, version.actor());
        text(out, r#","reason":"#, version.reason());
        document(out, r#","context":"#, version.context().map(|context| context.json.as_str()));
        text(out, r#","actor_source":"#, version.actor_source().map(|source| source.name()));
        out.extend_from_slice(match version.context_verified() {
            Some(true) => br#","context_verified":true"#,
            Some(false) => br#","context_verified":false"#.as_slice(),
            None => br#","context_verified":null"#,
        });
    }

    /// Writes one side of a row, or null. With `of` the summary is made from it, as that side of each column.
    fn image(&mut self, out: &mut Vec<u8>, image: Option<Image<'_>>, of: Option<Side>) {
        let Some(image) = image else { return null(out) };
        let Some(side) = of else { return record::write_image(out, image) };
        record::write_image_noting(out, image, |name, value| {
            self.changes.push(match side {
                Side::Before => ChangeAt { name, old: Some(value), new: None },
                Side::After => ChangeAt { name, old: None, new: Some(value) },
            });
        });
    }

    /// Writes the changes, or null, and notes the ranges of their sides. Returns whether there are any.
    fn changes(&mut self, out: &mut Vec<u8>, version: &Version<'_>) -> bool {
        let start = out.len();
        out.push(b'{');
        let changes = &mut self.changes;
        let has = record::each_change(version, self.extent, |entry| {
            if !changes.is_empty() {
                out.extend_from_slice(b", ");
            }
            let name = written(out, |out| write_json_string(out, entry.name));
            out.extend_from_slice(b": [");
            let old = written(out, |out| entry.old.write(out, &entry.column.kind));
            out.extend_from_slice(b", ");
            let new = written(out, |out| entry.new.write(out, &entry.column.kind));
            out.push(b']');
            changes.push(ChangeAt { name, old: Some(old), new: Some(new) });
        });
        if has {
            out.push(b'}');
        } else {
            out.truncate(start);
            null(out);
        }
        has
    }

    /// Writes the fields from `xid` to `baseline`.
    fn place(&mut self, out: &mut Vec<u8>, version: &Version<'_>, recorded_at: Micros) {
        let transaction = version.transaction();
        number(out, r#","xid":"#, transaction.xid);
        out.extend_from_slice(br#","commit_lsn":""#);
        write_lsn(out, transaction.commit_lsn);
        out.extend_from_slice(br#"","lsn":""#);
        write_lsn(out, version.lsn());
        number(out, r#"","seq":"#, version.position().seq);
        out.extend_from_slice(br#","committed_at":""#);
        out.extend_from_slice(self.committed_at.text(transaction.committed_at));
        out.extend_from_slice(br#"","recorded_at":""#);
        out.extend_from_slice(self.recorded_at.text(recorded_at));
        number(out, r#"","schema_version":"#, version.table().shape.schema_version);
        match version.baseline() {
            Some(baseline) => number(out, r#","baseline":"#, baseline),
            None => out.extend_from_slice(br#","baseline":null"#),
        }
    }

    fn summary(&mut self, out: &mut Vec<u8>, version: &Version<'_>) {
        self.summary.clear();
        let written = |range: &Range<usize>| std::str::from_utf8(&out[range.clone()]).unwrap_or_default();
        let sides = self.changes.iter().map(|change| Sides {
            column: unquote(written(&change.name)),
            old: side(out, &change.old),
            new: side(out, &change.new),
        });
        record::write_summary(&mut self.summary, version.event().name(), version.before_known(), sides);
        text(out, r#","summary":"#, Some(&self.summary));
    }
}

/// Estimates the bytes of a record of large values: each side of an update is both in `changes` and by itself.
fn room(version: &Version<'_>) -> usize {
    let bytes = |image: Option<Image<'_>>| -> usize {
        image.map_or(0, |image| image.iter().filter_map(|(_, value)| value.text()).map(str::len).sum())
    };
    2 * (bytes(version.before()) + bytes(version.after())) + LARGE
}

fn side<'o>(out: &'o [u8], range: &Option<Range<usize>>) -> &'o [u8] {
    range.as_ref().map_or(b"null", |range| &out[range.clone()])
}

fn written(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
    let start = out.len();
    write(out);
    start..out.len()
}

fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

fn text(out: &mut Vec<u8>, name: &str, text: Option<&str>) {
    out.extend_from_slice(name.as_bytes());
    match text {
        Some(text) => write_json_string(out, text),
        None => null(out),
    }
}

/// Writes a JSON text that another program wrote. Control characters in it can only be white space between its parts;
/// they become blanks, because a message is one line.
fn document(out: &mut Vec<u8>, name: &str, json: Option<&str>) {
    out.extend_from_slice(name.as_bytes());
    match json {
        Some(json) => out.extend(json.bytes().map(|b| if b < b' ' { b' ' } else { b })),
        None => null(out),
    }
}

fn list<'a>(out: &mut Vec<u8>, names: impl Iterator<Item = &'a str>) {
    out.push(b'[');
    let start = out.len();
    for name in names {
        if out.len() > start {
            out.push(b',');
        }
        write_json_string(out, name);
    }
    out.push(b']');
}

fn boolean(out: &mut Vec<u8>, name: &str, value: bool) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

fn number(out: &mut Vec<u8>, name: &str, value: u32) {
    out.extend_from_slice(name.as_bytes());
    write_number(out, i64::from(value));
}
