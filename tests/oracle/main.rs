//! Asks the program everything that can be asked, and compares the answers with what triggers on the same tables wrote
//! down in the same transactions: from hot alone, from the lake alone, and from both.
//!
//! What the trail cannot know, because the server did not send it, may be unknown but never different; what follows from
//! the version before must be known. `CDC_AUDIT_ORACLE_ROUNDS` sets the number of workloads, `CDC_AUDIT_SEED` the first
//! one's random choices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

// The questions: how they are asked, and what is wrong with the answers.
mod asked;
// Filters of `search`, in words and in SQL.
mod filters;
// `history`.
mod history;
// The same while everything moves.
mod moving;
// `show`, `as-of`, `diff` and `blame`.
mod rows;
// `search`, with its counts, `tx`, `report` and `export`.
mod search;
// The tables and random transactions on them.
mod shop;
// What happened.
mod truth;

use audit_testkit::{eventually_async, shared};
use cdc_audit_tests::dice::Dice;
use cdc_audit_tests::world::World;
use tokio_postgres::Client;

use asked::Asked;
use shop::{Shop, TRUTH};
use truth::{Moments, Truth};

/// The shop is captured, and what the triggers write is not.
const RULES: &str = "[[tables]]\nname = \"public.*\"\nignore_alone = []\nbaseline = false\n\
                     [[tables]]\nname = \"truth.*\"\ncapture = false\n[[tables]]\nname = \"public.people\"\n\
                     protect = { ssn = \"partial\", pin = \"full\" }\n";

/// Number of transactions of a workload.
const TRANSACTIONS: usize = 120;

fn rounds() -> u64 {
    let asked = std::env::var("CDC_AUDIT_ORACLE_ROUNDS").ok().map(|rounds| rounds.parse().expect("a number of rounds"));
    asked.unwrap_or(if cdc_audit_tests::thorough() { 100 } else { 1 })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_what_triggers_saw() {
    let seed = cdc_audit_tests::seed();
    for round in 0..rounds() {
        let seed = seed.wrapping_add(round);
        eprintln!("CDC_AUDIT_SEED={seed}");
        round_of(seed).await;
    }
}

/// Commits another row, and waits until the hot table has it, and so everything before.
async fn caught_up(client: &Client, hot: &Client) {
    let mark = "INSERT INTO marks SELECT count(*) FROM marks RETURNING id::text";
    let key: String = client.query_one(mark, &[]).await.expect("a row").get(0);
    let there = "SELECT FROM cdc_audit.versions WHERE table_name = 'public.marks' AND key = $1";
    eventually_async("the last transaction in the trail", async || {
        hot.query_opt(there, &[&key]).await.expect("the versions").is_some()
    })
    .await;
}

async fn round_of(seed: u64) {
    let server = shared(17).await;
    let mut shop = Shop::new(seed);
    let world = World::on(server)
        .sql(TRUTH)
        .sql(&shop.sql())
        .tables(RULES)
        .publication("FOR TABLES IN SCHEMA public")
        .unwitnessed()
        .build()
        .await;
    let client = world.client().await;
    let mut daemon = world.launch().start();
    daemon.wait_for_line("streaming");
    let (hot, mut moments) = (world.hot().await, Moments::new());
    for _ in 0..TRANSACTIONS {
        shop.transact(&client, async || caught_up(&client, &hot).await).await;
        moments.push(truth::moment(&client).await);
    }
    assert!(daemon.stop().success(), "{}", daemon.output());
    world.catch_up().await;
    let full: Vec<&str> = shop.tables.iter().filter(|table| table.full).map(|table| table.name).collect();
    let truth = Truth::read(&client, &full).await;
    for table in &shop.tables {
        let count = truth.of(&format!("public.{}", table.name)).count();
        assert!(count > 20, "{count} versions of {} are too few", table.name);
    }
    let mut asked = Asked::new(&world, &truth, full, moments, Dice::new(seed));
    history::ask(&mut asked);
    rows::ask(&mut asked);
    search::ask(&mut asked, &client).await;
    asked.conclude(seed);
}
