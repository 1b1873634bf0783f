use cdc_audit_tests::receiver::{Reaction, Receiver};
use std::collections::HashMap;

use audit_testkit::shared;
use cdc_audit_tests::world::World;
use serde_json::Value;

use crate::shop::{compare, world, write};

/// Checks that the same id always means the same content.
fn repeats_are_repeats(receiver: &Receiver) {
    let mut bodies = HashMap::new();
    for request in receiver.requests() {
        let id = request.headers["idempotency-key"].to_str().unwrap().to_owned();
        let first = bodies.entry(id).or_insert_with(|| request.body.clone());
        assert!(*first == request.body, "a repeated request has another body");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_is_asked_again() {
    let (server, receiver) = (shared(15).await, Receiver::start().await);
    let world = world(server, &receiver, "timeout = \"500 ms\"\nbatch_rows = 20").build().await;
    receiver.script(&[
        Reaction::Status(500),
        Reaction::Take,
        Reaction::Later(429, 1),
        Reaction::Hang,
        Reaction::TakeAndFail,
        Reaction::Take,
        Reaction::TakeAndHang,
        Reaction::Later(503, 0),
        Reaction::Status(408),
        Reaction::Take,
        Reaction::TakeAndFail,
    ]);
    write(server, &world, 1, 60);
    world.catch_up().await;
    assert_eq!(receiver.left(), 0);
    compare(&world, &receiver).await;
    repeats_are_repeats(&receiver);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_goes_away_is_waited_for() {
    let (server, receiver) = (shared(15).await, Receiver::start().await);
    let world = world(server, &receiver, "batch_rows = 20").build().await;
    let mut daemon = world.launch().start();
    write(server, &world, 1, 10);
    daemon.wait_for("the first versions", |_| receiver.taken().len() >= 30);
    receiver.script(&[Reaction::Take, Reaction::Hang]);
    write(server, &world, 11, 50);
    daemon.wait_for("a request that hangs", |_| receiver.left() == 0);
    let receiver = receiver.restart().await;
    daemon.wait_for("the rest", |_| receiver.taken().len() >= 180);
    assert!(daemon.stop().success());
    compare(&world, &receiver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_too_large_are_divided() {
    let (server, receiver) = (shared(15).await, Receiver::start().await);
    let world = world(server, &receiver, "").build().await;
    receiver.refuse(None, Some(4_000));
    write(server, &world, 1, 40);
    world.catch_up().await;
    compare(&world, &receiver).await;
    assert!(receiver.requests().iter().any(|request| request.reaction == Reaction::Status(413)));
}

/// A version that the receiver refuses stops the sink at its position, until it is quarantined by name. This is true
/// also of a receiver that remembers what it refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_refused_is_named() {
    let (server, receiver) = (shared(15).await, Receiver::start().await);
    receiver.honour_keys();
    let world = world(server, &receiver, "").listening().build().await;
    receiver.refuse(Some("poison"), None);
    server.execute(
        &world.database,
        "INSERT INTO t SELECT i, CASE i WHEN 17 THEN 'poison' ELSE 'n' END FROM generate_series(1, 40) AS i",
    );
    let mut daemon = world.launch().start();
    let line = daemon.wait_for_line("the sink refuses a version and waits");
    assert!(line.contains("422") && !line.contains("poison"), "{line}");
    let position =
        line.split("--quarantine ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a position");
    assert_eq!(receiver.taken().len(), 16, "what came before was delivered");
    world.succeed(&["resume", "--sink", "hook", "--quarantine", position]);
    daemon.wait_for("the rest", |_| receiver.taken().len() >= 40);
    assert!(daemon.stop().success());
    compare(&world, &receiver).await;
    let taken = receiver.taken();
    let given_up: Vec<&Value> = taken.iter().filter(|message| message["event"] == "error").collect();
    assert_eq!(given_up.len(), 1);
    assert_eq!((&given_up[0]["position"], &given_up[0]["after"]), (&Value::from(position), &Value::Null));
}

/// A receiver that still processes a request gets it again with the same key, and accepts nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_honours_keys_takes_each_version_once() {
    let (server, receiver) = (shared(15).await, Receiver::start().await);
    let world = world(server, &receiver, "timeout = \"500 ms\"\nbatch_rows = 20").build().await;
    receiver.honour_keys();
    receiver.script(&[Reaction::Take, Reaction::TakeAndHang, Reaction::Take, Reaction::TakeAndHang]);
    write(server, &world, 1, 40);
    world.catch_up().await;
    compare(&world, &receiver).await;
    let answered =
        |status: u16| receiver.requests().iter().filter(|request| request.reaction == Reaction::Status(status)).count();
    // Each request that was accepted without an answer is still being processed at the next two requests.
    let hung = receiver.requests().iter().filter(|request| request.reaction == Reaction::TakeAndHang).count();
    assert!(hung > 0 && receiver.left() == 0);
    assert_eq!((answered(409), answered(422)), (2 * hung, 0));
    assert_eq!(receiver.taken().len(), 120, "each version once");
}

/// If a daemon is killed between an answer and the checkpoint, the next one sends the same versions with another time
/// in them, so with another key.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_a_key_is_not_used_for_another_content() {
    let (server, receiver) = (shared(15).await, Receiver::start().await);
    let world = world(server, &receiver, "batch_rows = 20").build().await;
    receiver.honour_keys();
    write(server, &world, 1, 40);
    let mut daemon = world.launch().environment("CDC_AUDIT_FAULTS", "webhook::after_post=kill@3").start();
    assert!(!daemon.wait().success(), "{}", daemon.output());
    world.catch_up().await;
    compare(&world, &receiver).await;
    assert!(receiver.requests().iter().all(|request| request.reaction != Reaction::Status(422)));
    assert!(receiver.taken().len() > 120, "what was not in the checkpoint came twice");
}

/// An error that only a person can repair stops the daemon with a message, shows no secret, and loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_someone_must_mend_stops_the_daemon() {
    let (server, receiver) = (shared(15).await, Receiver::start().await);
    let world = world(server, &receiver, "").build().await;
    world.edit_config("/cdc\"", "/cdc?token=geheim\"");
    for (status, said) in [(401, "see secret and bearer"), (404, "see url"), (302, "redirects are not followed")] {
        receiver.script(&[Reaction::Status(status)]);
        write(server, &world, 1, 5);
        let mut daemon = world.launch().start();
        let ended = daemon.wait();
        let output = daemon.output();
        assert!(!ended.success() && output.contains(said) && output.contains(&status.to_string()), "{output}");
        assert!(!output.contains("geheim"), "{output}");
    }
    world.catch_up().await;
    compare(&world, &receiver).await;
}

/// Two daemons never deliver at the same time: the one that was overtaken stops.
#[tokio::test(flavor = "multi_thread")]
async fn an_overtaken_daemon_stops() {
    let (server, receiver) = (shared(15).await, Receiver::start().await);
    let world: World = world(server, &receiver, "").without_hot().build().await;
    let mut daemon = world.launch().start();
    write(server, &world, 1, 5);
    daemon.wait_for("the first versions", |_| receiver.taken().len() >= 15);
    server.execute(
        &world.database,
        "UPDATE cdc_audit.checkpoints SET owner_epoch = owner_epoch + 1, owner = 'somebody else'",
    );
    write(server, &world, 6, 5);
    let ended = daemon.wait();
    let output = daemon.output();
    assert_eq!(ended.code(), Some(5), "{output}");
    assert!(output.contains("another daemon owns sink hook: somebody else"), "{output}");
}
