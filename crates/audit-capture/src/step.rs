//! The steps of `setup` and `teardown`, one [`Step`] after the other: planned, shown, then executed by [`apply`].

use tokio_postgres::Client;

use crate::query::QueryError;

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Already as it should be: nothing is done.
    Exists {
        what: String,
    },
    Run(Statement),
    /// The session's role may not run it, so another role has to.
    ByHand {
        statement: Statement,
        who: String,
    },
    /// Information for the operator; nothing is run.
    Note {
        message: String,
        hint: Option<String>,
    },
}

/// A statement, without its semicolon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub on: On,
    pub why: String,
    pub sql: String,
}

/// The session that runs a statement on the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The session that setup was given.
    Admin,
    /// The daemon's own session: it may use replication slots, the other one may not.
    Daemon,
}

/// A reason not to execute the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub message: String,
    pub hint: String,
}

/// All steps, in order. If there are refusals, none of them may be executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub refusals: Vec<Refusal>,
    pub steps: Vec<Step>,
}

impl Plan {
    /// Whether a statement needs the daemon's own session.
    pub fn needs_daemon(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Run(statement) if statement.on == On::Daemon))
    }

    /// The statements that another role has to run before everything is in place.
    pub fn by_hand(&self) -> impl Iterator<Item = &Statement> {
        self.steps.iter().filter_map(|step| match step {
            Step::ByHand { statement, .. } => Some(statement),
            _ => None,
        })
    }

    pub(crate) fn refuse(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.refusals.push(Refusal { message: message.into(), hint: hint.into() });
    }

    pub(crate) fn exists(&mut self, what: impl Into<String>) {
        self.steps.push(Step::Exists { what: what.into() });
    }

    pub(crate) fn note(&mut self, message: impl Into<String>, hint: Option<String>) {
        self.steps.push(Step::Note { message: message.into(), hint });
    }

    pub(crate) fn run(&mut self, why: impl Into<String>, sql: impl Into<String>) {
        self.steps.push(Step::Run(Statement { on: On::Admin, why: why.into(), sql: sql.into() }));
    }

    /// Adds a statement that is run if `allowed`; otherwise it is left to `who`.
    pub(crate) fn run_if(&mut self, allowed: bool, who: &str, why: impl Into<String>, sql: impl Into<String>) {
        let statement = Statement { on: On::Admin, why: why.into(), sql: sql.into() };
        self.steps.push(match allowed {
            true => Step::Run(statement),
            false => Step::ByHand { statement, who: who.to_owned() },
        });
    }
}

/// Executes the plan's statements in order, each by itself; `announce` gets every step before it is executed. Stops at
/// the first one that fails: the next run finds what was done before it and does not do it again.
///
/// `daemon` is needed if [`Plan::needs_daemon`] says so.
///
/// # Errors
/// Returns the [`QueryError`] of the first statement that fails.
pub async fn apply(
    plan: &Plan,
    admin: &Client,
    daemon: Option<&Client>,
    mut announce: impl FnMut(&Step),
) -> Result<(), QueryError> {
    for step in &plan.steps {
        announce(step);
        let Step::Run(statement) = step else { continue };
        let client = match statement.on {
            On::Admin => admin,
            On::Daemon => daemon.unwrap_or(admin),
        };
        let done = client.batch_execute(&statement.sql).await;
        done.map_err(|error| QueryError::of_statement(format!("run {}", shortened(&statement.sql)), error))?;
    }
    Ok(())
}

/// The beginning of a statement, for an error that names it.
fn shortened(sql: &str) -> String {
    const SHOWN_MAX: usize = 70;
    let line = sql.lines().next().unwrap_or_default();
    match line.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.len() < sql.len() => format!("{line} …"),
        None => line.to_owned(),
    }
}
