use std::fs;
use std::path::Path;

use audit_testkit::{ObjectKind, ObjectServer, shared};
use cdc_audit_tests::world::World;

use crate::killed::{assert_same, manifest, start};

/// The moments at which an export is killed, each with the next attempt.
const FAULTS: [&str; 6] = [
    "export::after_version=kill@150",
    "export::before_named=kill@1",
    "export::before_listed=kill@2",
    "export::after_listed=kill@1",
    "export::after_version=kill@90",
    "export::after_manifest=kill@1",
];

/// A world that may write to a prefix of the server's bucket, and the prefix as a URL.
async fn world(server: &ObjectServer, prefix: &str) -> (World, String) {
    let section = server.lake(prefix, server.port());
    let (url, store) = section.split_once('\n').expect("two keys");
    let tables =
        "CREATE TABLE orders (id int PRIMARY KEY, state text); CREATE TABLE papers (id int PRIMARY KEY, text text)";
    let sections = format!("[export]\n{store}");
    let world = World::on(shared(15).await).full(true).sql(tables).sections(&sections).unwitnessed().build().await;
    let sql = "INSERT INTO orders SELECT n, 'open' FROM generate_series(1, 300) AS n; \
               INSERT INTO papers SELECT n, repeat(md5(n::text), 3000) FROM generate_series(1, 120) AS n";
    shared(15).await.execute(&world.database, sql);
    world.catch_up().await;
    let url = url.split('"').nth(1).expect("a URL").to_owned();
    (world, url)
}

/// Copies the objects under a prefix.
async fn fetch(server: &ObjectServer, prefix: &str, to: &Path) {
    match server.kind() {
        ObjectKind::Azure => server.mirror(prefix, to).await,
        ObjectKind::S3 | ObjectKind::Gcs => copy(&server.folder(prefix), to),
    }
}

/// Copies the files of a folder, and of those inside of it.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let copied = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &copied),
            false => {
                fs::create_dir_all(to).expect("a folder");
                fs::copy(&path, &copied).expect("a copy");
            }
        }
    }
}

/// An export into a bucket that is killed at each step and continued has the same objects, byte for byte, as a folder
/// has files: small ones in one request, larger ones in pieces.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_gets_what_a_folder_gets() {
    for kind in ObjectKind::ALL {
        let server = ObjectServer::shared(kind).await;
        let (world, url) = world(server, "exported").await;
        for (name, form) in [
            ("lines", &["--part-size", "24 KiB"][..]),
            ("zstd", &["--format", "csv", "--compress", "zstd", "--part-size", "1 MiB"]),
            ("whole", &[]),
            ("parquet", &["--format", "parquet"]),
        ] {
            let folder = world.path(&format!("folder {name}"));
            world.succeed(&[&["export", "--to", folder.to_str().expect("a plain name")], form].concat());
            let head = manifest(&folder)["coverage"]["head"].as_str().expect("a head").to_owned();
            let to = format!("{url}/{name}");
            let export = [&["export", "--to", &to, "--head", &head], form].concat();
            let resume = [&export[..], &["--resume"]].concat();
            for (at, fault) in FAULTS.iter().enumerate() {
                let arguments = if at == 0 { &export } else { &resume };
                let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
                start(&world, &arguments, fault).wait().expect("an end");
            }
            let ended = world.command(&resume);
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            // The last kill may have come after the end.
            assert!(ended.status.success() || said.contains("there is nothing in"), "{kind:?} {name}: {said}");
            let mirror = world.path(&format!("mirror {name}"));
            fetch(server, &format!("exported/{name}"), &mirror).await;
            assert_same(&mirror, &folder);
            let again = world.command(&export);
            assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"), "{again:?}");
        }
    }
}

/// A series goes on in a bucket, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_series_in_a_bucket_goes_on() {
    let server = ObjectServer::shared(ObjectKind::S3).await;
    let (world, url) = world(server, "series").await;
    let next = || world.succeed(&["export", "--to", &url, "--since-last", "feed"]);
    next();
    assert!(next().contains("there is nothing new"));
    shared(15).await.execute(&world.database, "DELETE FROM orders WHERE id < 11");
    world.catch_up().await;
    next();
    let mirror = world.path("mirror");
    fetch(server, "series", &mirror).await;
    let of = |number: u32| manifest(&mirror.join(format!("feed-{number:06}")));
    assert_eq!((&of(1)["rows"], &of(2)["rows"]), (&420.into(), &10.into()));
    assert_eq!(of(2)["after"], of(1)["coverage"]["head"]);
    assert!(!mirror.join("feed-000003").exists());
    // Keys of another cloud are refused before anything is written.
    let refused = world.command(&["export", "--to", "gs://lake/elsewhere"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(fs::read_dir(&mirror).expect("a folder").count() == 2);
}
