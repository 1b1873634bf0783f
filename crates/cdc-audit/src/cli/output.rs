//! Tables, drawn for whoever looks: with lines that fit the terminal, or as plain text in a pipe. JSON where it is asked for.

use std::io::{IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::CliError;

/// Whether a person looks at standard output.
pub fn on_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// A table in the house style; in a pipe one line for each row, whatever its width.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    let (style, arrangement) = match on_terminal() {
        true => (presets::UTF8_HORIZONTAL_ONLY, ContentArrangement::Dynamic),
        false => (presets::ASCII_MARKDOWN, ContentArrangement::Disabled),
    };
    table.load_style(style).set_content_arrangement(arrangement).set_header(header.to_vec());
    table
}

/// Writes a line to standard output. A closed pipe ends the program quietly, as it does others.
pub fn print(text: impl std::fmt::Display) -> Result<(), CliError> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(CliError::new("standard output cannot be written").detail(error.to_string())),
    }
}

/// Writes a value as one line of JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(value)
        .map_err(|error| CliError::new("the answer cannot be shown as JSON").detail(error.to_string()))?;
    print(text)
}

/// `12.3 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}
