//! Rows as COPY sends them (text format, one line per row), split into one buffer and a list of cells: [`RawRows`].

use std::fmt;

use crate::change::{Cell, Row, Value};

/// A sequence of raw rows of one table.
#[derive(Default)]
pub struct RawRows {
    text: Vec<u8>,
    cells: Vec<Cell>,
    /// Number of cells in a row.
    width: usize,
    len: usize,
    /// The columns that followed the row's own columns in the last line.
    extra: Vec<Option<Vec<u8>>>,
}

/// The line is not what COPY sends. The error holds no byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    #[error("a line of COPY without an end")]
    NoEnd,
    #[error("a line of COPY with {found} columns instead of {expected}")]
    Columns { expected: usize, found: usize },
    #[error("a line of COPY ends in a backslash")]
    Escape,
    #[error("the rows of one chunk take more than 4 GB")]
    TooLarge,
}

impl RawRows {
    /// An empty list for rows of `width` columns.
    pub fn new(width: usize) -> RawRows {
        RawRows { width, ..RawRows::default() }
    }

    /// Appends a line, including its end. The line has the row's columns and `extra` more, which [`RawRows::extra`]
    /// returns until the next line is appended.
    ///
    /// # Errors
    /// Returns a [`CopyError`] for a malformed line; the rows are then as before.
    pub fn push(&mut self, line: &[u8], extra: usize) -> Result<(), CopyError> {
        let (text, cells) = (self.text.len(), self.cells.len());
        let taken = self.take(line, extra);
        match taken {
            Ok(()) => self.len += 1,
            Err(_) => {
                self.text.truncate(text);
                self.cells.truncate(cells);
            }
        }
        taken
    }

    fn take(&mut self, line: &[u8], extra: usize) -> Result<(), CopyError> {
        let line = line.strip_suffix(b"\n").ok_or(CopyError::NoEnd)?;
        if line.len() > self.text.capacity() / 2 {
            // A large row gets exactly the room that it needs.
            self.text.reserve_exact(line.len());
        }
        if self.text.len() + line.len() >= u32::MAX as usize - 2 {
            return Err(CopyError::TooLarge);
        }
        let first = self.cells.len();
        let expected = self.width + extra;
        if expected > 0 {
            for field in line.split(|byte| *byte == b'\t') {
                let cell = self.field(field)?;
                self.cells.push(cell);
            }
        } else if !line.is_empty() {
            return Err(CopyError::Columns { expected, found: 1 });
        }
        let found = self.cells.len() - first;
        if found != expected {
            return Err(CopyError::Columns { expected, found });
        }
        self.split_off(first + self.width);
        Ok(())
    }

    /// Moves the cells from `at` on to `extra`.
    fn split_off(&mut self, at: usize) {
        self.extra.clear();
        let mut end = self.text.len();
        for cell in self.cells.drain(at..) {
            let value = cell.get(&self.text).text();
            end -= value.map_or(0, <[u8]>::len);
            self.extra.push(value.map(<[u8]>::to_vec));
        }
        self.text.truncate(end);
    }

    fn field(&mut self, field: &[u8]) -> Result<Cell, CopyError> {
        if field == b"\\N" {
            return Ok(Cell::NULL);
        }
        let start = self.text.len();
        let mut rest = field;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
            self.text.extend_from_slice(&rest[..at]);
            let escaped = rest.get(at + 1).ok_or(CopyError::Escape)?;
            self.text.push(match escaped {
                b'b' => 0x08,
                b'f' => 0x0c,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 0x0b,
                // COPY TO writes no octal or hexadecimal escapes, so any other escaped character stands for itself.
                other => *other,
            });
            rest = &rest[at + 2..];
        }
        self.text.extend_from_slice(rest);
        Ok(Cell::text(start, self.text.len() - start))
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory that the rows hold, in bytes.
    pub fn bytes(&self) -> usize {
        self.text.capacity() + self.cells.capacity() * size_of::<Cell>()
    }

    /// Total length of the values themselves, in bytes.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    pub fn get(&self, index: usize) -> Option<Row<'_>> {
        let start = index.checked_mul(self.width).filter(|_| index < self.len)?;
        Some(Row::new(&self.text, self.cells.get(start..start + self.width)?))
    }

    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.len).filter_map(|index| self.get(index))
    }

    /// A column of the last row as text; `None` for NULL and if there is no row.
    pub fn last(&self, column: usize) -> Option<&str> {
        match self.get(self.len.checked_sub(1)?)?.get(column) {
            Value::Text(text) => std::str::from_utf8(text).ok(),
            Value::Null | Value::Unknown => None,
        }
    }

    /// The column at `index` of those that followed the row's own columns in the last line.
    pub fn extra(&self, index: usize) -> Option<&str> {
        self.extra.get(index)?.as_deref().and_then(|text| std::str::from_utf8(text).ok())
    }
}

/// Shows only sizes.
impl fmt::Debug for RawRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, {} bytes", self.len, self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(rows: &RawRows) -> Vec<Vec<Option<String>>> {
        let value =
            |row: &Row<'_>, column| row.get(column).text().map(|text| String::from_utf8_lossy(text).into_owned());
        rows.iter().map(|row| (0..row.len()).map(|column| value(&row, column)).collect()).collect()
    }

    #[test]
    fn lines_become_rows() {
        let mut rows = RawRows::new(3);
        rows.push(b"1\t\\N\tplain\n", 0).unwrap();
        rows.push(b"2\t\ta\\tb\\nc\\\\N\\r\\b\\f\\v\\x\n", 0).unwrap();
        let text = |text: &str| Some(text.to_string());
        assert_eq!(
            shown(&rows),
            [vec![text("1"), None, text("plain")], vec![text("2"), text(""), text("a\tb\nc\\N\r\u{8}\u{c}\u{b}x")]]
        );
        assert_eq!((rows.last(0), rows.last(1), rows.last(3)), (Some("2"), Some(""), None));
    }

    #[test]
    fn extra_columns_are_kept_apart() {
        let mut rows = RawRows::new(1);
        rows.push(b"a\t(0,1)\t\\N\n", 2).unwrap();
        rows.push(b"b\t(0,2)\tx\n", 2).unwrap();
        assert_eq!(shown(&rows), [[Some("a".to_string())], [Some("b".to_string())]]);
        assert_eq!((rows.extra(0), rows.extra(1), rows.extra(2)), (Some("(0,2)"), Some("x"), None));
        assert_eq!(rows.text_bytes(), 2);
    }

    #[test]
    fn a_table_without_columns_has_rows_too() {
        let mut rows = RawRows::new(0);
        rows.push(b"\n", 0).unwrap();
        rows.push(b"\n", 0).unwrap();
        assert_eq!((rows.len(), rows.iter().count()), (2, 2));
        assert!(rows.push(b"a\n", 0).is_err());
    }

    #[test]
    fn what_is_no_line_changes_nothing() {
        let mut rows = RawRows::new(2);
        rows.push(b"1\t2\n", 0).unwrap();
        for (line, expected) in [
            (&b"1\t2"[..], CopyError::NoEnd),
            (b"", CopyError::NoEnd),
            (b"1\n", CopyError::Columns { expected: 2, found: 1 }),
            (b"1\t2\t3\n", CopyError::Columns { expected: 2, found: 3 }),
            (b"1\t2\\\n", CopyError::Escape),
        ] {
            assert_eq!(rows.push(line, 0), Err(expected));
        }
        assert_eq!(shown(&rows), [[Some("1".to_string()), Some("2".to_string())]]);
    }

    /// Writes a value as `CopyAttributeOutText` in the server's `copyto.c` does.
    fn copied(value: &Option<Vec<u8>>) -> Vec<u8> {
        let Some(value) = value else { return b"\\N".to_vec() };
        let mut out = Vec::new();
        for byte in value {
            match byte {
                0x08 => out.extend(b"\\b"),
                0x0c => out.extend(b"\\f"),
                b'\n' => out.extend(b"\\n"),
                b'\r' => out.extend(b"\\r"),
                b'\t' => out.extend(b"\\t"),
                0x0b => out.extend(b"\\v"),
                b'\\' => out.extend(b"\\\\"),
                byte => out.push(*byte),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn every_value_comes_back(
            lines in prop::collection::vec(prop::collection::vec(prop::option::of(prop::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(b"\\\t\n\rN.bfv".to_vec())], 0..12)), 3), 0..6)
        ) {
            let mut rows = RawRows::new(3);
            for line in &lines {
                let fields: Vec<Vec<u8>> = line.iter().map(copied).collect();
                let mut line = fields.join(&b'\t');
                line.push(b'\n');
                prop_assert_eq!(rows.push(&line, 0), Ok(()));
            }
            prop_assert_eq!(rows.len(), lines.len());
            for (row, line) in rows.iter().zip(&lines) {
                for (column, value) in line.iter().enumerate() {
                    prop_assert_eq!(row.get(column).text(), value.as_deref());
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(
            line in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\\\t\nN".to_vec())], 0..60),
            width in 0usize..4, extra in 0usize..3
        ) {
            let mut rows = RawRows::new(width);
            let before = rows.text_bytes();
            let taken = rows.push(&line, extra);
            prop_assert_eq!(taken.is_ok(), rows.len() == 1);
            if taken.is_err() {
                prop_assert_eq!(rows.text_bytes(), before);
            }
        }
    }
}
