//! What `setup` and `teardown` share: whose sessions they use, and how a plan looks.

use audit_capture::{On, Plan, Statement, Step};
use audit_config::{visible, visible_lines};
use audit_connect::PgEndpoint;
use audit_hot::SetupOptions;
use serde_json::{Value, json};

use crate::config::{Config, SinkConfig};
use crate::error::{CliError, code};
use crate::output::{on_terminal, print_exactly};
use crate::role::{database, endpoint};
use crate::sinks::Needs;

/// Who does it, where the daemon's own roles may not.
#[derive(Debug, clap::Args)]
pub struct Who {
    /// Connect to the source as another role, which owns the tables. Its password comes from PGPASSFILE, ~/.pgpass or PGPASSWORD.
    #[arg(long = "as", value_name = "URL")]
    admin: Option<String>,
    /// Connect to the database of a hot sink as another role. Default: --as where it is the source's own database.
    #[arg(long, value_name = "SINK=URL")]
    sink_as: Vec<String>,
    /// The role that owns the tables of hot sinks; made where it is missing. Default: the role that connects.
    #[arg(long, value_name = "ROLE")]
    owner: Option<String>,
}

/// One database with hot sinks.
pub struct HotDatabase {
    pub admin: PgEndpoint,
    pub options: SetupOptions,
}

impl HotDatabase {
    /// What is in it, and where it is.
    pub fn describe(&self) -> String {
        let keys = self.options.keys.then_some("key store");
        let what: Vec<&str> = self.options.sinks.iter().map(String::as_str).chain(keys).collect();
        format!("{} {}", what.join(", "), self.admin.describe())
    }
}

impl Who {
    pub fn source(&self, config: &Config) -> Result<PgEndpoint, CliError> {
        self.admin.as_ref().map_or_else(|| Ok(config.source.endpoint.clone()), |url| endpoint("--as", url))
    }

    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// The databases of the hot sinks, and those where checkpoints of webhooks lie, each with the sinks in it.
    pub fn hot<'c>(&self, config: &'c Config) -> Result<Vec<HotDatabase>, CliError> {
        let needed = |(name, sink): (&'c String, &'c SinkConfig)| match sink.needs(name, config) {
            Needs::Tables { endpoint, versions } => Some((name, endpoint, versions)),
            Needs::Topic { .. } | Needs::Nothing => None,
        };
        let mut tables: Vec<_> = config.sinks.iter().filter_map(needed).collect();
        // Hot sinks first: a webhook's checkpoint lies beside their versions.
        tables.sort_by_key(|(.., versions)| versions.is_none());
        let mut databases: Vec<(String, HotDatabase)> = Vec::new();
        for (name, endpoint, versions) in &tables {
            let known = self.database(&mut databases, config, name, endpoint)?;
            known.options.sinks.push((*name).clone());
            let Some(hot) = versions else { continue };
            if !known.options.checkpoints_alone && known.options.partitioning != hot.partitioning {
                return Err(CliError::new(format!(
                    "hot sink {name} shares a database with another, and is partitioned in another way"
                ))
                .hint("set the same `partitioning` for both, or give them databases of their own".to_owned())
                .code(code::USAGE));
            }
            (known.options.partitioning, known.options.checkpoints_alone) = (hot.partitioning, false);
            known.options.archive_grace = known.options.archive_grace.max(hot.archive_grace);
        }
        if !config.protection.keys.is_empty() {
            // In the database of a hot sink, which is known by now, or in the source's, which belongs to none.
            self.database(&mut databases, config, "", config.key_store())?.options.keys = true;
        }
        let given = self.sink_as.iter().filter_map(|text| text.split_once('=').map(|(name, _)| name));
        let has_database = |name: &str| tables.iter().any(|(known, ..)| *known == name);
        if let Some(unknown) = given.into_iter().find(|name| !has_database(name)) {
            return Err(CliError::new(format!("--sink-as: there is no hot sink {unknown}")).code(code::USAGE));
        }
        Ok(databases.into_iter().map(|(_, database)| database).collect())
    }

    /// The database at `endpoint`, which this sink needs.
    fn database<'d>(
        &self,
        databases: &'d mut Vec<(String, HotDatabase)>,
        config: &Config,
        sink: &str,
        endpoint: &PgEndpoint,
    ) -> Result<&'d mut HotDatabase, CliError> {
        let writer = endpoint.parse()?.user().to_owned();
        let place = format!("{} as {writer}", database(endpoint));
        let at = match databases.iter().position(|(known, _)| *known == place) {
            Some(at) => at,
            None => {
                let options = SetupOptions {
                    source: config.source.name.clone(),
                    owner: self.owner.clone(),
                    writer: Some(writer),
                    checkpoints_alone: true,
                    ..SetupOptions::default()
                };
                databases.push((place, HotDatabase { admin: self.sink(config, sink, endpoint)?, options }));
                databases.len() - 1
            }
        };
        Ok(&mut databases[at].1)
    }

    fn sink(&self, config: &Config, name: &str, own: &PgEndpoint) -> Result<PgEndpoint, CliError> {
        for text in &self.sink_as {
            let Some((sink, url)) = text.split_once('=') else {
                return Err(CliError::new("--sink-as needs SINK=URL").code(code::USAGE));
            };
            if sink == name {
                return endpoint("--sink-as", url);
            }
        }
        match &self.admin {
            Some(url) if database(own) == database(&config.source.endpoint) => endpoint("--as", url),
            _ => Ok(own.clone()),
        }
    }
}

/// Statements for a hot sink's database, all of them or none.
pub fn hot_plan(statements: Vec<audit_hot::Statement>) -> Plan {
    let mut steps = vec![run("all of it or nothing", "BEGIN")];
    steps.extend(each(statements).steps);
    steps.push(run("done", "COMMIT"));
    Plan { refusals: Vec::new(), steps }
}

/// Statements for a hot sink's database, each by itself.
pub fn each(statements: Vec<audit_hot::Statement>) -> Plan {
    let steps = statements.iter().map(|statement| run(&statement.why, &statement.sql));
    Plan { refusals: Vec::new(), steps: steps.collect() }
}

fn run(why: &str, sql: &str) -> Step {
    Step::Run(Statement { on: On::Admin, why: why.to_owned(), sql: sql.to_owned() })
}

/// A step as a piece of an SQL script: what is not run is a comment.
pub fn show(step: &Step) -> Result<(), CliError> {
    print_exactly(script(step, on_terminal()))
}

/// ⚠ The script is for psql to run as an owner or a superuser, and everybody who may create a table chooses a name that stands in it. In a comment
/// nothing of it may begin a line; statements quote it. A person sees what psql would read as it is.
fn script(step: &Step, for_person: bool) -> String {
    match step {
        Step::Exists { what } => comment("exists: ", what),
        Step::Run(statement) => {
            let sql = if for_person { visible_lines(&statement.sql) } else { statement.sql.as_str().into() };
            format!("\n{}\n{sql};", comment("", &statement.why))
        }
        Step::ByHand { statement, who } => {
            let what = comment(&format!("for {who} to run: "), &statement.why);
            format!("\n{what}\n{};", comment("", &statement.sql))
        }
        Step::Note { message, hint } => {
            let hint = hint.iter().map(|hint| format!("\n{}", comment("  hint: ", hint)));
            format!("\n{}{}", comment("note: ", message), hint.collect::<String>())
        }
    }
}

/// Lines of a comment, of which a text from elsewhere cannot break out.
pub fn comment(label: &str, text: &str) -> String {
    let text = format!("{label}{text}");
    text.split('\n').map(|line| format!("-- {}", visible(line))).collect::<Vec<_>>().join("\n")
}

/// The steps for a script to read. `on`: `source`, or the address of a hot database.
pub fn as_json(on: &str, plan: &Plan) -> Vec<Value> {
    let step = |step: &Step| match step {
        Step::Exists { what } => json!({ "on": on, "step": "exists", "what": what }),
        Step::Run(statement) => json!({ "on": on, "step": "run", "why": statement.why, "sql": statement.sql }),
        Step::ByHand { statement, who } => {
            json!({ "on": on, "step": "by_hand", "who": who, "why": statement.why, "sql": statement.sql })
        }
        Step::Note { message, hint } => json!({ "on": on, "step": "note", "message": message, "hint": hint }),
    };
    plan.steps.iter().map(step).collect()
}

/// What keeps a plan from being executed, as one error.
pub fn refused(plan: &Plan) -> Result<(), CliError> {
    let Some((first, rest)) = plan.refusals.split_first() else { return Ok(()) };
    let error = CliError::new(first.message.clone()).hint(first.hint.clone());
    Err(rest.iter().fold(error, |error, refusal| error.detail(format!("and {}: {}", refusal.message, refusal.hint))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// psql ends a comment at either line break.
    #[test]
    fn a_name_never_becomes_a_statement_of_the_script() {
        for line_break in ["\n", "\r", "\r\n", "\u{85}", "\u{2028}", "\u{2029}"] {
            let name = format!("x{line_break}ALTER ROLE mallory SUPERUSER;{line_break}--");
            let statement = |sql: &str| Statement { on: On::Admin, why: format!("for {name}"), sql: sql.to_owned() };
            for step in [
                Step::Exists { what: name.clone() },
                Step::Note { message: name.clone(), hint: Some(name.clone()) },
                Step::ByHand { statement: statement(&name), who: name.clone() },
                Step::Run(statement("SELECT 1")),
            ] {
                let told = script(&step, false);
                let outside = |line: &&str| !line.is_empty() && !line.starts_with("-- ") && *line != "SELECT 1;";
                let lines: Vec<&str> = told.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).collect();
                assert_eq!(lines.iter().find(|line| outside(line)), None, "{told}");
            }
        }
        let quoted = Statement { on: On::Admin, why: "why".into(), sql: "ALTER TABLE \"\u{1b}[2J\n\"".into() };
        assert_eq!(script(&Step::Run(quoted.clone()), true), "\n-- why\nALTER TABLE \"\\u{1b}[2J\n\";");
        assert_eq!(script(&Step::Run(quoted), false), "\n-- why\nALTER TABLE \"\u{1b}[2J\n\";");
    }
}
