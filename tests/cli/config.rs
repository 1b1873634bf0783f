use audit_testkit::{command, shared};
use cdc_audit_tests::repository;
use cdc_audit_tests::world::World;

#[test]
fn the_documented_default_is_config_toml() {
    let output = command(["config"]);
    assert!(output.status.success());
    let written = std::fs::read_to_string(repository("config.toml")).expect("config.toml");
    assert_eq!(String::from_utf8_lossy(&output.stdout), written);
}

/// The configuration in force consists of the file and the defaults. No password is shown, wherever the file has one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_force_is_shown_without_secrets() {
    let world = World::on(shared(15).await).not_set_up().unwitnessed().build().await;
    let with_password = world.url.replace("postgres@", "postgres:geheim@");
    world.edit_config(&world.url, &with_password);
    let key_value = format!("host=127.0.0.1 user=postgres password='geh eim' dbname={}", world.database);
    world.edit_config(&world.hot_url, &key_value);
    let shown = world.succeed(&["config", "--effective"]);
    assert!(!shown.contains("geheim") && !shown.contains("geh eim"), "{shown}");
    for line in ["name = \"shop\"", "heartbeat = \"10 s\"", "memory_limit = \"256 MiB\"", "file_age = \"1 s\""] {
        assert!(shown.contains(line), "no {line} in\n{shown}");
    }
    // Errors do not show one either.
    for (from, to) in [("[http]", "[htpp]"), ("slot = ", "slto = ")] {
        world.edit_config(from, to);
        let output = world.command(&["check"]);
        assert_eq!(output.status.code(), Some(2));
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!said.contains("geheim") && !said.contains("geh eim"), "{said}");
    }
}

/// Runs the README's own example. Only the places of its databases and its folder, and the port, are changed.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_the_readme_runs() {
    let server = shared(15).await;
    let world = World::on(server)
        .sql("CREATE TABLE orders (id int PRIMARY KEY, state text)")
        .not_set_up()
        .unwitnessed()
        .build()
        .await;
    let readme = std::fs::read_to_string(repository("README.md")).expect("the README");
    let example = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let mut config = example.to_owned();
    for (from, to) in [
        ("postgres://cdc_audit@localhost/shop", world.url.as_str()),
        ("postgres://cdc_audit@localhost/audit", world.hot_url.as_str()),
        ("/var/lib/cdc-audit/lake", world.lake.to_str().expect("a plain name")),
    ] {
        assert_eq!(config.matches(from).count(), 1, "{from} in\n{config}");
        config = config.replace(from, to);
    }
    // Other tests use the same server and the same machine.
    let own = format!("slot = \"{0}\"\npublication = \"{0}\"\n\n[sinks.hot]", world.slot);
    config = config.replace("[sinks.hot]", &own) + "\n[http]\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(&world.config, config).expect("a config");
    // The README's four commands.
    world.succeed(&["setup", "--dry-run"]);
    world.succeed(&["setup"]);
    world.succeed(&["check"]);
    server.execute(&world.database, "INSERT INTO orders VALUES (42, 'draft'); UPDATE orders SET state = 'paid'");
    world.catch_up().await;
    let trail = world.succeed(&["history", "public.orders", "42"]);
    assert!(trail.contains("| updated |") && trail.contains("| created |"), "{trail}");
    let folder = world.path("handover");
    world.succeed(&[
        "export",
        "--table",
        "public.orders",
        "--since",
        "2026-01-01",
        "--to",
        folder.to_str().expect("a plain name"),
    ]);
    assert_eq!(std::fs::read_to_string(folder.join("public.orders.jsonl")).expect("a file").lines().count(), 2);
    let recorded = world.recorded().await;
    assert_eq!(recorded.disagreements(), Vec::<String>::new());
}
