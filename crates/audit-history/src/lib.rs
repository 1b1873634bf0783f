//! Questions over what the sinks hold: the trail of a row, and exports that can be proved.

pub mod export;
mod lines;
mod store;

pub use export::{ExportError, ExportRequest, Lag, Manifest, export};
pub use store::{Head, Part, Selection, Store, StoreError};
