//! Makes, stores and fetches keys, and opens values again: master keys in key services, data keys in the key store.
//!
//! ```text
//! master key (key service) ──wraps──▶ data key, token key, subjects' key (key store) ──▶ values
//!                                                         └──wraps──▶ key of a data subject ──▶ values
//!
//! Keyring: makes keys, installs them into the Sealer       Opener: fetches keys, unwraps them, opens values
//! ```
//!
//! A wrapped key is durable in the key store before anything is encrypted under it. A daemon makes a new data key when
//! it first needs one, and so never unwraps those of earlier runs. So a daemon that may only wrap is enough, unless
//! tokens or data subjects are configured, whose keys last. Only [`Keyring::obtain`] and [`Keyring::renew`] try again;
//! all other callers decide themselves how to wait.
//!
//! # Rules about keys
//!
//! - **A wrapped key is stored before anything is encrypted under it.** `Keyring::provide` adds to the key store,
//!   commits, and only then installs into the `Sealer`, which is the only part that the path of a change calls. The
//!   sealer answers at once, with text or with the key that it needs; the caller then waits in `Keyring::obtain`,
//!   and nothing passes meanwhile.
//! - **Each side of a change is sealed for itself** where it is another person's (`subject`) or is bound to another
//!   value (`bind`); else the row before shares the cells of the row after. If it is not known whose a value is,
//!   the value is hidden, never encrypted under a wider key.
//! - **A chunk of a baseline that wants a key goes on where it wanted it** (`stage/chunk.rs`): if it began again
//!   each time, a chunk with more people than memory has keys for would never end.
//! - **A run never unwraps what an earlier run made**, except the keys that last (tokens, data subjects): each
//!   start makes its own data keys.
//! - **Nonces need no state**: each `Sealer` derives its own keys from data keys, by a random run id, and counts
//!   (`audit-cipher/src/lib.rs` says why).
//! - **No trait for key services**: an `enum` of five, each of which wraps and unwraps 32 bytes in a context.
//!   Credentials of AWS and Google are `object_store`'s, so that lakes and keys are reached in one way.

mod access;
mod admin;
mod class;
mod config;
mod error;
mod kept;
mod keyring;
mod master;
mod opener;
mod reveal;
mod searched;
mod store;

pub use access::{Access, Accesses, Ask};
pub use admin::{Erased, KeyAdmin, Rewrapped};
pub use config::{AwsMaster, AzureMaster, Connection, GcpMaster, KeyClass, LocalMaster, Master, VaultMaster};
pub use error::{KeyError, OpenError};
pub use keyring::{Keyring, Waiting};
pub use master::{MasterKey, Place, Wrapped, append_version};
pub use opener::Opener;
pub use searched::Searched;
pub use store::{Generation, KeyStore, StoredKey, StoredSubject, rewriting};
