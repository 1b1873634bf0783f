//! Runs programs of the operating system, as the present user or as the user of the servers.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;

/// The user that runs the servers if the tests run as root, because PostgreSQL refuses to run as root.
pub const SERVER_USER: &str = "postgres";

/// Tells whether we are root: then we may install packages, and servers need another user.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Makes a command that runs `program` as the user of the servers.
pub fn as_server_user(program: impl AsRef<Path>) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", SERVER_USER, "--"]).arg(program.as_ref()).current_dir("/");
        command
    } else {
        Command::new(program.as_ref())
    };
    command.env("LC_ALL", "C").env_remove("PGDATA").env_remove("PGOPTIONS").env_remove("PGHOST").env_remove("PGPORT");
    command
}

/// Runs a command to its end and returns what it printed. The error names the command and contains its output.
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, "")
}

pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let input = input.to_owned();
    // A separate thread writes, so that neither side waits for the other with a full pipe. A program may end without
    // reading everything; its exit status says whether that was an error.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output()?;
    drop(feeder.join());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}\n{}", output.status, text(&output.stderr), text(&output.stdout));
    }
    Ok(text(&output.stdout))
}

/// Gives a file or a folder with its content to the user of the servers.
pub fn give_to_server_user(path: &Path) -> Result<()> {
    if is_root() {
        run(Command::new("chown").arg("-R").arg(SERVER_USER).arg(path))?;
    }
    Ok(())
}
