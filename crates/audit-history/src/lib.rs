//! Reads what the sinks have stored: the trail of a row, and exports that can be verified.

pub mod activity;
pub mod compare;
pub mod csv;
pub mod export;
mod key;
pub mod question;
mod renames;
pub mod report;
pub mod row;
pub mod rows;
pub mod schema;
pub mod search;
mod store;
mod timeline;
pub mod transaction;

pub use export::{Compression, ExportError, ExportRequest, Form, Format, Lag, Manifest, Target, export};
pub use key::{KeyForm, NotAKey};
pub use renames::{Renames, renamed};
pub use store::{Head, Part, Selection, Store, StoreError};
pub use timeline::{Absence, Coverage, Explained, Gap, Reached, Span, Timeline};
