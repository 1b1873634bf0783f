//! Every page of the documentation: its links lead somewhere, its configurations load, its commands parse, and what it
//! lists is what the program has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use audit_config::Problems;
use clap::Parser;
use clap::error::ErrorKind;

use crate::Cli;
use crate::config::Config;

/// What `cargo xtask` writes: it is as wide as what it was made from.
const GENERATED: [&str; 1] = ["docs/configuration.md"];

struct Page {
    /// Below the root of the repository.
    name: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("a workspace").to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn pages() -> Vec<Page> {
    let mut names = Vec::new();
    for folder in ["", "benches", "docs", "docs/sinks", "examples/attribution"] {
        for entry in fs::read_dir(root().join(folder)).expect("a folder") {
            let name = entry.expect("an entry").file_name().into_string().expect("a plain name");
            if name.ends_with(".md") {
                names.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
            }
        }
    }
    names.sort();
    assert!(names.len() > 20, "{names:?}");
    names.into_iter().map(|name| Page { text: read(&name), name }).collect()
}

/// A block of code, or what stands between two of them, with the number of its first line.
enum Part<'p> {
    Prose(usize, &'p str),
    Code(&'p str, Vec<(usize, &'p str)>),
}

impl Page {
    /// Prose line by line, code block by block.
    fn parts(&self) -> Vec<Part<'_>> {
        let mut parts = Vec::new();
        let mut lines = (1..).zip(self.text.lines());
        while let Some((number, line)) = lines.next() {
            match line.trim_start().strip_prefix("```") {
                None => parts.push(Part::Prose(number, line)),
                Some(kind) => {
                    parts.push(Part::Code(kind, lines.by_ref().take_while(|(_, l)| l.trim() != "```").collect()))
                }
            }
        }
        parts
    }

    /// The blocks of code of this kind, each with the place of its first line.
    fn code(&self, kind: &str) -> Vec<(String, String)> {
        let block = |part: Part<'_>| match part {
            Part::Code(found, lines) if found == kind => {
                let place = format!("{}:{}", self.name, lines.first().map_or(0, |(number, _)| *number));
                Some((place, lines.iter().map(|(_, line)| format!("{line}\n")).collect()))
            }
            _ => None,
        };
        self.parts().into_iter().filter_map(block).collect()
    }

    /// What links to its headings say after the `#`, as GitHub and mdBook make it.
    fn anchors(&self) -> BTreeSet<String> {
        let heading = |part: Part<'_>| match part {
            Part::Prose(_, line) if line.starts_with('#') => Some(anchor(line.trim_start_matches('#').trim())),
            _ => None,
        };
        self.parts().into_iter().filter_map(heading).collect()
    }

    /// Paragraphs, each in one line, with the number of its first one.
    fn paragraphs(&self) -> Vec<(usize, String)> {
        let mut paragraphs: Vec<(usize, String)> = Vec::new();
        let mut begun = false;
        for part in self.parts() {
            let Part::Prose(number, line) = part else { continue };
            match paragraphs.last_mut().filter(|_| begun && !line.is_empty()) {
                Some((_, text)) => text.extend([" ", line.trim()]),
                None => paragraphs.push((number, line.to_owned())),
            }
            begun = !line.is_empty();
        }
        paragraphs
    }

    /// The targets of links, with the line.
    fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for part in self.parts() {
            let Part::Prose(number, line) = part else { continue };
            let line = without_code(line);
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            links.extend(targets.map(|(target, _)| (number, target.to_owned())));
        }
        links
    }
}

fn anchor(heading: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    };
    heading.chars().filter_map(kept).collect()
}

/// The line without its `code`.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// `docs/../README.md` is `README.md`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            other => normal.push(other),
        }
    }
    normal
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut broken = Vec::new();
    for page in &pages {
        for (number, link) in page.links().into_iter().filter(|(_, link)| !link.contains("://")) {
            let (file, heading) = link.split_once('#').map_or((link.as_str(), None), |(file, to)| (file, Some(to)));
            let folder = Path::new(&page.name).parent().unwrap_or(Path::new(""));
            let target = if file.is_empty() { PathBuf::from(&page.name) } else { normal(&folder.join(file)) };
            let there = pages.iter().find(|other| Path::new(&other.name) == target);
            let found = match heading {
                None => root().join(&target).exists(),
                Some(heading) => there.is_some_and(|other| other.anchors().contains(heading)),
            };
            if !found {
                broken.push(format!("{}:{number}: {link}", page.name));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

/// A page that nothing leads to is not read.
#[test]
fn every_page_is_in_the_index_and_in_the_book() {
    for index in ["docs/README.md", "docs/SUMMARY.md"] {
        let text = read(index);
        for page in pages() {
            let Some(name) = page.name.strip_prefix("docs/").filter(|name| !["README.md", "SUMMARY.md"].contains(name))
            else {
                continue;
            };
            assert!(text.contains(&format!("]({name})")), "{name} is not in {index}");
        }
    }
}

/// A block shows a part: what it leaves out is added here.
fn completed(block: &str) -> String {
    let mut text = String::new();
    if !block.contains("[source]") {
        text += "[source]\nname = 'shop'\nurl = 'postgres://localhost/shop'\n";
    }
    text += block;
    if !block.contains("[sinks.") {
        text += "\n[sinks.hot]\ntype = 'hot'\nurl = 'postgres://localhost/audit'\n";
    }
    if !block.contains("[protection]\n") {
        text += "\n[protection]\n";
    }
    let keys = ["hash_key", "row_key"].into_iter().filter(|key| !block.contains(key));
    let keys: String = keys.map(|key| format!("{key} = {{ env = '{key}' }}\n")).collect();
    text = text.replace("[protection]\n", &format!("[protection]\n{keys}"));
    if !block.contains("[protection.keys.pii]") {
        text += "\n[protection.keys.pii]\nmaster = { type = 'local', file = '/keyring' }\n";
    }
    text
}

#[test]
fn every_toml_block_is_a_configuration() {
    let mut count = 0;
    for page in pages() {
        for (place, block) in page.code("toml") {
            let check = |config: &Config, problems: &mut Problems| config.check(problems);
            let parsed = audit_config::parse(Path::new(&place), &completed(&block), check);
            assert!(parsed.is_ok(), "{}", parsed.map(|_| ()).expect_err("problems"));
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

/// The first one of the README is shown as the smallest that works: nothing is added to it.
#[test]
fn the_example_of_the_readme_is_a_configuration() {
    let readme = pages().into_iter().find(|page| page.name == "README.md").expect("the README");
    let (place, example) = readme.code("toml").remove(0);
    let check = |config: &Config, problems: &mut Problems| config.check(problems);
    let config = audit_config::parse(Path::new(&place), &example, check);
    assert_eq!(config.map(|config| config.sinks.len()).map_err(|problems| problems.to_string()), Ok(2));
}

/// The commands of a line for a shell, each as its words; redirections are left out.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let (mut word, mut quote, mut begun) = (String::new(), None, false);
    for c in line.chars().chain([' ']) {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => (quote, begun) = (Some(c), true),
            (None, '#') if !begun => break,
            (None, ' ' | '|' | '&' | ';' | '\n') => {
                if begun {
                    commands.last_mut().expect("a command").push(std::mem::take(&mut word));
                    begun = false;
                }
                if c != ' ' {
                    commands.push(Vec::new());
                }
            }
            (None, c) => (begun, _) = (true, word.push(c)),
        }
    }
    for command in &mut commands {
        let redirected = command.iter().position(|word| word.starts_with('>') || word.starts_with('<'));
        command.truncate(redirected.unwrap_or(command.len()));
    }
    commands
}

/// What is wrong with the line's calls of the program.
fn refused(line: &str) -> Option<String> {
    let ours = commands(line).into_iter().filter(|words| words.first().is_some_and(|word| word == "cdc-audit"));
    let error = ours.filter_map(|words| Cli::try_parse_from(words).err());
    let shown = [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion];
    error.filter(|error| !shown.contains(&error.kind())).map(|error| error.to_string()).next()
}

#[test]
fn every_command_is_one() {
    let (mut count, mut wrong) = (0, Vec::new());
    let mut check = |place: String, line: &str| {
        let line = &line.replace("POSITION", "0001:0000000016b37430:0000000002");
        count += usize::from(line.contains("cdc-audit "));
        wrong.extend(refused(line).map(|error| format!("{place}: {line}\n{error}")));
    };
    for page in pages() {
        for part in page.parts() {
            match part {
                Part::Code("console", lines) => {
                    for (number, line) in lines {
                        let command = line.trim_start().strip_prefix("$ ").unwrap_or_default();
                        check(format!("{}:{number}", page.name), command);
                    }
                }
                Part::Code("bash" | "sh", lines) => {
                    lines.iter().for_each(|(number, line)| check(format!("{}:{number}", page.name), line));
                }
                _ => {}
            }
        }
        for (number, text) in page.paragraphs() {
            let spans = text.split('`').skip(1).step_by(2);
            // A command without anything is a name: `cdc-audit resume`.
            for span in spans.filter(|span| span.starts_with("cdc-audit ") && span.contains(" --")) {
                check(format!("{}:{number}", page.name), span);
            }
        }
    }
    assert_eq!(wrong.join("\n"), "");
    assert!(count > 60, "{count}");
}

#[test]
fn no_line_is_too_wide() {
    const COLUMNS: usize = 120;
    let mut wide = Vec::new();
    for page in pages().iter().filter(|page| !GENERATED.contains(&page.name.as_str())) {
        for part in page.parts() {
            match part {
                Part::Prose(number, line) if !line.starts_with('|') => {
                    // The target of a link cannot be divided.
                    let shown: String =
                        line.split("](").map(|part| part.split_once(')').map_or(part, |(_, rest)| rest)).collect();
                    if line.chars().count() > COLUMNS && (shown.len() == line.len() || shown.chars().count() > COLUMNS)
                    {
                        wide.push(format!("{}:{number}", page.name));
                    }
                }
                // What a program prints is shown as it is.
                Part::Code("console", lines) => {
                    let commands = lines.iter().filter(|(_, line)| line.starts_with("$ "));
                    let long = commands.filter(|(_, line)| line.chars().count() > COLUMNS);
                    wide.extend(long.map(|(number, _)| format!("{}:{number}", page.name)));
                }
                _ => {}
            }
        }
    }
    assert_eq!(wide, Vec::<String>::new());
}

/// The first cells of the rows of a page's tables.
fn first_cells(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect()
}

/// `docs/operations.md` names every metric, and none that is not there.
#[test]
fn every_metric_is_documented() {
    let page = read("docs/operations.md");
    let listed: BTreeSet<&str> = first_cells(&page)
        .into_iter()
        .filter_map(|cell| cell.strip_prefix('`')?.strip_suffix('`'))
        .filter(|name| name.starts_with("cdc_audit_"))
        .collect();
    let names = crate::http::names();
    assert_eq!(listed, names.iter().map(String::as_str).collect());
}

#[test]
fn every_alert_is_documented() {
    let alerts = read("deploy/prometheus/alerts.yml");
    let alerts: BTreeSet<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let page = read("docs/operations.md");
    let listed = first_cells(&page).into_iter().filter_map(|cell| cell.strip_prefix("`CdcAudit")?.strip_suffix('`'));
    assert_eq!(
        listed.map(|name| format!("CdcAudit{name}")).collect::<BTreeSet<_>>(),
        alerts.iter().map(|name| (*name).to_owned()).collect()
    );
}

/// What `check` says is about an area and a subject: where the code names the subject, the page has a row for it.
#[test]
fn every_finding_has_a_row() {
    let page = read("docs/operations.md");
    let rows = first_cells(&page);
    let mut findings = BTreeSet::new();
    for entry in fs::read_dir(root().join("crates/audit-capture/src/check")).expect("the checks") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a file");
        for call in text.split("Area::").skip(1) {
            let Some((area, rest)) = call.split_once(',') else { continue };
            let subject = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'));
            findings.insert((area.to_ascii_lowercase(), subject.map(|(subject, _)| subject.to_owned())));
        }
    }
    assert!(findings.len() > 15, "{findings:?}");
    for (area, subject) in findings {
        let row = |cell: &&&str| match &subject {
            Some(subject) => cell.starts_with(&format!("{area}, ")) && cell.contains(&format!("`{subject}`")),
            None => **cell == area || cell.starts_with(&format!("{area}, ")),
        };
        assert!(rows.iter().any(|cell| row(&cell)), "{area}, {subject:?} has no row in docs/operations.md");
    }
}
