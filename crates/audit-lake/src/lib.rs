//! The lake: Parquet files in Delta tables, written exactly once and read back.
//!
//! Each captured table has one Delta table, in folders by UTC commit date. Two kinds of readers see each version
//! exactly once: readers of the Delta log, because every commit holds its position as an application transaction and is
//! written by compare-and-set; and readers that list the folders `data/`, because a file that a kill left without its
//! commit is adopted and never written again ([`adopt`]).
//!
//! ```text
//! Batch ──▶ OpenTable ──rows──▶ OpenFile ──Parquet──▶ object store ──▶ Delta commit ──▶ the lake's checkpoint
//!           (session, table)    (cells, rows, encode)  (store)          (commit)         (checkpoint)
//! ```
//!
//! Small files go to `fresh/`, which only the log names, and are rolled into larger ones ([`table`], [`merge`]).
//!
//! The order of writes guarantees this: data is written before the log that names it, and the log before the checkpoint
//! that depends on it; each is durable before the next begins. Versions that are missing after a kill at any point are
//! sent again, because the checkpoint lags.
//!
//! # Disk and buckets
//!
//! One code for disk and clouds: `ObjectStore` puts, lists, reads. What differs is known in two places, `store.rs`
//! and `cloud.rs`.
//!
//! - **Create once is one put.** Delta commits, checkpoints and small data files are put on the condition that
//!   nothing is there. A store that ignores it would let two daemons overwrite each other, so each start, and
//!   `check`, proves it by creating the same object twice.
//! - **Only the answer "done" is trusted.** Clients repeat a request whose answer was lost, and then hear that the
//!   object exists. A commit is ours if the entry names our files, a checkpoint if it has our owner id, a data file
//!   if it has our name and its size: the name holds the owner epoch, so no other daemon writes it. For the same
//!   reason an upload in parts, whose end is unconditional everywhere, is harmless: it can only be repeated with
//!   the same bytes.
//! - **Nothing is copied or renamed.** A file's name contains its last version, so it can be named only when it is
//!   complete. On disk it is staged and renamed; in a bucket it waits in memory, encoded, within what the sink may
//!   hold, and is closed early if that limit is reached.
//! - **An error of a store says nothing about the lake.** If reading the log fails because of the store, it is
//!   tried again.
//!
//! # Tenants
//!
//! - **A lake has a home and, where `url` names tenants, a store for each** (`tenants.rs`). A plain lake is one
//!   that has only its home: sessions keep tables by tenant and name, and nothing else knows the difference.
//! - **One checkpoint, one owner epoch, in the home.** A tenant is noted there, create-only, before anything is put
//!   to its store, so that successors, readers and compactions find all of them. The note binds the place; the
//!   store says which home it belongs to, so two lakes never share one.
//! - **A tenant's name is a value of a row.** What it becomes in a path or a bucket's name is injective and holds
//!   no separator; a name that would lead into the home is written in another way.
//! - **A chunk that is spread over tenants counts when home says so** (`table/chunks.rs`). All files are put; one
//!   commit in home's table says how far the baseline is, and by which owner; then each tenant's table commits its
//!   own. At the next start home's tables get a commit of our own first; then files of the last chunks by that
//!   owner are committed, all others removed and read again. Read again they may differ: half a chunk that stayed
//!   would be there twice, or not at all. No chunks are decided before those before them are in every log.
//! - **Few tables are in memory.** For tables with fresh files that were closed, the daemon remembers when their
//!   roll is due; then it opens some at a time, in a fraction of the stream's time.
//! - **A tenant without a store goes home** (`session/tenants.rs`) after a while. One object in the home, created
//!   once, says permanently, for all daemons, which of the two it is: so a row that is sent again after a kill goes
//!   to the same place as before.
//!
//! # Fresh files, rolls and compaction
//!
//! - **What is small is fresh.** Its place is decided when a file is whole; the commit is the same. A kill before
//!   the commit leaves a fresh file that nobody sees: it is removed, and its versions come again. One in `data/` is
//!   adopted, because readers that list have seen it.
//! - **A roll** (`session/roll.rs`, `merge.rs`) runs beside the stream, one at a time: it reads fresh files of one
//!   partition, sorts them by key and position (`sort.rs`: in memory, beyond that by way of files without a name),
//!   puts one file into `data/`, and makes one commit that names it and no longer names them. Before the first roll
//!   after a start, or after one that failed, unfinished ones are settled (`table/fresh.rs`): a file of `data/`
//!   that the log does not name, at or before the table's position, is committed if it has as many rows as the
//!   fresh files in its range, else removed, in both cases after a commit of our own. Small files are read whole,
//!   many at a time.
//! - **A failed roll concerns its table only** (`session/held_back.rs`): the table waits, longer each time, and is
//!   named. Only an error that says that another daemon came first ends the session.
//! - **What a roll has replaced is removed without its table** (`session/sweep.rs`), a grace after the roll's file
//!   was put, so that neither tables that are not in memory nor a restart put it off. Just before, the partition is
//!   looked at once more: a fenced daemon may have written a roll of the same files late.
//! - **Beside other writers.** A compaction looks at every entry of the log since its list of files was read,
//!   whichever of its groups it commits; before another run removes the files of an interrupted one, a commit
//!   declares them abandoned; and fresh files that another engine has rewritten are not rolled any more. What is
//!   found to be ours after a failed put, what is adopted, and each log that a daemon begins to count on is first
//!   synced to disk (`Store::sync`).
//! - **Readers outlive files.** Where a file was replaced and removed before it could be read, the log is read
//!   again, and an export goes on after the last position that it gave.
//! - **A compaction** (`compact.rs`) does not take the lake over. Its files have a random mark in their names, by
//!   which the daemon recognises that they are not its own; its commits carry no transaction, so the daemon steps
//!   over them; and it commits only if everything it replaces is still named. What it has replaced is noted under
//!   `_cdc_audit/replaced` before the commit, and removed after a grace, as far as the log agrees.
//! - **A file says how it is sorted** (`sorting_columns` in its footer): by key and position. Rolled and compacted
//!   files are sorted whole, others row group by row group (`file.rs`), since more than that would have to wait in
//!   memory or on a disk; only files with rows above 4 MiB stay by position, as they came. Exports sort by position
//!   when they open a file.

mod adopt;
mod cells;
mod checkpoint;
mod cloud;
mod commit;
pub mod compact;
pub mod config;
mod encode;
pub mod error;
mod fetch;
mod file;
mod form;
pub mod layout;
pub mod lifecycle;
mod merge;
mod meter;
mod parse;
pub mod partition;
mod parts;
pub mod place;
mod probe;
mod read;
mod rows;
mod schema;
mod session;
pub mod sink;
mod sort;
mod stats;
pub mod store;
mod table;
pub mod tenant_names;
pub mod tenants;

pub use compact::{Compacted, Compactor};
pub use config::LakeConfig;
pub use error::LakeError;
pub use probe::probe;
pub use read::{FieldDescription, LakeReader, RowTrail, TableDescription};
pub use sink::LakeSink;
pub use tenants::Stores;
