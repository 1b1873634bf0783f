//! Manual pages and completions: they know every command and every option that the help shows.

use std::path::Path;
use std::process::Command;

use audit_testkit::{command, program};

use crate::judged;

/// A command as it is typed, without the program, and the long options that its help shows.
struct Shown {
    words: Vec<String>,
    options: Vec<String>,
}

/// The program and all commands below it, by asking each for its help.
fn shown(words: &[String], found: &mut Vec<Shown>) {
    let help = command(words.iter().map(String::as_str).chain(["--help"]));
    let help = String::from_utf8(help.stdout).expect("help is text");
    // Descriptions begin further to the right, and may speak of options too.
    let option = |line: &str| {
        let option = line.trim_start();
        let begins = option.starts_with('-') && line.len() - option.len() <= 6;
        begins.then(|| option.split([' ', ',']).find(|word| word.starts_with("--")).map(str::to_owned))?
    };
    found.push(Shown { words: words.to_vec(), options: help.lines().filter_map(option).collect() });
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A further line of a description stands further to the right.
    let names = commands.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    for name in names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help") {
        shown(&[words, &[name.to_owned()]].concat(), found);
    }
}

fn all_shown() -> Vec<Shown> {
    let mut found = Vec::new();
    shown(&[], &mut found);
    assert!(found.len() > 15 && found.iter().all(|shown| shown.options.len() >= 2), "help was understood");
    found
}

#[test]
fn each_command_has_a_page_with_its_options() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("man1");
    let written = command(["man", "--to", to.to_str().unwrap()]);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    for Shown { words, options } in all_shown() {
        let name = [&["cdc-audit".to_owned()], words.as_slice()].concat().join("-");
        let page =
            std::fs::read_to_string(to.join(format!("{name}.1"))).unwrap_or_else(|error| panic!("{name}: {error}"));
        for option in options {
            assert!(page.contains(&option.replace('-', "\\-")), "the page {name} does not know {option}");
        }
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let written = command(["man", "--to", "/proc/nowhere"]);
    assert_eq!(written.status.code(), Some(1));
    let said = String::from_utf8(written.stderr).unwrap();
    assert!(said.contains("/proc/nowhere"), "{said}");
}

#[test]
fn the_shells_complete_every_option() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = command(["completions", shell]);
        assert!(script.status.success(), "{shell}");
        let script = String::from_utf8(script.stdout).unwrap();
        for Shown { words, options } in all_shown() {
            let last = words.last().map_or("cdc-audit", String::as_str);
            assert!(script.contains(last), "{shell} does not know {words:?}");
            // Fish's options stand without their dashes.
            let known = |option: &&String| script.contains(*option) || script.contains(&format!("-l {}", &option[2..]));
            let unknown: Vec<_> = options.iter().filter(|option| !known(option)).collect();
            assert!(unknown.is_empty(), "{shell} does not know {unknown:?} of {words:?}");
        }
    }
}

#[test]
fn bash_completes_each_command_with_its_own_options() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("completions.bash");
    std::fs::write(&script, command(["completions", "bash"]).stdout).unwrap();
    for Shown { words, options } in all_shown() {
        let answer = completed(&script, &words);
        for option in options {
            assert!(
                answer.lines().any(|line| line == option),
                "bash does not complete {words:?} with {option}: {answer}"
            );
        }
    }
}

/// What bash offers where `--` was typed after these words, one offer to a line.
fn completed(script: &Path, words: &[String]) -> String {
    const ASK: &str = r#"
        source "$1"; shift
        COMP_WORDS=("$@" --); COMP_CWORD=$#
        $(complete -p cdc-audit | sed 's/.*-F \([^ ]*\).*/\1/') cdc-audit -- "${@: -1}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ASK, "bash"]).arg(script).arg("cdc-audit").args(words);
    let (content, said) = judged(&mut bash);
    assert!(content, "{} in bash: {said}", program().display());
    said
}
