use audit_testkit::PATIENCE;
use cdc_audit_tests::dice::Dice;
use cdc_audit_tests::{seed, thorough};

use crate::arena::Arena;

/// A named place in the program where it can be killed.
pub struct Point {
    pub name: &'static str,
    /// What makes the program pass a point that it passes only after another kill, or rarely.
    pub needs: Needs,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Needs {
    Nothing,
    /// The point needs a file that no log names, left by a kill between a roll's file and its commit.
    Leftover,
    /// The point needs a table that is not read yet.
    Rows,
    /// The point needs a Kafka sink.
    Kafka,
}

const fn point(name: &'static str, needs: Needs) -> Point {
    Point { name, needs }
}

pub const POINTS: &[Point] = &[
    point("pipeline::after_lock", Needs::Nothing),
    point("pipeline::after_take", Needs::Nothing),
    point("hot::after_take", Needs::Nothing),
    point("hot::before_copy", Needs::Nothing),
    point("hot::after_copy", Needs::Nothing),
    point("hot::before_commit", Needs::Nothing),
    point("hot::after_commit", Needs::Nothing),
    point("lake::after_take", Needs::Nothing),
    point("lake::before_put", Needs::Nothing),
    point("lake::after_put", Needs::Nothing),
    point("lake::sync_file", Needs::Nothing),
    point("lake::sync_folder", Needs::Nothing),
    point("lake::before_commit", Needs::Nothing),
    point("lake::after_commit", Needs::Nothing),
    point("lake::before_checkpoint", Needs::Nothing),
    point("lake::after_checkpoint", Needs::Nothing),
    point("lake::before_delta_checkpoint", Needs::Nothing),
    point("lake::after_delta_checkpoint", Needs::Nothing),
    point("lake::before_adopt", Needs::Leftover),
    point("lake::before_merge", Needs::Nothing),
    point("lake::after_merge", Needs::Nothing),
    point("kafka::after_init", Needs::Kafka),
    point("kafka::after_take", Needs::Kafka),
    point("kafka::before_send", Needs::Kafka),
    point("kafka::after_send", Needs::Kafka),
    point("kafka::before_commit", Needs::Kafka),
    point("kafka::after_commit", Needs::Kafka),
    point("baseline::after_read", Needs::Rows),
    point("baseline::after_bounds_stored", Needs::Rows),
    point("baseline::after_watermark", Needs::Rows),
];

/// Points that the tests of the lake cover, because the running daemon does not pass them.
const ELSEWHERE: [&str; 4] = ["lake::before_compact", "lake::after_compact", "lake::before_give_up", "lake::too_large"];

/// Checks that the lists above are complete, so that a new point in the program is also killed at here.
#[test]
fn every_fault_point_is_known() {
    let mut named = Vec::new();
    sources(&cdc_audit_tests::repository("crates"), &mut named);
    // A webhook has its own test, because it may repeat what the sinks here must not, and so have exports.
    named.retain(|name| !name.starts_with("webhook::") && !name.starts_with("export::"));
    named.sort();
    named.dedup();
    let mut known: Vec<&str> = POINTS.iter().map(|point| point.name).chain(ELSEWHERE).collect();
    known.sort();
    assert_eq!(named, known);
}

/// Finds the texts in quotes after `fail_point!(` or `fault!(`.
fn sources(folder: &std::path::Path, named: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, named);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let calls = text.split("fail_point!(\"").skip(1).chain(text.split("fault!(\"").skip(1));
            named.extend(calls.map(|rest| rest.split('"').next().unwrap_or_default().to_owned()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_every_fault_point_loses_nothing() {
    let mut arena = Arena::with_kafka(Dice::new(seed())).await;
    arena.write();
    for passage in 1..=if thorough() { 3 } else { 1 } {
        for point in POINTS {
            eprintln!("{} at passage {passage}", point.name);
            kill_at(&mut arena, point, passage).await;
        }
    }
    arena.settle().await;
}

async fn kill_at(arena: &mut Arena, point: &Point, passage: i32) {
    match point.needs {
        Needs::Nothing | Needs::Kafka => {}
        Needs::Rows => arena.late_table(),
        Needs::Leftover => {
            let mut daemon = arena.launch().environment("CDC_AUDIT_FAULTS", "lake::after_merge=kill@1").start();
            daemon.wait();
        }
    }
    let faults = format!("{}=kill@{passage}", point.name);
    let mut daemon = arena.launch().environment("CDC_AUDIT_FAULTS", &faults).start();
    let begun = std::time::Instant::now();
    while daemon.ended().is_none() {
        assert!(begun.elapsed() < PATIENCE, "{} was never reached:\n{}", point.name, daemon.output());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    use std::os::unix::process::ExitStatusExt;
    let status = daemon.wait();
    assert!(status.signal().is_some(), "{}: the daemon ended by itself ({status}):\n{}", point.name, daemon.output());
}
