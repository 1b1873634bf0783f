use std::sync::Arc;
use std::time::Duration;

use audit_core::batch::Batch;
use audit_core::quarantine::Quarantined;
use audit_core::sink::{Action, Sink};
use audit_testkit::{Fixture, Kafka, Traffic};

use crate::place::{Place, shown};

/// Rows of a table, in batches of a hundred.
fn rows(fixture: &mut Fixture, from: u32, batches: u32) -> Vec<Batch> {
    let lines = (0..batches).map(|batch| {
        let rows = (0..100)
            .map(|row| format!("insert public.users [{}, \"{}\"]\n", from + batch * 100 + row, "x".repeat(200)));
        format!("begin\n{}commit", rows.collect::<String>())
    });
    fixture.batches(&lines.collect::<Vec<_>>().join("\n---\n"))
}

fn users() -> Fixture {
    let mut fixture = Fixture::default();
    fixture.batches("table public.users (id int4 key, name text)");
    fixture
}

/// Progress that was reported as durable was acknowledged, and will not be sent again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_topic_that_was_put_back_is_not_written_on() {
    // With new tables, more records come to the topic than it has lost.
    for tables in [0, 20] {
        is_not_written_on(tables).await;
    }
}

async fn is_not_written_on(tables: usize) {
    let place = Place::on(Kafka::shared().await).await;
    let topic = place.config.checkpoint_topic(&place.source, "stream");
    let mut fixture = users();
    let mut sink = place.taken().await;
    place.deliver(&mut sink, &rows(&mut fixture, 0, 1)).await.unwrap();
    let earlier = place.read(&topic);
    let had = sink.durable();
    for round in 1..4 {
        place.deliver(&mut sink, &rows(&mut fixture, round * 100, 1)).await.unwrap();
    }
    let stood = sink.durable();
    place.put_back(&topic, &earlier).await;

    for table in 0..tables {
        place.make_topic(&place.topic(&format!("t{table}")), 1, &[]).await;
    }
    let new: String = (0..tables).map(|table| format!("table public.t{table} (id int4 key)\n")).collect();
    let first: String = (0..tables).map(|table| format!("insert public.t{table} [1]\n")).collect();
    let mut more = fixture.batches(&format!("{new}begin\n{first}commit"));
    more.extend(rows(&mut fixture, 400, 1));
    let error = match sink.write(&more.iter().collect::<Vec<_>>()).await {
        Ok(()) => sink.flush(true).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.action, Action::Restart, "{}", shown(&error));
    assert!(shown(&error).contains("went back to an earlier state than this process has stored"), "{}", shown(&error));
    assert_eq!(sink.durable(), stood);
    // After a new takeover the sink reports what is stored.
    assert_eq!(place.take(&mut sink).await.checkpoint.map(|checkpoint| checkpoint.progress()), Some(had));
}

/// The answer to a commit is lost, at any byte of the answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_costs_nothing_and_doubles_nothing() {
    let kafka = Kafka::shared().await;
    let mut place = Place::on(kafka).await;
    place.config.brokers = vec![kafka.through_proxy()];
    let mut fixture = users();
    let mut all = Vec::new();
    let mut sink = place.taken().await;
    for round in 0..8 {
        let batches = rows(&mut fixture, round * 300, 3);
        sink.write(&batches.iter().collect::<Vec<_>>())
            .await
            .or_else(|error| match error.action {
                Action::Restart => Ok(()),
                _ => Err(error),
            })
            .unwrap();
        kafka.proxy().set(if round % 2 == 0 { Traffic::HoldAnswers } else { Traffic::Pass });
        kafka.proxy().cut_after(u64::from(round) * 40);
        let flushed = tokio::time::timeout(Duration::from_millis(300), sink.flush(true)).await;
        eprintln!("round {round}: {:?}", flushed.map(|done| done.map_err(|error| shown(&error))));
        kafka.proxy().cut();
        kafka.proxy().set(Traffic::Pass);
        kafka.proxy().cut_after(u64::MAX);
        all.extend(batches);
        // A sink that gave up waiting begins with a new `take`.
        place.take(&mut sink).await;
        place.deliver(&mut sink, &all).await.unwrap();
    }
    place.holds(&place.topic("users"), &all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_in_the_middle_and_comes_back_has_everything_once() {
    let mut kafka = Kafka::start();
    let mut place = Place::on(&kafka).await;
    // This is longer than the broker takes to start on any machine: a transaction that is overdue by then is aborted.
    place.config.transaction_timeout = "5 min".parse().unwrap();
    let mut fixture = users();
    let mut sink = place.taken().await;
    let mut all = rows(&mut fixture, 0, 2);
    place.deliver(&mut sink, &all).await.unwrap();
    for round in 1..=2 {
        let batches = rows(&mut fixture, round * 1000, 5);
        sink.write(&batches.iter().collect::<Vec<_>>()).await.unwrap();
        kafka.kill9();
        all.extend(batches);
        kafka = tokio::task::spawn_blocking(move || {
            kafka.start_again();
            kafka
        })
        .await
        .unwrap();
        place.deliver(&mut sink, &all).await.unwrap();
    }
    // ⚠ A broker (4.3.0, alone in its cluster) that is killed while it commits treats the transaction as committed when
    // it starts, before it can mark that in the partitions. No consumer sees it until the next transaction, whose mark
    // commits both.
    all.extend(rows(&mut fixture, 9000, 1));
    place.deliver(&mut sink, &all).await.unwrap();
    place.holds(&place.topic("users"), &all);
}

/// While no broker can be reached, the sink reports it and waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_waits_for_brokers_that_are_down() {
    let mut kafka = Kafka::start();
    let mut place = Place::on(&kafka).await;
    place.config.transaction_timeout = "3 s".parse().unwrap();
    let mut fixture = users();
    let all = rows(&mut fixture, 0, 2);
    let mut sink = place.taken().await;
    kafka.stop();
    sink.write(&all.iter().collect::<Vec<_>>()).await.err().map(|error| shown(&error));
    let error = sink.flush(true).await.unwrap_err();
    assert_eq!(error.action, Action::Restart, "{}", shown(&error));
    // The sink itself waits for a long time; the test does not wait for that.
    let taken = tokio::time::timeout(Duration::from_secs(5), sink.take(&place.identity())).await;
    assert!(taken.is_err_and(|_| true), "nothing to take");
    kafka = tokio::task::spawn_blocking(move || {
        kafka.start_again();
        kafka
    })
    .await
    .unwrap();
    place.take(&mut sink).await;
    place.deliver(&mut sink, &all).await.unwrap();
    place.holds(&place.topic("users"), &all);
    drop(kafka);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_deleted_is_not_made_again_in_silence() {
    let place = Place::on(Kafka::shared().await).await;
    let mut fixture = users();
    let first = rows(&mut fixture, 0, 1);
    let mut sink = place.taken().await;
    place.deliver(&mut sink, &first).await.unwrap();
    place.delete_topic(&place.topic("users")).await;
    let second = rows(&mut fixture, 100, 1);
    let error = place.deliver(&mut sink, &second).await.unwrap_err();
    assert_eq!(error.action, Action::Stop);
    assert!(shown(&error).contains(&format!("topic {} is gone", place.topic("users"))), "{}", shown(&error));
    // After an operator made the topic again, the sink continues from its checkpoint.
    place.make_topic(&place.topic("users"), 1, &[]).await;
    place.take(&mut sink).await;
    place.deliver(&mut sink, &second).await.unwrap();
    place.holds(&place.topic("users"), &second);
}

/// A topic whose first transaction was aborted is noted in the next one. Otherwise, after being deleted, it would be
/// made again in silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_noted_in_the_transaction_that_counts() {
    let place = Place::on(Kafka::shared().await).await;
    place.make_topic(&place.topic("users"), 1, &[("max.message.bytes", "100000")]).await;
    let mut fixture = users();
    let large: String =
        (0u64..).map(|n| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).take(30_000).collect();
    let all = fixture.batches(&format!("begin\ninsert public.users [70001, \"{large}\"]\ncommit"));
    let refused = all[0].versions().next().unwrap().position();
    let mut sink = place.taken().await;
    assert_eq!(place.deliver(&mut sink, &all).await.unwrap_err().refused, Some(refused));
    sink.quarantine(Arc::new([(refused, Quarantined::default())].into()));
    place.deliver(&mut sink, &all).await.unwrap();
    drop(sink);
    place.delete_topic(&place.topic("users")).await;
    let mut sink = place.taken().await;
    let error = place.deliver(&mut sink, &rows(&mut fixture, 100, 1)).await.unwrap_err();
    assert!(shown(&error).contains(&format!("topic {} is gone", place.topic("users"))), "{}", shown(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_too_large_for_its_topic_is_named_and_can_be_quarantined() {
    let place = Place::on(Kafka::shared().await).await;
    place.make_topic(&place.topic("users"), 1, &[("max.message.bytes", "100000")]).await;
    let mut fixture = users();
    let mut all = rows(&mut fixture, 0, 3);
    // Random data, so that compression does not help.
    let large: String =
        (0u64..).map(|n| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).take(30_000).collect();
    all.extend(fixture.batches(&format!("begin\ninsert public.users [70000, \"small\"]\ninsert public.users [70001, \"{large}\"]\ninsert public.users [70002, \"small\"]\ncommit")));
    all.extend(rows(&mut fixture, 1000, 3));
    let refused = all[3].versions().nth(1).unwrap().position();

    let mut sink = place.taken().await;
    let error = place.deliver(&mut sink, &all).await.unwrap_err();
    assert_eq!(error.refused, Some(refused), "{}", shown(&error));
    assert!(shown(&error).contains("--quarantine") && !shown(&error).contains("9e37"), "{}", shown(&error));
    // Everything before it is stored.
    place.holds(&place.topic("users"), &all[..3]);

    sink.quarantine(Arc::new([(refused, Quarantined::default())].into()));
    place.deliver(&mut sink, &all).await.unwrap();
    let seen = place.read(&place.topic("users"));
    let errors: Vec<_> = seen.iter().filter(|seen| seen.header("event") == "error").collect();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].header("position"), refused.to_string());
    place.holds(&place.topic("users"), &all);
}
