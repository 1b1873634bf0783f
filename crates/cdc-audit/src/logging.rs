//! Log lines: text for people, JSON for collectors. They go to standard error; standard output is for answers.

use std::io::IsTerminal;

use audit_config::visible;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::debug_fn;

use crate::config::{LogConfig, LogFormat};
use crate::error::{CliError, code};

/// Targets that say too much, whatever level is asked for: the lake's library speaks of every read, and what concerns anybody comes
/// back as an error; the driver of PostgreSQL logs the parameters of statements, which may be values of rows, and the server's notices.
const QUIET: &str = "buoyant_kernel=off,buoyant_kernel_engine=off,delta_kernel=off,deltalake_core=warn,object_store=warn,\
     tokio_postgres=warn,tokio_postgres::query=warn,tokio_postgres::connection=warn";

/// Starts logging. Commands that answer and end log warnings only, unless told otherwise.
pub fn start(config: &LogConfig, daemon: bool) -> Result<(), CliError> {
    let level = match (&config.level, daemon) {
        (Some(level), _) => level.as_str(),
        (None, true) => "info",
        (None, false) => "warn",
    };
    let filter = EnvFilter::try_new(format!("{level},{QUIET}")).map_err(|error| {
        CliError::new("log.level is not a filter")
            .detail(error.to_string())
            .hint("give one like \"info\"".to_string())
            .code(code::USAGE)
    })?;
    // Names and messages of others must neither begin a line nor drive a terminal.
    let fields = debug_fn(|writer, field, value| {
        let text = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", visible(&text)),
            name => write!(writer, "{name}={}", visible(&text)),
        }
    });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => builder
            .fmt_fields(fields.delimited(" "))
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
