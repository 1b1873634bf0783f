//! Which tables need a baseline: those with rows that the stream cannot have had.

use std::collections::BTreeMap;

use audit_core::rules::{Rules, TableRule};
use audit_testkit::{Database, shared_db};

use super::world::{Event, World, sink};

async fn world(publication: &str) -> (Database, World) {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE first (id int PRIMARY KEY, v text); INSERT INTO first SELECT g, 'old' FROM generate_series(1, 150) g;
                  CREATE SCHEMA s; CREATE TABLE s.other (id int PRIMARY KEY)";
    let mut world = World::new(&db.url, schema, publication).await;
    world.start().await;
    world.finish().await;
    (db, world)
}

/// Makes the runner look at the source, and waits for all that follows from it.
async fn look(world: &mut World) {
    // Two notifications, because a look that had already begun may consume the first one.
    for _ in 0..2 {
        let seen = world.progress.report().looks;
        world.hint.notify_one();
        world.until("the runner has looked", |world| world.progress.report().looks > seen).await;
    }
    world.finish().await;
}

fn counts(world: &World, table: &str) -> (usize, usize) {
    let is = |wanted: fn(&Event) -> bool| world.events(table).iter().filter(|event| wanted(event)).count();
    (is(|event| matches!(event, Event::Created(_))), is(|event| matches!(event, Event::Snapshot(..))))
}

/// Compares the numbers of `(created, snapshot)` events of each table.
#[track_caller]
fn check(world: &World, expected: &[(&str, (usize, usize))]) {
    let found: BTreeMap<&str, _> = expected.iter().map(|(table, _)| (*table, counts(world, table))).collect();
    assert_eq!(found, expected.iter().copied().collect::<BTreeMap<_, _>>());
}

#[tokio::test]
async fn a_table_whose_every_row_came_by_the_stream_is_not_read() {
    let (_db, mut world) = world("FOR ALL TABLES WITH (publish_via_partition_root)").await;
    world
        .execute(
            "CREATE TABLE keyed (id int PRIMARY KEY, v text); INSERT INTO keyed SELECT g, 'x' FROM generate_series(1, 500) g;
             CREATE TABLE heap (v text); ALTER TABLE heap REPLICA IDENTITY FULL; INSERT INTO heap SELECT 'x' FROM generate_series(1, 20);
             CREATE TABLE made AS SELECT g AS id FROM generate_series(1, 30) g;
             CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
             INSERT INTO parted SELECT generate_series(1, 40);
             CREATE SCHEMA fresh CREATE TABLE inside (id int PRIMARY KEY); INSERT INTO fresh.inside VALUES (1)",
        )
        .await;
    world.execute("BEGIN; CREATE TABLE once (id int PRIMARY KEY); INSERT INTO once VALUES (1); COMMIT").await;
    look(&mut world).await;
    // The program is down now, and also while the table is created.
    world.stop();
    world.execute("CREATE TABLE down (id int PRIMARY KEY); INSERT INTO down VALUES (1), (2)").await;
    world.stream().await;
    world.restart().await;
    look(&mut world).await;
    check(
        &world,
        &[
            ("public.first", (0, 150)),
            ("public.keyed", (500, 0)),
            ("public.heap", (20, 0)),
            ("public.made", (30, 0)),
            ("public.parted", (40, 0)),
            ("fresh.inside", (1, 0)),
            ("public.once", (1, 0)),
            ("public.down", (2, 0)),
        ],
    );
    // A sink that is added later has had none of it.
    world.stop();
    let later = audit_capture::baseline::SinkProgress { is_new: true, ..sink("later", &[]) };
    world.kill(&[("hot", usize::MAX)]);
    world.sinks.push(later);
    world.start().await;
    look(&mut world).await;
    check(&world, &[("public.keyed", (500, 500)), ("public.once", (1, 1))]);
    assert_eq!(world.taken("public.keyed", "hot"), [""; 0]);
}

/// What the present catalog does not prove is read.
#[tokio::test]
async fn a_table_with_rows_from_before_it_was_what_it_is_is_read() {
    let (_db, mut world) = world("FOR TABLES IN SCHEMA public WITH (publish_via_partition_root)").await;
    world
        .execute(
            "CREATE TABLE s.moved (id int PRIMARY KEY); INSERT INTO s.moved VALUES (1); ALTER TABLE s.moved SET SCHEMA public;
             CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY); INSERT INTO unlogged VALUES (1); ALTER TABLE unlogged SET LOGGED;
             CREATE TABLE was (id int PRIMARY KEY); INSERT INTO was VALUES (1); ALTER TABLE was RENAME TO renamed;
             CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE leaf (id int PRIMARY KEY); INSERT INTO leaf VALUES (1);
             ALTER TABLE root ATTACH PARTITION leaf FOR VALUES FROM (0) TO (10)",
        )
        .await;
    world
        .execute("BEGIN; CREATE TABLE before (id int PRIMARY KEY); INSERT INTO before VALUES (1); ALTER TABLE before RENAME TO after; COMMIT")
        .await;
    look(&mut world).await;
    check(
        &world,
        &[
            ("public.moved", (0, 1)),
            ("public.unlogged", (0, 1)),
            ("public.renamed", (0, 1)),
            ("public.root", (0, 1)),
            ("public.after", (0, 1)),
        ],
    );
    // A schema that is added, or that gets another name, brings rows along.
    world
        .execute(
            "CREATE SCHEMA early; CREATE TABLE early.t (id int PRIMARY KEY); INSERT INTO early.t VALUES (1);
             ALTER PUBLICATION cdc_audit ADD TABLES IN SCHEMA early",
        )
        .await;
    look(&mut world).await;
    world.execute("ALTER SCHEMA early RENAME TO late; INSERT INTO late.t VALUES (2)").await;
    look(&mut world).await;
    check(&world, &[("early.t", (0, 1)), ("late.t", (1, 2))]);
}

#[tokio::test]
async fn rows_from_before_the_rules_took_a_table_are_read() {
    let (_db, mut world) = world("FOR ALL TABLES").await;
    let rule = |capture| TableRule { name: "public.late".to_owned(), capture: Some(capture), ..TableRule::default() };
    world.kill(&[("hot", usize::MAX)]);
    let all = TableRule { name: "*".to_owned(), capture: Some(true), ..TableRule::default() };
    world.rules = Rules { tables: vec![all.clone(), rule(false)], ..Rules::default() };
    world.start().await;
    look(&mut world).await;
    world.execute("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)").await;
    look(&mut world).await;
    world.kill(&[("hot", usize::MAX)]);
    world.rules = Rules { tables: vec![all], ..Rules::default() };
    world.start().await;
    look(&mut world).await;
    check(&world, &[("public.late", (1, 1)), ("public.first", (0, 150))]);
}

/// A sink to which the rules send a table later had none of its rows through the stream, though it had those of other
/// tables.
#[tokio::test]
async fn a_sink_that_is_sent_a_table_later_gets_its_rows() {
    let (_db, mut world) = world("FOR ALL TABLES").await;
    world.kill(&[("hot", usize::MAX)]);
    world.sinks.push(audit_capture::baseline::SinkProgress { is_new: true, ..sink("lake", &[]) });
    let hot = vec!["hot".to_owned()];
    let rule = TableRule { name: "public.later".to_owned(), sinks: Some(hot), ..TableRule::default() };
    world.rules = Rules { tables: vec![rule], ..Rules::default() };
    world.start().await;
    look(&mut world).await;
    world.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)").await;
    look(&mut world).await;
    check(&world, &[("public.later", (1, 0))]);
    world.kill(&[("hot", usize::MAX), ("lake", usize::MAX)]);
    world.rules = Rules::default();
    world.start().await;
    look(&mut world).await;
    assert_eq!(world.taken("public.later", "lake").len(), 1);
    assert_eq!(world.taken("public.later", "hot"), [""; 0]);
}

/// The stage goes by the rules for what a table was called, and a baseline by no others: rows would go where they must not.
#[tokio::test]
async fn a_renamed_table_is_read_by_the_rules_for_its_former_name() {
    let (_db, mut world) = world("FOR ALL TABLES WITH (publish_via_partition_root)").await;
    world.kill(&[("hot", usize::MAX)]);
    world.sinks.push(audit_capture::baseline::SinkProgress { is_new: true, ..sink("lake", &[]) });
    let rule = |name: &str| TableRule { name: name.to_owned(), ..TableRule::default() };
    let sinks = Some(vec!["hot".to_owned()]);
    let rules = vec![
        TableRule { baseline: Some(false), ..rule("public.quiet") },
        TableRule { sinks: sinks.clone(), ..rule("public.local") },
        TableRule { sinks, ..rule("public.parted") },
    ];
    world.rules = Rules { tables: rules, ..Rules::default() };
    world
        .execute(
            "CREATE TABLE quiet (id int PRIMARY KEY); CREATE TABLE local (id int PRIMARY KEY); CREATE TABLE down (id int PRIMARY KEY);
             INSERT INTO quiet VALUES (1); INSERT INTO local VALUES (1);
             CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100); INSERT INTO parted VALUES (1)",
        )
        .await;
    world.start().await;
    look(&mut world).await;
    let renames = [
        "ALTER TABLE quiet RENAME TO silent; ALTER TABLE local RENAME TO here; ALTER TABLE parted RENAME TO halved",
        "ALTER TABLE silent RENAME TO mute; ALTER TABLE here RENAME TO there; ALTER TABLE halved DETACH PARTITION parted_1",
    ];
    world.execute(renames[0]).await;
    look(&mut world).await;
    // Down meanwhile.
    world.stop();
    world.execute(renames[1]).await;
    world.stream().await;
    world.restart().await;
    look(&mut world).await;
    for table in ["quiet", "silent", "mute"] {
        check(&world, &[(&format!("public.{table}"), (usize::from(table == "quiet"), 0))]);
    }
    for table in ["local", "here", "there", "parted", "halved", "parted_1"] {
        let table = format!("public.{table}");
        assert_eq!(world.taken(&table, "lake"), [""; 0], "{table}");
        assert!(world.taken(&table, "hot").len() <= 1, "{table}");
    }
    assert_eq!(world.snapshots("public.there").len(), 1);
    assert_eq!(world.snapshots("public.parted_1").len(), 1);
    let (rules, client) = (&world.rules, &world.client);
    let asked = audit_capture::baseline::request(client, "shop", "cdc_audit", rules, &["hot", "lake"], "mute").await;
    assert_eq!(asked.unwrap_err().to_string(), "the rules want no baseline of table public.mute");
    // After pg_upgrade the server has another identifier, and its objects have the same oids.
    world.execute("UPDATE cdc_audit.captured_names SET system_id = '1'").await;
    let (rules, client) = (&world.rules, &world.client);
    let asked = audit_capture::baseline::request(client, "shop", "cdc_audit", rules, &["hot", "lake"], "mute").await;
    assert_eq!(asked.unwrap_err().to_string(), "the rules want no baseline of table public.mute");
    look(&mut world).await;
    let stored = "SELECT FROM cdc_audit.captured_names, pg_control_system() WHERE system_id = system_identifier::text AND table_name = 'quiet'";
    assert_eq!(world.client.query(stored, &[]).await.unwrap().len(), 1);
    // Who names it decides.
    world.rules.tables.push(rule("public.mute"));
    world.restart().await;
    look(&mut world).await;
    assert_eq!((world.taken("public.mute", "lake").len(), world.taken("public.mute", "hot").len()), (1, 1));
}

/// A table of the same name is not the same object.
#[tokio::test]
async fn a_table_that_is_made_anew_gets_a_baseline_of_its_own() {
    let (_db, mut world) = world("FOR TABLE first").await;
    world.allow_change("public.first");
    world
        .execute(
            "DROP TABLE first; CREATE TABLE first (id int PRIMARY KEY, v text); INSERT INTO first VALUES (1000, 'new');
             ALTER PUBLICATION cdc_audit ADD TABLE first; INSERT INTO first VALUES (1001, 'new')",
        )
        .await;
    look(&mut world).await;
    assert_eq!(world.taken("public.first", "hot"), ["1.1", "1.2!", "2.1!"]);
    // Tables are renamed in, also while the program is down.
    world.stop();
    world
        .execute(
            "CREATE TABLE swap (id int PRIMARY KEY, v text); INSERT INTO swap VALUES (5, 'swapped');
             ALTER TABLE first RENAME TO gone; ALTER TABLE swap RENAME TO first; ALTER PUBLICATION cdc_audit ADD TABLE first",
        )
        .await;
    world.stream().await;
    world.restart().await;
    look(&mut world).await;
    assert_eq!(world.taken("public.first", "hot"), ["1.1", "1.2!", "2.1!", "3.1!"]);
    assert!(world.snapshots("public.first").contains(&super::world::text(&["5", "swapped"])));
}

/// All tables are published by one entry, which says nothing about which of them it means.
#[tokio::test]
async fn a_table_that_takes_the_place_of_another_gets_a_baseline_of_its_own() {
    let (_db, mut world) = world("FOR ALL TABLES").await;
    world.allow_change("public.first");
    world
        .execute(
            "CREATE TABLE s.first (id int CONSTRAINT swapped PRIMARY KEY, v text); INSERT INTO s.first VALUES (5, 'swapped');
             ALTER TABLE first RENAME TO gone; ALTER TABLE s.first SET SCHEMA public",
        )
        .await;
    look(&mut world).await;
    assert_eq!(world.taken("public.first", "hot"), ["1.1", "1.2!", "2.1!"]);
    assert_eq!(world.snapshots("public.gone").len(), 150);
}

#[tokio::test]
async fn a_table_that_left_the_publication_is_named_and_read_when_it_joins_again() {
    let (_db, mut world) = world("FOR TABLE first, s.other").await;
    world.execute("ALTER PUBLICATION cdc_audit DROP TABLE first; INSERT INTO first VALUES (900, 'unseen')").await;
    look(&mut world).await;
    let uncaptured = world.progress.report().uncaptured;
    assert_eq!(uncaptured.left.into_iter().collect::<Vec<_>>(), ["public.first"]);
    world.execute("ALTER PUBLICATION cdc_audit ADD TABLE first").await;
    look(&mut world).await;
    assert_eq!(world.taken("public.first", "hot"), ["1.1", "1.2!", "2.1", "2.2!"]);
    assert!(world.snapshots("public.first").contains(&super::world::text(&["900", "unseen"])));
    assert!(world.progress.report().uncaptured.left.is_empty());
    // The table leaves and returns while the program is down.
    world.stop();
    world
        .execute(
            "ALTER PUBLICATION cdc_audit DROP TABLE first; UPDATE first SET v = 'unseen too' WHERE id = 1;
             ALTER PUBLICATION cdc_audit ADD TABLE first",
        )
        .await;
    world.stream().await;
    world.restart().await;
    look(&mut world).await;
    assert!(world.snapshots("public.first").contains(&super::world::text(&["1", "unseen too"])));
    // A table that stays published, by one entry or another, continues.
    let baselines = world.taken("public.first", "hot");
    world.execute("ALTER PUBLICATION cdc_audit ADD TABLES IN SCHEMA public").await;
    look(&mut world).await;
    world.execute("ALTER PUBLICATION cdc_audit DROP TABLE first").await;
    look(&mut world).await;
    assert_eq!(world.taken("public.first", "hot"), baselines);
}

/// A partition that is attached is read, without other rows of the table, once for each time that it is attached.
#[tokio::test]
async fn a_partition_that_is_attached_is_read() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE root (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
                  CREATE TABLE root_1 PARTITION OF root FOR VALUES FROM (0) TO (100);
                  INSERT INTO root SELECT g, 'old' FROM generate_series(1, 50) g;
                  CREATE TABLE heap (v text) PARTITION BY LIST (v);
                  ALTER TABLE heap REPLICA IDENTITY FULL";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES WITH (publish_via_partition_root)").await;
    world.start().await;
    world.finish().await;
    world
        .execute(
            "CREATE TABLE root_2 PARTITION OF root FOR VALUES FROM (100) TO (200); INSERT INTO root VALUES (100, 'new');
             CREATE TABLE archive (v text, id int PRIMARY KEY); INSERT INTO archive SELECT 'archived', g FROM generate_series(200, 204) g;
             ALTER TABLE root ATTACH PARTITION archive FOR VALUES FROM (200) TO (300);
             CREATE TABLE middle (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
             CREATE TABLE middle_1 PARTITION OF middle FOR VALUES FROM (300) TO (400); INSERT INTO middle VALUES (300, 'in the middle');
             ALTER TABLE root ATTACH PARTITION middle FOR VALUES FROM (300) TO (400);
             CREATE TABLE heap_a (v text); INSERT INTO heap_a VALUES ('a'), ('a'); ALTER TABLE heap_a REPLICA IDENTITY FULL;
             ALTER TABLE heap ATTACH PARTITION heap_a FOR VALUES IN ('a')",
        )
        .await;
    look(&mut world).await;
    world.until("both are read", |world| world.taken("public.root", "hot").len() == 3).await;
    look(&mut world).await;
    assert_eq!(world.taken("public.root", "hot"), ["1.1!", "2.1!", "3.1!"]);
    check(&world, &[("public.root", (1, 50 + 5 + 1)), ("public.heap", (0, 2))]);
    // It is not read again after a start, but is read again when it comes back.
    world.restart().await;
    look(&mut world).await;
    assert_eq!(world.taken("public.root", "hot").len(), 3);
    world
        .execute(
            "ALTER TABLE root DETACH PARTITION archive; INSERT INTO archive VALUES ('apart', 205);
             ALTER TABLE root ATTACH PARTITION archive FOR VALUES FROM (200) TO (300)",
        )
        .await;
    look(&mut world).await;
    check(&world, &[("public.root", (1, 50 + 5 + 1 + 6))]);
    world.assert_replayed("public.root", 1, &world.rows("SELECT id, v FROM root").await);
}

/// The same holds if the rules, and so what is known to be in the stream, change during the same stop.
#[tokio::test]
async fn a_partition_that_is_attached_while_the_rules_change_is_read() {
    let db = shared_db(15).await;
    let schema = "CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id);
                  CREATE TABLE root_1 PARTITION OF root FOR VALUES FROM (0) TO (100); INSERT INTO root VALUES (1);
                  CREATE TABLE archive (id int PRIMARY KEY); INSERT INTO archive VALUES (200)";
    let mut world = World::new(&db.url, schema, "FOR ALL TABLES WITH (publish_via_partition_root)").await;
    world.start().await;
    world.finish().await;
    world.kill(&[("hot", usize::MAX)]);
    world.execute("ALTER TABLE root ATTACH PARTITION archive FOR VALUES FROM (200) TO (300)").await;
    let rule = TableRule { name: "public.root".to_owned(), ..TableRule::default() };
    world.rules = Rules { tables: vec![rule], ..Rules::default() };
    world.start().await;
    look(&mut world).await;
    check(&world, &[("public.root", (0, 2))]);
}

/// After lost WAL, nothing that was created meanwhile is known to be in the stream.
#[tokio::test]
async fn a_table_that_was_made_in_a_gap_is_read() {
    let (_db, mut world) = world("FOR ALL TABLES").await;
    world.kill(&[("hot", usize::MAX)]);
    world.execute("CREATE TABLE lost (id int PRIMARY KEY); INSERT INTO lost VALUES (1)").await;
    world.lost_wal = true;
    world.start().await;
    // This is like a kill before anything else is stored.
    world.stop();
    world.lost_wal = false;
    world.restart().await;
    look(&mut world).await;
    assert_eq!(counts(&world, "public.lost").1, 1);
}

/// A partition that no baseline will ever need does not delay anything.
#[tokio::test]
async fn a_partition_of_a_table_without_a_baseline_is_not_waited_for() {
    let (_db, mut world) = world("FOR ALL TABLES WITH (publish_via_partition_root)").await;
    world.kill(&[("hot", usize::MAX)]);
    let rule = TableRule { name: "public.root".to_owned(), baseline: Some(false), ..TableRule::default() };
    world.rules = Rules { tables: vec![rule], ..Rules::default() };
    world.start().await;
    look(&mut world).await;
    world
        .execute(
            "CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE part (id int PRIMARY KEY);
             ALTER TABLE root ATTACH PARTITION part FOR VALUES FROM (0) TO (10);
             ALTER PUBLICATION cdc_audit SET (publish = 'insert, update, delete')",
        )
        .await;
    look(&mut world).await;
    world.execute("CREATE TABLE fresh (id int PRIMARY KEY); INSERT INTO fresh VALUES (1)").await;
    look(&mut world).await;
    check(&world, &[("public.fresh", (1, 0))]);
}

#[tokio::test]
async fn a_baseline_is_asked_for_by_hand() {
    let (_db, mut world) = world("FOR TABLES IN SCHEMA public").await;
    let ask = async |world: &World, table: &str| {
        let (rules, client) = (&world.rules, &world.client);
        audit_capture::baseline::request(client, "shop", "cdc_audit", rules, &["hot"], table).await
    };
    // The first request comes while the runner runs.
    let asked = ask(&world, "public.first").await.unwrap();
    assert_eq!((asked.table.as_str(), asked.baseline, asked.before), ("public.first", 2, false));
    assert!(ask(&world, "first").await.unwrap().before);
    look(&mut world).await;
    assert_eq!(world.taken("public.first", "hot"), ["1.1", "1.2!", "2.1", "2.2!"]);
    look(&mut world).await;
    assert_eq!(world.taken("public.first", "hot").len(), 4);
    // The next one comes while it does not run, also for a table that had all of its rows through the stream.
    world.execute("CREATE TABLE streamed (id int PRIMARY KEY); INSERT INTO streamed VALUES (1)").await;
    look(&mut world).await;
    world.kill(&[("hot", 4)]);
    assert_eq!(ask(&world, "public.first").await.unwrap().baseline, 3);
    assert_eq!(ask(&world, "public.streamed").await.unwrap().baseline, 2);
    world.start().await;
    look(&mut world).await;
    assert_eq!(world.taken("public.first", "hot")[4..], ["3.1", "3.2!"]);
    check(&world, &[("public.streamed", (1, 1))]);
    // The source loses what it has stored of baselines: the requested number is one that the sink already has.
    world.kill(&[("hot", 7)]);
    world.execute("DELETE FROM cdc_audit.chunks").await;
    assert_eq!(ask(&world, "public.first").await.unwrap().baseline, 2);
    world.start().await;
    look(&mut world).await;
    assert_eq!(world.taken("public.first", "hot")[6..], ["4.1", "4.2!"]);
    look(&mut world).await;
    assert_eq!(world.taken("public.first", "hot").len(), 8);

    let error = ask(&world, "s.other").await.unwrap_err();
    assert_eq!(error.to_string(), "table s.other is not published, so nothing of it is captured");
    let rule = TableRule { name: "*".to_owned(), baseline: Some(false), ..TableRule::default() };
    world.rules = Rules { tables: vec![rule], ..Rules::default() };
    let error = ask(&world, "first").await.unwrap_err();
    assert_eq!(error.to_string(), "the rules want no baseline of table public.first");
}
