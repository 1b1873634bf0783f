use audit_testkit::{Daemon, Postgres, eventually};
use cdc_audit_tests::world::World;

/// A table that is enough for most of these tests.
pub const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text)";

/// Inserts ten rows into it.
pub fn insert(server: &Postgres, world: &World, first: u32) {
    let sql = format!("INSERT INTO t SELECT i, 'v' FROM generate_series({first}, {first} + 9) AS i");
    server.execute(&world.database, &sql);
}

/// Runs the daemon, which must end by itself, and returns its exit code and its error.
#[track_caller]
pub fn refused(world: &World) -> String {
    let mut daemon = world.launch().start();
    let code = daemon.wait().code().expect("it ended by itself");
    format!("exit {code}\n{}", plain(world, error_in(&daemon.stderr())))
}

/// Does the same for another command.
pub fn refused_command(world: &World, arguments: &[&str]) -> String {
    let output = world.command(arguments);
    let code = output.status.code().expect("it ended by itself");
    format!("exit {code}\n{}", plain(world, error_in(&String::from_utf8_lossy(&output.stderr))))
}

/// Returns the output from the error on, without the log before it.
fn error_in(stderr: &str) -> &str {
    stderr.find("error: ").map_or(stderr, |at| &stderr[at..])
}

/// Starts a daemon that continues although a sink fails, and returns what `status` says about that sink.
#[track_caller]
pub fn failing(world: &World, sink: &str) -> (Daemon, String) {
    let mut daemon = world.launch().start();
    let said = failure(world, &mut daemon, sink);
    (daemon, said)
}

/// Waits until a sink of a running daemon fails, and returns what `status` says about it.
#[track_caller]
pub fn failure(world: &World, daemon: &mut Daemon, sink: &str) -> String {
    let mut said = String::new();
    daemon.wait_for("the sink fails", |_| {
        let output = world.command(&["status", "--json"]);
        let Ok(status) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else { return false };
        let sinks = status["sinks"].as_array().cloned().unwrap_or_default();
        let found = sinks.iter().find(|found| found["name"] == sink && found["failing"] == true);
        let error = found.map(|found| found["last_error"].clone()).unwrap_or_default();
        let hint = error["hint"].as_str().unwrap_or("none");
        said = format!("{}\n  hint: {hint}", error["message"].as_str().unwrap_or_default());
        !error.is_null()
    });
    plain(world, &said)
}

/// Waits until `status` says that nothing fails any more.
#[track_caller]
pub fn recovers(world: &World) {
    eventually("the sinks recover", || {
        let output = world.command(&["status", "--json"]);
        let Ok(status) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else { return false };
        let sinks = status["sinks"].as_array().cloned().unwrap_or_default();
        status["phase"] == "streaming" && sinks.iter().all(|sink| sink["failing"] == false)
    });
}

/// Replaces what differs from run to run: generated names and ports, positions in the WAL, process ids.
pub fn plain(world: &World, text: &str) -> String {
    let name = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
    let mut text = text.trim_end().to_owned();
    let folder = world.folder.path().display().to_string();
    for (from, to) in [
        (folder.as_str(), "<folder>"),
        (world.slot.as_str(), "<slot>"),
        (&name(&world.url), "<source>"),
        (&name(&world.hot_url), "<hot>"),
    ] {
        text = text.replace(from, to);
    }
    for url in [&world.url, &world.hot_url] {
        let port = url.rsplit_once('/').and_then(|(place, _)| place.rsplit_once(':')).map_or("", |(_, port)| port);
        text = text.replace(&format!(":{port}/"), ":<port>/");
    }
    text = without_date(&text, "/year=", ".parquet", "/<file>.parquet");
    text = without_date(&text, "versions_", "\"", "versions_<month>\"");
    text = without_pids(&text);
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | ':');
    let mut plain = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        plain.push_str(&word(&rest[..end]));
        let mut after = rest[end..].chars();
        plain.extend(after.next());
        rest = after.as_str();
    }
    plain + "\n"
}

/// Replaces the text between `begin` and `end` by `name`.
fn without_date(text: &str, begin: &str, end: &str, name: &str) -> String {
    let Some((before, rest)) = text.split_once(begin) else { return text.to_owned() };
    rest.split_once(end).map_or(text.to_owned(), |(_, after)| format!("{before}{name}{after}"))
}

/// Replaces process ids of any length, because a machine that has just started has small ones.
fn without_pids(text: &str) -> String {
    let mut parts = text.split("pid ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let pid = if rest.len() < part.len() { "<number>" } else { "" };
        format!("{text}pid {pid}{rest}")
    })
}

/// Replaces an LSN, a position, or a number that is not the test's own; other words stay as they are.
fn word(word: &str) -> String {
    let upper = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
    let hex = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(upper);
    let (word, tail) = word.split_at(word.trim_end_matches(':').len());
    let parts: Vec<&str> = word.split(':').collect();
    let plain = match (word.split_once('/'), parts.as_slice()) {
        (Some((high, low)), _) if hex(high) && hex(low) => "<lsn>".to_owned(),
        (_, [epoch, lsn, seq]) if (epoch.len(), lsn.len(), seq.len()) == (4, 16, 10) => "<position>".to_owned(),
        _ => {
            let number = |part: &str| part.len() > 3 && part.bytes().all(|b| b.is_ascii_digit());
            let shown = parts.iter().map(|part| if number(part) { "<number>" } else { part });
            shown.collect::<Vec<_>>().join(":")
        }
    };
    plain + tail
}
