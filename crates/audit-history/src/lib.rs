//! Questions over what the sinks hold: the trail of a row, and exports that can be proved.

pub mod export;
mod key;
mod lines;
mod store;

pub use export::{ExportError, ExportRequest, Lag, Manifest, export};
pub use key::{KeyForm, NotAKey};
pub use store::{Head, Part, Selection, Store, StoreError};
