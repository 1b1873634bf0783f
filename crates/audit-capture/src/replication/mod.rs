//! A replication connection: from the login to chunks of frames, and feedback on the way back.
//!
//! The PostgreSQL driver has no replication mode, so the protocol's few messages are implemented here, over the
//! transport that `audit-connect` opens.
//!
//! ```text
//!             the thread "replication"                                the consumer
//!  socket ──▶ inbox ──whole messages──▶ Chunk ──bounded channel──▶ Receiver::recv ──▶ Chunk::frames
//!  socket ◀── feedback ◀─────────────────────────── watch<Lsn>: what every sink has stored
//! ```
//!
//! What it guarantees:
//!
//! - **Nothing is skipped or repeated.** The stream starts at the slot's position (`0/0`). Frames arrive in order,
//!   complete, and as the server sent them. After an error, all frames that were complete before it are delivered, then
//!   the error.
//! - **The server is told only what is stored**: the flush position is the watched one, never the received one.
//! - **The connection stays alive however long the consumer takes.** When the channel is full, the thread stops reading
//!   and continues to send updates. Requests of the server then wait unread in the socket and go unanswered; the
//!   periodic update, sent at a third of `wal_sender_timeout`, keeps that timeout from ending the connection.
//! - **Memory is bounded**: four chunks and a buffer, of 256 KiB each, or of one message if that is larger, up to
//!   `message_limit`. Logical messages, which any login can write at any length, never need more than the buffer.
//! - **The server sets the speed** and is not slowed down by how it is read: see `pace`.
//!
//! Files in the order of processing: `client` (the handle and its thread), `session` (before the stream), `auth`,
//! `identity`, then `receive` (the loop), `inbox`, `logical`, `pace` and `feedback` (its decisions, without I/O),
//! `frame` and `receiver` (the consumer's view), `traffic` (counters), `error`.

mod auth;
mod client;
mod error;
mod feedback;
mod frame;
mod identity;
mod inbox;
mod logical;
mod pace;
mod receive;
mod receiver;
mod session;
mod traffic;

pub use client::{ReplicationClient, STATUS_INTERVAL};
pub use error::ReplicationError;
pub(crate) use error::memory_needed;
pub use frame::{Chunk, Frame, FrameError, FrameProblem, Frames};
pub use identity::{Identity, TimelineFork};
pub use receive::StreamOptions;
pub use receiver::Receiver;
pub use session::Row;
pub use traffic::Traffic;
