//! The pure heart of `cdc-audit`: what positions, shapes, changes and versions are, how a change becomes a version, and
//! how a version is protected. Nothing here does I/O, so nothing here can fail because of the outside world.
//!
//! ```text
//! Change ──assemble──▶ in its transaction ──version──▶ RawVersion ──protect──▶ Batch of protected versions ──▶ Sink
//! ```

pub mod assemble;
pub mod baseline;
pub mod batch;
pub mod change;
pub mod content;
pub mod context;
pub mod events;
pub mod expand;
pub mod inside;
pub mod json;
pub mod mac;
pub mod mask;
pub mod method;
pub mod plan;
pub mod position;
pub mod protect;
pub mod quarantine;
pub mod record;
pub mod rules;
pub mod shape;
pub mod sink;
pub mod stored;
pub mod table;
pub mod value;
pub mod version;
pub mod versions_table;
