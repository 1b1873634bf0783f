//! Asks a lake by an installed DuckDB, over the views that `ddl duckdb` makes.
//!
//! ⚠ The person's text is a literal, given to DuckDB's function `query`, which takes one SELECT and nothing else: it can
//! write no file, load no extension, and change no setting. Before it runs, the session gives up everything but reading the
//! lake ([`audit_ddl::confined`]): the text can read no other file of this machine. No shell is involved, and the text is not among the
//! arguments of a process, which other users see.

use std::process::Stdio;
use std::time::Duration;

use audit_ddl::{Engine, Refused};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::Format;
use crate::cli::ddl;
use crate::config::Config;
use crate::error::{CliError, code};
use crate::output::{csv, on_terminal, print, print_exactly};
use crate::sinks::lake;

/// Lists the views and their columns.
pub const SCHEMA: &str = "SELECT table_name AS \"view\", column_name AS \"column\", data_type AS \"type\" \
    FROM information_schema.columns WHERE table_schema = current_schema() AND NOT starts_with(table_name, 'lake__') \
    ORDER BY table_name, ordinal_position";

/// Bytes of DuckDB's messages that are shown.
const SAID_MAX: u64 = 4096;

pub async fn run(
    config: &Config,
    name: &str,
    tenant: Option<&str>,
    query: &str,
    format: Format,
    timeout: Duration,
) -> Result<(), CliError> {
    let script = script(config, name, tenant, query, format).await?;
    let answered = tokio::time::timeout(timeout, answer(&script, format)).await;
    answered.unwrap_or_else(|_| {
        Err(CliError::new(format!("DuckDB did not answer within {} s", timeout.as_secs_f64()))
            .hint("ask for a shorter span, or give it more time with --timeout".to_owned()))
    })
}

async fn script(
    config: &Config,
    name: &str,
    tenant: Option<&str>,
    query: &str,
    format: Format,
) -> Result<String, CliError> {
    let (name, settings) = lake::named(config, Some(name))?;
    let reader = lake::reader(settings, tenant).await?;
    let described = ddl::described(config, (name, settings), &reader, None).await?;
    let mode = match (format, on_terminal()) {
        (Format::Json, _) => "jsonlines",
        (Format::Csv, _) => "csv",
        (Format::Table, true) => "box",
        (Format::Table, false) => "markdown",
    };
    let mut script = format!(".mode {mode}\n.headers on\n");
    // The last one is the home, whose names need no schema.
    for lake in described.iter().rev() {
        let made = audit_ddl::statements(Engine::Duckdb, lake, false);
        for statement in made.map_err(refused_place)?.into_iter().chain(audit_ddl::row_views(lake)) {
            script += &format!("{};\n", statement.sql);
        }
    }
    for statement in audit_ddl::confined(&described).map_err(refused_place)? {
        script += &format!("{};\n", statement.sql);
    }
    script += &format!("SELECT * FROM query({});\n", literal(query));
    Ok(script)
}

fn refused_place(refused: Refused) -> CliError {
    CliError::new(refused.to_string()).hint(refused.hint).code(code::USAGE)
}

/// A text as DuckDB's literal on one line: no line of it can begin a command of the shell.
fn literal(text: &str) -> String {
    let mut literal = String::from("E'");
    for c in text.trim().trim_end_matches(';').chars() {
        match c {
            '\'' => literal.push_str("''"),
            '\\' => literal.push_str("\\\\"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            // Without it no text of SQL has another meaning.
            '\0' => {}
            c => literal.push(c),
        }
    }
    literal + "'"
}

/// Runs DuckDB and prints what it answers, line by line.
async fn answer(script: &str, format: Format) -> Result<(), CliError> {
    let mut command = Command::new("duckdb");
    command.args(["-init", "/dev/null", "-batch", "-bail"]).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        CliError::new("the program duckdb, which answers SQL over a lake, does not start")
            .detail(error.to_string())
            .hint(
                "install DuckDB 1.2 or later (https://duckdb.org/docs/installation), or ask a hot sink with --from"
                    .to_owned(),
            )
    })?;
    let failed = |error: std::io::Error| CliError::new("the connection to duckdb broke off").detail(error.to_string());
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let give = async {
        if let Some(mut stdin) = stdin {
            // Where it ends early it says why.
            let _ = stdin.write_all(script.as_bytes()).await;
        }
    };
    let take = async {
        let Some(stdout) = stdout else { return Ok::<_, CliError>(()) };
        let (mut out, mut record) = (BufReader::new(stdout), String::new());
        while out.read_line(&mut record).await.map_err(failed)? > 0 {
            let line = record.trim_end_matches(['\n', '\r']);
            match format {
                Format::Table => print(line)?,
                Format::Json => print_exactly(line)?,
                // A value that has a line break goes on in the next line.
                Format::Csv if record.matches('"').count() % 2 == 1 => continue,
                Format::Csv => print_exactly(csv(&fields(line)))?,
            }
            record.clear();
        }
        Ok(())
    };
    let hear = async {
        let mut said = String::new();
        if let Some(mut stderr) = stderr {
            let _ = (&mut stderr).take(SAID_MAX).read_to_string(&mut said).await;
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        }
        said
    };
    let ((), taken, said) = tokio::join!(give, take, hear);
    taken?;
    let status = child.wait().await.map_err(failed)?;
    match status.success() {
        true => Ok(()),
        false => Err(refused(said.trim())),
    }
}

/// The values of one record in DuckDB's CSV.
fn fields(record: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    let mut chars = record.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quoted) {
            ('"', true) if chars.next_if_eq(&'"').is_some() => {
                fields.last_mut().into_iter().for_each(|field| field.push('"'))
            }
            ('"', _) => quoted = !quoted,
            (',', false) => fields.push(String::new()),
            (c, _) => fields.last_mut().into_iter().for_each(|field| field.push(c)),
        }
    }
    fields
}

fn refused(said: &str) -> CliError {
    let error = CliError::new("DuckDB refuses the query").detail(said.to_owned());
    match said.contains("delta") && said.contains("xtension") {
        true => error.hint("its reader of Delta logs is an extension: run `duckdb -c 'INSTALL delta'` once where the internet can be reached".to_owned()),
        false => error.hint("`cdc-audit sql --schema --from SINK` lists the views and their columns".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{fields, literal};

    #[test]
    fn a_literal_is_one_line_and_fields_are_read_as_they_were_written() {
        assert_eq!(fields("a,,\"b \"\"c\"\", d\n\",e"), ["a", "", "b \"c\", d\n", "e"]);
        assert_eq!(literal("select 'a\\'\n.shell ls;\n"), "E'select ''a\\\\''\\n.shell ls'");
    }
}
