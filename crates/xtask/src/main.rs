//! The project's chores: `cargo xtask COMMAND`.
#![allow(clippy::print_stdout, reason = "a program for a person at a terminal")]

mod cargo;
mod circles;
mod docs;
mod install;
mod package;
mod rules;
mod runner;
mod step;
mod test;
mod tidy;
mod times;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's chores", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install what is missing, then lint, build and run every test
    Test {
        /// Also what takes long: all kill rounds, big transactions, licences and advisories
        #[arg(long)]
        all: bool,
    },
    /// Ten seconds of a small shop, and the trail they leave
    Demo,
    /// Measure against the gates and write target/bench.json
    #[command(disable_help_flag = true)]
    Bench {
        /// What to measure, and how long: `cargo xtask bench --help` says it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Build what users install (a Debian package, a tarball, checksums, a list of components), and try it
    Package {
        /// `dev` packs the program that tests start, to try the packaging quickly
        #[arg(long, value_enum, default_value = "release")]
        profile: package::Profile,
    },
    /// Install or list the servers that tests start
    Servers {
        #[command(subcommand)]
        what: Servers,
    },
    /// Check what the compiler cannot: imports between crates, leftovers, sizes of files
    Tidy,
    /// Write config.toml and docs/configuration.md from the documentation of the keys
    Config,
    /// Build the documentation as a book, in target/book/html
    Docs,
    /// Feed mutated bytes to the decoder
    Fuzz {
        /// For each target
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Take each rule of tests/rules.toml out and see its test fail
    Rules {
        /// By name; if none is given, all
        names: Vec<String>,
    },
    /// Kill the daemon again and again and compare what arrived with what was committed
    KillRounds {
        #[arg(default_value_t = 200)]
        rounds: u32,
    },
}

#[derive(Subcommand)]
enum Servers {
    /// Install PostgreSQL of these majors; if none is named, all that tests start or run
    Install { majors: Vec<u16> },
    /// Show which are installed, and where
    List,
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    match chore {
        Chore::Test { all } => test::test(all),
        Chore::Demo => test::demo(),
        Chore::Bench { options } => test::bench(&options),
        Chore::Package { profile } => package::package(profile),
        Chore::Servers { what: Servers::Install { majors } } if majors.is_empty() => install::for_tests(false),
        Chore::Servers { what: Servers::Install { majors } } => install::servers(&majors),
        Chore::Servers { what: Servers::List } => install::list(),
        Chore::Tidy => tidy::run(),
        Chore::Config => test::config(),
        Chore::Docs => docs::book(),
        Chore::Fuzz { seconds } => test::fuzz(seconds),
        Chore::Rules { names } => rules::rules(&names),
        Chore::KillRounds { rounds } => test::kill_rounds(rounds),
    }
}
