//! Master keys, the key store and what they do together, against real servers.
//!
//! - `masters`: one suite for every kind of master key: a local keyring, AWS KMS (moto), Vault (a double, and the real
//!   one if it is installed), Google Cloud KMS and Azure Key Vault (doubles that speak the documented protocol, because
//!   the services themselves were never available for tests).
//! - `faults`: services that are down or slow, deny access, have disabled a key, or give invalid answers.
//! - `keyring`: keys that are made, stored, rotated, rewrapped and destroyed in PostgreSQL, and values encrypted with
//!   them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing server is a failing test")]

mod doubles;
mod faults;
mod keyring;
mod masters;
mod services;
