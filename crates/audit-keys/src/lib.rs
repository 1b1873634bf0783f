//! Where keys come from: master keys in key services, data keys in the key store, and what opens values again.
//!
//! ```text
//! master key (key service) ──wraps──▶ data key, token key, subjects' key (key store) ──▶ values        Keyring: makes, installs into Sealer
//!                                                         └──wraps──▶ key of a data subject ──▶ values  Opener: fetches, unwraps, opens
//! ```
//!
//! A wrapped key is durable in the key store before anything is encrypted under it. A daemon makes a new data key when it first needs one,
//! and so never unwraps those of earlier runs: who may only wrap can run it, unless tokens or data subjects are configured, whose keys last.
//! Nothing here is retried: who waits decides how.

mod access;
mod admin;
mod class;
mod config;
mod error;
mod kept;
mod keyring;
mod master;
mod opener;
mod store;

pub use access::{Access, Ask};
pub use admin::{Erased, KeyAdmin, Rewrapped};
pub use config::{AwsMaster, AzureMaster, Connection, GcpMaster, KeyClass, LocalMaster, Master, VaultMaster};
pub use error::{KeyError, OpenError};
pub use keyring::{Keyring, Waiting};
pub use master::{MasterKey, Place, Wrapped, append_version};
pub use opener::Opener;
pub use store::{Generation, KeyStore, StoredKey, StoredSubject};
