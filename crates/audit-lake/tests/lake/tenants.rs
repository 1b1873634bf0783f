use std::fs;
use std::sync::Arc;

use audit_core::quarantine::Quarantined;
use audit_core::sink::{Action, Sink};
use audit_lake::{Compactor, LakeReader, LakeSink, Stores, probe};
use futures::TryStreamExt;

use crate::common::story::{TABLES, first_run, next_run};
use crate::common::tenants::{check, fixture, on_disk, places, world};
use crate::common::{Lake, MEMORY, View, identity, roll, roll_on, start, write};

#[tokio::test(flavor = "multi_thread")]
async fn each_tenant_has_a_lake_of_its_own() {
    for fresh in [false, true] {
        let (lake, mut world) = (on_disk(), world());
        let lake = if fresh { lake.fresh() } else { lake };
        first_run(&lake, &world, true).await.unwrap();
        check(&places(&lake), &world).await;
        next_run(&lake, &mut world, 5).await.unwrap();
        check(&places(&lake), &world).await;
        assert_eq!(probe(&lake.config, "shop").await.unwrap(), 4);

        let reader = LakeReader::open(&lake.config).unwrap();
        assert_eq!(reader.tables("shop").await.unwrap(), ["public.orders", "public.users"]);
        let (mut count, mut parts) = (0, Vec::new());
        for part in reader.each().await.unwrap() {
            parts.push(part.tenant().map(|tenant| tenant.to_string()));
            for table in part.tables("shop").await.unwrap() {
                count += part.count("shop", &table, None, None).await.unwrap();
            }
        }
        let tenants = ["Initech/..", "acme", "hooli", "initech"].map(|tenant| Some(tenant.to_string()));
        assert_eq!(parts, [vec![None], tenants.to_vec()].concat());
        let versions = world.stream.iter().map(|batch| batch.len() as u64).sum::<u64>();
        assert_eq!(count, versions + 5);
        let all: Vec<_> = reader.export("shop", TABLES[0], None, None).await.unwrap().try_collect().await.unwrap();
        assert!(all.windows(2).all(|pair| pair[0].position < pair[1].position) && all.len() == 12, "{}", all.len());

        // A row's trail goes through both stores; each tenant sees its own part.
        let events = async |reader: &LakeReader| -> Vec<String> {
            let found = reader.history("shop", TABLES[0], "1", 10).await.unwrap();
            found.into_iter().map(|record| record.event).collect()
        };
        assert_eq!(events(&reader).await, ["updated", "created"]);
        assert_eq!(events(&reader.of_tenant("acme").await.unwrap()).await, ["created"]);
        assert_eq!(events(&reader.of_tenant("hooli").await.unwrap()).await, ["updated"]);
        let unknown = reader.of_tenant("nobody").await.unwrap_err().to_string();
        assert!(unknown.contains("knows no tenant \"nobody\""), "{unknown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_goes_through_all_tenants() {
    let (mut lake, mut world) = (on_disk(), world());
    lake.config.listing_readers = false;
    first_run(&lake, &world, true).await.unwrap();
    next_run(&lake, &mut world, 5).await.unwrap();
    lake.config.grace = std::time::Duration::ZERO.into();
    lake.config.compact_within = std::time::Duration::from_secs(u32::MAX.into()).into();
    let stores = Stores::open(&lake.config, false).unwrap();
    let compactor = Compactor::of(&lake.config, stores, "shop", MEMORY).unwrap();
    let mut into = Vec::new();
    for one in compactor.each().await.unwrap() {
        for table in one.tables().await.unwrap() {
            let done = one.table(&table).await.unwrap();
            into.push((one.tenant.as_deref().unwrap_or_default().to_string(), table, done.into > 0));
        }
        one.sweep().await.unwrap();
    }
    assert!(into.contains(&("acme".into(), TABLES[0].into(), true)), "{into:?}");
    check(&places(&lake), &world).await;
    next_run(&lake, &mut world, 6).await.unwrap();
    check(&places(&lake), &world).await;
}

/// There are more tenants than tables are kept in memory, each with fresh files; all of them are rolled.
#[tokio::test(flavor = "multi_thread")]
async fn memory_and_fresh_files_are_bounded_with_many_tenants() {
    const TENANTS: usize = 600;
    let mut lake = on_disk().fresh();
    lake.config.roll_age = std::time::Duration::from_secs(3600).into();
    lake.config.grace = std::time::Duration::from_secs(1).into();
    let mut fixture = fixture();
    let mut text = String::from("table public.t (id int4 key, owner text) full\n");
    for round in 0..2 {
        text.push_str("begin\n");
        (0..TENANTS).for_each(|tenant| text.push_str(&format!("insert public.t [{round}, \"t{tenant}\"]\n")));
        text.push_str("commit\n---\n");
    }
    let batches = fixture.batches(text.trim_end().trim_end_matches("---"));
    let memory = 1 << 20;
    let mut sink = LakeSink::new("lake", &lake.config, memory).unwrap();
    sink.take(&identity()).await.unwrap();
    sink.begin(start()).await.unwrap();
    for batch in &batches {
        sink.write(&[batch]).await.unwrap();
        assert!(sink.held_bytes() <= memory, "{}", sink.held_bytes());
    }
    sink.flush(true).await.unwrap();
    drop(sink);
    lake.config.roll_age = std::time::Duration::ZERO.into();
    let mut sink = LakeSink::new("lake", &lake.config, memory).unwrap();
    let stored = sink.take(&identity()).await.unwrap();
    assert_eq!(stored.shapes.len(), 1);
    sink.begin(stored.checkpoint.unwrap().progress()).await.unwrap();
    roll(&mut sink).await.unwrap();
    for tenant in 0..TENANTS {
        let view = View::of(&lake.folder.path().join(format!("of-t{tenant}/lake")));
        assert_eq!(view.listed_rows("public.t").len(), 2, "t{tenant}");
        assert!(view.fresh_rows("public.t").await.is_empty(), "t{tenant}");
    }
    let fresh = |lake: &Lake| {
        let files = View::of(lake.folder.path()).files();
        files.iter().filter(|(path, ..)| path.to_str().unwrap().contains("/fresh/")).count()
    };
    // ⚠ Replaced files are removed after their grace period, whether their table is in memory or not.
    let begun = std::time::Instant::now();
    while fresh(&lake) > 0 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(120), "{} fresh files stay", fresh(&lake));
        roll(&mut sink).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// ⚠ A tenant's store is removed while the daemon runs: its fresh files cannot be rolled, but nothing else waits for
/// them.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_was_removed_holds_nothing_back() {
    let (lake, world) = (on_disk().fresh(), world());
    let (mut sink, _) = lake.taken().await;
    write(&mut sink, &world.stream[..2]).await.unwrap();
    fs::remove_dir_all(lake.folder.path().join("of-acme")).unwrap();
    roll_on(&mut sink).await.unwrap();
    let troubles = sink.troubles();
    assert!(
        !troubles.is_empty() && troubles.iter().all(|trouble| trouble.contains("of tenant \"acme\"")),
        "{troubles:?}"
    );
    for (tenant, place) in places(&lake).iter().filter(|(tenant, _)| *tenant != "acme") {
        for table in TABLES {
            assert!(View::of(place).fresh_rows(table).await.is_empty(), "{table} of {tenant:?} waits");
        }
    }
    // The recipe: stop the daemon, remove the store and its note, start the daemon. Rows that come for the tenant then
    // begin a new store.
    drop(sink);
    fs::remove_file(lake.folder.path().join("home/_cdc_audit/tenants/acme.json")).unwrap();
    let (mut sink, _) = lake.taken().await;
    write(&mut sink, &world.stream).await.unwrap();
    roll(&mut sink).await.unwrap();
    assert_eq!(sink.durable(), world.stream.last().unwrap().progress);
    let acme = View::of(&places(&lake)["acme"]);
    assert_eq!(acme.agreed("public.orders").await.len(), 2, "what came after it was removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_belongs_to_one_home_and_stays_where_it_is() {
    let (lake, world) = (on_disk(), world());
    first_run(&lake, &world, true).await.unwrap();
    let folder = lake.folder.path().to_str().unwrap();

    // Another lake over the same tenants.
    let mut other = lake.config.clone();
    other.home = Some(format!("{folder}/elsewhere"));
    let mut sink = LakeSink::new("lake", &other, MEMORY).unwrap();
    sink.take(&identity()).await.unwrap();
    sink.begin(start()).await.unwrap();
    let error = write(&mut sink, &world.stream).await.unwrap_err();
    assert_eq!(error.action, Action::Stop, "{error}");
    assert!(error.message.contains("the store of tenant \""), "{error}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("home.json") && cause.contains("another home"), "{cause}");

    // The same lake with its tenants at another place: what they have would be written again.
    let mut moved = lake.config.clone();
    moved.url = format!("{folder}/moved-{{tenant}}");
    let error = LakeSink::new("lake", &moved, MEMORY).unwrap().take(&identity()).await.unwrap_err();
    assert_eq!(error.action, Action::Stop, "{error}");
    assert!(error.message.contains("/lake, and not ") && error.hint.unwrap().contains("stays where it is"));

    // A tenant whose store was removed with all its contents.
    fs::remove_dir_all(format!("{folder}/of-hooli")).unwrap();
    lake.taken().await;
}

/// Only the position of a quarantined version is known, so it goes to home.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_quarantined_goes_home() {
    let (lake, mut fixture) = (on_disk(), fixture());
    let batches = fixture.batches(
        "table public.users (id int4 key, name text, owner text) full\nbegin\n\
         insert public.users [1, \"a\", \"acme\"]\ninsert public.users [2, \"b\", \"acme\"]\ncommit",
    );
    let (mut sink, _) = lake.taken().await;
    let first = batches[0].versions().take(1).map(|version| (version.position(), Quarantined::default()));
    sink.quarantine(Arc::new(first.collect()));
    write(&mut sink, &batches).await.unwrap();
    let places = places(&lake);
    let events = async |of: &str| View::of(&places[of]).agreed("public.users").await.join(",");
    assert!(events("").await.contains(" error "), "{}", events("").await);
    assert!(events("acme").await.ends_with(" created 2"), "{}", events("acme").await);
}
