//! The versions of one row, what is known of its values, and why the rest is not.
//!
//! ```text
//! records of the row, oldest first ──moves──▶ Fold ──▶ Version: number, changes with derived old values
//!                                              │
//!                                              └──▶ State: each column's value after it, as far as it is known
//! ```
//!
//! Where PostgreSQL sent no old row, the old value of a column is the one that the preceding version left, if all of
//! this holds; otherwise it is unknown, and [`Why`] says which condition fails:
//!
//! 1. There is a preceding version, it left the row in place, and the value is known after it.
//! 2. Nothing is missing between the two: no gap, no new epoch, no quarantined change, no end of the row.
//! 3. Updates were captured all the time, under the same condition on rows. Every shape says which rules it was
//!    captured under; a shape that does not say so proves nothing.
//! 4. The column is the same one in every shape between the two, with the same type: `ADD COLUMN … DEFAULT` and
//!    `ALTER TYPE … USING` write values without row events.
//! 5. The column is not in `ignore_alone` where the whole old row was sent: such an update makes no version.
//! 6. It is protected by the same method under the same key, and that method lets two values be compared.
//! 7. Values are compared by their type; a value that was too large to be stored is unknown.
//!
//! An unchanged large value that was not sent again is certainly unchanged, so it is carried on under the same
//! conditions. What the stream does not show cannot be seen here either: `ALTER TYPE … USING` to the same type, and
//! rules or identities that came and went without a single version of the table.

mod blame;
mod compare;
mod diff;
mod facts;
mod fold;
mod known;
mod moves;
#[cfg(test)]
pub(crate) mod tests;
mod then;
mod told;
mod undone;

pub use blame::{Blame, Setter, Through};
pub use compare::{Verdict, compare};
pub use diff::{Diff, Side, diff};
pub use facts::{Break, Facts, knowledge};
pub use fold::{Change, Fold, Place, Standing, Version};
pub(crate) use fold::{ends, state_bytes};
pub use known::{Known, State, Why};
pub(crate) use moves::is_move;
pub use moves::moves;
pub use then::{Absent, Found, NoSuchPoint, Then, place};
pub use told::Told;
pub use undone::{UndoOf, Undone};
