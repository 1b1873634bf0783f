//! Puts rows of the source back to what they were: from versions of the trail to statements, and their execution.
//!
//! ```text
//! Record ──resolve──▶ Change ──fold──▶ Net ──goal──▶ Goal ──look──▶ Row ──order──▶ Step ──write──▶ the database
//!                     (names and      (one a row)   (columns to    (locked and    (one statement)
//!                      texts of now)                 be written)    compared)
//! ```
//!
//! Everything from the locked rows to the commit is one transaction of the operator's own session ([`run`](fn@run)):
//!
//! - **Nothing is overwritten unseen.** Each row is locked and compared with its values after the version. A difference
//!   is a conflict, and nothing is written. The statements compare once more.
//! - **Only what is certain is written.** A value that the trail does not have is refused by the column's name. What the
//!   rules protect is left alone and listed: no mask and no hash reaches the source.
//! - **Constraints and triggers stay on.** Statements are ordered by foreign keys and unique constraints (`order.rs`).
//!   What the server's cascades would do to rows of other transactions is counted before, and refused. What triggers did
//!   is found afterwards, by reading the rows again and by the server's own counts, and is rolled back unless accepted.
//! - **An undo is a change like any other**: said by `set_context`, recorded as versions, and it can be undone.

mod approval;
mod catalog;
mod effects;
mod error;
mod goal;
mod look;
mod net;
mod order;
mod report;
mod resolve;
mod run;
mod script;
mod sql;
mod text;
mod write;

pub use approval::approve;
pub use catalog::Catalog;
pub use error::{Conflict, Dependents, Error, Refusal};
pub use goal::LeftAlone;
pub use net::{Cell, Change, Event, Net, fold};
pub use report::{Effect, Estimate, Later, Outcome, Report, Request, Statement};
pub use resolve::{Derived, Resolved, Trail, resolve};
pub use run::run;
pub use script::script;
