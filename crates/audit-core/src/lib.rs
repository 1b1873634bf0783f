//! The pure heart of `cdc-audit`: what positions, shapes, changes and versions are, how a change becomes a version, and
//! how a version is protected. Nothing here does I/O, so nothing here can fail because of the outside world.
//!
//! ```text
//! Change ──assemble──▶ in its transaction ──version──▶ RawVersion ──protect──▶ Batch of protected versions ──▶ Sink
//! ```
//!
//! # Who and why: contexts
//!
//! - **The message is the contract.** A context travels as a transactional logical message in the transaction that
//!   it is about; nothing is stored in the source, and a savepoint that is rolled back takes what was said with it,
//!   since protocol 1 gives only what committed.
//! - **A signature, not a privilege**, tells `set_context` from others who may emit messages: HMAC over xid and
//!   text, under keys that `setup` makes and only their owner and the daemon read
//!   (`audit-core/src/context/signature.rs`). A message under a key that was made since makes the driver read the
//!   keys again.
//! - **A message costs no more than it is worth.** Anybody may write one of any size. One that is larger than the
//!   receiver's buffer is shortened as it arrives (`audit-capture/src/replication/logical.rs`): nothing of another
//!   program's message is kept, and the beginning of ours. A context has 16 KiB at the most. Keys are read again
//!   for a message under an unknown one at most once a second, and never for one that was written before they were
//!   last read: that one is forged.
//! - **What is missing is stored**, as `missing` in the version's context (`Batch::push_attributed`), so that
//!   readers need no rules to find it.

pub mod assemble;
pub mod baseline;
pub mod batch;
pub mod change;
pub mod companion;
pub mod content;
pub mod context;
pub mod cost;
pub mod events;
pub mod expand;
pub mod inside;
pub mod json;
pub mod jsonb;
pub mod mac;
pub mod mask;
pub mod method;
mod pattern;
pub mod plan;
pub mod position;
pub mod protect;
pub mod quarantine;
pub mod record;
pub mod rules;
mod seal;
pub mod search;
pub mod shape;
pub mod sink;
pub mod stored;
pub mod table;
pub mod totals;
pub mod trail;
pub mod value;
pub mod version;
pub mod versions_table;
