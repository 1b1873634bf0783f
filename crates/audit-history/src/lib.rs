//! Questions over what the sinks hold: the trail of a row, and exports that can be proved.

pub mod export;
mod store;

pub use export::{ExportError, ExportRequest, Manifest, export};
pub use store::{Part, Selection, Store, StoreError};
