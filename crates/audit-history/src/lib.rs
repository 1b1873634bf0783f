//! Reads what the sinks have stored: the trail of a row, and exports that can be verified.

pub mod activity;
mod commit;
pub mod csv;
pub mod export;
mod key;
pub mod question;
pub mod report;
pub mod row;
pub mod rows;
pub mod search;
mod store;
mod timeline;
pub mod transaction;

pub use commit::Commit;
pub use export::{Compression, ExportError, ExportRequest, Form, Format, Lag, Manifest, Target, export};
pub use key::{KeyForm, NotAKey};
pub use store::{Head, Part, Selection, Store, StoreError};
pub use timeline::{Absence, Coverage, Gap, Reached, Span, Timeline};
