//! The documentation: `docs/configuration.md`, which is `config.toml` as a page to read, and all pages as a book.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use audit_install::cache_dir;

use crate::cargo::{cargo, root, target_dir};
use crate::step::{run, step};

const MDBOOK: &str = "0.5.4";

/// What the book's pages link to, and the pages themselves.
const PAGES: [&str; 9] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "config.toml",
    "benches/README.md",
    "docs",
    "deploy",
    "examples",
];

/// Builds the book. The pages keep their places below the book's source, so that links between them hold there too.
pub fn book() -> Result<()> {
    let mdbook = step("install mdbook", mdbook)?;
    let book = target_dir().join("book");
    let source = book.join("src");
    if source.exists() {
        fs::remove_dir_all(&source).context("cannot remove the last book's pages")?;
    }
    for page in PAGES {
        copy(&root().join(page), &source.join(page))?;
    }
    let docs = source.join("docs");
    fs::rename(docs.join("book.toml"), book.join("book.toml"))?;
    let summary = fs::read_to_string(docs.join("SUMMARY.md"))?;
    fs::write(source.join("SUMMARY.md"), summary.replace("](", "](docs/").replace("docs/../", ""))?;
    fs::remove_file(docs.join("SUMMARY.md"))?;
    step("build the book", || run(Command::new(mdbook).arg("build").arg(&book)))?;
    println!("{}", book.join("html/index.html").display());
    Ok(())
}

/// mdBook, installed by cargo where it is missing.
fn mdbook() -> Result<PathBuf> {
    let place = cache_dir().join("tools").join(format!("mdbook-{MDBOOK}"));
    let program = place.join("bin/mdbook");
    if !program.exists() {
        let version = format!("mdbook@{MDBOOK}");
        let options = ["--locked", "--no-default-features", "--features", "search", "--root"];
        run(cargo(&["install", &version]).args(options).arg(&place).env_remove("CARGO_TARGET_DIR"))?;
    }
    Ok(program)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        return fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()));
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// `config.toml` as a page: each section a heading, each key an item with its default and its text.
pub fn configuration(config: &str) -> String {
    let mut page = Page { text: INTRODUCTION.to_owned(), doc: Vec::new() };
    let mut lines = config.lines().peekable();
    while let Some(line) = lines.next() {
        let text = line.strip_prefix("# ").unwrap_or(line.trim_start_matches('#'));
        let next = lines.peek().copied().unwrap_or_default();
        if text.starts_with('[') && text.ends_with(']') {
            page.section(text, next);
        } else if let Some((key, value)) = text.split_once(" = ").filter(|_| next.is_empty() && is_toml(text)) {
            page.key(key, value);
        } else if line.is_empty() {
            page.paragraphs("");
        } else {
            page.doc.push(text.to_owned());
        }
    }
    format!("{}\n", page.text.trim_end())
}

const INTRODUCTION: &str = "\
# Configuration

Every key, with its meaning and its default, as `cdc-audit config` prints it. `cargo xtask config` writes this page.
All problems of a file are reported in one go, each with its line and the nearest key that exists. Sections of which
there may be several have names of your own: `[sinks.hot]`, `[protection.keys.pii]`.

";

fn is_toml(line: &str) -> bool {
    line.parse::<toml::Table>().is_ok()
}

struct Page {
    text: String,
    /// The lines of documentation that wait for what they are about.
    doc: Vec<String>,
}

impl Page {
    /// `next`: the line after the header, which says the type of a section of which there are several kinds.
    fn section(&mut self, header: &str, next: &str) {
        let doc = std::mem::take(&mut self.doc);
        let next = next.trim_start_matches("# ");
        let kind = next.strip_suffix(" # required").filter(|key| key.starts_with("type = "));
        let kind = kind.map(|kind| format!(", `{kind}`")).unwrap_or_default();
        let _ = write!(self.text, "## `{header}`{kind}\n\n");
        self.doc = doc;
        self.paragraphs("");
    }

    fn key(&mut self, key: &str, value: &str) {
        const NOTES: [(&str, &str); 3] = [
            (" # required", "required, as in"),
            (" # an example; not set by default", "not set; an example:"),
            (" # an example; empty by default", "empty; an example:"),
        ];
        let noted = NOTES.iter().find_map(|(mark, note)| Some((value.strip_suffix(mark)?, *note)));
        let (value, note) = noted.unwrap_or((value, "default"));
        let doc = std::mem::take(&mut self.doc);
        self.doc.push(format!("- **`{key}`** ({note} `{value}`)"));
        self.doc.extend(doc.into_iter().map(|line| match line.strip_prefix("- ") {
            Some(item) => format!("  - {item}"),
            None => line,
        }));
        self.paragraphs("  ");
    }

    /// Writes what waits: paragraphs, indented, and items.
    fn paragraphs(&mut self, indent: &str) {
        let (mut block, mut lead) = (String::new(), indent.len());
        for line in std::mem::take(&mut self.doc) {
            let text = line.trim_start();
            let item = text.starts_with("- ");
            if item || line.is_empty() {
                self.block(&std::mem::take(&mut block), lead, if item { "\n" } else { "\n\n" });
                lead = if item { line.len() - text.len() } else { indent.len() };
            }
            block.push(' ');
            block.push_str(text);
        }
        self.block(&block, lead, "\n\n");
    }

    /// A paragraph or an item, wrapped, and what ends it.
    fn block(&mut self, text: &str, lead: usize, end: &str) {
        const COLUMNS: usize = 116;
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        let hang = " ".repeat(if text.starts_with("- ") { lead + 2 } else { lead });
        let mut line = " ".repeat(lead);
        for word in text.split_whitespace() {
            if !line.trim().is_empty() {
                if line.chars().count() + 1 + word.chars().count() > COLUMNS {
                    let _ = writeln!(self.text, "{line}");
                    line.clone_from(&hang);
                } else {
                    line.push(' ');
                }
            }
            line.push_str(word);
        }
        let _ = write!(self.text, "{line}{end}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_an_item_and_a_section_a_heading() {
        let config = "# The source.\n[source]\n# Its name:\n# `{ a\n# b = 1 }`.\nname = \"shop\" # required\n\n\
                      # How.\n# - \"a\": one\n# - \"b\": two\n# how = \"a\"\n\n\
                      # Sinks.\n\n# A lake.\n# [sinks.lake]\n# type = \"lake\" # required\n";
        let page = configuration(config);
        let page = page.strip_prefix(INTRODUCTION).unwrap_or_default();
        let expected = "## `[source]`\n\nThe source.\n\n\
                        - **`name`** (required, as in `\"shop\"`) Its name: `{ a b = 1 }`.\n\n\
                        - **`how`** (default `\"a\"`) How.\n  - \"a\": one\n  - \"b\": two\n\n\
                        Sinks.\n\n\
                        ## `[sinks.lake]`, `type = \"lake\"`\n\nA lake.\n\n\
                        - **`type`** (required, as in `\"lake\"`)\n";
        assert_eq!(page, expected);
    }

    /// `cargo xtask config` writes both.
    #[test]
    fn the_page_is_what_config_toml_says() {
        let page = configuration(include_str!("../../../config.toml"));
        assert!(page == include_str!("../../../docs/configuration.md"), "run `cargo xtask config`");
    }
}
