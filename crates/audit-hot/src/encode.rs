//! Encodes versions as PostgreSQL's binary COPY stream ([COPY, "Binary Format"][1]): [`Encoder`].
//!
//! The encoder does no I/O and allocates nothing for each row: fields are appended to one buffer, and their lengths are
//! filled in afterwards. A `jsonb` value is sent as its version byte followed by its text. [`audit_core::record`]
//! decides what a version holds, so that every sink writes the same. Only what `jsonb` cannot hold differs here, and
//! the row shows it:
//!
//! - a value that would take a field past [`FIELD_MAX`] becomes `{"$too_large": bytes}` and is named in `unknown`;
//! - a context, and the members of an expanded `json` column, are made valid for `jsonb` by [`audit_core::jsonb`];
//! - a version that was quarantined becomes an `error` event without values.
//!
//! [1]: https://www.postgresql.org/docs/current/sql-copy.html

use audit_core::batch::Version;
use audit_core::jsonb;
use audit_core::position::{Micros, Position};
use audit_core::record;

use crate::config;

use crate::large::{self, Names};
use crate::layout::VERSIONS;

/// Largest field in bytes. A `jsonb` value is limited to 256 MiB and takes more than its text; half of the limit leaves
/// a safe margin.
pub const FIELD_MAX: usize = 128 << 20;

/// Bytes of `actor_id`. It is indexed, and a btree entry is limited to 2,704 bytes. A longer name is cut here; `actor`
/// and `context` have it whole.
const ACTOR_ID_MAX: usize = 1_000;

/// Bytes of text from which the buffer for a row is reserved in one step.
const LARGE: usize = 16 << 10;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// The OID of `text`, the type of the lists' elements.
const TEXT_OID: i32 = 25;

/// 0001-01-01, the earliest commit time that a partition can hold. No clock shows an earlier time, and the latest that
/// [`Micros`] can hold is within PostgreSQL's range.
const COMMITTED_AT_MIN: Micros = Micros(-62_135_596_800_000_000);

/// Encodes versions, with the values that all versions of one database transaction share.
#[derive(Debug)]
pub struct Encoder<'a> {
    pub source: &'a str,
    pub recorded_at: Micros,
    /// Sides of which the whole row is stored although it is not stored by default.
    pub keep: &'a [config::Side],
    /// [`FIELD_MAX`], or less in tests.
    pub field_max: usize,
    /// Number of values that were too large.
    pub too_large: u64,
}

impl Encoder<'_> {
    /// Appends the header of a stream.
    pub fn header(out: &mut Vec<u8>) {
        out.extend_from_slice(SIGNATURE);
        // No flags, no header extension.
        out.extend_from_slice(&[0; 8]);
    }

    /// Appends the trailer of a stream.
    pub fn trailer(out: &mut Vec<u8>) {
        out.extend_from_slice(&(-1i16).to_be_bytes());
    }

    /// Appends a version as one tuple: all columns of `versions`, in their order.
    pub fn row(&mut self, out: &mut Vec<u8>, version: &Version<'_>) {
        out.extend_from_slice(&(VERSIONS.columns.len() as i16).to_be_bytes());
        text(out, self.source);
        field(out, |out| position(out, version.position()));
        text(out, &version.table().name);
        text(out, &version.table().item_type);
        optional(out, version.key());
        optional(out, version.old_key());
        self.content(out, version);
        self.place(out, version);
    }

    /// Appends the columns from `event` to `context_verified`.
    fn content(&mut self, out: &mut Vec<u8>, version: &Version<'_>) {
        text(out, version.event().name());
        let mut lost = Names::default();
        // Few versions come near the limit. All others are written by the core, without a check of each value.
        let bytes = large::bytes(version);
        // Versions with expanded columns are checked too, because a member of `json` may be something that `jsonb`
        // refuses.
        let careful = large::upper_bound(bytes) > self.field_max || version.table().expands();
        if bytes > LARGE {
            // Growing by doubling would take memory that nobody planned for. A value that does not fit is not written.
            out.reserve_exact(bytes.min(self.field_max) + LARGE);
        }
        let max = self.field_max;
        json(out, |out| match careful {
            false => record::write_changes(out, version),
            true => large::write_changes(out, version, max, &mut lost),
        });
        for side in [record::Side::Before, record::Side::After] {
            let image = self.image(version, side);
            json(out, |out| {
                match (image, careful) {
                    (None, _) => return false,
                    (Some(image), false) => record::write_image(out, image),
                    (Some(image), true) => large::write_image(out, image, |column| column.tracked, max, &mut lost),
                }
                true
            });
        }
        list(out, record::changed_columns(version));
        self.included_and_unknown(out, version, careful, lost);
        self.who(out, version);
    }

    /// Appends the columns from `before_known` to `included`. `included` is encoded first, because it can still add
    /// names to `unknown`.
    fn included_and_unknown<'b>(
        &mut self,
        out: &mut Vec<u8>,
        version: &Version<'b>,
        careful: bool,
        mut lost: Names<'b>,
    ) {
        boolean(out, version.before_known());
        let mut included = Vec::new();
        let has_included = match careful {
            false => None,
            true => Some(large::write_included(&mut included, version, self.field_max, &mut lost)),
        };
        self.too_large += lost.count;
        let unknown = record::unknown_columns(version).filter(|name| !lost.names.contains(name));
        let unknown = unknown.chain(lost.names.iter().copied());
        // An empty list is stored as null, which takes no space; the view and the reader show it as a list.
        let mut unknown = unknown.peekable();
        let some = unknown.peek().is_some().then_some(unknown);
        list(out, some);
        null(out);
        json(out, |out| match has_included {
            None => record::write_included(out, version),
            Some(has) => {
                out.extend_from_slice(&included);
                has
            }
        });
    }

    /// Appends the columns from `actor_id` to `context_verified`.
    fn who(&mut self, out: &mut Vec<u8>, version: &Version<'_>) {
        said(out, version.actor_id().map(|id| &id[..id.floor_char_boundary(ACTOR_ID_MAX)]));
        self.document(out, version.actor());
        said(out, version.reason());
        self.document(out, version.context().map(|context| context.json.as_str()));
        optional(out, version.actor_source().map(|source| source.name()));
        match version.context_verified() {
            Some(verified) => boolean(out, verified),
            None => null(out),
        }
    }

    fn document(&mut self, out: &mut Vec<u8>, document: Option<&str>) {
        let too_large = document.is_some_and(|text| text.len() > self.field_max);
        self.too_large += u64::from(too_large);
        json(out, |out| {
            let Some(text) = document else { return false };
            match too_large {
                true => large::write_marker(out, text.len()),
                false => out.extend_from_slice(jsonb::fit(text).as_bytes()),
            }
            true
        });
    }

    /// Appends the columns from `xid` to `tenant`.
    fn place(&self, out: &mut Vec<u8>, version: &Version<'_>) {
        let transaction = version.transaction();
        fixed(out, i64::from(transaction.xid).to_be_bytes());
        fixed(out, transaction.commit_lsn.0.to_be_bytes());
        fixed(out, version.lsn().0.to_be_bytes());
        fixed(out, i64::from(version.position().seq).to_be_bytes());
        fixed(out, committed_at(transaction.committed_at).to_postgres().to_be_bytes());
        fixed(out, self.recorded_at.to_postgres().to_be_bytes());
        fixed(out, version.table().shape.schema_version.to_be_bytes());
        match version.baseline() {
            Some(baseline) => fixed(out, baseline.to_be_bytes()),
            None => null(out),
        }
        optional(out, version.tenant());
    }

    /// The whole row to store on one side, if any.
    fn image<'b>(&self, version: &Version<'b>, side: record::Side) -> Option<audit_core::batch::Image<'b>> {
        let (kept, image) = match side {
            record::Side::Before => (config::Side::Before, version.before()),
            record::Side::After => (config::Side::After, version.after()),
        };
        if self.keep.contains(&kept) && image.is_some() {
            return image;
        }
        record::full_image(version).filter(|(full, _)| *full == side).map(|(_, image)| image)
    }
}

/// The commit time as it is stored. It also decides the partition.
pub(crate) fn committed_at(time: Micros) -> Micros {
    time.max(COMMITTED_AT_MIN)
}

/// Appends a field: its length and its content.
fn field(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(&(-1i32).to_be_bytes());
}

fn fixed<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    out.extend_from_slice(&(N as u32).to_be_bytes());
    out.extend_from_slice(&bytes);
}

fn boolean(out: &mut Vec<u8>, value: bool) {
    fixed(out, [u8::from(value)]);
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value.as_bytes());
}

fn optional(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => text(out, value),
        None => null(out),
    }
}

/// Appends text from an application, which may contain the character that PostgreSQL's text cannot hold (U+0000).
fn said(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) if value.contains('\0') => text(out, &value.replace('\0', "\u{fffd}")),
        value => optional(out, value),
    }
}

/// Appends a `jsonb` field, or null if `write` returns false.
fn json(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> bool) {
    let start = out.len();
    let mut some = true;
    field(out, |out| {
        // The version of the binary format of `jsonb`.
        out.push(1);
        some = write(out);
    });
    if !some {
        out.truncate(start);
        null(out);
    }
}

/// Appends a `text[]`.
fn list<'n>(out: &mut Vec<u8>, names: Option<impl Iterator<Item = &'n str>>) {
    let Some(names) = names else { return null(out) };
    field(out, |out| {
        let start = out.len();
        // One dimension, no nulls, element type text, the length (filled in below), lower bound 1.
        for word in [1, 0, TEXT_OID, 0, 1] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        let mut count = 0u32;
        for name in names {
            // The name of an expanded member may contain any character.
            said(out, Some(name));
            count += 1;
        }
        out[start + 12..start + 16].copy_from_slice(&count.to_be_bytes());
        if count == 0 {
            // An empty array has no dimensions.
            out.truncate(start + 12);
            out[start..start + 4].copy_from_slice(&[0; 4]);
        }
    });
}

/// Appends a position as `Display` writes it. Every version has one, so this avoids the cost of the formatting
/// machinery.
fn position(out: &mut Vec<u8>, position: Position) {
    let mut hex = |value: u64, digits: u32| {
        for shift in (0..digits).rev() {
            out.push(b"0123456789abcdef"[(value >> (4 * shift) & 0xf) as usize]);
        }
        out.push(b':');
    };
    hex(position.epoch.into(), 4);
    hex(position.commit_lsn.0, 16);
    let mut divisor = 1_000_000_000;
    while divisor > 0 {
        out.push(b'0' + (position.seq / divisor % 10) as u8);
        divisor /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use audit_core::position::Lsn;

    #[test]
    fn a_position_is_written_as_it_prints() {
        for p in [
            Position::new(1, Lsn(0x16b3_7430), 2),
            Position::new(u16::MAX, Lsn(u64::MAX), u32::MAX),
            Position::default(),
        ] {
            let mut out = Vec::new();
            position(&mut out, p);
            assert_eq!(String::from_utf8_lossy(&out), p.to_string());
        }
    }

    #[test]
    fn an_empty_list_has_no_dimension() {
        let mut out = Vec::new();
        list(&mut out, Some([].into_iter()));
        assert_eq!(out, [0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25]);
    }
}
