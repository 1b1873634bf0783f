//! Kills, and sinks and tables that come later.

use audit_testkit::shared_db;

use super::world::{World, sink};

const TWO: &str = "
    CREATE TABLE users (id int PRIMARY KEY, v text); INSERT INTO users SELECT i * 10, 'old' FROM generate_series(1, 620) i;
    CREATE TABLE log (v text); ALTER TABLE log REPLICA IDENTITY FULL; INSERT INTO log SELECT 'old' || i FROM generate_series(1, 620) i;";

async fn check(world: &World) {
    world.assert_replayed("public.users", 1, &world.rows("SELECT id, v FROM users").await);
    world.assert_replayed("public.log", 0, &world.rows("SELECT v FROM log").await);
    for sink in &world.sinks {
        for table in ["public.users", "public.log"] {
            let taken = world.taken(table, &sink.name);
            for (before, after) in taken.iter().zip(taken.iter().skip(1)) {
                let parts = |text: &str| {
                    let (baseline, chunk) = text.trim_end_matches('!').split_once('.').unwrap();
                    (baseline.parse::<u32>().unwrap(), chunk.parse::<u32>().unwrap())
                };
                let (before, after) = (parts(before), parts(after));
                let follows = after == (before.0, before.1 + 1) || (after.0 > before.0 && after.1 == 1);
                assert!(follows, "{table} in {}: {taken:?}", sink.name);
            }
            assert!(taken.last().unwrap().ends_with('!'), "{taken:?}");
        }
    }
}

#[tokio::test]
async fn a_chunk_that_one_sink_lacks_after_a_kill_is_read_again_within_its_bounds() {
    let db = shared_db(15).await;
    let mut world = World::new(&db.url, TWO, "FOR ALL TABLES").await;
    world.sinks = vec![sink("hot", &[]), sink("lake", &[])];
    world.config.parallel = 1;
    world.start().await;
    world.until("five chunks are there", |world| world.taken("public.users", "hot").len() == 5).await;
    let log = world.taken("public.log", "hot").len();
    world.kill(&[("hot", log + 5), ("lake", log + 2)]);
    // Rows are added inside and between the chunks, and one is deleted.
    world.execute("INSERT INTO users SELECT i, 'new' FROM generate_series(5, 9000, 10) i ON CONFLICT DO NOTHING").await;
    world.execute("DELETE FROM users WHERE id = 2000; UPDATE users SET v = 'newer' WHERE id = 3000").await;
    world.stream().await;
    world.start().await;
    world.finish().await;
    check(&world).await;
    let all = ["1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7"];
    assert!(
        world.taken("public.users", "lake").starts_with(&all.map(str::to_owned)),
        "{:?}",
        world.taken("public.users", "lake")
    );
    // They continue together from where the sink that was ahead was.
    let marks: Vec<_> =
        world.chunks.iter().map(|(mark, ..)| mark).filter(|mark| &*mark.table == "public.users").collect();
    assert!(marks.iter().all(|mark| mark.chunk <= 5 || mark.sinks.len() == 2));
    // Each sink has every row once.
    for sink in ["hot", "lake"] {
        let mut keys: Vec<_> = world
            .events("public.users")
            .iter()
            .filter_map(|event| match event {
                super::world::Event::Snapshot(mark, row) if mark.sinks.iter().any(|name| &**name == sink) => {
                    row[0].clone()
                }
                _ => None,
            })
            .collect();
        let before = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), before, "{sink}");
    }
}

/// A small, reproducible generator of random numbers (linear congruential).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % below
    }
}

#[tokio::test]
async fn whatever_is_killed_when_each_sink_has_each_chunk_once() {
    for seed in 1..=3 {
        let db = shared_db(15).await;
        let mut dice = Dice(seed);
        let mut world = World::new(&db.url, TWO, "FOR ALL TABLES").await;
        world.sinks = vec![sink("hot", &[]), sink("lake", &[])];
        world.start().await;
        for round in 0..12 {
            for _ in 0..dice.roll(12) {
                world.step().await;
            }
            let at = dice.roll(6200);
            let writes = format!(
                "BEGIN; UPDATE users SET v = 'r{round}' WHERE id BETWEEN {at} AND {at} + 100; DELETE FROM users WHERE id = {at} / 10 * 10;
                 UPDATE log SET v = v || '+' WHERE v = 'old{0}'; DELETE FROM log WHERE v = 'old{1}';
                 INSERT INTO users VALUES ({at} * 10 + 3, 'new') ON CONFLICT DO NOTHING; INSERT INTO log VALUES ('new{round}'); COMMIT",
                dice.roll(620),
                dice.roll(620)
            );
            world.execute(&writes).await;
            if dice.roll(3) == 0 {
                world.stream().await;
            }
            let given = |world: &World, sink: &str| {
                world.taken("public.users", sink).len() + world.taken("public.log", sink).len()
            };
            let keep = |dice: &mut Dice, given: usize, durable: usize| durable + dice.roll(given - durable + 1);
            let (hot, lake) = (given(&world, "hot"), given(&world, "lake"));
            // What was durable stays durable.
            let durable = |world: &World, name: &str| {
                let sink = world.sinks.iter().find(|sink| &*sink.name == name).unwrap();
                world
                    .chunks
                    .iter()
                    .filter(|(mark, ..)| {
                        mark.sinks.iter().any(|sink| &**sink == name)
                            && sink
                                .baselines
                                .get(mark.table.as_ref())
                                .is_some_and(|p| (mark.baseline, mark.chunk) <= (p.baseline, p.chunk))
                    })
                    .count()
            };
            let (hot_keeps, lake_keeps) = (durable(&world, "hot"), durable(&world, "lake"));
            let keeps = [("hot", keep(&mut dice, hot, hot_keeps)), ("lake", keep(&mut dice, lake, lake_keeps))];
            world.kill(&keeps);
            world.start().await;
        }
        world.finish().await;
        check(&world).await;
    }
}

#[tokio::test]
async fn a_sink_added_later_has_a_baseline_of_its_own() {
    let db = shared_db(15).await;
    let mut world = World::new(&db.url, TWO, "FOR ALL TABLES").await;
    world.start().await;
    world.finish().await;
    world.kill(&[("hot", usize::MAX)]);
    world.execute("UPDATE users SET v = 'new' WHERE id < 100; DELETE FROM log WHERE v = 'old7'").await;
    world.stream().await;
    let (users, log) = (world.trail.remove("public.users").unwrap(), world.trail.remove("public.log").unwrap());
    world.chunks.clear();
    // The new sink's stream begins here.
    let hot = world.sinks.pop().unwrap();
    world.sinks = vec![sink("lake", &[])];
    world.sinks[0].is_new = true;
    world.sinks.push(hot);
    world.start().await;
    world.finish().await;
    assert_eq!(world.taken("public.users", "hot"), [""; 0]);
    assert_eq!(world.taken("public.users", "lake").first().unwrap(), "2.1");
    world.sinks.pop();
    check(&world).await;
    drop((users, log));
}

/// A sink with the name of an earlier one, which has nothing of what that one had.
#[tokio::test]
async fn a_sink_that_only_has_another_ones_name_gets_everything() {
    let db = shared_db(15).await;
    let mut world = World::new(&db.url, TWO, "FOR ALL TABLES").await;
    world.start().await;
    world.until("the baselines are half done", |world| world.chunks.len() >= 6).await;
    world.stop();
    // The earlier sink had these rows through the stream; the new one's stream begins after them.
    world.execute("INSERT INTO log SELECT 'later' || i FROM generate_series(1, 50) i; INSERT INTO users SELECT i, 'later' FROM generate_series(7000, 7050) i").await;
    world.stream().await;
    world.trail.clear();
    world.chunks.clear();
    world.sinks[0].is_new = true;
    world.start().await;
    // The same again, now that it has a checkpoint.
    world.until("a chunk is there", |world| !world.chunks.is_empty()).await;
    world.kill(&[("hot", 0)]);
    world.start().await;
    world.finish().await;
    check(&world).await;
}

#[tokio::test]
async fn what_is_asked_for_anew_is_not_forgotten_by_a_kill() {
    let db = shared_db(15).await;
    let mut world = World::new(&db.url, TWO, "FOR ALL TABLES").await;
    world.start().await;
    world.finish().await;
    world.kill(&[("hot", usize::MAX)]);
    world.anew = true;
    world.start().await;
    world.stop();
    world.anew = false;
    let done = world.chunks.len();
    world.start().await;
    world.finish().await;
    assert!(
        world.taken("public.users", "hot").contains(&"2.1".to_owned())
            && world.taken("public.log", "hot").contains(&"2.1".to_owned())
    );
    assert_eq!(world.snapshots("public.users").len(), 2 * 620);
    assert_eq!(world.chunks.len(), 2 * done);
}

#[tokio::test]
async fn after_lost_wal_a_table_without_a_key_is_begun_anew() {
    let db = shared_db(15).await;
    let mut world = World::new(&db.url, TWO, "FOR ALL TABLES").await;
    world.start().await;
    world
        .until("both are half done", |world| {
            world.taken("public.users", "hot").len() >= 2 && world.taken("public.log", "hot").len() >= 2
        })
        .await;
    let users = world.taken("public.users", "hot").len();
    world.kill(&[("hot", usize::MAX)]);
    world.lost_wal = true;
    world.start().await;
    world.finish().await;
    assert!(world.taken("public.log", "hot").contains(&"2.1".to_owned()));
    assert!(world.taken("public.users", "hot")[users].starts_with("1."));
}

#[tokio::test]
async fn lost_bounds_another_key_and_grown_chunks_begin_a_new_baseline() {
    let big = "repeat('x', 3000)";
    for (what, change) in [
        ("lost bounds", "DELETE FROM cdc_audit.chunks WHERE chunk BETWEEN 2 AND 3".to_owned()),
        (
            "another key",
            "ALTER TABLE users DROP CONSTRAINT users_pkey; ALTER TABLE users ALTER v SET NOT NULL;
             ALTER TABLE users ADD PRIMARY KEY (v, id)"
                .to_owned(),
        ),
        (
            "grown chunks",
            format!("INSERT INTO users SELECT i, {big} FROM generate_series(1001, 1999) i ON CONFLICT DO NOTHING"),
        ),
    ] {
        let db = shared_db(15).await;
        let mut world = World::new(&db.url, TWO, "FOR TABLE users").await;
        world.allow_change("public.users");
        world.config.chunk_bytes = audit_config::ByteSize::kib(100);
        world.sinks = vec![sink("hot", &[]), sink("lake", &[])];
        world.start().await;
        world.until("three chunks are there", |world| world.chunks.len() == 3).await;
        world.kill(&[("hot", 2), ("lake", 1)]);
        world.execute(&change).await;
        world.stream().await;
        world.start().await;
        world.finish().await;
        world.assert_replayed("public.users", 1, &world.rows("SELECT id, v FROM users").await);
        let taken = ["hot", "lake"].map(|sink| world.taken("public.users", sink));
        assert!(taken.iter().all(|taken| taken.last().unwrap().ends_with('!')), "{what}: {taken:?}");
        assert!(taken.iter().any(|taken| taken.contains(&"2.1".to_owned())), "{what}: {taken:?}");
    }
}

#[tokio::test]
async fn bounds_of_complete_baselines_do_not_stay() {
    let db = shared_db(15).await;
    let mut world = World::new(&db.url, TWO, "FOR ALL TABLES").await;
    world.start().await;
    world.finish().await;
    let bounds = "SELECT count(*) FROM cdc_audit.chunks WHERE chunk > 0 AND (lower IS NOT NULL OR upper IS NOT NULL)";
    assert!(world.number(bounds).await > 5);
    world.kill(&[("hot", usize::MAX)]);
    world.start().await;
    assert_eq!(world.number(bounds).await, 0);
    // A sink that is added later does not rely on them.
    world.sinks.push(sink("lake", &[]));
    world.trail.clear();
    world.chunks.clear();
    world.start().await;
    world.finish().await;
    world.sinks.remove(0);
    check(&world).await;
}
