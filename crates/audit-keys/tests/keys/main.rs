//! Master keys, the key store and what they do together, against real servers.
//!
//! - `masters`: one suite over every kind of master key: a local keyring, AWS KMS (moto), Vault (where it is installed, and a double),
//!   Google Cloud KMS and Azure Key Vault (doubles that speak the documented protocol: nobody here has seen the services themselves).
//! - `faults`: services that are down, slow, deny, have disabled a key, or talk nonsense.
//! - `keyring`: keys made, stored, rotated, rewrapped and destroyed in PostgreSQL, and values through them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing server is a failing test")]

mod doubles;
mod faults;
mod keyring;
mod masters;
mod services;
