//! `cargo xtask demo`: a private PostgreSQL, a small shop, ten seconds of its life, and what `cdc-audit` made of them.
//! Everything is in one temporary folder, which is removed when the demo ends, however it ends.
#![allow(clippy::print_stdout, reason = "a program for a person at a terminal")]

mod shop;
mod tour;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use audit_testkit::Postgres;
use audit_testkit::install::run;

/// How long the daemon may take to begin: it waits for nothing but the server.
const BEGIN: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    let site = Site::new()?;
    site.server.execute("shop", shop::SCHEMA);
    chapter("A small shop lives in a private PostgreSQL 15. This is all that cdc-audit is told of it:");
    fs::read_to_string(&site.config)?.lines().for_each(|line| println!("  {line}"));

    chapter("`setup` makes what capture needs. It prints every statement before it runs it; here, what they are for:");
    setup(&site)?;
    let checked = site.answer(&["check"])?;
    println!("\n$ cdc-audit check\n  {}", checked.lines().last().unwrap_or_default());

    let mut daemon = site.start()?;
    chapter(
        "The daemon runs, and for ten seconds the shop lives. Nothing in the application knows of it, but that it says\nwho acts, and why:",
    );
    shop::live(&site.server, "shop")?;
    daemon.stop()?;
    // What came in while it stopped.
    let end = site.server.execute("shop", "SELECT pg_current_wal_lsn()");
    site.answer(&["run", "--until", &end])?;

    tour::show(&site)?;
    drop(site);
    println!("\nThe server, its databases and the lake are gone again. To begin with your own: README.md.");
    Ok(())
}

/// The statements of `setup` are hundreds of lines: these are the reasons that it gives for those that make something.
fn setup(site: &Site) -> Result<()> {
    println!("$ cdc-audit setup");
    let done: serde_json::Value = serde_json::from_str(&site.answer(&["setup", "--json"])?)?;
    let steps = done["steps"].as_array().context("setup names no steps")?;
    let mut place = "";
    for step in steps {
        let text = |name: &str| step[name].as_str().unwrap_or_default();
        if text("on") != place {
            place = text("on");
            println!("  in {place}");
        }
        let sql = text("sql");
        if sql.starts_with("CREATE ") && !sql.starts_with("CREATE INDEX")
            || sql.contains("create_logical_replication_slot")
        {
            println!("    - {}", text("why"));
        }
    }
    Ok(())
}

/// Where the demo takes place.
struct Site {
    config: PathBuf,
    /// Everything lies in the server's own folder.
    server: Postgres,
    /// The address of the shop's database.
    source: String,
}

impl Site {
    fn new() -> Result<Site> {
        let server = Postgres::start(15);
        let (source, hot) = (server.create_database("shop"), server.create_database("audit"));
        let config = PathBuf::from(server.socket_dir()).join("config.toml");
        let site = Site { config, server, source };
        let text = format!(
            "[source]\nname = \"shop\"\nurl = \"{}\"\n\n\
             [sinks.hot]\ntype = \"hot\"\nurl = \"{hot}\"\n\n\
             [sinks.archive]\ntype = \"lake\"\nurl = \"{}\"\nfile_age = \"3 s\"\ndata_bytes = \"0 B\"\n\n\
             [http]\nlisten = \"127.0.0.1:{}\"\n",
            site.source,
            site.lake().display(),
            audit_testkit::free_port(),
        );
        fs::write(&site.config, text)?;
        Ok(site)
    }

    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(self.server.socket_dir()).join(name)
    }

    fn lake(&self) -> PathBuf {
        self.file("lake")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(audit_testkit::program());
        command.args(arguments).env("CDC_AUDIT_CONFIG", &self.config).stdin(Stdio::null());
        command
    }

    /// What a command prints.
    fn answer(&self, arguments: &[&str]) -> Result<String> {
        run(&mut self.command(arguments))
    }

    /// Runs a command as a person would, and shows it.
    fn show(&self, arguments: &[&str]) -> Result<()> {
        println!("$ cdc-audit {}", typed(arguments));
        let status = self.command(arguments).status().context("cannot run cdc-audit")?;
        if !status.success() {
            bail!("cdc-audit {} ended with {status}", arguments.join(" "));
        }
        Ok(())
    }

    /// Does the same for a command that prints more than anybody reads here.
    fn show_ends(&self, arguments: &[&str], ends: usize) -> Result<()> {
        println!("$ cdc-audit {}", typed(arguments));
        let said = self.answer(arguments)?;
        let lines: Vec<&str> = said.lines().collect();
        let left_out = lines.len().saturating_sub(2 * ends);
        lines.iter().take(ends).for_each(|line| println!("{line}"));
        println!("  … {left_out} more lines …");
        lines.iter().skip(ends + left_out).for_each(|line| println!("{line}"));
        Ok(())
    }

    /// Starts the daemon and waits until the slot is its own.
    fn start(&self) -> Result<Daemon> {
        println!("\n$ cdc-audit run &");
        let log = self.file("daemon.log");
        let file = fs::File::create(&log)?;
        let mut daemon = Daemon(self.command(&["run"]).stdout(file.try_clone()?).stderr(file).spawn()?);
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let begun = Instant::now();
        let active = "SELECT count(*) FROM pg_replication_slots WHERE active";
        while self.server.execute("shop", active) == "0" {
            if let Some(status) = daemon.0.try_wait()? {
                bail!("the daemon ended with {status}:\n{}", said());
            }
            if begun.elapsed() > BEGIN {
                bail!("the daemon did not begin within {} s:\n{}", BEGIN.as_secs(), said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }
}

/// Arguments as a person types them in a shell.
fn typed(arguments: &[&str]) -> String {
    let quoted = |argument: &&str| match argument.contains([' ', '>']) {
        true => format!("'{argument}'"),
        false => (*argument).to_owned(),
    };
    arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// The running daemon; it does not outlive the demo.
struct Daemon(Child);

impl Daemon {
    fn stop(&mut self) -> Result<()> {
        run(Command::new("kill").args(["-TERM", &self.0.id().to_string()]))?;
        let status = self.0.wait()?;
        if !status.success() {
            bail!("the daemon ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that was stopped needs no more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn chapter(text: &str) {
    println!("\n── {}\n", text.replace('\n', "\n   "));
}
