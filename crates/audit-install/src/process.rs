//! Running programs of the operating system, as ourselves or as the user that servers run as.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;

/// The operating system's user that servers run as when the tests run as root, which PostgreSQL refuses.
pub const SERVER_USER: &str = "postgres";

/// Whether we may install packages, and whether servers need another user than ours.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// `program` as the user that servers run as.
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

/// Runs to the end and returns what was printed; the error names the command and holds its last words.
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, "")
}

pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let input = input.to_owned();
    // A thread of its own, so that neither side waits for the other with a full pipe. A program may end without
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

/// Gives a file or folder, and all in it, to the user that servers run as.
pub fn give_to_server_user(path: &Path) -> Result<()> {
    if is_root() {
        run(Command::new("chown").arg("-R").arg(SERVER_USER).arg(path))?;
    }
    Ok(())
}
