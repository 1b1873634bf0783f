//! What every answer says of itself: what it covers, and what it lacks.

use std::process::ExitCode;

use audit_history::Coverage;

use crate::error::code;
use crate::output::note;

#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Strict {
    /// End with code 9 if the answer may not have everything.
    #[arg(long)]
    strict: bool,
}

impl Strict {
    /// Says what the answer covers. Returns the exit code: 9 where it has to be complete and is not.
    pub fn close(self, coverage: &Coverage, otherwise: ExitCode) -> ExitCode {
        note(coverage);
        self.code(coverage.complete, otherwise)
    }

    /// The exit code: 9 where the answer has to be complete and is not.
    pub fn code(self, is_complete: bool, otherwise: ExitCode) -> ExitCode {
        if self.strict && !is_complete { ExitCode::from(code::INCOMPLETE) } else { otherwise }
    }

    /// Whether the answer has to be complete and is not.
    pub fn refuses(self, coverage: &Coverage) -> bool {
        self.strict && !coverage.complete
    }
}
