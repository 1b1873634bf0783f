//! Takes old months out of the hot tables, once a lake was proved to have them.
//!
//! A month passes through these states, of which each is durable, one month at a time:
//!
//! 1. **Due** ([`due`]): it is over, and every captured table in it says with `hot` that it may go. Nothing is due unless
//!    it is configured.
//! 2. **Compared** ([`Archiver::compare`]): each version is read from both stores and compared by what it means. The
//!    first difference is named, and the month stays.
//! 3. **Proved and detached** ([`Archiver::take_out`]), by functions of the owner in the hot database, which count once
//!    more. From then on questions get these versions from the lake.
//! 4. **Dropped** ([`Archiver::drop_old`]) after a time of grace, in which it can be put back.
//!
//! ⚠ Proof and drop are never one step, and a process that is killed between two steps begins again with the comparison.

mod archiver;
mod due;

pub use archiver::{ArchiveError, Archiver, Finding, Proof};
pub use due::{Due, due};
