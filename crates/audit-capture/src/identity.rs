//! When REPLICA IDENTITY FULL makes PostgreSQL refuse the application's UPDATE and DELETE: [`full_breaks`].
//!
//! The server checks at each such statement whether the publications of the row's table can identify the old row
//! (`CheckCmdReplicaIdentity` in its `execReplication.c`). Under FULL every column is part of the identity, so each
//! publication has to send every column. From version 15 on, a publication with a column list does not do so; from 18
//! on, neither does one that leaves out a generated column. (Before 18, generated columns were left out silently, and
//! nothing was refused.)

use audit_core::rules::Rules;

use crate::facts::{Membership, Table};

/// Why FULL would break, or does break, updates and deletions of this table; `None` if it is harmless.
///
/// `ours` is our publication's name, and whether it will send stored generated columns.
pub(crate) fn full_breaks(major: u32, table: &Table, memberships: &[Membership], ours: (&str, bool)) -> Option<String> {
    let family: Vec<u32> = table.family().collect();
    let mut holders = memberships.iter().filter(|member| family.contains(&member.oid));
    if let Some(lists) = holders.clone().find(|member| member.column_list) {
        return Some(format!("publication {} lists columns of it", lists.publication));
    }
    if major < 18 {
        return None;
    }
    if table.generated_virtual {
        return Some("it has a virtual generated column, which no publication can send".to_owned());
    }
    if !table.generated_stored {
        return None;
    }
    let leaves_out = if ours.1 { None } else { Some(ours.0) };
    let publication = leaves_out.or_else(|| {
        holders
            .find(|member| member.publication != ours.0 && !member.generated)
            .map(|member| member.publication.as_str())
    });
    publication.map(|name| format!("publication {name} does not send its generated columns"))
}

/// ⚠ The key that has to be configured before REPLICA IDENTITY FULL, so that rows that are recorded under the columns
/// of another index stay under them: the server forgets which index it was.
pub(crate) fn other_key(table: &Table, rules: &Rules) -> Option<String> {
    let columns = table.index_key.as_ref().filter(|_| rules.for_table(&table.name()).rule.key.is_none())?;
    let columns: Vec<String> = columns.iter().map(|column| format!("{column:?}")).collect();
    let columns = columns.join(", ");
    Some(format!("`key = [{columns}]` into its rule in `[[tables]]`, else its rows go on under another key than now"))
}
