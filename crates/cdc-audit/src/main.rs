//! The program: reads arguments, prints, exits. What it does is in the libraries.

mod access;
mod actors;
mod admin;
mod allocator;
mod cli;
mod config;
#[cfg(test)]
#[allow(clippy::expect_used, clippy::panic, reason = "tests")]
mod docs;
mod error;
#[cfg(feature = "fault-points")]
mod faults;
mod http;
mod logging;
mod output;
mod reveal;
mod role;
mod sinks;
mod store;
mod wiring;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::error::CliError;

/// An audit trail for PostgreSQL: every committed change, complete, protected, exactly once.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110, after_help = EXIT_CODES)]
struct Cli {
    /// The configuration file.
    #[arg(long, short, global = true, default_value = "config.toml", env = "CDC_AUDIT_CONFIG")]
    config: PathBuf,

    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 3 not ready (check) or not running (status),
4 WAL was lost, 5 another daemon owns a sink, 6 changed, 7 undecided columns (plan),
8 not found (a row; with -q any answer; a key of that data subject), 9 the answer is incomplete (--strict),
10 findings or differences, 11 a conflict: nothing was written.

To begin:
  cdc-audit config > config.toml     every key with its meaning; edit [source] and one sink
  cdc-audit setup --dry-run          what would be created, and the grants it needs
  cdc-audit setup && cdc-audit check
  cdc-audit plan                     what would be stored of each column, and how
  cdc-audit run";

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the documented default configuration, or what is in force.
    Config(cli::config::Args),
    /// Print a script by which a shell completes commands and options.
    Completions(cli::completions::Args),
    /// Write the manual pages, one for each command.
    #[command(hide = true)]
    Man(cli::man::Args),
    #[command(flatten)]
    Configured(Box<Configured>),
}

/// What needs the configuration.
#[derive(Debug, Subcommand)]
enum Configured {
    /// Create publication, slot and the schema cdc_audit; prints every statement first.
    Setup(cli::setup::Args),
    /// Say whether `run` would start, what would be recorded, and how to mend what is wrong.
    Check(cli::check::Args),
    /// Show, column by column, what would be stored and how, with made-up values, and which rule says so.
    Plan(cli::plan::Args),
    /// Capture, until stopped.
    Run(cli::run::Args),
    /// Show where a running daemon stands.
    Status(cli::status::Args),
    /// Read tables once more: all rows that they have now.
    Baseline(cli::baseline::Args),
    /// Quarantine a change that a sink refuses, so that the sink goes on.
    Resume(cli::resume::Args),
    /// Show the trail of one row, newest first.
    History(cli::history::Args),
    /// Search all tables, newest first: who did what, when, and from what to what.
    Search(Box<cli::search::Args>),
    /// Show everything that one transaction did, in order.
    Tx(cli::tx::Args),
    /// Show one row as it is, or as it was at a point.
    Show(cli::show::Args),
    /// Show the rows of a table, or of all tables, as they were at a point.
    AsOf(cli::as_of::Args),
    /// Show what differs between two points in a row's history, or which rows of a table changed.
    Diff(cli::diff::Args),
    /// Say of each value of a row who set it, when and why.
    Blame(cli::blame::Args),
    /// Show what a table has looked like: its columns, their names and types, and the rules, each with when it changed.
    Schema(cli::schema::Args),
    /// Put back what a version or a whole transaction changed, on the source, by your own login.
    Undo(cli::undo::Args),
    /// Make one row of the source what it was, by your own login.
    Rollback(cli::rollback::Args),
    /// Show versions with their encrypted values in plain, to those who may; logged first.
    Decrypt(cli::decrypt::Args),
    /// List, rotate, rewrap, export and destroy the keys of encrypted values.
    Keys(cli::keys::Args),
    /// Write versions to files that can be proved: JSON Lines and a manifest.
    Export(cli::export::Args),
    /// Count the versions of a span by actor, table, event and day; what nobody accounts for, and what is missing.
    Report(cli::report::Args),
    /// Look for what is odd in a span, by the rules of the configuration.
    Activity(cli::activity::Args),
    /// Put one query in SQL to a hot sink or a lake; nothing can be written.
    Sql(cli::sql::Args),
    /// Make files of a lake fewer and sort them, where no readers list its folders.
    Compact(cli::compact::Args),
    /// Take old months out of the hot tables, once a lake was proved to have them.
    Archive(cli::archive::Args),
    /// Print rules by which a bucket moves old data to cheaper storage classes, and nothing else.
    Lifecycle(cli::lifecycle::Args),
    /// Print statements that make the lake queryable in an engine; run them there, and again when tables change.
    Ddl(cli::ddl::Args),
    /// Drop what `setup` created; asks first.
    Teardown(cli::teardown::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(cli::filters::arguments(std::env::args_os()));
    // Reading our output may stop at any line (`| head`): that is no failure of ours.
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            error.exit_code()
        }
    }
}

/// First what is synchronous and can fail: arguments, configuration, logging. Only then the runtime, in which commands read their keys.
fn dispatch(cli: Cli) -> Result<ExitCode, CliError> {
    // ⚠ Rows and keys are in memory: no core file of it, and no look into it by other processes of the same user. Without the call all works the same.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let command = match cli.command {
        Command::Config(args) => return cli::config::run(args, &cli.config),
        Command::Completions(args) => return cli::completions::run(args, &mut Cli::command()),
        Command::Man(args) => return cli::man::run(args, Cli::command()),
        Command::Configured(command) => *command,
    };
    let daemon = matches!(command, Configured::Run(_));
    let settled = if daemon { allocator::settle() } else { Ok(()) };
    let config = config::Config::load(&cli.config)?;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    logging::start(&config.log, daemon)?;
    if let Err(error) = settled {
        tracing::warn!(%error, "the memory allocator could not be set: the program may take more than its limit");
    }
    #[cfg(feature = "fault-points")]
    faults::arm();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Encoding may occupy a thread for a while: feedback to the server must find another.
        .worker_threads(std::thread::available_parallelism().map_or(4, |n| n.get().max(4)))
        .enable_all()
        .build()
        .map_err(|error| CliError::new("the asynchronous runtime cannot start").detail(error.to_string()))?;
    let code = runtime.block_on(async {
        match command {
            Configured::Setup(args) => cli::setup::run(args, &config).await,
            Configured::History(args) => cli::history::run(args, &config).await,
            Configured::Search(args) => cli::search::run(*args, &config).await,
            Configured::Tx(args) => cli::tx::run(args, &config).await,
            Configured::Show(args) => cli::show::run(args, &config).await,
            Configured::AsOf(args) => cli::as_of::run(args, &config).await,
            Configured::Diff(args) => cli::diff::run(args, &config).await,
            Configured::Blame(args) => cli::blame::run(args, &config).await,
            Configured::Schema(args) => cli::schema::run(args, &config).await,
            Configured::Undo(args) => cli::undo::run(args, &config).await,
            Configured::Rollback(args) => cli::rollback::run(args, &config).await,
            Configured::Decrypt(args) => cli::decrypt::run(args, &config).await,
            Configured::Keys(args) => cli::keys::run(args, &config).await,
            Configured::Export(args) => cli::export::run(args, &config).await,
            Configured::Report(args) => cli::report::run(args, &config).await,
            Configured::Activity(args) => cli::activity::run(args, &config).await,
            Configured::Sql(args) => cli::sql::run(args, &config).await,
            Configured::Compact(args) => cli::compact::run(args, &config).await,
            Configured::Archive(args) => cli::archive::run(args, &config).await,
            Configured::Lifecycle(args) => cli::lifecycle::run(args, &config).await,
            Configured::Ddl(args) => cli::ddl::run(args, &config).await,
            Configured::Teardown(args) => cli::teardown::run(args, &config).await,
            Configured::Check(args) => cli::check::run(args, &config).await,
            Configured::Plan(args) => cli::plan::run(args, &config).await,
            Configured::Run(args) => cli::run::run(args, config).await,
            Configured::Status(args) => cli::status::run(args, &config).await,
            Configured::Baseline(args) => cli::baseline::run(args, &config).await,
            Configured::Resume(args) => cli::resume::run(args, &config).await,
        }
    });
    // Work on blocking threads must not hold the program after its answer is out.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}
