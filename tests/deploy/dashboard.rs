//! `deploy/grafana`: the dashboard shows what a daemon measures, all of it, by expressions that Prometheus understands.

use std::collections::BTreeSet;
use std::process::Command;

use audit_testkit::install::promtool;
use audit_testkit::{eventually, shared};
use cdc_audit_tests::repository;
use cdc_audit_tests::world::World;
use serde_json::{Value, json};

use crate::judged;

/// Every expression of the dashboard, of panels and of annotations, with what stands for Grafana's variables.
fn expressions() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(name, value)| match value.as_str() {
                Some(text) if name == "expr" => found.push(text.replace("$__rate_interval", "5m")),
                _ => collect(value, found),
            }),
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(&dashboard(), &mut found);
    found
}

fn dashboard() -> Value {
    let text = std::fs::read_to_string(repository("deploy/grafana/cdc-audit.json")).unwrap();
    serde_json::from_str(&text).expect("the dashboard is JSON")
}

/// The names of our metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("cdc_audit_")).map(str::to_owned).collect()
}

/// The names under which Prometheus stores what a daemon serves, from the lines that announce each metric.
fn served(metrics: &str) -> BTreeSet<String> {
    let announced = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    announced.map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_shows_every_metric_and_alerts_know_theirs() {
    let server = shared(15).await;
    let world = World::on(server).sql("CREATE TABLE t (id int PRIMARY KEY)").listening().build().await;
    let mut daemon = world.launch().start();
    daemon.wait_for_line("streaming");
    let mut metrics = String::new();
    eventually("metrics are served", || {
        metrics = world.get("/metrics").1;
        metrics.contains("cdc_audit_up")
    });
    assert!(daemon.stop().success(), "{}", daemon.output());
    let served = served(&metrics);
    let shown: BTreeSet<String> = expressions().iter().flat_map(|expression| names(expression)).collect();
    assert_eq!(shown, served, "deploy/grafana/cdc-audit.json shows (left) what a daemon serves (right)");
    let rules = std::fs::read_to_string(repository("deploy/prometheus/alerts.yml")).unwrap();
    let expressions = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let unknown: Vec<String> = expressions.flat_map(names).filter(|name| !served.contains(name)).collect();
    assert!(unknown.is_empty(), "alerts.yml asks for {unknown:?}, which no daemon serves");
}

#[test]
fn prometheus_understands_every_expression() {
    let rule = |(number, expression): (usize, String)| json!({ "record": format!("r{number}"), "expr": expression });
    let rules: Vec<Value> = expressions().into_iter().enumerate().map(rule).collect();
    assert!(!rules.is_empty());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    // JSON is YAML.
    std::fs::write(&file, json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string()).unwrap();
    let promtool = promtool().expect("promtool; run `cargo xtask test` to install it");
    let (content, said) = judged(Command::new(promtool).args(["check", "rules"]).arg(&file));
    assert!(content, "{said}");
}

#[test]
fn each_panel_says_what_it_shows_and_in_which_unit() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let unit = &panel["fieldConfig"]["defaults"]["unit"];
        assert!(panel["description"].is_string() && unit.is_string(), "{}", panel["title"]);
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
    }
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same id");
}
