use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use audit_testkit::{Daemon, shared};
use cdc_audit_tests::dice::Dice;
use cdc_audit_tests::seed;
use cdc_audit_tests::world::World;
use serde_json::Value;

/// A form, and whether its files have a bounded size.
const FORMS: [(&[&str], bool); 8] = [
    (&["--format", "jsonl"], false),
    (&["--format", "jsonl"], true),
    (&["--format", "jsonl", "--compress", "zstd"], true),
    (&["--format", "csv"], false),
    (&["--format", "csv"], true),
    (&["--format", "csv", "--compress", "gzip"], true),
    (&["--format", "parquet"], true),
    (&["--format", "parquet", "--compress", "gzip"], false),
];

/// The moments between two steps of an export, and the passage at which it is killed there.
const MOMENTS: [(&str, u32); 6] = [
    ("export::after_version", 70),
    ("export::before_named", 1),
    ("export::before_listed", 2),
    ("export::after_listed", 1),
    ("export::before_placed", 1),
    ("export::after_manifest", 1),
];

/// What the application does all the time.
struct Application {
    stop: Arc<AtomicBool>,
    writer: tokio::task::JoinHandle<()>,
}

impl Application {
    async fn start(world: &World) -> Application {
        let (client, stop) = (world.client().await, Arc::new(AtomicBool::new(false)));
        let is_over = stop.clone();
        let writer = tokio::spawn(async move {
            for number in 10_000.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let sql = format!(
                    "BEGIN; INSERT INTO orders VALUES ({number}, 'new'); INSERT INTO users VALUES ({number}); \
                     UPDATE orders SET state = 'n{number}' WHERE id % 40 = {number} % 40 AND id < 400; COMMIT"
                );
                client.batch_execute(&sql).await.expect("a change");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Application { stop, writer }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.await.expect("the application ends");
    }
}

pub fn manifest(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("manifest.json")).expect("a manifest")).expect("JSON")
}

fn arguments(form: (&[&str], bool), to: &Path) -> Vec<String> {
    let parts: &[&str] = if form.1 { &["--part-size", "24 KiB"] } else { &[] };
    let to = to.to_str().expect("a plain name");
    ["export", "--to", to].iter().chain(form.0).chain(parts).map(|text| (*text).to_owned()).collect()
}

/// Starts an export; `fault` kills it at a moment.
pub fn start(world: &World, arguments: &[String], fault: &str) -> Child {
    let mut command = Command::new(audit_testkit::program());
    command.args(arguments).arg("--config").arg(&world.config).env("CDC_AUDIT_FAULTS", fault);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("cdc-audit starts")
}

/// Continues an export until it ends. Each attempt is killed, until there are no faults left.
fn finish(world: &World, form: (&[&str], bool), to: &Path, faults: &[String], dice: &mut Dice) {
    for fault in faults {
        let mut arguments = arguments(form, to);
        arguments.extend(to.join("unfinished.jsonl").exists().then(|| "--resume".to_owned()));
        let mut child = start(world, &arguments, fault);
        if fault.is_empty() {
            std::thread::sleep(Duration::from_millis(dice.below(1_500)));
            child.kill().expect("a signal");
        }
        child.wait().expect("an end");
        if to.join("manifest.json").exists() && !to.join("unfinished.jsonl").exists() {
            return;
        }
    }
    let mut arguments = arguments(form, to);
    arguments.extend(to.join("unfinished.jsonl").exists().then(|| "--resume".to_owned()));
    world.succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Checks that two exports have the same files, byte for byte, and nothing else.
#[track_caller]
pub fn assert_same(killed: &Path, whole: &Path) {
    let (a, b) = (manifest(killed), manifest(whole));
    for member in ["files", "rows", "tables", "coverage"] {
        let head = |manifest: &Value| match member {
            "coverage" => [manifest[member]["head"].clone(), manifest[member]["gaps"].clone()].to_vec(),
            _ => vec![manifest[member].clone()],
        };
        assert_eq!(head(&a), head(&b), "{member} of {}", killed.display());
    }
    let files = a["files"].as_array().expect("files");
    for file in files {
        let path = file["path"].as_str().expect("a path");
        let bytes = |folder: &Path| fs::read(folder.join(path)).expect("a file");
        assert!(bytes(killed) == bytes(whole), "{path} of {}", killed.display());
    }
    assert_eq!(fs::read_dir(killed).expect("a folder").count(), files.len() + 1, "{}", killed.display());
}

async fn world() -> World {
    let tables = "CREATE TABLE orders (id int PRIMARY KEY, state text); ALTER TABLE orders REPLICA IDENTITY FULL; \
                  INSERT INTO orders SELECT n, 'old' FROM generate_series(1, 300) AS n; CREATE TABLE users (id int PRIMARY KEY)";
    let world = World::on(shared(15).await).full(true).baseline().sql(tables).unwitnessed().build().await;
    let mut daemon = world.launch().start();
    let is_complete = |line: &str| line.contains("baseline complete") && line.contains("orders");
    daemon.wait_for("the baseline", |daemon| daemon.output().lines().any(is_complete));
    assert!(daemon.stop().success(), "{}", daemon.output());
    let sql = "UPDATE orders SET state = 'first'; INSERT INTO users SELECT n FROM generate_series(1, 200) AS n";
    shared(15).await.execute(&world.database, sql);
    world.catch_up().await;
    world
}

/// The rows are read once more, and changes are lost: both come later than what an export that broke off has.
async fn read_again_and_lose(world: &World, mut daemon: Daemon) -> Daemon {
    world.succeed(&["baseline", "public.orders"]);
    daemon.stop();
    drop(daemon);
    let mut daemon = world.launch().start();
    let is_complete = |line: &str| line.contains("baseline complete") && line.contains("orders");
    daemon.wait_for("the second baseline", |daemon| daemon.output().lines().any(is_complete));
    assert!(daemon.stop().success(), "{}", daemon.output());
    shared(15).await.execute(&world.database, &format!("SELECT pg_drop_replication_slot('{}')", world.slot));
    world.set_up();
    world.launch().argument("--accept-gap").start()
}

/// ⚠ An export that is killed at any step, or at any moment, and continued while the daemon writes on, rows are read
/// again and changes are lost, is the same as one that was not killed.
#[tokio::test(flavor = "multi_thread")]
async fn exports_that_are_killed_and_go_on_are_whole() {
    let world = world().await;
    let mut dice = Dice::new(seed());
    // There is a gap before, too.
    shared(15).await.execute(&world.database, &format!("SELECT pg_drop_replication_slot('{}')", world.slot));
    world.set_up();
    let mut daemon = world.launch().argument("--accept-gap").start();
    let application = Application::start(&world).await;
    let mut compared: Vec<((&[&str], bool), PathBuf)> = Vec::new();
    for (at, form) in FORMS.into_iter().enumerate() {
        let faults = MOMENTS.map(|(moment, passage)| format!("{moment}=kill@{passage}"));
        let to = world.path(&format!("killed {at}"));
        // The first attempt does not even say how it begins. After the second there are later rows of a baseline, and a
        // later gap.
        for fault in ["export::before_placed=kill@1", "export::after_version=kill@40"] {
            let mut child = start(&world, &arguments(form, &to), fault);
            assert!(!child.wait().expect("an end").success());
        }
        if at == 1 {
            daemon = read_again_and_lose(&world, daemon).await;
        }
        finish(&world, form, &to, &faults, &mut dice);
        compared.push((form, to));
        let to = world.path(&format!("killed at random {at}"));
        finish(&world, form, &to, &[const { String::new() }; 4], &mut dice);
        compared.push((form, to));
    }
    application.end().await;
    assert!(daemon.stop().success(), "{}", daemon.output());
    world.catch_up().await;
    for (form, killed) in compared {
        let head = manifest(&killed)["coverage"]["head"].as_str().expect("a head").to_owned();
        let whole = PathBuf::from(format!("{} whole", killed.display()));
        let mut arguments = arguments(form, &whole);
        arguments.extend(["--head".to_owned(), head]);
        world.succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_same(&killed, &whole);
    }
}
