//! Tables, drawn for whoever looks: with lines that fit the terminal, or as plain text in a pipe. JSON where it is asked for.

use std::io::{IsTerminal, Write};

use audit_config::{visible, visible_lines};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::{CliError, code};

/// Whether a person looks at standard output.
pub fn on_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// A table whose cells hold text from elsewhere: nothing in them begins a row or drives the terminal.
pub struct Rows(Table);

impl Rows {
    pub fn add_row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.0.add_row(cells.into_iter().map(|cell| visible(cell.as_ref()).into_owned()));
    }

    /// A row of cells that may have several lines; a person sees a cell in its colour.
    pub fn add_lines(&mut self, cells: impl IntoIterator<Item = (Vec<String>, Option<Color>)>) {
        let cell = |(lines, color): (Vec<String>, Option<Color>)| {
            let lines: Vec<_> = lines.iter().map(|line| visible(line)).collect();
            color.filter(|_| on_terminal()).into_iter().fold(Cell::new(lines.join("\n")), Cell::fg)
        };
        self.0.add_row(cells.into_iter().map(cell));
    }

    pub fn print(&self) -> Result<(), CliError> {
        print_exactly(&self.0)
    }
}

/// A table in the house style; in a pipe one line for each row, whatever its width.
pub fn table(header: &[&str]) -> Rows {
    let mut table = Table::new();
    let (style, arrangement) = match on_terminal() {
        true => (presets::UTF8_HORIZONTAL_ONLY, ContentArrangement::Dynamic),
        false => (presets::ASCII_MARKDOWN, ContentArrangement::Disabled),
    };
    table.load_style(style).set_content_arrangement(arrangement).set_header(header.to_vec());
    Rows(table)
}

/// Writes lines to standard output, with names and values in them made visible.
pub fn print(text: impl std::fmt::Display) -> Result<(), CliError> {
    print_exactly(visible_lines(&text.to_string()))
}

/// Writes a line to standard output as it is: for programs to read. A closed pipe ends the program quietly, as it does others.
pub fn print_exactly(text: impl std::fmt::Display) -> Result<(), CliError> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(CliError::new("standard output cannot be written").detail(error.to_string())),
    }
}

/// Writes what goes with an answer, its heading for example, to standard error: standard output holds the answer alone.
pub fn note(text: impl std::fmt::Display) {
    // A standard error that nobody reads is no reason to keep the answer.
    let _ = writeln!(std::io::stderr().lock(), "{}", visible_lines(&text.to_string()));
}

/// An argument, or the next line of standard input where it is `-`: what other users of the machine must not see among a process's arguments.
pub fn argument(given: String) -> Result<String, CliError> {
    if given != "-" {
        return Ok(given);
    }
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    read.map_err(|error| CliError::new("standard input cannot be read").detail(error.to_string()))?;
    match line.trim_end_matches(['\n', '\r']) {
        "" => Err(CliError::new("`-` stands for a line of standard input, and there is none").code(code::USAGE)),
        line => Ok(line.to_owned()),
    }
}

/// Writes a value as one line of JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(value)
        .map_err(|error| CliError::new("the answer cannot be shown as JSON").detail(error.to_string()))?;
    print_exactly(text)
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

/// A line of comma-separated values. A text that a spreadsheet would take for a formula begins with an apostrophe.
pub fn csv(cells: &[impl AsRef<str>]) -> String {
    cells.iter().map(|text| audit_history::csv::field(text.as_ref())).collect::<Vec<_>>().join(",")
}
