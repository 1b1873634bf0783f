//! What answering a question took, as the stores note it: [`Cost`].

use std::collections::BTreeMap;

use serde::Serialize;

/// What was read of a store so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Statements for a database.
    pub statements: Vec<StatementCost>,
    /// Data files of a lake that were opened, each time.
    pub files: u64,
    /// Data files that the log's statistics excluded.
    pub files_skipped: u64,
    /// Row groups of the opened files that were read, at least some columns of them.
    pub row_groups: u64,
    /// Row groups that statistics or Bloom filters excluded.
    pub row_groups_skipped: u64,
    /// Bytes of data files that were fetched.
    pub bytes: u64,
}

/// Executions of one kind of statement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StatementCost {
    pub doing: String,
    pub times: u64,
    /// Rows that the server sent.
    pub rows: u64,
    /// How the server said that it reads tables, with the number of tables it reads so: `Index Scan by versions_key`.
    /// Empty if it was not asked.
    pub reads: BTreeMap<String, u64>,
}

impl Cost {
    /// The statement's entry.
    pub fn statement(&mut self, doing: &str) -> &mut StatementCost {
        let at = self.statements.iter().position(|statement| statement.doing == doing);
        let at = at.unwrap_or_else(|| {
            self.statements.push(StatementCost { doing: doing.to_owned(), ..StatementCost::default() });
            self.statements.len() - 1
        });
        &mut self.statements[at]
    }
}
