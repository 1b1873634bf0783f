use audit_testkit::{PATIENCE, shared};
use cdc_audit_tests::dice::Dice;
use cdc_audit_tests::receiver::{Reaction, Receiver};
use cdc_audit_tests::{seed, thorough};

use crate::shop::{compare, world, write};

/// Fault points of a webhook, which the other kill tests leave out.
const POINTS: &[&str] = &["webhook::before_post", "webhook::after_post", "webhook::after_checkpoint"];

/// Everything arrives in order, whatever was killed; unfinished requests may be repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_loses_nothing() {
    let (server, receiver) = (shared(15).await, Receiver::start().await);
    let mut dice = Dice::new(seed());
    let world = world(server, &receiver, "timeout = \"500 ms\"\nbatch_rows = 10").build().await;
    let rounds = if thorough() { 100 } else { 9 };
    for round in 0..rounds {
        let reactions: Vec<Reaction> = (0..dice.below(4))
            .map(|_| match dice.below(5) {
                0 => Reaction::TakeAndFail,
                1 => Reaction::Status(500),
                2 => Reaction::Hang,
                _ => Reaction::Take,
            })
            .collect();
        receiver.script(&reactions);
        write(server, &world, 1 + round * 30, 30);
        let faults = format!("{}=kill@{}", POINTS[round as usize % POINTS.len()], 1 + dice.below(3));
        let mut daemon = world.launch().environment("CDC_AUDIT_FAULTS", &faults).start();
        let begun = std::time::Instant::now();
        while daemon.ended().is_none() {
            assert!(begun.elapsed() < PATIENCE, "{faults} was never reached:\n{}", daemon.output());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    receiver.script(&[]);
    world.catch_up().await;
    let (all, repeats) = (receiver.taken().len(), rounds as usize * 90);
    eprintln!("{rounds} kills, {} versions repeated", all - repeats);
    compare(&world, &receiver).await;
}
