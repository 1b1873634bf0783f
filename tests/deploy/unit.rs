//! `deploy/systemd`: the unit is valid and exposes little.

use std::process::Command;

use cdc_audit_tests::repository;

use crate::judged;

const UNIT: &str = "deploy/systemd/cdc-audit.service";

/// Maximum exposure in tenths of systemd's unit: a service without any protection has 9.6, one that may use the network
/// hardly less than 1.
const EXPOSURE: u32 = 12;

#[test]
fn the_unit_is_hardly_exposed() {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--no-pager", "--offline=true", &format!("--threshold={EXPOSURE}")]);
    let (content, said) = judged(command.arg(repository(UNIT)));
    assert!(content, "{said}");
}

#[test]
fn systemd_understands_every_line() {
    // The program is not installed where tests run, so another program replaces it.
    let text = std::fs::read_to_string(repository(UNIT)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("cdc-audit.service");
    std::fs::write(&copy, text.replace("/usr/bin/cdc-audit", "/bin/true")).unwrap();
    let (content, said) = judged(Command::new("systemd-analyze").arg("verify").arg(&copy));
    assert!(content && !said.contains("cdc-audit.service"), "{said}");
}
