//! Decodes pgoutput, protocol version 1 with the option `messages`: bytes to [`Message`].
//!
//! Source: PostgreSQL's manual, section "Logical Replication Message Formats". The decoder is pure, borrows from the
//! received bytes, allocates only for relations and lists of truncated tables, and never panics. Its error names the
//! kind of the malformed message and the offset of the fault. We request columns as text, so a binary column is
//! malformed here.

mod reader;

use audit_core::change::{Cell, Old, Row};
use audit_core::position::{Lsn, Micros};
use audit_core::shape::{Identity, Relation, RelationColumn, TableName};

use reader::Reader;

/// One message of the stream. `relation` is the OID of a table that a [`Message::Relation`] has described before.
#[derive(Debug)]
pub enum Message<'a> {
    Begin {
        commit_lsn: Lsn,
        committed_at: Micros,
        xid: u32,
    },
    Commit {
        commit_lsn: Lsn,
        end_lsn: Lsn,
    },
    Origin {
        name: &'a str,
    },
    Relation(Relation),
    /// Announces the name of a type that is not built in.
    Type {
        oid: u32,
        schema: &'a str,
        name: &'a str,
    },
    Insert {
        relation: u32,
        new: Row<'a>,
    },
    Update {
        relation: u32,
        old: Old<'a>,
        new: Row<'a>,
    },
    Delete {
        relation: u32,
        old: Old<'a>,
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// A message that `pg_logical_emit_message` wrote.
    Logical {
        transactional: bool,
        prefix: &'a str,
        content: &'a [u8],
    },
}

/// The input is malformed. The error holds no byte of it, only the `offset` of the fault in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {message} message: {problem} at byte {offset}")]
pub struct DecodeError {
    pub message: &'static str,
    pub problem: Problem,
    pub offset: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("it ends too early")]
    Short,
    #[error("it goes on behind its end")]
    Long,
    #[error("a length is negative or larger than the message")]
    Length,
    #[error("a name is not terminated or not UTF-8")]
    Name,
    #[error("an unknown tag")]
    Tag,
    #[error("a column in binary form")]
    Binary,
    #[error("an unknown kind of message")]
    Kind,
}

/// Buffers for the cells of a message's rows, reused for each message.
#[derive(Debug, Default)]
pub struct Scratch {
    old: Vec<Cell>,
    new: Vec<Cell>,
}

/// Decodes the data of one XLogData message.
///
/// # Errors
/// Fails with [`DecodeError`] for anything that is not exactly one message of protocol version 1.
pub fn decode<'a>(data: &'a [u8], scratch: &'a mut Scratch) -> Result<Message<'a>, DecodeError> {
    let name = data.first().map_or("empty", |kind| message_name(*kind));
    let mut reader = Reader::new(data);
    let message = body(&mut reader, data, scratch).and_then(|message| reader.finish().map(|()| message));
    message.map_err(|problem| DecodeError { message: name, problem, offset: reader.offset() })
}

fn message_name(kind: u8) -> &'static str {
    match kind {
        b'B' => "Begin",
        b'C' => "Commit",
        b'O' => "Origin",
        b'R' => "Relation",
        b'Y' => "Type",
        b'I' => "Insert",
        b'U' => "Update",
        b'D' => "Delete",
        b'T' => "Truncate",
        b'M' => "Message",
        _ => "unknown",
    }
}

fn body<'a>(reader: &mut Reader<'a>, data: &'a [u8], scratch: &'a mut Scratch) -> Result<Message<'a>, Problem> {
    Ok(match reader.u8()? {
        b'B' => Message::Begin {
            commit_lsn: Lsn(reader.u64()?),
            committed_at: Micros::from_postgres(reader.u64()? as i64),
            xid: reader.u32()?,
        },
        b'C' => {
            let _flags = reader.u8()?;
            let (commit_lsn, end_lsn) = (Lsn(reader.u64()?), Lsn(reader.u64()?));
            let _committed_at = reader.u64()?;
            Message::Commit { commit_lsn, end_lsn }
        }
        b'O' => {
            let _origin_lsn = reader.u64()?;
            Message::Origin { name: reader.name()? }
        }
        b'R' => Message::Relation(relation(reader)?),
        b'Y' => Message::Type { oid: reader.u32()?, schema: reader.name()?, name: reader.name()? },
        b'I' => {
            let relation = reader.u32()?;
            expect(reader, b'N')?;
            tuple(reader, &mut scratch.new)?;
            Message::Insert { relation, new: Row::new(data, &scratch.new) }
        }
        b'U' => {
            let relation = reader.u32()?;
            let old = match reader.u8()? {
                b'N' => None,
                kind => {
                    let kind = old_kind(kind)?;
                    tuple(reader, &mut scratch.old)?;
                    expect(reader, b'N')?;
                    Some(kind)
                }
            };
            tuple(reader, &mut scratch.new)?;
            let old = old.map_or(Old::None, |kind| kind(Row::new(data, &scratch.old)));
            Message::Update { relation, old, new: Row::new(data, &scratch.new) }
        }
        b'D' => {
            let relation = reader.u32()?;
            let kind = old_kind(reader.u8()?)?;
            tuple(reader, &mut scratch.old)?;
            Message::Delete { relation, old: kind(Row::new(data, &scratch.old)) }
        }
        b'T' => {
            let count = reader.u32()?;
            let _cascade_and_restart_identity = reader.u8()?;
            // Each OID has four bytes: a count that does not fit into the message reserves no memory.
            let mut relations = Vec::with_capacity(reader.fits(count, 4)?);
            for _ in 0..count {
                relations.push(reader.u32()?);
            }
            Message::Truncate { relations }
        }
        b'M' => {
            let transactional = reader.u8()? & 1 == 1;
            let _lsn = reader.u64()?;
            let prefix = reader.name()?;
            let length = reader.u32()?;
            let (_, content) = reader.bytes(length)?;
            Message::Logical { transactional, prefix, content }
        }
        _ => return Err(Problem::Kind),
    })
}

fn expect(reader: &mut Reader<'_>, tag: u8) -> Result<(), Problem> {
    if reader.u8()? == tag { Ok(()) } else { Err(Problem::Tag) }
}

fn old_kind<'a>(tag: u8) -> Result<fn(Row<'a>) -> Old<'a>, Problem> {
    match tag {
        b'K' => Ok(Old::Key),
        b'O' => Ok(Old::Full),
        _ => Err(Problem::Tag),
    }
}

fn relation(reader: &mut Reader<'_>) -> Result<Relation, Problem> {
    let oid = reader.u32()?;
    let schema = match reader.name()? {
        // According to the manual, the name is empty for pg_catalog.
        "" => "pg_catalog",
        schema => schema,
    };
    let name = TableName::new(schema, reader.name()?);
    let identity = Identity::from_byte(reader.u8()?).ok_or(Problem::Tag)?;
    let count = u32::from(reader.u16()?);
    let mut columns = Vec::with_capacity(reader.fits(count, 10)?);
    for _ in 0..count {
        let flags = reader.u8()?;
        columns.push(RelationColumn {
            name: reader.name()?.to_string(),
            type_oid: reader.u32()?,
            typmod: reader.u32()? as i32,
            in_identity: flags & 1 == 1,
        });
    }
    Ok(Relation { oid, name, identity, columns })
}

fn tuple(reader: &mut Reader<'_>, cells: &mut Vec<Cell>) -> Result<(), Problem> {
    cells.clear();
    for _ in 0..reader.u16()? {
        let cell = match reader.u8()? {
            b't' => {
                let length = reader.u32()?;
                let (start, text) = reader.bytes(length)?;
                Cell::text(start, text.len())
            }
            b'n' => Cell::NULL,
            b'u' => Cell::UNKNOWN,
            b'b' => return Err(Problem::Binary),
            _ => return Err(Problem::Tag),
        };
        cells.push(cell);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
