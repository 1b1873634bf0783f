//! Tables without a key, read by place: [`File`], [`Stretch`].
//!
//! A bound consists of the table of a file, and a ctid. ⚠ `xmin` decides which rows existed before: those that were
//! written by a transaction from the baseline's `xmax` on are in the stream. The numbers wrap around, and frozen rows
//! keep theirs. So the comparison is one of distances modulo 2^32, within the range of numbers that was used since
//! ([`older_than`]).

use audit_core::shape::TableName;
use serde::Deserialize;
use tokio_postgres::Client;

use crate::query::{QueryError, rows};

/// The file of a table, or of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct File {
    pub oid: u32,
    pub schema: String,
    pub table: String,
    /// Changes whenever the table is rewritten; places then have no meaning any more.
    pub file: u32,
    pub blocks: u64,
    pub rows_per_block: Option<u64>,
}

/// The table's files. Without `sized` they are reported as empty, and the query waits for no lock.
pub(super) async fn files(client: &Client, oid: u32, sized: bool) -> Result<Vec<File>, QueryError> {
    rows(client, "read a table's files", include_str!("../sql/files.sql"), &[&oid, &sized]).await
}

/// The identity of a baseline. Bounds hold as long as no file in it has changed; files may be added and removed.
pub(super) fn identity(files: &[File]) -> Vec<String> {
    files.iter().map(|file| format!("{}:{}", file.oid, file.file)).collect()
}

/// Whether every file that still exists is the one it was.
pub(super) fn unchanged(stored: &[String], files: &[File]) -> bool {
    let before = |oid: u32| {
        let parts = stored.iter().filter_map(|text| text.split_once(':'));
        parts.into_iter().find(|(stored, _)| stored.parse() == Ok(oid)).map(|(_, file)| file.to_owned())
    };
    files.iter().all(|file| before(file.oid).is_none_or(|before| before == file.file.to_string()))
}

impl File {
    pub fn name(&self) -> TableName {
        TableName::new(&self.schema, &self.table)
    }
}

/// A range of blocks of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub file: File,
    /// A place `(block,row)`; the range holds the rows after it.
    pub behind: Option<String>,
    /// A place `(block,row)`; the range ends with this row.
    pub up_to: String,
    /// Whether nothing follows.
    pub last: bool,
}

/// Number of rows assumed for a block if there are no statistics.
const ROWS_PER_BLOCK: u64 = 60;

/// The stretch of about `rows` rows that follows `bound` (a table's oid and a ctid). `None` if nothing follows.
pub(super) fn next_stretch(files: &[File], bound: Option<&[String]>, rows: u32) -> Option<Stretch> {
    let (oid, ctid) = match bound {
        Some([oid, ctid]) => (oid.parse().unwrap_or(0), Some(ctid)),
        _ => (0, None),
    };
    let begun = ctid.and_then(|ctid| block_behind(ctid)).unwrap_or(0);
    let rest = files.iter().filter(|file| file.oid >= oid).map(|file| match file.oid == oid {
        true => (file, begun, ctid.cloned()),
        false => (file, 0, None),
    });
    let mut rest = rest.filter(|(file, first, _)| *first < file.blocks);
    let (file, first, behind) = rest.next()?;
    let blocks = (u64::from(rows) / file.rows_per_block.unwrap_or(ROWS_PER_BLOCK).max(1)).max(1);
    let end = first.saturating_add(blocks).min(file.blocks);
    let last = end == file.blocks && rest.next().is_none();
    Some(Stretch { file: file.clone(), behind, up_to: end_of(end), last })
}

/// The last place before block `end`. No row has this number.
fn end_of(end: u64) -> String {
    format!("({},65535)", end.saturating_sub(1))
}

/// The first block that can contain a row after `ctid`.
fn block_behind(ctid: &str) -> Option<u64> {
    let (block, row) = ctid.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    let block: u64 = block.parse().ok()?;
    Some(if row == "65535" { block + 1 } else { block })
}

/// Largest distance between a transaction and `xmax` at which it can be distinguished from one before the wraparound.
pub(super) const WINDOW_MAX: u64 = 1 << 31;

/// The condition that the row was not written by a transaction from `xmax` on, for a reader that sees nothing from
/// `now` on. `None` if too many transactions were used since then to decide it.
pub(super) fn older_than(xmax: u64, now: u64) -> Option<String> {
    let used = now.checked_sub(xmax).filter(|used| *used < WINDOW_MAX)?;
    let number = "xmin::text::bigint";
    // Numbers below 3 belong to no transaction (`transam.h`); such rows are frozen.
    Some(format!("({number} < 3 OR mod({number} - {} + 4294967296, 4294967296) >= {used})", xmax & u64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(oid: u32, blocks: u64) -> File {
        let table = format!("t{oid}");
        File { oid, schema: "public".to_owned(), table, file: oid + 1, blocks, rows_per_block: Some(10) }
    }

    /// All stretches of the files, as `oid behind..up_to`.
    fn stretches(files: &[File], rows: u32) -> Vec<String> {
        let mut bound: Option<Vec<String>> = None;
        let mut found = Vec::new();
        while let Some(stretch) = next_stretch(files, bound.as_deref(), rows) {
            let behind = stretch.behind.as_deref().unwrap_or("");
            let end = if stretch.last { " last" } else { "" };
            found.push(format!("{} {behind}..{}{end}", stretch.file.oid, stretch.up_to));
            bound = Some(vec![stretch.file.oid.to_string(), stretch.up_to]);
            assert!(found.len() < 100);
        }
        found
    }

    #[test]
    fn stretches_follow_one_another_through_all_files() {
        let files = [file(7, 5), file(8, 0), file(9, 2)];
        assert_eq!(
            stretches(&files, 20),
            ["7 ..(1,65535)", "7 (1,65535)..(3,65535)", "7 (3,65535)..(4,65535)", "9 ..(1,65535) last"]
        );
        assert_eq!(stretches(&files, 1_000_000), ["7 ..(4,65535)", "9 ..(1,65535) last"]);
        assert_eq!(stretches(&[file(7, 0)], 20), [""; 0]);
    }

    #[test]
    fn a_stretch_goes_on_in_the_middle_of_a_block() {
        let bound = ["7".to_owned(), "(3,12)".to_owned()];
        let stretch = next_stretch(&[file(7, 5)], Some(&bound), 10).unwrap();
        assert_eq!(
            (stretch.behind.as_deref(), stretch.up_to.as_str(), stretch.last),
            (Some("(3,12)"), "(3,65535)", false)
        );
        // The partition of the bound no longer exists.
        let stretch = next_stretch(&[file(9, 1)], Some(&bound), 10).unwrap();
        assert_eq!((stretch.file.oid, stretch.behind), (9, None));
    }

    #[test]
    fn only_a_file_that_is_another_counts_as_changed() {
        let stored = identity(&[file(7, 5), file(8, 5)]);
        assert!(unchanged(&stored, &[file(7, 9), file(9, 1)]));
        assert!(!unchanged(&stored, &[File { file: 99, ..file(7, 5) }]));
    }

    #[test]
    fn too_many_transactions_cannot_be_told_apart() {
        assert!(older_than(5, 5 + WINDOW_MAX).is_none() && older_than(6, 5).is_none());
        assert_eq!(
            older_than((1 << 32) + 7, (1 << 32) + 9).unwrap(),
            "(xmin::text::bigint < 3 OR mod(xmin::text::bigint - 7 + 4294967296, 4294967296) >= 2)"
        );
    }
}
