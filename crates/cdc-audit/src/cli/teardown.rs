//! `cdc-audit teardown`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use audit_capture::{Plan, Step, apply, teardown};
use tokio_postgres::Client;

use crate::admin::{Who, comment, hot_plan, refused, show};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::print;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit teardown --keep-history\n  cdc-audit teardown --as postgres://owner@db.internal/shop\n\n\
    Drops the slot, the publication and what setup made in the source, and the audit tables of hot sinks with everything recorded in \
    them. Lakes, topics and the tables of your application are left as they are."
)]
pub struct Args {
    /// Leave what was recorded where it is.
    #[arg(long)]
    keep_history: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    who: Who,
}

const APPLICATION_NAME: &str = "cdc-audit teardown";

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let admin = args.who.source(config)?;
    let daemon_role = config.source.endpoint.parse()?.user().to_owned();
    let client = audit_connect::connect(&admin, APPLICATION_NAME).await?;
    let plan = teardown::plan(&client, &config.source, &daemon_role).await?;
    // The source first: its slot is what costs while nobody captures.
    let mut targets: Vec<(String, Client, Plan)> = vec![(format!("source {}", admin.describe()), client, plan)];
    // A key store alone stays: what lies in lakes and topics is readable only through it.
    for hot in args.who.hot(config)?.into_iter().filter(|hot| !hot.options.sinks.is_empty()) {
        let client = audit_connect::connect(&hot.admin, APPLICATION_NAME).await?;
        let plan = hot_plan(audit_hot::teardown_statements(&hot.options, args.keep_history));
        targets.push((hot.describe(), client, plan));
    }
    for (place, _, plan) in &targets {
        refused(plan)?;
        print(comment("", place))?;
        plan.steps.iter().try_for_each(show)?;
        print("")?;
    }
    for (name, sink) in &config.sinks {
        if let Some(what) = sink.remains() {
            print(format!("-- {name}: {what}"))?;
        }
    }
    if !args.yes {
        confirm(&config.source.name, args.keep_history)?;
    }
    let needs_daemon = targets.iter().any(|(_, _, plan)| plan.needs_daemon());
    let daemon = match needs_daemon {
        true => Some(audit_connect::connect(&config.source.endpoint, APPLICATION_NAME).await?),
        false => None,
    };
    for (_, client, plan) in &targets {
        apply(plan, client, daemon.as_ref(), |_: &Step| {}).await?;
    }
    eprintln!("Done.");
    Ok(ExitCode::SUCCESS)
}

/// Asks for the source's name, which nobody types by accident.
fn confirm(source: &str, keep_history: bool) -> Result<(), CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(CliError::new("teardown asks before it drops anything, and there is nobody to ask")
            .hint("run it on a terminal, or with --yes".to_owned())
            .code(code::USAGE));
    }
    let lost = if keep_history { "" } else { ", and the history in the hot sinks" };
    eprint!("This drops everything above{lost}. Type the source's name ({source}) to go on: ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match read.is_ok() && answer.trim() == source {
        true => Ok(()),
        false => Err(CliError::new("nothing was dropped: that is not the source's name")),
    }
}
