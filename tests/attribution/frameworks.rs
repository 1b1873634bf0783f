use std::path::{Path, PathBuf};
use std::process::Command;

use audit_testkit::{Postgres, install, shared, thorough};
use cdc_audit_tests::world::World;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn helpers() -> PathBuf {
    root().join("examples/attribution")
}

fn programs() -> PathBuf {
    root().join("tests/attribution/programs")
}

async fn world() -> (&'static Postgres, World) {
    let server = shared(15).await;
    let world = World::on(server).sql("CREATE TABLE t (id int PRIMARY KEY)").without_lake().build().await;
    (server, world)
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}:\n{stdout}{stderr}", output.status);
}

/// Checks what an application must have done: rows 1 and 2 in one transaction by Ann; 3 and 5 without a person, over a
/// connection that a person has used before; 4 rolled back; 6 to 9 by Cleo, with 7 rolled back to a savepoint.
async fn check(world: &World) {
    world.catch_up().await;
    let trail = world.recorded().await.hot;
    let told: Vec<String> = trail
        .iter()
        .map(|version| {
            let key = version.key.as_deref().unwrap();
            let actor = version.actor_id.as_deref().unwrap_or("-");
            let reason = version.reason.as_deref().unwrap_or("-");
            let verified =
                version.context_verified.map_or("-", |verified| if verified { "verified" } else { "not verified" });
            format!("{key} {actor} {reason} {verified}")
        })
        .collect();
    let expected = [
        "1 ann first verified",
        "2 ann first verified",
        "3 - - -",
        "5 - - -",
        "6 cleo - verified",
        "8 cleo - verified",
        "9 cleo - verified",
    ];
    assert_eq!(told, expected);
    assert_eq!(trail[0].xid, trail[1].xid);
    assert_eq!(trail[4].xid, trail[5].xid);
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_says_it_for_a_script() {
    let (_, world) = world().await;
    let mut psql = Command::new(install::client_program("psql"));
    psql.args(["-X", "-q", "-v", "actor=ann", "-v", "reason=ticket '4711'", "-f"]).arg(helpers().join("psql.sql"));
    run(psql.arg("-f").arg(programs().join("psql_repair.sql")).arg(&world.url));
    world.catch_up().await;
    let trail = world.recorded().await.hot;
    assert_eq!(trail.len(), 2);
    for version in trail {
        assert_eq!((version.actor_id.as_deref(), version.reason.as_deref()), (Some("ann"), Some("ticket '4711'")));
        assert_eq!((version.context_verified, &version.context.unwrap()["source"]), (Some(true), &"psql".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rails_says_it() {
    let (_, world) = world().await;
    run(Command::new("ruby")
        .arg(programs().join("rails.rb"))
        .arg(helpers().join("rails_audit_context.rb"))
        .arg(&world.url));
    check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn django_says_it() {
    let (server, world) = world().await;
    let mut python = Command::new(install::python());
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(programs().join("django_app.py")).arg(helpers());
    run(python.args(["127.0.0.1", &server.port().to_string(), &world.database]));
    check(&world).await;
    let first = world.recorded().await.hot.swap_remove(0);
    assert_eq!(first.actor.unwrap()["name"], "Ann");
    assert_eq!(first.context.unwrap()["ip"], "192.0.2.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlalchemy_says_it() {
    let (_, world) = world().await;
    let mut python = Command::new(install::python());
    python.env("PYTHONDONTWRITEBYTECODE", "1").arg(programs().join("sqlalchemy_app.py")).arg(helpers());
    run(python.arg(&world.url));
    check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_says_it() {
    let (_, world) = world().await;
    let mut node = Command::new("node");
    node.env("NODE_PATH", install::node_pg().unwrap()).arg(programs().join("node.js"));
    run(node.arg(helpers().join("node_postgres_audit_context.js")).arg(&world.url));
    check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spring_says_it() {
    if !thorough() {
        return;
    }
    let (server, world) = world().await;
    let jars = format!("{}/*", install::spring().unwrap().display());
    let mut javac = Command::new("javac");
    javac.args(["-cp", &jars, "-d"]).arg(world.path("classes"));
    run(javac.arg(helpers().join("AuditTransactionManager.java")).arg(programs().join("Spring.java")));
    let classes = format!("{}:{jars}", world.path("classes").display());
    let url = format!("jdbc:postgresql://127.0.0.1:{}/{}", server.port(), world.database);
    run(Command::new("java").args(["-cp", &classes, "Spring", &url]));
    check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pgx_says_it() {
    if !thorough() {
        return;
    }
    let (_, world) = world().await;
    let (module, prepared) = (world.path("module"), install::pgx().unwrap());
    std::fs::create_dir_all(module.join("auditcontext")).unwrap();
    for name in ["go.mod", "go.sum"] {
        std::fs::copy(prepared.join(name), module.join(name)).unwrap();
    }
    std::fs::copy(programs().join("main.go"), module.join("main.go")).unwrap();
    std::fs::copy(helpers().join("pgx/auditcontext.go"), module.join("auditcontext/auditcontext.go")).unwrap();
    run(Command::new(install::go()).args(["run", ".", &world.url]).current_dir(&module));
    check(&world).await;
}
