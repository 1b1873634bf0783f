//! Names in a lake: table folders, day folders, files.
//!
//! ```text
//! <lake>/<table folder>/_delta_log/
//! <lake>/<table folder>/data/year=2026/month=03/day=01/<file>.parquet
//! <lake>/<table folder>/fresh/year=2026/month=03/day=01/<file>.parquet
//! <lake>/_cdc_audit/checkpoint/<20 digits>.json
//! ```
//!
//! The name of a file contains its first and last version and the epoch of the daemon that wrote it, for example
//! `0001-0000000016b37430-0000000000_0001-0000000016b3a0f8-0000000004_3.parquet`. The name of a file of a baseline also
//! contains its chunks, `…_3_b1-1-12.parquet` (`s1-1-12` if the chunks are spread over tenants), and that of a file
//! that `compact` made a random mark. There is no colon, because Spark and Hadoop cannot list it, and no two daemons
//! ever write the same name.

use std::fmt;

use audit_core::position::{Lsn, Position};
use object_store::path::Path;
use sha2::{Digest, Sha256};

/// The lake's own folder. Table folders always contain a dot after their first character, so none has this name.
pub const OWN_FOLDER: &str = "_cdc_audit";
/// The folder where writes are staged.
pub const TMP: &str = "_cdc_audit/tmp";
/// The folder of the lake's checkpoints.
pub const CHECKPOINTS: &str = "_cdc_audit/checkpoint";
/// The folder, in a table's folder, that readers list.
pub const DATA: &str = "data";
/// The folder of small recent files: they are in the Delta log, and invisible to readers that list.
pub const FRESH: &str = "fresh";
/// The table of `gap` records.
pub const GAPS: &str = "cdc_audit.gap";

/// Longest folder name in bytes, because file systems allow 255. A longer name is cut and ends in a hash.
const FOLDER_MAX: usize = 200;

/// The folder of the table that is shown as `name` (see [`audit_core::shape::TableName`]).
///
/// ASCII letters, digits, `_` and `.` are kept; every other byte, and a `_` or `.` at the beginning, is written as `-`
/// and two hex digits. This is percent-encoding with another character: readers disagree on whether `%` in a path must
/// be decoded, and a leading `_` or `.` would hide the folder from many. Because `name` quotes parts that contain dots,
/// `"a.b".c` and `a."b.c"` get different folders.
pub fn table_folder(name: &str) -> String {
    let mut folder = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || (at > 0 && matches!(byte, b'_' | b'.')) {
            folder.push(byte as char);
        } else {
            folder.push_str(&format!("-{byte:02x}"));
        }
    }
    if folder.len() > FOLDER_MAX {
        let hash = Sha256::digest(name.as_bytes());
        folder.truncate(FOLDER_MAX - 34);
        // No encoded name contains `--`.
        folder.push_str("--");
        hash[..16].iter().for_each(|byte| folder.push_str(&format!("{byte:02x}")));
    }
    folder
}

/// The table that this folder belongs to; `None` if its name was too long and the folder's name does not contain it.
pub fn table_name(folder: &str) -> Option<String> {
    let mut name = Vec::with_capacity(folder.len());
    let mut bytes = folder.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'-' => {
                let digits = [bytes.next()?, bytes.next()?];
                name.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            byte => name.push(byte),
        }
    }
    String::from_utf8(name).ok()
}

/// The chunks of a baseline that a file holds completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chunks {
    pub baseline: u32,
    pub first: u32,
    pub last: u32,
    /// Tables of other tenants may have rows of these chunks: the file counts only if home says that all of them have
    /// theirs.
    pub spread: bool,
}

/// The parts of a file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileName {
    pub first: Position,
    pub last: Position,
    /// The owner epoch of the daemon that wrote it.
    pub owner: u64,
    pub chunks: Option<Chunks>,
    /// Random mark of a file that `compact` made from others; because of it the daemon never treats the file as its
    /// own.
    pub mark: Option<u64>,
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{}", Dashed(self.first), Dashed(self.last), self.owner)?;
        if let Some(chunks) = self.chunks {
            let letter = if chunks.spread { 's' } else { 'b' };
            write!(f, "_{letter}{}-{}-{}", chunks.baseline, chunks.first, chunks.last)?;
        }
        if let Some(mark) = self.mark {
            write!(f, "_c{mark:016x}")?;
        }
        f.write_str(".parquet")
    }
}

impl FileName {
    /// Returns `None` for a name that is not one of ours.
    pub fn parse(name: &str) -> Option<FileName> {
        let mut parts = name.strip_suffix(".parquet")?.split('_');
        let (first, last) = (undash(parts.next()?)?, undash(parts.next()?)?);
        let owner = parts.next()?.parse().ok()?;
        let (mut chunks, mut mark) = (None, None);
        match parts.next() {
            None => {}
            Some(part) => match part.strip_prefix('c') {
                Some(digits) => mark = Some(u64::from_str_radix(digits, 16).ok()?),
                None => {
                    let spread = part.starts_with('s');
                    let mut numbers = part.strip_prefix(['b', 's'])?.split('-').map(str::parse);
                    let mut next = || numbers.next()?.ok();
                    chunks = Some(Chunks { baseline: next()?, first: next()?, last: next()?, spread });
                }
            },
        }
        let parsed = FileName { first, last, owner, chunks, mark };
        (parts.next().is_none() && parsed.to_string() == name).then_some(parsed)
    }

    pub fn of_path(path: &Path) -> Option<FileName> {
        FileName::parse(path.filename()?)
    }

    /// Whether a version at `position` would be in the file.
    pub fn holds(&self, position: Position) -> bool {
        self.first <= position && position <= self.last
    }

    /// Whether the ranges of both files overlap.
    pub fn overlaps(&self, other: &FileName) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// A position without colons.
struct Dashed(Position);

impl fmt::Display for Dashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}-{:016x}-{:010}", self.0.epoch, self.0.commit_lsn.0, self.0.seq)
    }
}

fn undash(text: &str) -> Option<Position> {
    let mut parts = text.split('-');
    let (epoch, lsn, seq) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Position::new(
        u16::from_str_radix(epoch, 16).ok()?,
        Lsn(u64::from_str_radix(lsn, 16).ok()?),
        seq.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use audit_core::shape::TableName;

    use super::*;

    #[test]
    fn table_folders_are_plain_and_no_two_tables_share_one() {
        let folder = |schema: &str, table: &str| table_folder(&TableName::new(schema, table).to_string());
        assert_eq!(folder("public", "order_items"), "public.order_items");
        assert_eq!(folder("public", "order-items"), "public.order-2ditems");
        assert_eq!(folder("a.b", "c"), "-22a.b-22.c");
        assert_eq!(folder("a", "b.c"), "a.-22b.c-22");
        assert_eq!(folder("_x", "y"), "-5fx.y");
        assert_ne!(folder("_cdc_audit", ""), OWN_FOLDER);
        for name in ["public.order-items", "\"a.b\".\"ä\"\"\"", "_x.y"] {
            assert_eq!(table_name(&table_folder(name)).as_deref(), Some(name));
        }
        let long = ["ä".repeat(31), "ü".repeat(31), "ö".repeat(31)];
        let folders: Vec<String> = long.iter().map(|table| folder(&long[0], table)).collect();
        assert!(folders.iter().all(|folder| folder.len() == FOLDER_MAX && folder.is_ascii()), "{folders:?}");
        assert!(folders.iter().all(|folder| table_name(folder).is_none()));
        assert!(folders[0] != folders[1] && folders[1] != folders[2]);
    }

    #[test]
    fn a_file_name_holds_no_colon_and_says_what_is_in_the_file() {
        let position = |seq| Position::new(1, Lsn(0x16b3_7430), seq);
        let plain = FileName { first: position(0), last: position(4_294_967_295), owner: 3, chunks: None, mark: None };
        assert_eq!(plain.to_string(), "0001-0000000016b37430-0000000000_0001-0000000016b37430-4294967295_3.parquet");
        let chunks = FileName { chunks: Some(Chunks { baseline: 2, first: 1, last: 12, spread: false }), ..plain };
        let spread = FileName { chunks: Some(Chunks { baseline: 2, first: 1, last: 12, spread: true }), ..plain };
        let compacted = FileName { mark: Some(0xab), ..plain };
        for name in [plain, chunks, spread, compacted] {
            assert!(!name.to_string().contains(':'));
            assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
        for other in ["part-0.parquet", "", "0001-1-1_0001-1-1_3.parquet", &plain.to_string().to_uppercase()] {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }
}
