//! `deploy/docker`: no engine runs here, so the image and its composition are read, and compared with the sources.

use std::path::Path;
use std::process::Command;

use audit_testkit::install::python;
use audit_testkit::{command, program};
use cdc_audit_tests::repository;
use serde_json::Value;

use crate::judged;

const DOCKERFILE: &str = "deploy/docker/Dockerfile";

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The composition, as YAML is read by a program that knows it.
fn composition() -> Value {
    let mut ruby = Command::new("ruby");
    ruby.args(["-ryaml", "-rjson", "-e", "puts JSON.dump(YAML.load_file(ARGV[0], aliases: true))"]);
    let (content, said) = judged(ruby.arg(repository("deploy/docker/compose.yaml")));
    assert!(content, "{said}");
    serde_json::from_str(&said).expect("JSON")
}

/// What `cdc-audit config --effective` makes of the configuration beside the composition.
fn effective() -> String {
    let file = repository("deploy/docker/config.toml");
    let output = command(["config", "--effective", "--config", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The port of an address in `listen = "…"`.
fn port(shown: &str) -> &str {
    let listen = shown.lines().find_map(|line| line.strip_prefix("listen = \"")).expect("an address");
    listen.trim_end_matches('"').rsplit(':').next().unwrap()
}

#[test]
fn a_linter_has_nothing_to_say() {
    let hadolint = python().with_file_name("hadolint");
    let (content, said) = judged(Command::new(hadolint).arg(repository(DOCKERFILE)));
    assert!(content && said.is_empty(), "{said}");
}

#[test]
fn what_the_image_is_built_from_is_there() {
    let (dockerfile, ignored, manifest) = (read(DOCKERFILE), read(".dockerignore"), read("Cargo.toml"));
    let toolchain = read("rust-toolchain.toml");
    let version = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert!(
        dockerfile.contains(&format!("FROM rust:{version}-")),
        "not the compiler of rust-toolchain.toml, {version}"
    );
    let kept: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(kept.iter().all(|path| repository(path).exists()), "{kept:?}");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
    let members: Vec<&str> = members.split('"').filter(|word| word.starts_with(char::is_alphabetic)).collect();
    for needed in members.iter().map(|member| member.trim_end_matches("/*")).chain(["Cargo.toml", "Cargo.lock"]) {
        assert!(kept.contains(&needed), "cargo needs {needed}, which .dockerignore leaves out");
    }
}

#[test]
fn the_image_runs_without_root_and_without_a_shell() {
    let dockerfile = read(DOCKERFILE);
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    let user = last.lines().find_map(|line| line.strip_prefix("USER ")).expect("a user");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
    assert!(!last.contains("\nRUN "), "the final image has no shell");
    for instruction in ["ENTRYPOINT ", "\nCMD ", "CMD [\"/usr/bin/cdc-audit\", \"status\"]"] {
        let found = last.find(instruction).unwrap_or_else(|| panic!("no {instruction}"));
        assert!(
            last[found..].lines().find(|line| !line.is_empty()).unwrap().contains('['),
            "{instruction} wants a shell"
        );
    }
}

/// The image has these libraries and no others: a new one has to be put into it.
#[test]
fn the_program_needs_no_library_that_the_image_does_not_have() {
    const BASE: [&str; 7] =
        ["libssl.so.3", "libcrypto.so.3", "libgcc_s.so.1", "libm.so.6", "libc.so.6", "ld-linux", "linux-vdso"];
    let (content, said) = judged(Command::new("ldd").arg(program()));
    assert!(content, "{said}");
    let names = said.lines().filter_map(|line| line.split_whitespace().next()?.rsplit('/').next());
    for name in names {
        let known = BASE.iter().any(|base| name.starts_with(base)) || read(DOCKERFILE).contains(name);
        assert!(known, "{name} is not in the image; see {DOCKERFILE}");
    }
}

/// They are made inside of the sources, and must be part of no commit and of no package.
#[test]
fn git_ignores_the_passwords_of_the_composition() {
    let (ignored, composition) = (read(".gitignore"), composition());
    let secrets = composition["secrets"].as_object().expect("secrets");
    assert!(!secrets.is_empty());
    for secret in secrets.values() {
        let file = secret["file"].as_str().expect("a file").trim_start_matches("./");
        let path = Path::new("deploy/docker").join(file);
        let mut folders = ignored.lines().filter_map(|line| line.strip_prefix('/'));
        assert!(folders.any(|folder| path.starts_with(folder)), "git does not ignore {}", path.display());
    }
}

#[test]
fn the_composition_fits_the_program() {
    let (composition, shown) = (composition(), effective());
    let services = composition["services"].as_object().expect("services");
    for (name, service) in services {
        for volume in service["volumes"].as_array().expect("volumes").iter().filter_map(Value::as_str) {
            let source = volume.split(':').next().unwrap();
            let there = match source.strip_prefix("./") {
                Some(file) => repository("deploy/docker").join(file).exists(),
                None => composition["volumes"].get(source).is_some(),
            };
            assert!(there, "{name}: {source} is not there");
        }
        for secret in service["secrets"].as_array().expect("secrets").iter().filter_map(Value::as_str) {
            assert!(composition["secrets"].get(secret).is_some(), "{name}: no secret {secret}");
        }
    }
    let daemon = &services["cdc-audit"];
    assert_eq!(daemon["expose"], serde_json::json!([port(&shown)]));
    assert_eq!(
        port(&shown),
        port(&String::from_utf8(command(["config"]).stdout).unwrap().replace("# listen", "listen"))
    );
    assert_eq!(daemon["read_only"], true);
    let secrets: Vec<String> =
        daemon["secrets"].as_array().unwrap().iter().filter_map(Value::as_str).map(str::to_owned).collect();
    for file in shown.lines().filter_map(|line| line.strip_prefix("password_file = \"/run/secrets/")) {
        assert!(secrets.contains(&file.trim_end_matches('"').to_owned()), "no secret {file}");
    }
    let options = services["setup"]["command"].as_array().expect("a command").iter().filter_map(Value::as_str);
    let help = String::from_utf8(command(["setup", "--help"]).stdout).unwrap();
    for option in options.filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap()) {
        assert!(help.contains(option), "setup knows no {option}");
    }
    assert!(services["postgres"]["command"].as_array().unwrap().contains(&Value::from("wal_level=logical")));
}
