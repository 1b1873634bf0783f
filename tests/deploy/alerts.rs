//! `deploy/prometheus`: the rules are valid, and fire when they should and only then.

use std::process::Command;

use audit_testkit::install::promtool;
use cdc_audit_tests::repository;

use crate::judged;

fn run_promtool(arguments: &[&str]) {
    let promtool = promtool().expect("promtool; run `cargo xtask test` to install it");
    let (content, said) = judged(Command::new(promtool).args(arguments).current_dir(repository("deploy/prometheus")));
    assert!(content, "{said}");
}

#[test]
fn the_rules_are_valid() {
    run_promtool(&["check", "rules", "alerts.yml"]);
}

#[test]
fn the_rules_fire_when_they_should() {
    run_promtool(&["test", "rules", "alerts_test.yml"]);
}

#[test]
fn every_rule_is_tried() {
    let read = |name: &str| std::fs::read_to_string(repository("deploy/prometheus").join(name)).unwrap();
    let (rules, tries) = (read("alerts.yml"), read("alerts_test.yml"));
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    for name in names {
        let mentions = tries.matches(name).count();
        assert!(mentions >= 2, "{name} is not tried both ways in alerts_test.yml");
    }
}

/// A rule about a metric that nobody serves would never fire.
#[test]
fn every_rule_asks_for_metrics_that_are_served() {
    let served = std::fs::read_to_string(repository("crates/cdc-audit/src/http.rs")).unwrap();
    let rules = std::fs::read_to_string(repository("deploy/prometheus/alerts.yml")).unwrap();
    let asked = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let names: Vec<&str> = asked
        .flat_map(|expr| expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter_map(|word| word.strip_prefix("cdc_audit_"))
        .collect();
    assert!(names.contains(&"sink_troubles"), "{names:?}");
    for name in names {
        let registered = name.strip_suffix("_total").unwrap_or(name);
        // Some of those about a table are registered without that word.
        let forms = [registered, registered.strip_prefix("table_").unwrap_or(registered)];
        assert!(forms.iter().any(|form| served.contains(&format!("\"{form}\""))), "nothing serves cdc_audit_{name}");
    }
}
