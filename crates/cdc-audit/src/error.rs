//! What a person sees when something cannot be done, and the code that a script sees.

use audit_config::{causes, visible_lines};
use std::fmt;
use std::process::ExitCode;

/// An error on its way to the terminal: message, detail (what caused it), hint.
#[derive(Debug)]
pub struct CliError {
    message: String,
    details: Vec<String>,
    hint: Option<String>,
    code: u8,
}

/// Exit codes that scripts can use; they are part of the interface (`cdc-audit help` lists them).
pub mod code {
    /// Something failed that may pass.
    pub const FAILED: u8 = 1;
    /// Wrong arguments or configuration.
    pub const USAGE: u8 = 2;
    /// `check` found what would keep `run` from starting; `status` found no daemon.
    pub const NOT_READY: u8 = 3;
    /// WAL was lost; nothing goes on without `--accept-gap`.
    pub const GAP: u8 = 4;
    /// Another daemon owns a sink.
    pub const FENCED: u8 = 5;
    /// `plan` found that something would be stored otherwise than before.
    pub const CHANGED: u8 = 6;
    /// `plan` found columns that no rule decides about, in a strict table.
    pub const UNDECIDED: u8 = 7;
    /// What was asked for was not found: a row, with `-q` any answer, with `keys destroy` a key of that data subject.
    pub const NOT_FOUND: u8 = 8;
    /// With `--strict`: the answer does not cover all that was asked for.
    pub const INCOMPLETE: u8 = 9;
    /// Something was found that somebody should look at: findings, or differences.
    pub const FINDINGS: u8 = 10;
    /// What was to be changed had been changed by someone else; nothing was written.
    pub const CONFLICT: u8 = 11;
}

impl CliError {
    pub fn new(message: impl Into<String>) -> CliError {
        CliError { message: message.into(), details: Vec::new(), hint: None, code: code::FAILED }
    }

    /// Takes the message and the chain of causes.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> CliError {
        let details = causes(error).map(ToString::to_string).collect();
        CliError { details, ..CliError::new(error.to_string()) }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> CliError {
        self.details.push(detail.into());
        self
    }

    pub fn hint(self, hint: impl Into<Option<String>>) -> CliError {
        CliError { hint: hint.into().or(self.hint), ..self }
    }

    pub fn code(self, code: u8) -> CliError {
        CliError { code, ..self }
    }

    /// Message and causes, as a clause.
    pub fn in_one_line(&self) -> String {
        let parts: Vec<&str> = [&self.message].into_iter().chain(&self.details).map(String::as_str).collect();
        parts.join(": ")
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

/// ```text
/// error: what happened
///   detail: why
///   hint: what to do
/// ```
impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", visible_lines(&self.message))?;
        for detail in &self.details {
            write!(f, "\n  detail: {}", visible_lines(detail).replace('\n', "\n    "))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {}", visible_lines(hint).replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

impl From<audit_config::Problems> for CliError {
    fn from(problems: audit_config::Problems) -> CliError {
        CliError::new(problems.to_string()).code(code::USAGE)
    }
}

/// The errors that say themselves what to do.
macro_rules! from_errors_with_hints {
    ($($error:ty),+ $(,)?) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> CliError {
                CliError::of(&error).hint(error.hint())
            }
        }
    )+};
}

from_errors_with_hints! {
    audit_capture::baseline::BaselineError,
    audit_connect::ConnectError,
    audit_history::ExportError,
    audit_history::NotAKey,
    audit_history::StoreError,
    audit_history::rows::RowsError,
    audit_hot::ReadError,
    audit_keys::KeyError,
    audit_lake::LakeError,
    audit_pipeline::error::RunError,
}

impl From<audit_core::sink::SinkError> for CliError {
    fn from(error: audit_core::sink::SinkError) -> CliError {
        CliError::of(&error).hint(error.hint.clone())
    }
}

impl From<audit_capture::QueryError> for CliError {
    fn from(error: audit_capture::QueryError) -> CliError {
        CliError::of(&error).hint(error.hint().map(str::to_owned))
    }
}

impl From<tokio_postgres::Error> for CliError {
    fn from(error: tokio_postgres::Error) -> CliError {
        match error.as_db_error() {
            // The server's hint, too, may quote what a function was given.
            Some(db) => CliError::new(format!("the server refused: {}", audit_connect::ServerError::from(db))),
            None => CliError::of(&error),
        }
    }
}
