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
