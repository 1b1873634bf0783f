use std::time::Duration;

use audit_testkit::eventually;
use cdc_audit_tests::dice::Dice;
use cdc_audit_tests::{seed, thorough};

use crate::arena::Arena;

/// A daemon is paused like a virtual machine, and the server gives its slot to another one. Then it continues in the
/// middle of its work, and must not write any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_wakes_up_writes_nothing_twice() {
    let mut arena = Arena::new(Dice::new(seed()), &[("wal_sender_timeout", "2s")]).await;
    arena.write();
    let mut first = arena.launch().start();
    first.wait_for_line("streaming");
    for round in 1..=if thorough() { 20 } else { 3 } {
        tokio::time::sleep(Duration::from_millis(arena.dice.below(1500))).await;
        first.sigstop();
        eprintln!("round {round}: paused");
        let mut second = arena.launch().start();
        second.wait_for_line("streaming");
        arena.progress(&mut second).await;
        // It continues while the other one writes.
        let said = first.stderr().len();
        first.sigcont();
        tokio::time::sleep(Duration::from_millis(arena.dice.below(1500))).await;
        if arena.dice.one_in(2) {
            arena.progress(&mut second).await;
        }
        assert!(second.ended().is_none(), "the one that took over ended:\n{}", second.output());
        // The paused daemon has ended, or waits for the slot: in both cases it was fenced.
        eventually("the one that woke notices", || {
            first.ended().is_some() || first.stderr()[said..].contains("the slot is in use")
        });
        first.kill();
        first = second;
    }
    first.kill();
    arena.settle().await;
}
