//! The chores that build and run: `demo`, `test`, `bench`, `fuzz`, `kill-rounds`, `config`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use audit_install::cache_dir;

use crate::cargo::{SELECTION, cargo, root, target_dir};
use crate::step::{output, run, step};
use crate::{docs, install, runner, tidy};

/// The variable that tells tests whether they may take long.
const THOROUGH: &str = "CDC_AUDIT_TEST_ALL";

/// Shown before the builds that may have to compile all dependencies.
const PATIENCE: &str =
    "The first build compiles all dependencies: about ten minutes on two cores. Later ones take seconds to minutes.";

pub fn demo() -> Result<()> {
    step("install", install::for_demo)?;
    println!("{PATIENCE}");
    let programs = ["--bin", "cdc-audit", "--bin", "cdc-audit-demo"];
    step("build", || run(cargo(&["build"]).args(SELECTION).args(programs)))?;
    run(&mut Command::new(target_dir().join("debug/cdc-audit-demo")))
}

pub fn test(all: bool) -> Result<()> {
    step("install", || install::for_tests(all))?;
    if all {
        step("install Debezium", install::debezium)?;
    }
    step("tidy", tidy::run)?;
    step("format", || run_cargo(&["fmt", "--all", "--check"]))?;
    println!("{PATIENCE}");
    step("lint", || run(cargo(&["clippy"]).args(SELECTION).args(["--all-targets", "--", "-D", "warnings"])))?;
    if all {
        step("licences and advisories", deny)?;
    }
    step("build", || run(cargo(&["build"]).args(SELECTION).arg("--all-targets")))?;
    let thorough = all.then_some(THOROUGH);
    step("tests", || runner::tests(&SELECTION, thorough))?;
    step("examples in the documentation", || run(cargo(&["test", "--doc"]).args(SELECTION)))
}

/// cargo-deny takes minutes to build, so only a thorough run installs it.
fn deny() -> Result<()> {
    let check = |what: &[&str]| -> Result<Command> {
        let mut command = install::tool("deny")?;
        command.args(["--workspace", "check"]).args(what);
        Ok(command)
    };
    run(&mut check(&["licenses", "bans", "sources"])?)?;
    // The advisories are in a separate repository, which not every machine may fetch. If it cannot be fetched, that
    // says nothing about the dependencies.
    let advisories = check(&["advisories"])?.output()?;
    let said = String::from_utf8_lossy(&advisories.stderr);
    if said.contains("failed to fetch advisory database") {
        println!("advisories: NOT CHECKED, their database is out of reach");
    } else if !advisories.status.success() {
        bail!("advisories:\n{said}");
    }
    Ok(())
}

pub fn bench(options: &[String]) -> Result<()> {
    step("install", install::for_benchmarks)?;
    // Build without fault points, because we measure what is shipped.
    step("build", || run_cargo(&["build", "--release", "-p", "cdc-audit", "-p", "cdc-audit-benches"]))?;
    let mut command = cargo(&["run", "--release", "--quiet", "-p", "cdc-audit-benches", "--"]);
    command.args(options);
    step("measure", || run(&mut command))
}

pub fn kill_rounds(rounds: u32) -> Result<()> {
    step("install", || install::for_tests(false))?;
    step("build", || run(cargo(&["build"]).args(SELECTION).arg("--all-targets")))?;
    let mut command = cargo(&["test"]);
    command
        .args(SELECTION)
        .args(["--test", "kill", "--", "--nocapture", "--test-threads=1"])
        .env("CDC_AUDIT_KILL_ROUNDS", rounds.to_string());
    step("kill rounds", || run(&mut command))
}

/// Writes `config.toml`, which is the program's own documentation of its keys, and `docs/configuration.md` from it.
pub fn config() -> Result<()> {
    run(cargo(&["build", "--quiet", "--bin", "cdc-audit"]).args(SELECTION))?;
    let text = output(Command::new(target_dir().join("debug/cdc-audit")).arg("config"))?;
    let page = docs::configuration(&String::from_utf8_lossy(&text));
    fs::write(root().join("docs/configuration.md"), page).context("cannot write docs/configuration.md")?;
    fs::write(root().join("config.toml"), text).context("cannot write config.toml")
}

/// Runs each fuzz target of the decoder for this number of seconds. Its corpus is kept in the cache for the next run.
pub fn fuzz(seconds: u64) -> Result<()> {
    step("install", install::for_fuzzing)?;
    let folder = root().join("crates/audit-pgoutput/fuzz");
    // libFuzzer needs coverage counters, which the stable compiler's LLVM inserts with these flags. Only the sanitizers
    // need a nightly compiler, but they are of no use for crates without unsafe code.
    let flags = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                 -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions \
                 -Coverflow-checks";
    let compiler = String::from_utf8(output(Command::new("rustc").arg("-vV"))?)?;
    let host = compiler.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?.to_owned();
    for target in fuzz_targets(&folder)? {
        let corpus = cache_dir().join("fuzz").join(&target);
        fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
        // Findings are written into the working folder.
        let mut command = cargo(&["run", "--release", "--quiet", "--manifest-path"]);
        command.arg(folder.join("Cargo.toml"));
        // Name the target, although it is this machine's own, so that build scripts are compiled without the flags.
        command.args(["--target", &host, "--bin", &target, "--"]).arg(&corpus);
        command.args([format!("-max_total_time={seconds}"), "-print_final_stats=1".to_owned()]);
        command.current_dir(corpus.parent().unwrap_or(&corpus));
        command.env("RUSTFLAGS", flags).env("CARGO_TARGET_DIR", target_dir().join("fuzz"));
        step(&format!("fuzz {target}"), || run(&mut command))?;
    }
    Ok(())
}

fn fuzz_targets(folder: &Path) -> Result<Vec<String>> {
    let files = fs::read_dir(folder.join("fuzz_targets")).context("cannot read the folder of fuzz targets")?;
    let mut names: Vec<String> =
        files.flatten().filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

fn run_cargo(arguments: &[&str]) -> Result<()> {
    run(&mut cargo(arguments))
}
