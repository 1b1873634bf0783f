//! The parts of a canonical record ([`Unit`]) and how they are written.

use crate::value::{Kind, Value, write_bytes};

/// What a unit is about. Units come in the order of these bytes. Those of a tag with the highest bit say what only this
/// store knows: they are no part of what is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Tag {
    Envelope = 0x01,
    Place = 0x02,
    Key = 0x03,
    OldKey = 0x04,
    ActorId = 0x05,
    Actor = 0x06,
    Reason = 0x07,
    Context = 0x08,
    Included = 0x09,
    Image = 0x0a,
    Old = 0x0b,
    New = 0x0c,
    /// The place of a snapshot, which each sink read by itself.
    SnapshotPlace = 0x82,
    Stored = 0x90,
    KeptBefore = 0xa0,
    KeptAfter = 0xa1,
}

impl Tag {
    const ALL: [Tag; 16] = [
        Tag::Envelope,
        Tag::Place,
        Tag::Key,
        Tag::OldKey,
        Tag::ActorId,
        Tag::Actor,
        Tag::Reason,
        Tag::Context,
        Tag::Included,
        Tag::Image,
        Tag::Old,
        Tag::New,
        Tag::SnapshotPlace,
        Tag::Stored,
        Tag::KeptBefore,
        Tag::KeptAfter,
    ];

    fn from_byte(byte: u8) -> Option<Tag> {
        Tag::ALL.into_iter().find(|tag| *tag as u8 == byte)
    }

    /// Whether every store of the version has the same units of it.
    pub fn is_shared(self) -> bool {
        (self as u8) < 0x80
    }
}

/// A part of a canonical record, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit<'r> {
    pub tag: Tag,
    pub name: &'r str,
    pub kind: Kind,
    pub value: &'r [u8],
}

impl Unit<'_> {
    /// The field of the version record that it is.
    pub fn field(&self) -> String {
        let name = self.name;
        match self.tag {
            Tag::Envelope | Tag::Place | Tag::SnapshotPlace | Tag::Stored => String::new(),
            Tag::Key => "key".to_owned(),
            Tag::OldKey => "old_key".to_owned(),
            Tag::ActorId => "actor_id".to_owned(),
            Tag::Actor => "actor".to_owned(),
            Tag::Reason => "reason".to_owned(),
            Tag::Context => "context".to_owned(),
            Tag::Included => format!("included.{name}"),
            Tag::Image => format!("row.{name}"),
            Tag::Old => format!("changes.{name}[0]"),
            Tag::New => format!("changes.{name}[1]"),
            Tag::KeptBefore => format!("before.{name}"),
            Tag::KeptAfter => format!("after.{name}"),
        }
    }
}

/// Appends a unit: its tag, its name, and its value.
pub(crate) fn write_unit(out: &mut Vec<u8>, tag: Tag, name: &str, value: &Value) {
    out.push(tag as u8);
    write_field(out, name, value);
}

/// Appends a field of the envelope, or of the place: its name, and its value.
pub(crate) fn write_field(out: &mut Vec<u8>, name: &str, value: &Value) {
    write_bytes(out, name.as_bytes());
    out.push(value.kind as u8);
    write_bytes(out, &value.bytes);
}

/// Takes a unit from the beginning of `rest`; `None` at the end, or if it is not one.
pub(crate) fn take_unit<'r>(rest: &mut &'r [u8]) -> Option<Unit<'r>> {
    let (tag, after) = rest.split_first()?;
    *rest = after;
    let tag = Tag::from_byte(*tag)?;
    let (name, kind, value) = take_field(rest)?;
    Some(Unit { tag, name, kind, value })
}

/// Does the same for a field.
pub(crate) fn take_field<'r>(rest: &mut &'r [u8]) -> Option<(&'r str, Kind, &'r [u8])> {
    let name = std::str::from_utf8(take_bytes(rest)?).ok()?;
    let (kind, after) = rest.split_first()?;
    *rest = after;
    Some((name, Kind::from_byte(*kind)?, take_bytes(rest)?))
}

fn take_bytes<'r>(rest: &mut &'r [u8]) -> Option<&'r [u8]> {
    let (length, after) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
    let (bytes, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}
