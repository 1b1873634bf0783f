//! Names in a lake: table folders, day folders, files.
//!
//! ```text
//! <lake>/<table folder>/_delta_log/
//! <lake>/<table folder>/data/year=2026/month=03/day=01/<file>.parquet
//! <lake>/_cdc_audit/checkpoint/<20 digits>.json
//! ```
//!
//! A file is named by its first and last version and the epoch of the daemon that wrote it; a file of a baseline by its chunks too:
//! `0001-0000000016b37430-0000000000_0001-0000000016b3a0f8-0000000004_3.parquet`, `…_3_b1-1-12.parquet`. No colon, for Spark and Hadoop
//! cannot list it; and no two daemons ever write the same name.

use std::fmt;

use audit_core::position::{Lsn, Micros, Position};
use object_store::path::Path;
use sha2::{Digest, Sha256};

/// The lake's own folder. Table folders always hold a dot that is no first character, so none has this name.
pub const OWN_FOLDER: &str = "_cdc_audit";
/// Where writes are staged.
pub const TMP: &str = "_cdc_audit/tmp";
/// Where the lake's checkpoints lie.
pub const CHECKPOINTS: &str = "_cdc_audit/checkpoint";
/// The folder, in a table's, that readers list.
pub const DATA: &str = "data";
/// The table that `gap` records go to.
pub const GAPS: &str = "cdc_audit.gap";

/// Longer folder names are cut and end in a hash: file systems allow 255 bytes.
const FOLDER_MAX: usize = 200;

/// The folder of the table that is shown as `name` (see [`audit_core::shape::TableName`]).
///
/// ASCII letters, digits, `_` and `.` stand for themselves; every other byte, and a `_` or `.` at the beginning, is written as `-` and two
/// hex digits. It is percent-encoding with another sign: readers disagree on whether `%` in a path is to be decoded, and a leading `_` or
/// `.` would hide the folder from many. Since `name` quotes parts that hold dots, `"a.b".c` and `a."b.c"` differ.
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
        // `--` follows from no name.
        folder.push_str("--");
        hash[..16].iter().for_each(|byte| folder.push_str(&format!("{byte:02x}")));
    }
    folder
}

/// The table whose folder this is; `None` where the folder does not say, for its name was too long.
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

/// A UTC commit date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day {
    pub year: i16,
    pub month: i8,
    pub day: i8,
}

const DAY_MICROS: i64 = 86_400_000_000;

impl Day {
    /// Days since 1970-01-01: equal numbers, and only they, are equal days.
    pub fn number(at: Micros) -> i64 {
        at.0.div_euclid(DAY_MICROS)
    }

    pub fn of(at: Micros) -> Day {
        let (year, month, day) = at.date();
        Day { year, month, day }
    }

    /// The day that [`Day::number`] counts.
    pub fn of_number(number: i64) -> Day {
        Day::of(Micros(number * DAY_MICROS))
    }

    /// The partition's folder, from the table's: `data/year=2026/month=03/day=01`.
    pub fn folder(self) -> String {
        format!("{DATA}/year={:04}/month={:02}/day={:02}", self.year, self.month, self.day)
    }

    /// Reads the day out of a file's path.
    pub fn from_path(path: &str) -> Option<Day> {
        let part = |name: &str| path.split('/').find_map(|segment| segment.strip_prefix(name)?.strip_prefix('='));
        Some(Day {
            year: part("year")?.parse().ok()?,
            month: part("month")?.parse().ok()?,
            day: part("day")?.parse().ok()?,
        })
    }
}

/// The chunks of a baseline that a file holds whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chunks {
    pub baseline: u32,
    pub first: u32,
    pub last: u32,
}

/// What a file's name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileName {
    pub first: Position,
    pub last: Position,
    /// The owner epoch of the daemon that wrote it.
    pub owner: u64,
    pub chunks: Option<Chunks>,
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{}", Dashed(self.first), Dashed(self.last), self.owner)?;
        if let Some(chunks) = self.chunks {
            write!(f, "_b{}-{}-{}", chunks.baseline, chunks.first, chunks.last)?;
        }
        f.write_str(".parquet")
    }
}

impl FileName {
    /// `None` for a name that none of ours is.
    pub fn parse(name: &str) -> Option<FileName> {
        let mut parts = name.strip_suffix(".parquet")?.split('_');
        let (first, last) = (undash(parts.next()?)?, undash(parts.next()?)?);
        let owner = parts.next()?.parse().ok()?;
        let chunks = match parts.next() {
            None => None,
            Some(part) => {
                let mut numbers = part.strip_prefix('b')?.split('-').map(str::parse);
                let mut next = || numbers.next()?.ok();
                Some(Chunks { baseline: next()?, first: next()?, last: next()? })
            }
        };
        let parsed = FileName { first, last, owner, chunks };
        (parts.next().is_none() && parsed.to_string() == name).then_some(parsed)
    }

    pub fn of_path(path: &Path) -> Option<FileName> {
        FileName::parse(path.filename()?)
    }

    /// Whether a version at `position` would be in the file.
    pub fn holds(&self, position: Position) -> bool {
        self.first <= position && position <= self.last
    }

    /// Whether both have a version of one stretch.
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
        let plain = FileName { first: position(0), last: position(4_294_967_295), owner: 3, chunks: None };
        assert_eq!(plain.to_string(), "0001-0000000016b37430-0000000000_0001-0000000016b37430-4294967295_3.parquet");
        let chunks = FileName { chunks: Some(Chunks { baseline: 2, first: 1, last: 12 }), ..plain };
        for name in [plain, chunks] {
            assert!(!name.to_string().contains(':'));
            assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
        for other in ["part-0.parquet", "", "0001-1-1_0001-1-1_3.parquet", &plain.to_string().to_uppercase()] {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn days_are_padded_in_paths() {
        let day = Day::of(Micros(1_772_357_400_000_000));
        assert_eq!(day.folder(), "data/year=2026/month=03/day=01");
        assert_eq!(Day::from_path(&format!("{}/x.parquet", day.folder())), Some(day));
        assert_eq!(Day::number(Micros(-1)), -1);
    }
}
