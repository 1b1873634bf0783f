//! One row event of pgoutput, still raw: [`Change`], and the rows it carries.
//!
//! Rows borrow the received bytes. They hold unprotected values, so their `Debug` output shows only lengths.

use std::fmt;

/// A value's place in a byte buffer, or one of the values that have no bytes. Eight bytes, no allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    start: u32,
    len: u32,
}

impl Cell {
    pub const NULL: Cell = Cell { start: 0, len: u32::MAX };
    /// The value was not sent: an unchanged TOAST column, or a column that an old row does not carry.
    pub const UNKNOWN: Cell = Cell { start: 0, len: u32::MAX - 1 };

    /// The value in bytes `start..start + len` of the buffer. PostgreSQL's messages end at 1 GB, far below the lengths
    /// that mark NULL and unknown.
    pub fn text(start: usize, len: usize) -> Cell {
        Cell { start: start as u32, len: len as u32 }
    }

    /// Length of the value's text in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Cell::NULL | Cell::UNKNOWN => 0,
            Cell { len, .. } => u64::from(len),
        }
    }

    pub fn get(self, buffer: &[u8]) -> Value<&[u8]> {
        match self {
            Cell::NULL => Value::Null,
            Cell::UNKNOWN => Value::Unknown,
            Cell { start, len } => {
                Value::Text(buffer.get(start as usize..start as usize + len as usize).unwrap_or_default())
            }
        }
    }

    pub fn get_str(self, buffer: &str) -> Value<&str> {
        match self {
            Cell::NULL => Value::Null,
            Cell::UNKNOWN => Value::Unknown,
            Cell { start, len } => {
                Value::Text(buffer.get(start as usize..start as usize + len as usize).unwrap_or_default())
            }
        }
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Cell::NULL => f.write_str("NULL"),
            Cell::UNKNOWN => f.write_str("unknown"),
            Cell { len, .. } => write!(f, "{len} bytes"),
        }
    }
}

/// A column's value on one side of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Value<T> {
    Null,
    /// Not sent: see [`Cell::UNKNOWN`].
    Unknown,
    /// PostgreSQL's text form.
    Text(T),
}

impl<T> Value<T> {
    pub fn text(self) -> Option<T> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn is_unknown(&self) -> bool {
        matches!(self, Value::Unknown)
    }
}

/// A raw row with one cell for each column of the relation.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    bytes: &'a [u8],
    cells: &'a [Cell],
}

impl<'a> Row<'a> {
    pub fn new(bytes: &'a [u8], cells: &'a [Cell]) -> Row<'a> {
        Row { bytes, cells }
    }

    /// The value of a column; unknown if the row has no such column.
    pub fn get(&self, column: usize) -> Value<&'a [u8]> {
        self.cells.get(column).map_or(Value::Unknown, |cell| cell.get(self.bytes))
    }

    pub fn len(&self) -> usize {
        self.cells.len()
    }

    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }
}

impl fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.cells).finish()
    }
}

/// The row before the change, as far as the server sent it.
#[derive(Clone, Copy, Debug)]
pub enum Old<'a> {
    /// An update that did not change the identity's columns, without REPLICA IDENTITY FULL.
    None,
    /// Only the columns of the replica identity ('K'), or what a partition with its own replica identity sent of the
    /// row. NULL stands for a value that was not sent.
    Key(Row<'a>),
    /// The whole row ('O').
    Full(Row<'a>),
}

/// One change of one table.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    Insert {
        new: Row<'a>,
    },
    Update {
        old: Old<'a>,
        new: Row<'a>,
    },
    Delete {
        old: Old<'a>,
    },
    Truncate,
    /// A row that a baseline read.
    Snapshot {
        row: Row<'a>,
    },
}
