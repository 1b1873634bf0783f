//! Log lines: text for people, JSON for collectors. They go to standard error; standard output is for answers.

use std::fmt;
use std::io::IsTerminal;

use audit_config::visible;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

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
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => {
            builder.fmt_fields(fields()).with_ansi(std::io::stderr().is_terminal()).with_target(false).init()
        }
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Message and fields of a line. ⚠ Names and messages of others must neither begin a line nor drive a terminal.
fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let field = |writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        let text = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", visible(&text)),
            name => write!(writer, "{name}={}", visible(&text)),
        }
    };
    debug_fn(field).delimited(" ")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().map_err(|_| io::ErrorKind::Other)?.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_name_neither_begins_a_line_nor_drives_a_terminal() {
        let lines = Lines::default();
        let writer = lines.clone();
        let builder = tracing_subscriber::fmt().fmt_fields(fields()).with_ansi(false).without_time();
        tracing::subscriber::with_default(builder.with_writer(move || writer.clone()).finish(), || {
            let table = "public.x\n2026-01-01 ERROR forged\r\u{1b}[2J\u{85}\u{2028}\u{202e}";
            tracing::warn!(%table, text = table, ?table, count = 7, "odd {table}");
        });
        let told = String::from_utf8(lines.0.lock().expect("lines").clone()).expect("text");
        assert_eq!(told.matches(['\n', '\r', '\u{1b}', '\u{85}', '\u{2028}', '\u{202e}']).count(), 1, "{told:?}");
        assert!(told.contains("count=7") && told.contains(r"table=public.x\n2026"), "{told}");
    }
}
