use std::time::Duration;

use audit_testkit::{Daemon, Fault, ObjectKind, Shutdown, Traffic};
use cdc_audit_tests::dice::Dice;
use cdc_audit_tests::{kill_rounds, seed};

use crate::arena::Arena;
use crate::points::{Needs, POINTS};

/// Number of rounds after which everything is compared, so that a failure is found close to its cause.
const ROUNDS_BETWEEN_LOOKS: u32 = 20;

/// The largest number of rounds in one world.
const ROUNDS_OF_A_WORLD: u32 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_comes_twice_whatever_is_killed() {
    rounds_in(async |dice| Arena::new(dice, &[]).await, kill_rounds(12)).await;
}

/// The same holds with the lake in a bucket, and a store that answers with errors, late, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_comes_twice_on_s3() {
    rounds_in(async |dice| Arena::in_bucket(dice, ObjectKind::S3).await, kill_rounds(6)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_comes_twice_on_gcs() {
    rounds_in(async |dice| Arena::in_bucket(dice, ObjectKind::Gcs).await, kill_rounds(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_comes_twice_on_azure() {
    rounds_in(async |dice| Arena::in_bucket(dice, ObjectKind::Azure).await, kill_rounds(3)).await;
}

/// The same holds with a Kafka broker as a third sink, which is killed and cut off too.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_comes_twice_in_kafka() {
    rounds_in(Arena::with_kafka, kill_rounds(6)).await;
}

/// Plays rounds, in one world after another: what has to be compared, and the memory for it, grows with each round.
async fn rounds_in(arena: impl AsyncFn(Dice) -> Arena, rounds: u32) {
    let mut dice = Dice::new(seed());
    for first in (0..rounds).step_by(ROUNDS_OF_A_WORLD as usize) {
        let rounds = (rounds - first).min(ROUNDS_OF_A_WORLD);
        eprintln!("world after {first} rounds");
        rounds_of(arena(dice.fork()).await, rounds).await;
    }
}

async fn rounds_of(mut arena: Arena, rounds: u32) {
    arena.write();
    let mut daemon = arena.launch().start();
    for round in 1..=rounds {
        daemon = play(&mut arena, daemon, round).await;
        arena.heal();
        if daemon.ended().is_some() {
            daemon = arena.launch().start();
        }
        if arena.dice.one_in(4) {
            arena.progress(&mut daemon).await;
        }
        match round % 10 {
            3 => daemon = arena.put_back_hot(daemon).await,
            4 => arena.rename_protected().await,
            5 => arena.late_table(),
            8 => daemon = arena.put_back_source(daemon).await,
            _ => {}
        }
        if round % ROUNDS_BETWEEN_LOOKS == 0 && round < rounds {
            daemon.kill();
            arena.settle().await;
            arena.write();
            daemon = arena.launch().start();
        }
    }
    if arena.dice.one_in(2) {
        daemon.kill();
    } else {
        daemon.stop();
    }
    arena.settle().await;
}

/// Plays one round: a fault at a random moment. Returns the daemon that runs after it, or one that has ended.
async fn play(arena: &mut Arena, mut daemon: Daemon, round: u32) -> Daemon {
    let moment = Duration::from_millis(arena.dice.below(1500));
    let how_long = Duration::from_millis(arena.dice.below(2500));
    let third = arena.to_lake.is_some() || arena.kafka.is_some();
    let what = arena.dice.below(if third { 26 } else { 20 });
    eprintln!("round {round}: {what} after {moment:?}");
    match what {
        // The daemon is killed at any moment: while it starts, while it reads rows, while it writes.
        0..4 => {
            pause(moment).await;
            daemon.kill();
        }
        // The daemon is killed at a fault point.
        4..8 => {
            daemon.kill();
            let kafka = arena.kafka.is_some();
            let points: Vec<_> = POINTS.iter().filter(|point| kafka || point.needs != Needs::Kafka).collect();
            let point = arena.dice.pick(&points).name;
            let passage = arena.dice.between(1, 6);
            eprintln!("  at passage {passage} of {point}");
            daemon = arena.launch().environment("CDC_AUDIT_FAULTS", &format!("{point}=kill@{passage}")).start();
            // Not every point is passed often enough in a round.
            for _ in 0..50 {
                if daemon.ended().is_some() {
                    break;
                }
                pause(Duration::from_millis(100)).await;
            }
            daemon.kill();
        }
        // The lake answers with errors, before or after it has executed a request.
        8 => {
            daemon.stop();
            let point = arena.dice.pick(&LAKE_ERRORS);
            daemon = arena.launch().environment("FAILPOINTS", &format!("{point}=30%return")).start();
            pause(moment + how_long).await;
            // A lasting error needs a person; this one ends with the process.
            daemon.kill();
        }
        9 => {
            pause(moment).await;
            if arena.dice.one_in(2) {
                arena.source.restart(*arena.dice.pick(&[Shutdown::Fast, Shutdown::Immediate]));
            } else {
                arena.source.kill9();
                arena.source.start_again();
            }
        }
        10 => {
            pause(moment).await;
            if arena.dice.one_in(2) {
                arena.hot.restart(*arena.dice.pick(&[Shutdown::Fast, Shutdown::Immediate]));
            } else {
                arena.hot.kill9();
                arena.hot.start_again();
            }
        }
        // Connections are cut at any byte, held, slow or refused.
        11 | 12 => {
            pause(moment).await;
            let (to_hot, kind, bytes) = (arena.dice.one_in(2), arena.dice.below(6), arena.dice.below(200_000));
            let proxy = if to_hot { &arena.to_hot } else { &arena.to_source };
            eprintln!("  {} {kind}", if to_hot { "hot" } else { "source" });
            match kind {
                0 => proxy.cut(),
                1 => proxy.cut_after(bytes),
                2 => proxy.set(Traffic::Hold),
                // The server has executed a request, and the answer is lost.
                3 => proxy.set(Traffic::HoldAnswers),
                4 => proxy.delay(Duration::from_millis(30)),
                _ => {
                    proxy.set(Traffic::Refuse);
                    proxy.cut();
                }
            }
            pause(how_long).await;
            if kind == 3 {
                proxy.cut();
            }
        }
        // The hot database is locked, or refuses statements.
        13 => {
            pause(moment).await;
            let client = arena.world.hot().await;
            client
                .batch_execute("BEGIN; LOCK TABLE cdc_audit.versions, cdc_audit.checkpoints IN ACCESS EXCLUSIVE MODE")
                .await
                .expect("a lock");
            pause(how_long).await;
            // A daemon that takes the sink over ends a session that holds its checkpoint.
            drop(client.batch_execute("COMMIT").await);
        }
        14 => {
            pause(moment).await;
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'cdc-audit%' AND pid <> pg_backend_pid()";
            arena.hot.execute("postgres", end);
            arena.source.execute("postgres", end);
        }
        // A migration holds a lock on a table or a partition of the source, also while the daemon starts.
        15 | 16 => {
            let table = *arena.dice.pick(&["accounts", "docs", "parts", "parts_0", "recoded"]);
            let client = arena.world.client().await;
            let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
            client.batch_execute(&lock).await.expect("a lock");
            if arena.dice.one_in(2) {
                daemon.kill();
                daemon = arena.launch().start();
            }
            pause(moment + how_long).await;
            client.batch_execute("COMMIT").await.expect("the lock ends");
        }
        // The source treats the daemon as a synchronous standby: commits of applications wait for the sinks.
        17 => {
            pause(moment).await;
            let set = |names: &str| {
                arena.source.execute("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
                arena.source.execute("postgres", "SELECT pg_reload_conf()");
            };
            set("*");
            pause(how_long).await;
            set("");
        }
        // The schema changes while the daemon runs.
        18 => {
            pause(moment).await;
            match arena.dice.below(3) {
                0 => arena.change_key().await,
                1 => arena.new_partition(),
                _ => arena.rename_protected().await,
            }
            pause(how_long).await;
            daemon.kill();
        }
        // The broker is killed, or cannot be reached.
        20.. if arena.kafka.is_some() => {
            pause(moment).await;
            stream_fails(arena, how_long).await;
            if arena.dice.one_in(2) {
                daemon.kill();
            }
        }
        // The bucket's store fails for some time.
        20.. => {
            pause(moment).await;
            let (proxy, mut dice) = (arena.to_lake.as_ref().expect("a bucket"), arena.dice.fork());
            proxy.plan(move |_, _| dice.one_in(3).then(|| *dice.pick(&Fault::ALL)));
            pause(how_long).await;
            let struck = proxy.struck();
            eprintln!("  {struck} requests struck");
            if arena.dice.one_in(2) {
                daemon.kill();
            }
        }
        // An ordinary stop.
        _ => {
            pause(moment).await;
            daemon.sigterm();
            if arena.dice.one_in(2) {
                pause(Duration::from_millis(arena.dice.below(300))).await;
                daemon.kill();
            } else {
                daemon.wait();
            }
        }
    }
    daemon
}

async fn stream_fails(arena: &mut Arena, how_long: Duration) {
    let (kind, bytes) = (arena.dice.below(6), arena.dice.below(20_000));
    eprintln!("  broker {kind}");
    let mut kafka = arena.kafka.take().expect("a broker");
    match kind {
        0 => kafka.proxy().cut(),
        1 => kafka.proxy().cut_after(bytes),
        2 => kafka.proxy().set(Traffic::Hold),
        // The broker has executed a request, and the answer is lost.
        3 => kafka.proxy().set(Traffic::HoldAnswers),
        4 => kafka.proxy().delay(Duration::from_millis(30)),
        _ => {
            let restart = move || {
                kafka.kill9();
                kafka.start_again();
                kafka
            };
            kafka = tokio::task::spawn_blocking(restart).await.expect("the broker starts again");
        }
    }
    pause(how_long).await;
    if kind == 3 {
        kafka.proxy().cut();
    }
    arena.kafka = Some(kafka);
}

const LAKE_ERRORS: [&str; 10] = [
    "lake::before_put",
    "lake::after_put",
    "lake::before_commit",
    "lake::after_commit",
    "lake::before_checkpoint",
    "lake::after_checkpoint",
    "lake::before_delta_checkpoint",
    "lake::before_adopt",
    "lake::before_merge",
    "lake::after_merge",
];

/// Lets time pass, because these tests choose the moment of a fault at random.
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
