//! `cdc-audit setup`.

use std::process::ExitCode;

use audit_capture::{Plan, Refusal, Step, apply, setup};
use audit_hot::SetupOptions;
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::admin::{HotDatabase, Who, as_json, comment, each, hot_plan, refused, show};
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{print, print_json};
use crate::sinks::Needs;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdc-audit setup --dry-run > setup.sql\n  cdc-audit setup --as postgres://owner@db.internal/shop\n  \
    cdc-audit setup --replica-identity full --table public.users\n  cdc-audit setup --owner audit_owner --reader audit_reader --auditor \
    compliance\n\nEvery statement is printed before it is run; what exists is left \
    alone, so it can be run as often as you like. The role that runs it owns the tables; nobody needs to be superuser."
)]
pub struct Args {
    /// Print every statement, and the grants of a role with just enough rights; run nothing.
    #[arg(long)]
    dry_run: bool,
    /// Alter tables so that old values of updates and deletions are recorded. Costs WAL: `check` says how much.
    #[arg(long, value_name = "full")]
    replica_identity: Option<ReplicaIdentity>,
    /// Only these tables (schema.table; * and ? are understood). Default: all captured ones.
    #[arg(long = "table", value_name = "TABLE", requires = "replica_identity")]
    tables: Vec<String>,
    /// A role that exists, to read what hot sinks recorded, and to open encrypted values as far as the key service lets it: for people,
    /// who else would need the daemon's rights.
    #[arg(long, value_name = "ROLE")]
    reader: Option<String>,
    /// A role that exists, to read who opened and destroyed what, how far each sink is, and what is missing; no version and no key.
    #[arg(long, value_name = "ROLE")]
    auditor: Option<String>,
    /// A role that may take old months out of the hot tables, and read them for that: see `cdc-audit archive`. It must exist.
    #[arg(long, value_name = "ROLE")]
    archiver: Option<String>,
    #[command(flatten)]
    who: Who,
    /// Print the steps as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ReplicaIdentity {
    Full,
}

/// A database, what is to be done there, and the session that will do it.
struct Target {
    place: String,
    client: Client,
    plan: Plan,
    /// The options of a database with tables of versions.
    versions: Option<SetupOptions>,
}

const APPLICATION_NAME: &str = "cdc-audit setup";

pub async fn run(args: Args, config: &Config) -> Result<ExitCode, CliError> {
    let rules = config.rules();
    let mut targets = targets(&args, config, &rules).await?;
    // Nothing is done anywhere where something cannot be done.
    for target in &targets {
        if let Err(error) = refused(&target.plan) {
            return Err(error.code(code::FAILED));
        }
    }
    let needs_daemon = targets.iter().any(|target| target.plan.needs_daemon());
    let daemon = match needs_daemon && !args.dry_run {
        true => Some(audit_connect::connect(&config.source.endpoint, APPLICATION_NAME).await?),
        false => None,
    };
    for target in &mut targets {
        execute(&args, target, daemon.as_ref()).await?;
    }
    let topics = topics(&args, config).await?;
    report(&args, &targets, topics)
}

async fn targets(args: &Args, config: &Config, rules: &audit_core::rules::Rules) -> Result<Vec<Target>, CliError> {
    let admin = args.who.source(config)?;
    let daemon = config.source.endpoint.parse()?;
    let client = audit_connect::connect(&admin, APPLICATION_NAME).await?;
    let wanted = setup::Wanted {
        source: &config.source,
        rules,
        daemon_role: daemon.user(),
        owner: args.who.owner(),
        replica_identity_full: args.replica_identity.map(|ReplicaIdentity::Full| args.tables.as_slice()),
    };
    let plan = setup::plan(&client, &wanted).await?;
    let mut targets = vec![Target { place: format!("source {}", admin.describe()), client, plan, versions: None }];
    for mut hot in args.who.hot(config)? {
        (hot.options.reader, hot.options.auditor) = (args.reader.clone(), args.auditor.clone());
        hot.options.archiver = args.archiver.clone();
        targets.push(hot_target(hot).await?);
    }
    Ok(targets)
}

async fn hot_target(hot: HotDatabase) -> Result<Target, CliError> {
    let place = hot.describe();
    let client = audit_connect::connect(&hot.admin, APPLICATION_NAME).await?;
    let mut plan = hot_plan(audit_hot::setup_statements(&hot.options));
    if !hot.options.checkpoints_alone
        && let Err(error) = audit_hot::check_encoding(&client).await
    {
        plan.refusals.push(Refusal { message: error.to_string(), hint: error.hint.unwrap_or_default() });
    }
    let user = hot.admin.parse()?.user().to_owned();
    if hot.options.owner.is_none() && hot.options.writer.as_ref() == Some(&user) {
        let message =
            format!("role {user} will own the audit tables and write them: it could also change its own trail");
        let hint = "run `cdc-audit setup --as URL` with another role, or with `--owner ROLE`";
        plan.steps.insert(0, Step::Note { message, hint: Some(hint.to_owned()) });
    }
    let versions = Some(hot.options).filter(|options| !options.checkpoints_alone);
    Ok(Target { place, client, plan, versions })
}

async fn execute(args: &Args, target: &mut Target, daemon: Option<&Client>) -> Result<(), CliError> {
    if !args.json {
        print(comment("", &target.place))?;
    }
    perform(args, &target.plan, &target.client, daemon).await?;
    if let Some(options) = &target.versions {
        // What is left to do is known only now.
        let indexes = each(audit_hot::index_statements(&target.client, options.owner.as_deref()).await?);
        perform(args, &indexes, &target.client, None).await?;
        target.plan.steps.extend(indexes.steps);
    }
    if !args.json {
        print("")?;
    }
    Ok(())
}

/// Runs the steps, each of which is printed first; of a dry run they are only printed.
async fn perform(args: &Args, plan: &Plan, client: &Client, daemon: Option<&Client>) -> Result<(), CliError> {
    let mut printed = Ok(());
    let mut announce = |step: &Step| {
        if !args.json && printed.is_ok() {
            printed = show(step);
        }
    };
    if args.dry_run {
        plan.steps.iter().for_each(announce);
    } else {
        apply(plan, client, daemon, &mut announce).await?;
    }
    printed
}

/// Makes the topics that sinks need, unless they are there; returns the steps for a script to read.
async fn topics(args: &Args, config: &Config) -> Result<Vec<Value>, CliError> {
    const WHY: &str = "the sink's checkpoint";
    let mut steps = Vec::new();
    for (name, sink) in &config.sinks {
        let Needs::Topic { place, topic } = sink.needs(name, config) else { continue };
        if !args.json {
            print(format!("-- {name} {place}\n\n-- {WHY}\n-- topic {topic}: compacted, one partition\n"))?;
        }
        steps.push(json!({ "on": place, "step": "topic", "topic": topic, "why": WHY }));
        if !args.dry_run {
            sink.set_up(name, config).await?;
        }
    }
    Ok(steps)
}

fn report(args: &Args, targets: &[Target], topics: Vec<Value>) -> Result<ExitCode, CliError> {
    let by_hand = targets.iter().flat_map(|target| target.plan.by_hand()).count();
    if args.json {
        let mut steps: Vec<_> = targets.iter().flat_map(|target| as_json(&target.place, &target.plan)).collect();
        steps.extend(topics);
        print_json(&json!({ "dry_run": args.dry_run, "steps": steps, "by_hand": by_hand }))?;
    }
    match (args.dry_run, by_hand) {
        (true, _) => {
            eprintln!("Nothing was changed.");
            Ok(ExitCode::SUCCESS)
        }
        (false, 0) => {
            eprintln!("Done. Next: cdc-audit check");
            Ok(ExitCode::SUCCESS)
        }
        (false, count) => Err(CliError::new(format!("setup is not complete: {count} statements need more rights"))
            .hint(
                "have the statements above marked \"to run\" run by those named there, then run setup again".to_owned(),
            )),
    }
}
