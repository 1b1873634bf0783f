//! The daemon's loop: it takes the stream of one source to its sinks, and reports back to the server what is durable.
//!
//! [`run`] starts one session after another; a [`session`] holds the lock on the slot; [`stage`] processes changes and
//! [`driver`] feeds it; [`fanout`] and [`sink_task`] bring batches to the sinks; [`continuity`] decides whether the
//! stream continues what they have.
//!
//! # Epochs
//!
//! An epoch ends when the server no longer continues what a sink has. Where the timelines' history names the fork,
//! transactions before it belong to the old epoch, so that a sink skips what it has of the history that both
//! servers share; the gap record is at the fork's position. Without a fork (another cluster, a restored copy on the
//! same timeline) the whole stream counts as new: skipping a new commit as old would lose it.
//!
//! A copy that is restored on the same timeline, and written to until its WAL is longer than what was lost, looks
//! like the old server in every fact. Only the stream shows the difference: the changes at the sinks' checkpoints
//! are not sent again. A checkpoint also says where its timeline began, since two restores may give their timelines
//! the same number.
//!
//! # When a sink goes back to an earlier state
//!
//! A standby that lagged takes over a hot database, a backup of a bucket is restored, a topic is created again: all
//! while the daemon runs. Each sink notices before it writes there: hot tables and ledgers where they open a
//! session, lakes before a commit and before a checkpoint (their last ones must still be there), Kafka before a
//! commit (its checkpoint topic must end later than before). The sink then gives up what it holds, and a new
//! session begins from what is there: the slot still has what is missing, or a gap is named. A lake of which only a
//! table went back puts its checkpoint back to what that table has, so that the gap is still named after a restart.
//! A key store is healed: the process stores its keys again. What no check before a write can see is a place that
//! goes back in the instant between the two.
//!
//! # What a table is
//!
//! - **A relation is looked up in the catalog at its first change, not when the server describes it**
//!   (`stage/tables.rs`), and again after the server has described it again: a primary key under REPLICA IDENTITY
//!   FULL is in no message. So a partition, which is described after its root and has no changes of its own, costs
//!   no look-up. Only one thing is asked about it: which columns its old rows have (`stage/target.rs`). An old row
//!   does not say which partition it comes from; it counts as whole if it has a value that none of the partial
//!   partitions would send. After a restart fewer partitions may be known, so a row of NULLs may be called whole in
//!   one sink and not in another; a value is never made up.
//! - **Only two things are taken from a sink: the number of a shape, and the key it had.** Both count only up to
//!   where some sink has stored the stream, so that all sinks have the same; after that position the catalog
//!   decides. Columns come from the message, types from the catalog or from the server's fixed numbers. A type that
//!   no longer exists counts as every type.
//! - **A shape is counted with its first version**, since one without versions is in no sink. The smallest free
//!   number is taken, so that a replay counts alike.
//! - **Renames**: shapes of one oid are one lineage, in which a column is known by its attribute number. What an
//!   earlier name says can only add protection. To take a name for gone, the daemon wants a witness: a shape of
//!   this process, or one sealed by a daemon of this source with one of the last three keys of contexts, which no
//!   writer of a sink has. Where there are keys, a shape that none of them sealed is asked for a number only.
//! - **One answer to which rules hold for an object** (`FormerNames`, `audit-core/src/rules/names.rs`): by its oid,
//!   from its name and those that it had, or that its root had while it was a partition. The stage, the runner of
//!   baselines, `check` and `plan` ask it. The catalog forgets such names, so the runner stores them at each look,
//!   with a place in the WAL (`cdc_audit.captured_names`). For what the stream has from before that place they may
//!   be names of the future, and their rules are not meant for it.

pub mod config;
pub mod continuity;
pub mod daemon;
mod driver;
pub mod error;
mod fanout;
mod retry;
pub mod run;
mod session;
mod sink_task;
pub mod slot;
pub mod stage;
pub mod status;

pub use sink_task::NamedSink;
