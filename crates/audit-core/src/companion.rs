//! The names of companion columns, which hold what a further protection method leaves of a column.

use crate::method::Method;

/// The name of the companion column that holds what a further method leaves of a column.
pub fn companion_name(column: &str, method: Method) -> String {
    format!("{column}__{}", method.name())
}

/// The column whose companion would have this name.
pub fn companion_of(name: &str) -> Option<&str> {
    let (column, method) = name.rsplit_once("__")?;
    (!column.is_empty() && Method::ALL.iter().any(|known| known.combines() && known.name() == method)).then_some(column)
}
