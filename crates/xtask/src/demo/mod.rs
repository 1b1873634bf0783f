//! `cargo xtask demo`: a private PostgreSQL, a small shop, ten seconds of its life, and what `cdc-audit` made of them. All
//! of it lies in a temporary folder, which goes when the demo ends.

mod shop;
mod tour;

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use audit_testkit::Postgres;
use tempfile::TempDir;

use crate::cargo::{cargo, target_dir};
use crate::install;
use crate::step::{output, run, step};

/// How long the daemon may take to begin: it waits for nothing but the server.
const BEGIN: Duration = Duration::from_secs(60);

pub fn demo() -> Result<()> {
    step("install", install::for_demo)?;
    step("build", || run(&mut cargo(&["build", "--release", "-p", "cdc-audit"])))?;
    let site = Site::new()?;
    say(
        "A private PostgreSQL 15 runs in a temporary folder. The shop's tables and two rows of each are there already.",
    );
    site.server.execute("shop", shop::SCHEMA);

    say("The configuration: a source, two sinks, a rule.");
    println!("{}", fs::read_to_string(&site.config)?);
    setup(&site)?;
    site.cdc_audit(&["check"])?;

    let mut daemon = site.start()?;
    say(
        "The daemon runs. For ten seconds the shop lives: customers order, Carla mends a price, Dave forgets a WHERE, Erin\n\
         mends what Dave did, a column is added, a customer asks to be forgotten, carts are emptied.",
    );
    shop::live(&site.server, "shop")?;
    stop(&mut daemon)?;

    say("It was stopped with SIGTERM. Started again, it finishes what was left and ends.");
    let now = site.server.execute("shop", "SELECT pg_current_wal_lsn()");
    site.cdc_audit(&["run", "--until", &now])?;
    tour::show(&site)
}

/// `setup` prints every statement before it runs it: hundreds of lines, of which the demo shows the comments.
fn setup(site: &Site) -> Result<()> {
    println!("$ cdc-audit setup");
    let statements = output(&mut site.command(&["setup"]))?;
    let statements = String::from_utf8_lossy(&statements);
    let comments = statements.lines().filter(|line| line.starts_with("-- "));
    comments.for_each(|comment| println!("{comment}"));
    println!("   (its comments; the statements between them are left out here)");
    Ok(())
}

/// Where the demo takes place.
struct Site {
    server: Postgres,
    config: PathBuf,
    folder: TempDir,
}

impl Site {
    fn new() -> Result<Site> {
        let folder = tempfile::Builder::new().prefix("cdc-audit-demo-").tempdir()?;
        let server = Postgres::start(15);
        let (source, hot) = (server.create_database("shop"), server.create_database("audit"));
        let config = folder.path().join("config.toml");
        let text = format!(
            "[source]\nname = \"shop\"\nurl = \"{source}\"\n\n\
             [[tables]]\nname = \"public.*\"\ninclude = [\"customer_id\"]\n\n\
             [sinks.hot]\ntype = \"hot\"\nurl = \"{hot}\"\n\n\
             [sinks.archive]\ntype = \"lake\"\nurl = \"{}\"\nfile_age = \"2 s\"\n\n\
             [http]\nlisten = \"127.0.0.1:{}\"\n",
            folder.path().join("lake").display(),
            audit_testkit::free_port(),
        );
        fs::write(&config, text)?;
        Ok(Site { server, config, folder })
    }

    fn lake(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("daemon.log")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(target_dir().join("release/cdc-audit"));
        command.args(arguments).env("CDC_AUDIT_CONFIG", &self.config).stdin(Stdio::null());
        command
    }

    /// Runs a command as a person would, and shows it.
    fn cdc_audit(&self, arguments: &[&str]) -> Result<()> {
        println!("\n$ cdc-audit {}", arguments.join(" "));
        let status = on_a_terminal(self.command(arguments)).status().context("cannot run cdc-audit")?;
        if !status.success() {
            bail!("cdc-audit {} ended with {status}", arguments.join(" "));
        }
        Ok(())
    }

    /// Starts the daemon and waits until the slot is its own.
    fn start(&self) -> Result<Child> {
        println!("\n$ cdc-audit run");
        let log = fs::File::create(self.log())?;
        let mut child = self.command(&["run"]).stdout(log.try_clone()?).stderr(log).spawn()?;
        let begun = Instant::now();
        let active = "SELECT count(*) FROM pg_replication_slots WHERE active";
        while self.server.execute("shop", active) == "0" {
            if let Some(status) = child.try_wait()? {
                bail!("the daemon ended with {status}:\n{}", read(&self.log()));
            }
            if begun.elapsed() > BEGIN {
                child.kill()?;
                bail!("the daemon did not begin within {} s:\n{}", BEGIN.as_secs(), read(&self.log()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(child)
    }
}

/// Commands print tables on a terminal and JSON elsewhere. Whoever keeps the demo's output in a file wants to read the
/// same as at a terminal.
fn on_a_terminal(command: Command) -> Command {
    if std::io::stdout().is_terminal() {
        return command;
    }
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let words: Vec<String> = words.iter().map(|word| format!("'{}'", word.to_string_lossy())).collect();
    let mut wrapped = Command::new("script");
    wrapped.args(["-qec", &format!("stty cols 140; {}", words.join(" ")), "/dev/null"]).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            wrapped.env(name, value);
        }
    }
    wrapped
}

fn stop(daemon: &mut Child) -> Result<()> {
    run(Command::new("kill").args(["-TERM", &daemon.id().to_string()]))?;
    let status = daemon.wait()?;
    if !status.success() {
        bail!("the daemon ended with {status}");
    }
    Ok(())
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn say(text: &str) {
    println!("\n── {text}");
}
