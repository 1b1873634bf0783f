use audit_testkit::{Postgres, shared};
use cdc_audit_tests::world::World;
use expect_test::expect;

use crate::said::{TABLE, insert, refused, refused_command};

async fn world(server: &Postgres) -> World {
    World::on(server).sql(TABLE).not_set_up().unwitnessed().build().await
}

/// Checks that nothing was made anywhere, and that everything works with the former configuration.
async fn untouched_and_well(server: &Postgres, world: &World, good: &str) {
    let made = "SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc_audit'";
    assert_eq!(server.execute(&world.database, made), "0");
    assert_eq!(world.hot().await.query_one(made, &[]).await.expect("the hot database").get::<_, i64>(0), 0);
    assert!(!world.lake.exists());
    std::fs::write(&world.config, good).expect("the config");
    world.set_up();
    insert(server, world, 1);
    world.catch_up().await;
    let recorded = world.recorded().await;
    assert_eq!((recorded.hot.len(), recorded.disagreements()), (10, Vec::new()));
}

/// All errors are reported together, each with its place and a hint, before anything is changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_config_is_refused_with_all_its_problems() {
    let server = shared(15).await;
    let world = world(server).await;
    let good = std::fs::read_to_string(&world.config).expect("the config");
    world.edit_config("[http]", "[htpp]");
    world.edit_config("ignore_alone = []", "ignore_alnoe = []\ninculde = [\"a\"]\nprotect = { name = \"shred\" }");
    world.edit_config("file_age = \"1 s\"", "file_age = \"soon\"\nfile_rows = \"all\"\nzstd_level = 99");
    world.edit_config("[pipeline]", "[pipeline]\nmemory_limit = \"much\"");
    let said = refused(&world);
    expect![[r#"
        exit 2
        error: <folder>/config.toml has 8 problems
          line 9, tables[0].ignore_alnoe: unknown key
            hint: did you mean `ignore_alone`?
          line 10, tables[0].inculde: unknown key
            hint: did you mean `include`?
          line 11, tables[0].protect.name: unknown value
            hint: known here: `full`, `partial`, `hash`, `token`, `encrypt`, `drop`
          line 27, sinks.archive.file_age: not a duration
            hint: write a whole number and ms, s, min, h or d, as in "5 s"
          line 28, sinks.archive.file_rows: expected an integer, found a string
          line 29, sinks.archive.zstd_level: out of range, expected a number from 1 to 19
          line 33, pipeline.memory_limit: not a size
            hint: write a whole number and B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, as in "16 MiB"
          line 36, htpp: unknown key
            hint: did you mean `http`?
    "#]]
    .assert_eq(&said);
    for command in ["setup", "check", "status", "teardown"] {
        assert_eq!(refused_command(&world, &[command]), said, "{command}");
    }
    untouched_and_well(server, &world, &good).await;
}

/// These errors are found only after all keys and types are correct.
#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_contradicts_itself_is_refused() {
    let server = shared(15).await;
    let world = world(server).await;
    let good = std::fs::read_to_string(&world.config).expect("the config");
    world.edit_config("ignore_alone = []", "only = [\"a\"]\nignore = [\"b\"]\nprotect = { email = \"hash\" }");
    world.edit_config("[pipeline]", "[pipeline]\nmemory_limit = \"10 MiB\"");
    world.edit_config("name = \"shop\"", "name = \"My Shop\"");
    world.edit_config("127.0.0.1:0", "localhost");
    world.edit_config("[sinks.hot]", "[sinks.Hot]");
    expect![[r#"
        exit 2
        error: <folder>/config.toml has 6 problems
          line 2, source.name: not a name that a source can have
            hint: use up to 63 of the letters a to z, digits, `_` and `-`
          line 9, tables[0].only: given together with `ignore`
            hint: keep one of the two
          line 11, tables[0].protect.email: the method `hash` needs a key
            hint: set protection.hash_key to a file or variable that holds one
          line 18, sinks.Hot: a sink's name may hold a-z, 0-9, - and _
            hint: choose another name
          line 31, pipeline.memory_limit: too small
            hint: give at least "80 MiB"
          line 35, http.listen: not an address with a port
            hint: give one like "127.0.0.1:<number>"
    "#]]
    .assert_eq(&refused(&world));
    untouched_and_well(server, &world, &good).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_that_is_missing_empty_or_no_toml_is_refused() {
    let server = shared(15).await;
    let world = world(server).await;
    let good = std::fs::read_to_string(&world.config).expect("the config");
    std::fs::write(&world.config, "[source\nname = \"shop\"").expect("the config");
    expect![[r#"
        exit 2
        error: <folder>/config.toml has 1 problem
          line 1: unclosed table, expected `]`
    "#]]
    .assert_eq(&refused(&world));
    std::fs::write(&world.config, "").expect("the config");
    expect![[r#"
        exit 2
        error: <folder>/config.toml has 2 problems
          source: missing
            hint: The captured database.
          sinks: missing
            hint: Where versions go.
    "#]]
    .assert_eq(&refused(&world));
    let (without_sinks, _) = good.split_once("[sinks.hot]").expect("a sink");
    std::fs::write(&world.config, without_sinks).expect("the config");
    expect![[r#"
        exit 2
        error: <folder>/config.toml has 1 problem
          sinks: missing
            hint: Where versions go.
    "#]]
    .assert_eq(&refused(&world));
    std::fs::write(&world.config, format!("{without_sinks}[sinks]\n")).expect("the config");
    expect![[r#"
        exit 2
        error: <folder>/config.toml has 1 problem
          line 16, sinks: there is no sink
            hint: name at least one: [sinks.hot] or [sinks.archive]
    "#]]
    .assert_eq(&refused(&world));
    std::fs::write(&world.config, format!("{without_sinks}[sinks.queue]\ntype = \"sqs\"\n")).expect("the config");
    expect![[r#"
        exit 2
        error: <folder>/config.toml has 1 problem
          line 17, sinks.queue.type: unknown value
            hint: known here: `hot`, `lake`, `kafka`, `webhook`
    "#]]
    .assert_eq(&refused(&world));
    std::fs::remove_file(&world.config).expect("the config");
    expect![[r#"
        exit 2
        error: <folder>/config.toml has 1 problem
          cannot be read: No such file or directory (os error 2)
            hint: name the file with --config; `cdc-audit config` prints one with every key documented
    "#]]
    .assert_eq(&refused(&world));
    untouched_and_well(server, &world, &good).await;
}

/// A row whose key is hidden could not be distinguished from another row.
#[tokio::test(flavor = "multi_thread")]
async fn a_protected_key_without_a_row_key_is_refused() {
    let server = shared(15).await;
    let rule = "[[tables]]\nname = \"*\"\nignore_alone = []\nbaseline = false\nprotect = { ssn = \"full\" }\n";
    let people = "CREATE TABLE people (ssn text PRIMARY KEY, v int)";
    let world = World::on(server).sql(people).tables(rule).build().await;
    server.execute(&world.database, "INSERT INTO people VALUES ('078-05-1120', 1)");
    let said = refused(&world);
    expect![[r#"
        exit 1
        error: the stream cannot be followed
          detail: table public.people: column ssn is part of the key and protected with `full`, but there is no row key under which `key` could hold it
          hint: set protection.row_key to a file or variable with a secret that never changes, or take ssn out of the protection rules
    "#]].assert_eq(&said);
    assert!(!said.contains("078"));
    assert!(world.recorded().await.hot.is_empty());
    world.edit_config("protect = { ssn = \"full\" }\n", "");
    world.catch_up().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_read_or_is_too_short_is_refused() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).build().await;
    insert(server, &world, 1);
    let key = world.path("key");
    world.edit_config("[protection]", &format!("[protection]\nhash_key = {{ file = \"{}\" }}", key.display()));
    expect![[r#"
        exit 2
        error: the key protection.hash_key cannot be read
          detail: cannot read <folder>/key
          detail: No such file or directory (os error 2)
          hint: the file must exist and be readable by the daemon's user
    "#]]
    .assert_eq(&refused(&world));
    audit_testkit::write_secret(&key, "short-secret\n");
    let said = refused(&world);
    expect![[r#"
        exit 2
        error: the key protection.hash_key is too short to protect anything: 12 characters
          hint: make another hash_key (openssl rand -hex 32), and change hash_key_id together with it
    "#]]
    .assert_eq(&said);
    assert!(!said.contains("short-secret"));
    audit_testkit::write_secret(&key, "0123456789abcdef0123456789abcdef\n");
    world.catch_up().await;
    world.check().await;
}

/// A trail that was written with it could never be continued with another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_weak_key_of_rows_is_used_and_said() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).build().await;
    insert(server, &world, 1);
    let key = world.path("key");
    world.edit_config("[protection]", &format!("[protection]\nrow_key = {{ file = \"{}\" }}", key.display()));
    audit_testkit::write_secret(&key, "fifteen-letters\n");
    expect![[r#"
        exit 2
        error: the key protection.row_key is too short to protect anything: 15 characters
          hint: make one of 32 random bytes: openssl rand -hex 32
    "#]]
    .assert_eq(&refused(&world));
    let blanks = " 0123456789abcdef0123456789abcdef\n";
    for (text, said, row) in [("sixteen-letters!\n", "too short", 11), (blanks, "begins or ends with blanks", 21)] {
        audit_testkit::write_secret(&key, text);
        let checked = String::from_utf8_lossy(&world.command(&["check"]).stdout).into_owned();
        let line = checked.lines().find(|line| line.contains("protection.row_key"));
        assert!(line.is_some_and(|line| line.contains("warn") && line.contains(said)), "{checked}");
        assert!(checked.contains("must never change") && !checked.contains(text.trim()), "{checked}");
        insert(server, &world, row);
        world.catch_up().await;
    }
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_refused() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).listening().build().await;
    insert(server, &world, 1);
    let taken = std::net::TcpListener::bind(("127.0.0.1", world.http)).expect("the port");
    expect![[r#"
        exit 2
        error: cannot listen on 127.0.0.1:<number>
          detail: Address already in use (os error 98)
          hint: another daemon may run here: set http.listen to a free port
    "#]]
    .assert_eq(&refused(&world));
    drop(taken);
    world.catch_up().await;
    world.check().await;
}
