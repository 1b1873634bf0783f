//! What the operator wants ([`Request`]), and what was done ([`Report`]).

use audit_core::position::Lsn;
use serde_json::{Map, Value};

use crate::error::Conflict;
use crate::goal::LeftAlone;

/// What happens to rows that were changed after the version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Later {
    /// Nothing at all is written.
    #[default]
    Refuse,
    /// These rows stay as they are.
    Keep,
    /// Nothing is written either, but the rows that depend on it are named, so that they can be undone too.
    With,
    /// What was written later is overwritten.
    Force,
}

/// What the operator wants.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// What `set_context` says besides what is undone.
    pub context: Map<String, Value>,
    /// The commit and the number of the transaction, if all its versions are undone.
    pub whole: Option<(Lsn, u32)>,
    /// Only these columns, of updates.
    pub fields: Option<Vec<String>>,
    pub later: Later,
    pub max_rows: usize,
    /// Commit even if triggers changed more than was asked for.
    pub accept_triggers: bool,
    /// Commit; otherwise everything is rolled back.
    pub apply: bool,
    /// Logins, or groups of them, of which one has to approve before anything is committed; nobody has to if it is empty.
    pub approvers: Vec<String>,
}

/// What is to be done, before it begins.
#[derive(Clone, Copy, Debug)]
pub enum Estimate {
    Rows {
        rows: usize,
        tables: usize,
    },
    /// By the time that the first rows took.
    Time {
        seconds: u64,
        rows_per_second: u64,
    },
}

/// A statement that was run.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Statement {
    pub sql: String,
    pub row: String,
    pub rows: u64,
    /// Each counted the rows that a cascade of the statement would touch besides those of the undo, and found none.
    #[serde(skip)]
    pub guards: Vec<String>,
}

/// Something that was changed and not asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Effect {
    pub table: String,
    pub key: Option<String>,
    pub column: Option<String>,
    pub what: String,
    /// It is about a column that accompanies other changes, and no reason to roll back.
    pub is_usual: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    /// It ran and was rolled back, because it was not to be applied.
    #[default]
    Tried,
    /// It was rolled back because triggers changed more than was asked for.
    Bent,
}

#[derive(Debug, Default)]
pub struct Report {
    pub outcome: Outcome,
    pub statements: Vec<Statement>,
    /// Rows that were changed later and stay as they are.
    pub kept: Vec<Conflict>,
    pub left_alone: Vec<LeftAlone>,
    pub effects: Vec<Effect>,
    pub warnings: Vec<String>,
    /// The transaction's whole id.
    pub xid: String,
    /// What `set_context` said.
    pub context: String,
    /// The hash of what is written, for what and why.
    pub plan: String,
}
