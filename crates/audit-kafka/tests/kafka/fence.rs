use std::time::Duration;

use audit_core::sink::{Action, Sink};
use audit_testkit::{Fixture, Kafka};

use crate::place::{Place, shown};

const TABLE: &str = "table public.users (id int4 key)\nbegin\ninsert public.users [1]\ninsert public.users [2]\ncommit";

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_the_sink_fences_who_had_it() {
    let place = Place::on(Kafka::shared().await).await;
    let mut fixture = Fixture::default();
    let batches = fixture.batches(TABLE);
    let more = fixture.batches("begin\ninsert public.users [3]\ncommit");
    let mut first = place.taken().await;
    place.deliver(&mut first, &batches).await.unwrap();
    let mut second = place.taken().await;

    let error = place.deliver(&mut first, &more).await.unwrap_err();
    assert_eq!(error.action, Action::Fenced, "{}", shown(&error));
    let me = format!("process {} on", std::process::id());
    assert!(
        shown(&error).contains("another daemon owns sink stream") && shown(&error).contains(&me),
        "{}",
        shown(&error)
    );
    place.deliver(&mut second, &more).await.unwrap();
    let all: Vec<_> = batches.into_iter().chain(more).collect();
    place.holds(&place.topic("users"), &all);
}

/// A daemon is paused in the middle of a transaction, and wakes up after another one has taken over.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_zombie_has_open_is_never_seen() {
    let place = Place::on(Kafka::shared().await).await;
    let mut fixture = Fixture::default();
    let batches = fixture.batches(TABLE);
    let mut zombie = place.taken().await;
    zombie.write(&batches.iter().collect::<Vec<_>>()).await.unwrap();
    let mut second = place.taken().await;
    place.deliver(&mut second, &batches).await.unwrap();
    let error = zombie.flush(true).await.unwrap_err();
    assert_eq!(error.action, Action::Fenced, "{}", shown(&error));
    place.holds(&place.topic("users"), &batches);
}

/// Brokers aborted the transaction, but no other process has the sink: the stream begins again.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_took_too_long_is_no_fence() {
    let mut place = Place::on(Kafka::shared().await).await;
    place.config.transaction_timeout = "2 s".parse().unwrap();
    let batches = Fixture::of(TABLE);
    let mut sink = place.taken().await;
    sink.write(&batches.iter().collect::<Vec<_>>()).await.unwrap();
    // This sleeps until the broker's patience has run out.
    let error = loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        match sink.flush(true).await {
            Err(error) => break error,
            Ok(()) => sink.write(&batches.iter().collect::<Vec<_>>()).await.unwrap(),
        }
    };
    assert_eq!(error.action, Action::Restart, "{}", shown(&error));
    place.take(&mut sink).await;
    place.deliver(&mut sink, &batches).await.unwrap();
    place.holds(&place.topic("users"), &batches);
}
