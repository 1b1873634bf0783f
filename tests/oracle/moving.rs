//! Questions while a writer writes, the daemon rolls files, and other files are compacted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use audit_testkit::shared;
use cdc_audit_tests::dice::Dice;
use cdc_audit_tests::world::World;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::RULES;
use crate::asked::{FROM, same};
use crate::shop::{KEYS, Shop, TRUTH};

/// A page of `history`.
#[derive(Deserialize)]
struct Page<'r> {
    #[serde(borrow)]
    items: Vec<&'r RawValue>,
    head: Option<String>,
    coverage: Coverage,
}

#[derive(Deserialize)]
struct Coverage {
    complete: bool,
}

/// An answer that was given while everything moved.
struct Given {
    question: Vec<String>,
    head: Option<String>,
    items: Vec<String>,
    complete: bool,
}

/// No answer has a version twice, and none lacks one up to its head, unless it says that it is incomplete.
#[tokio::test(flavor = "multi_thread")]
async fn answers_hold_while_everything_moves() {
    let seed = cdc_audit_tests::seed();
    let server = shared(17).await;
    let mut shop = Shop::new(seed).with_fixed_columns();
    let lake =
        "file_age = \"1 s\"\nroll_age = \"1 s\"\ndata_bytes = \"64 KiB\"\ngrace = \"30 s\"\nlisting_readers = false";
    let world = World::on(server).sql(TRUTH).sql(&shop.sql()).tables(RULES).lake(lake);
    let world = world.publication("FOR TABLES IN SCHEMA public").unwitnessed().build().await;
    let client = world.client().await;
    let mut daemon = world.launch().start();
    daemon.wait_for_line("streaming");
    for _ in 0..40 {
        shop.transact(&client, async || {}).await;
    }
    let (ends, mut dice) = (Arc::new(AtomicBool::new(false)), Dice::new(seed).fork());
    let writer = tokio::spawn({
        let ends = ends.clone();
        async move {
            while !ends.load(Ordering::Relaxed) {
                shop.transact(&client, async || {}).await;
            }
        }
    });
    let mut given = Vec::new();
    tokio::task::block_in_place(|| {
        for round in 0..questions() {
            let (table, key) = (*dice.pick(&["items", "whole"]), dice.between(0, KEYS - 1).to_string());
            given.extend(ask(&world, table, &key, FROM[dice.below(3) as usize]));
            if round % 8 == 7 {
                world.succeed(&["compact"]);
            }
        }
    });
    ends.store(true, Ordering::Relaxed);
    writer.await.expect("the writer ends");
    assert!(daemon.stop().success(), "{}", daemon.output());
    world.catch_up().await;
    let complete = given.iter().filter(|given| given.complete).count();
    assert!(complete > given.len() / 2, "only {complete} of {} answers are complete", given.len());
    let wrong: Vec<String> = given.iter().filter_map(|given| compare(&world, given)).collect();
    assert!(wrong.is_empty(), "CDC_AUDIT_SEED={seed}: {} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn questions() -> u32 {
    if cdc_audit_tests::thorough() { 400 } else { 24 }
}

/// The answer; `None` if nothing was recorded yet of the table.
fn ask(world: &World, table: &str, key: &str, from: &[&str]) -> Option<Given> {
    let question = [&["history", table, key, "--page", "--all", "--limit", "10000"], from].concat();
    let output = world.command(&question);
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("there are no versions of") {
        return None;
    }
    assert!(output.status.success(), "{question:?}: {said}");
    let page: Page<'_> = serde_json::from_slice(&output.stdout).expect("a page");
    Some(Given {
        question: question.iter().map(|word| (*word).to_owned()).collect(),
        items: page.items.iter().map(|item| same(item.get())).collect(),
        head: page.head,
        complete: page.coverage.complete,
    })
}

/// What is wrong with an answer: it must be the one that is given at rest, up to its head. ⚠ A row that had another key
/// until then, and got this one later, is part of the answer at rest only.
fn compare(world: &World, given: &Given) -> Option<String> {
    let position = |item: &Value| item["position"].as_str().expect("a position").to_owned();
    let until = given.head.clone().unwrap_or_default();
    let (question, key) = (&given.question[..7], given.question[2].as_str());
    let told = world.succeed(&question.iter().map(String::as_str).collect::<Vec<_>>());
    let page: Page<'_> = serde_json::from_str(&told).expect("a page");
    let all: Vec<String> = page.items.iter().map(|item| same(item.get())).collect();
    let own = |items: &[String]| {
        let mut items: Vec<Value> = items.iter().map(|item| serde_json::from_str(item).expect("a record")).collect();
        items.retain(|item| position(item) <= until && item["event"] != "truncated");
        let had = |item: &&Value| item["key"] == key || item["old_key"] == key;
        let rows: Vec<Value> = items.iter().filter(had).map(|item| item["row"].clone()).collect();
        items.retain(|item| rows.contains(&item["row"]));
        items.iter_mut().for_each(|item| drop(item.as_object_mut().expect("an object").remove("row")));
        items
    };
    let (told, expected) = (own(&given.items), own(&all));
    let places: Vec<String> = told.iter().map(position).collect();
    let once = places.is_sorted_by(|a, b| a > b);
    let holds = if given.complete { told == expected } else { told.iter().all(|item| expected.contains(item)) };
    let wanted: Vec<String> = expected.iter().map(position).collect();
    let differs = told.iter().zip(&expected).find(|(a, b)| a != b);
    (!once || !holds).then(|| {
        format!(
            "{:?} up to {until}: {places:?}\n   and not {wanted:?}\n   first difference: {differs:?}",
            given.question
        )
    })
}
