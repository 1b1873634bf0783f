//! One meaning of a version, wherever it is stored: its canonical record, and sums over many of them.
//!
//! Hot tables and lakes store the same version in different forms, and each form loses a little: `jsonb` has no order
//! of members and no `-0`, a Parquet column has typed values. So stored bytes cannot be compared, and a digest over
//! them would not survive a compaction. The canonical record ([`Canonical`]) is made from a [`Record`], which is what
//! both stores give back and what the daemon can make from a protected version, and it is the same for all three.
//!
//! ⚠ The form is specified in `docs/canonical-record.md` and can never change: what is compared, and later chained and
//! signed, must give the same bytes in ten years. Another form needs another version byte.
//!
//! Nothing here does I/O.
//!
//! [`Record`]: audit_core::stored::Record

mod canonical;
mod cipher;
mod difference;
mod sums;
mod unit;
mod value;

pub use canonical::{Canonical, Units};
pub use difference::differing_fields;
pub use sums::{Bucket, Sum, Sums};
pub use unit::{Tag, Unit};
pub use value::{Kind, Kinds};
