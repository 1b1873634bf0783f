//! `deploy/debian`: a package out of what cargo-deb is told to pack. It is installed into a folder that stands for a
//! machine, installed again, removed and purged. `cargo xtask package` does the same with the package that it makes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use audit_testkit::install::is_root;
use audit_testkit::{command, program};
use cdc_audit_tests::repository;
use serde_json::Value;

use crate::judged;

/// Where the table of files says that `cargo xtask package` has put what it generates.
const PARTS: &str = "target/release/package/parts/";

/// What the manifest of the program says about the package.
fn metadata() -> Value {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--format-version=1", "--no-deps", "--offline"]).current_dir(repository(""));
    let (content, said) = judged(cargo.env("CARGO_TERM_QUIET", "true"));
    assert!(content, "{said}");
    let start = said.find('{').expect("JSON");
    let metadata: Value = serde_json::Deserializer::from_str(&said[start..]).into_iter().next().unwrap().unwrap();
    let packages = metadata["packages"].as_array().expect("packages");
    let program = packages.iter().find(|package| package["name"] == "cdc-audit").expect("the program");
    program["metadata"]["deb"].clone()
}

/// The files that `cargo xtask package` generates; a changelog stands for the one that it writes.
fn parts(folder: &Path) {
    for name in ["bin", "man", "completions"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    std::fs::copy(program(), folder.join("bin/cdc-audit")).unwrap();
    assert!(command(["man", "--to", folder.join("man").to_str().unwrap()]).status.success());
    let pages = std::fs::read_dir(folder.join("man")).unwrap().map(|page| page.unwrap().path());
    let (content, said) = judged(Command::new("gzip").args(pages));
    assert!(content, "{said}");
    for (shell, name) in [("bash", "cdc-audit.bash"), ("fish", "cdc-audit.fish"), ("zsh", "_cdc-audit")] {
        std::fs::write(folder.join("completions").join(name), command(["completions", shell]).stdout).unwrap();
    }
    std::fs::write(folder.join("changelog.Debian.gz"), "").unwrap();
}

/// The files that a line of the table names.
fn sources(source: &str, parts: &Path) -> Vec<PathBuf> {
    let path = match source.strip_prefix(PARTS) {
        Some(part) => parts.join(part),
        None => repository("crates/cdc-audit").join(source),
    };
    let Some(ending) = path.file_name().and_then(|name| name.to_str()?.strip_prefix('*')) else { return vec![path] };
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_str().is_some_and(|path| path.ends_with(ending))).collect()
}

/// Copies a file to where the table says: into a folder, if the target ends in a slash, else under another name.
fn put(file: &Path, root: &Path, target: &str, mode: &str) {
    let mut target_path = root.join(target);
    if target.ends_with('/') {
        target_path.push(file.file_name().unwrap());
    }
    std::fs::create_dir_all(target_path.parent().unwrap()).unwrap();
    std::fs::copy(file, &target_path).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mode = u32::from_str_radix(mode, 8).expect("an octal mode");
    std::fs::set_permissions(&target_path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The folder that dpkg-deb turns into a package.
fn packed(folder: &Path) -> PathBuf {
    let (root, parts_folder, metadata) = (folder.join("root"), folder.join("parts"), metadata());
    parts(&parts_folder);
    for line in metadata["assets"].as_array().expect("assets") {
        let [source, target, mode] = [0, 1, 2].map(|at| line[at].as_str().expect("text"));
        let files = sources(source, &parts_folder);
        assert!(!files.is_empty(), "{source} names no file");
        files.iter().for_each(|file| put(file, &root, target, mode));
    }
    let control = "Package: cdc-audit\nVersion: 0-1\nArchitecture: all\nMaintainer: tests <tests@localhost>\n\
                   Description: a test\n";
    std::fs::create_dir_all(root.join("DEBIAN")).unwrap();
    std::fs::write(root.join("DEBIAN/control"), control).unwrap();
    let kept: Vec<&str> = metadata["conf-files"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    std::fs::write(root.join("DEBIAN/conffiles"), kept.join("\n") + "\n").unwrap();
    for script in ["postinst", "prerm", "postrm"] {
        put(&repository("deploy/debian").join(script), &root, "DEBIAN/", "755");
    }
    root
}

#[test]
fn the_package_is_installed_twice_removed_and_purged() {
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("cdc-audit.deb");
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "-Znone", "--build"]).arg(packed(folder.path())).arg(&package);
    let (content, said) = judged(&mut build);
    assert!(content, "{said}");
    // Only root gives files to another user.
    let mut attempt = Command::new(if is_root() { "env" } else { "sudo" });
    attempt.arg("sh").arg(repository("deploy/debian/try")).arg(&package);
    let (content, said) = judged(&mut attempt);
    assert!(content, "{said}");
}

#[test]
fn the_configuration_of_the_package_works_once_it_is_uncommented() {
    let text = std::fs::read_to_string(repository("deploy/debian/config.toml")).unwrap();
    let uncommented: Vec<&str> = text.lines().map(|line| line.strip_prefix('#').unwrap_or(line)).collect();
    // Sentences begin with a blank after the sign of a comment, keys do not.
    let keys: Vec<&str> = uncommented.into_iter().filter(|line| !line.starts_with(' ')).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, keys.join("\n")).unwrap();
    let output = command(["config", "--effective", "--config", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("[sinks.hot]") && shown.contains("[sinks.archive]"), "{shown}");
}
