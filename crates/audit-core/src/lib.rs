//! The pure heart of `cdc-audit`.
pub mod position;
