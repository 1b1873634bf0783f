//! What `setup` and `teardown` do, one [`Step`] after the other: planned, shown, then executed by [`apply`].

use tokio_postgres::Client;

use crate::query::QueryError;

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// As it should be: nothing is done.
    Exists {
        what: String,
    },
    Run(Statement),
    /// The session's role may not run it: somebody else has to.
    ByHand {
        statement: Statement,
        who: String,
    },
    /// Nothing to run, but to know.
    Note {
        message: String,
        hint: Option<String>,
    },
}

/// A statement, without the semicolon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub on: On,
    pub why: String,
    pub sql: String,
}

/// Which session runs a statement on the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// The one that setup was given.
    Admin,
    /// The daemon's own: it may use replication slots, the other may not.
    Daemon,
}

/// What keeps a plan from being executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub message: String,
    pub hint: String,
}

/// Everything to do, in order. With refusals nothing is to be done.
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

    /// Statements that somebody else has to run before everything is in place.
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

    /// Runs it where `allowed`; else it is left to `who`.
    pub(crate) fn run_if(&mut self, allowed: bool, who: &str, why: impl Into<String>, sql: impl Into<String>) {
        let statement = Statement { on: On::Admin, why: why.into(), sql: sql.into() };
        self.steps.push(match allowed {
            true => Step::Run(statement),
            false => Step::ByHand { statement, who: who.to_owned() },
        });
    }
}

/// Executes the plan's statements in order, each by itself; `announce` sees every step before its turn. Stops at the
/// first that fails: whatever was done before it is found, and not done again, by the next run.
///
/// `daemon` is needed where [`Plan::needs_daemon`] says so.
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

/// A statement's beginning, for an error that names it.
fn shortened(sql: &str) -> String {
    const SHOWN_MAX: usize = 70;
    let line = sql.lines().next().unwrap_or_default();
    match line.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.len() < sql.len() => format!("{line} …"),
        None => line.to_owned(),
    }
}
