use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use audit_core::quarantine::Quarantined;
use audit_core::sink::{Action, Sink};
use audit_format::Format;
use audit_testkit::{Fixture, Kafka};

use crate::place::{Place, expected, shown};

const LIFE: &str = r#"
table public.users (id int4 key, name text)
table public.log (line text)
begin
insert public.users [1, "Ann"]
insert public.log ["one"]
update public.users [1, "Ann"] -> [1, "Bea"]
commit
---
begin
insert public.log ["two"]
update public.users [1, "Bea"] -> [2, "Bea"]
delete public.users [2, "Bea"]
truncate public.users
commit"#;

#[tokio::test(flavor = "multi_thread")]
async fn versions_arrive_once_and_a_later_daemon_knows_it() {
    let place = Place::on(Kafka::shared().await).await;
    let mut fixture = Fixture::default();
    let batches = fixture.batches(LIFE);
    let mut sink = place.taken().await;
    let durable = place.deliver(&mut sink, &batches).await.unwrap();
    assert_eq!(durable, batches[1].progress);
    drop(sink);

    let mut sink = place.sink();
    let stored = place.take(&mut sink).await;
    assert_eq!(stored.checkpoint.unwrap().progress(), durable);
    let shapes: Vec<String> = stored.shapes.iter().map(|shape| shape.name().to_string()).collect();
    assert_eq!(shapes, ["public.log", "public.users"]);
    // A repeat changes nothing.
    let more = fixture.batches("begin\ninsert public.users [3, \"Cid\"]\ncommit");
    let all: Vec<_> = batches.into_iter().chain(more).collect();
    place.deliver(&mut sink, &all).await.unwrap();

    let mut seen = place.positions(&place.topic("users"));
    seen.extend(place.positions(&place.topic("log")));
    seen.sort();
    assert_eq!(seen, expected(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_says_what_and_where_and_goes_by_its_key() {
    let mut place = Place::on(Kafka::shared().await).await;
    place.config.format.tombstones = Some(true);
    let batches = Fixture::of(LIFE);
    let mut sink = place.taken().await;
    place.deliver(&mut sink, &batches).await.unwrap();

    let users = place.read(&place.topic("users"));
    let told = |event: &str| users.iter().filter(|seen| seen.header("event") == event).collect::<Vec<_>>();
    let created = told("created")[0];
    let value = created.value.as_ref().unwrap();
    assert_eq!(created.key.as_deref(), value["key"].as_str());
    assert_eq!(created.header("position"), value["position"].as_str().unwrap());
    assert_eq!(created.header("schema_version"), "1");
    assert_eq!(value["source"], place.source.as_str());
    assert_eq!(value["after"]["name"], "Ann");
    // The tombstones of a key that changed and of the deletion.
    let tombstones: Vec<_> = users.iter().filter(|seen| seen.value.is_none()).collect();
    let keys: Vec<_> = tombstones.iter().map(|seen| seen.key.as_deref().unwrap()).collect();
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 2, "{tombstones:?}");
    assert!(tombstones.iter().all(|seen| seen.header("position").ends_with("/tombstone")));
    // Rows without a key go to one partition, so that their order is kept.
    let log = place.read(&place.topic("log"));
    assert!(log.iter().all(|seen| seen.key.is_none() && seen.partition == 0));
    assert!(told("truncated").iter().all(|seen| seen.partition == 0));
    assert_eq!(
        log.iter().map(|seen| seen.value.as_ref().unwrap()["after"]["line"].as_str().unwrap()).collect::<Vec<_>>(),
        ["one", "two"]
    );
}

/// Brokers refuse messages without a key in compacted topics. So a message that concerns no row has its own key, which
/// compaction never removes.
#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_takes_truncations_gaps_and_errors() {
    const ROWS: &str = r#"
    table public.users (id int4 key, name text)
    gap {"lost": "0/1 to 0/2"}
    begin
    insert public.users [1, "Ann"]
    insert public.users [2, "Bea"]
    truncate public.users
    truncate public.users
    commit"#;
    for format in [Format::Record, Format::CloudEvents, Format::Debezium] {
        let mut place = Place::on(Kafka::shared().await).await;
        (place.config.format.format, place.config.format.tombstones) = (format, Some(true));
        let gaps = format!("{}.cdc_audit.gap", place.source);
        for topic in [&place.topic("users"), &gaps] {
            place.make_topic(topic, 3, &[("cleanup.policy", "compact")]).await;
        }
        let batches = Fixture::of(ROWS);
        let bea = batches.iter().flat_map(|batch| batch.versions()).find(|version| version.key() == Some("2")).unwrap();
        let mut sink = place.taken().await;
        sink.quarantine(Arc::new([(bea.position(), Quarantined::default())].into()));
        place.deliver(&mut sink, &batches).await.unwrap();
        let seen: Vec<_> = place.read(&place.topic("users")).into_iter().chain(place.read(&gaps)).collect();
        let notes: Vec<_> = seen.iter().filter(|seen| seen.header("event") != "created").collect();
        let events: Vec<&str> = notes.iter().map(|seen| seen.header("event")).collect();
        assert_eq!(events, ["error", "truncated", "truncated", "gap"], "{format:?}");
        let keys: BTreeSet<&str> = notes.iter().filter_map(|seen| seen.key.as_deref()).collect();
        assert!(keys.len() == 4 && keys.iter().all(|key| key.contains("$event")), "{keys:?}");
        assert!(notes.iter().all(|seen| seen.partition == 0));
        // A receiver recognises an event in structured mode by this header alone (Kafka binding of CloudEvents, 3).
        let expected = if format == Format::CloudEvents { "application/cloudevents+json; charset=UTF-8" } else { "" };
        assert!(seen.iter().all(|seen| seen.header("content-type") == expected), "{format:?}");
    }
}

/// `check` reports what compaction would do to the versions that were written.
#[tokio::test(flavor = "multi_thread")]
async fn check_looks_at_compacted_topics() {
    let mut place = Place::on(Kafka::shared().await).await;
    let all = format!("{}.all", place.source);
    place.config.topic = all.clone();
    place.make_topic(&all, 1, &[("cleanup.policy", "compact")]).await;
    let rows = "table public.users (id int4 key, name text)\nbegin\ninsert public.users [1, \"Ann\"]\ncommit";
    let said = async |place: &Place| {
        let probed = audit_kafka::probe(&place.config, &place.source, "stream").await.unwrap();
        probed.warnings.into_iter().map(|(said, _)| said.replace(&place.source, "shop")).collect::<Vec<_>>()
    };
    let mut sink = place.taken().await;
    place.deliver(&mut sink, &Fixture::of(rows)).await.unwrap();
    drop(sink);
    let warnings = said(&place).await.join("\n");
    assert!(
        warnings.contains("topic shop.all is compacted, and tables share it: rows with equal keys erase each other"),
        "{warnings}"
    );

    let mut place = Place::on(Kafka::shared().await).await;
    place.make_topic(&place.topic("users"), 1, &[("cleanup.policy", "compact,delete")]).await;
    let mut sink = place.taken().await;
    place.deliver(&mut sink, &Fixture::of(rows)).await.unwrap();
    drop(sink);
    let warnings = said(&place).await.join("\n");
    assert!(warnings.contains("deleted rows stay in it: no tombstones are sent"), "{warnings}");
    place.config.format.tombstones = Some(true);
    assert!(!said(&place).await.join("\n").contains("is compacted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stays_in_its_partition_and_in_order() {
    let mut place = Place::on(Kafka::shared().await).await;
    place.config.partitions = Some(5);
    place.config.batch_bytes = "64 KiB".parse().unwrap();
    let mut fixture = Fixture::default();
    let mut text = "table public.users (id int4 key, n int4)\nbegin\n".to_owned();
    for n in 0..3000 {
        text += &format!("insert public.users [{}, {n}]\n", n % 97);
        if n % 500 == 499 {
            text += "commit\n---\nbegin\n";
        }
    }
    let batches = fixture.batches(&(text + "commit"));
    let mut sink = place.taken().await;
    place.deliver(&mut sink, &batches).await.unwrap();
    let mut keys: BTreeMap<String, (BTreeSet<i32>, Vec<String>)> = BTreeMap::new();
    let mut partitions = BTreeSet::new();
    for seen in place.read(&place.topic("users")) {
        let key = keys.entry(seen.key.clone().unwrap()).or_default();
        key.0.insert(seen.partition);
        partitions.insert(seen.partition);
        key.1.push(seen.header("position").to_owned());
    }
    assert_eq!((keys.len(), partitions.len()), (97, 5));
    assert!(keys.values().all(|(partitions, positions)| partitions.len() == 1 && positions.is_sorted()));
    place.holds(&place.topic("users"), &batches);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_is_whole_or_not_there_and_known_later() {
    let place = Place::on(Kafka::shared().await).await;
    let batches = Fixture::of(
        r#"table public.users (id int4 key, name text)
           begin
           chunk public.users baseline=2 chunk=1 for=stream
           snapshot public.users [1, "Ann"]
           snapshot public.users [2, "Bea"]
           commit
           ---
           begin
           chunk public.users baseline=2 chunk=2 last for=hot
           snapshot public.users [3, "Cid"]
           commit"#,
    );
    let mut sink = place.taken().await;
    place.deliver(&mut sink, &batches).await.unwrap();
    let stored = place.take(&mut sink).await;
    let progress = stored.baselines["public.users"];
    assert_eq!((progress.baseline, progress.chunk, progress.done), (2, 1, false));
    assert_eq!(place.read(&place.topic("users")).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_seen_before_it_is_committed_and_age_commits() {
    let place = Place::on(Kafka::shared().await).await;
    let batches = Fixture::of(LIFE);
    let mut sink = place.taken().await;
    sink.write(&[&batches[0]]).await.unwrap();
    assert!(sink.durable().position < batches[0].progress.position);
    let due = sink.due().unwrap();
    assert_eq!(place.read(&place.topic("users")).len(), 0);
    tokio::time::sleep_until(due.into()).await;
    sink.flush(false).await.unwrap();
    assert_eq!(sink.durable(), batches[0].progress);
    assert_eq!((sink.due(), place.read(&place.topic("users")).len()), (None, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_not_made_where_that_is_not_wanted() {
    let mut place = Place::on(Kafka::shared().await).await;
    place.config.create_topics = false;
    let batches = Fixture::of(LIFE);
    let mut sink = place.taken().await;
    let error = place.deliver(&mut sink, &batches).await.unwrap_err();
    assert!(shown(&error).contains(&format!("topic {} does not exist", place.topic("users"))), "{}", shown(&error));
    for table in ["users", "log"] {
        place.make_topic(&place.topic(table), 2, &[]).await;
    }
    place.take(&mut sink).await;
    place.deliver(&mut sink, &batches).await.unwrap();
    assert_eq!(place.read(&place.topic("log")).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tables_get_one_topic_only_if_it_is_meant() {
    let mut place = Place::on(Kafka::shared().await).await;
    let batches = Fixture::of(
        "table public.ä (id int4 key)\ntable crm.ä (id int4 key)\nbegin\ninsert public.ä [1]\ninsert crm.ä [1]\ncommit",
    );
    // Names stay different although Kafka does not allow some of their characters.
    place.config.topic = "{source}.{table}".to_owned();
    let mut sink = place.taken().await;
    place.deliver(&mut sink, &batches).await.unwrap();
    let plain = Fixture::of(
        "table public.a (id int4 key)\ntable crm.a (id int4 key)\nbegin\ninsert public.a [1]\ninsert crm.a [1]\ncommit",
    );
    let mut place = Place::on(Kafka::shared().await).await;
    place.config.topic = "{source}.{table}".to_owned();
    let mut sink = place.taken().await;
    let error = place.deliver(&mut sink, &plain).await.unwrap_err();
    assert_eq!(error.action, Action::Stop);
    assert!(shown(&error).contains("tables public.a and crm.a would share topic"), "{}", shown(&error));
    place.config.topic = "{source}.all".to_owned();
    let mut sink = place.taken().await;
    place.deliver(&mut sink, &plain).await.unwrap();
    assert_eq!(place.read(&format!("{}.all", place.source)).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_checkpoint_a_sink_does_not_begin() {
    let place = Place::bare(Kafka::shared().await);
    let mut sink = place.sink();
    let error = sink.take(&place.identity()).await.unwrap_err();
    assert_eq!(error.action, Action::Stop);
    assert!(shown(&error).contains("cdc-audit setup"), "{}", shown(&error));
    assert!(audit_kafka::probe(&place.config, &place.source, "stream").await.is_err());
    assert!(audit_kafka::stored(&place.config, &place.source, "stream").await.is_err());
    // Setup can be repeated any number of times.
    audit_kafka::set_up(&place.config, &place.source, "stream").await.unwrap();
    audit_kafka::set_up(&place.config, &place.source, "stream").await.unwrap();
    audit_kafka::probe(&place.config, &place.source, "stream").await.unwrap();
    assert_eq!(audit_kafka::stored(&place.config, &place.source, "stream").await.unwrap(), None);
}
