use std::path::{Path, PathBuf};
use std::process::Command;

use audit_testkit::{Postgres, eventually, shared};
use cdc_audit_tests::lake::by_log;
use cdc_audit_tests::world::World;
use expect_test::expect;

use crate::said::{TABLE, failing, failure, insert, recovers, refused};

/// Inserts rows of 3 KB that cannot be compressed: md5 of a text that is different in every row.
fn insert_large(server: &Postgres, world: &World, first: u32, rows: u32) {
    let sql = format!(
        "INSERT INTO t SELECT i, (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 100) AS j) \
         FROM generate_series({first}, {first} + {rows} - 1) AS i"
    );
    server.execute(&world.database, &sql);
}

/// A separate disk for a world's lake, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// Mounts the disk. `None` if this user may not mount anything.
    fn under(world: &World, size: &str) -> Option<Disk> {
        std::fs::create_dir_all(&world.lake).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&world.lake);
        mount.output().is_ok_and(|output| output.status.success()).then(|| Disk(world.lake.clone()))
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        let output = mount.args(["-o", &format!("remount,{options}")]).arg(&self.0).output().expect("mount runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).output());
    }
}

/// Files that cannot grow are like a full disk, for a test that may not mount one. The hot table does not wait.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_grow_are_waited_for() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).listening().build().await;
    insert_large(server, &world, 1, 400);
    let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 200; exec \"$@\"", "sh"];
    let mut daemon = world.launch().through(&limited).start();
    let said = failure(&world, &mut daemon, "archive");
    expect![[r#"
        cannot write <folder>/lake/public.t/data/<file>.parquet: File too large (os error 27)
          hint: a limit on the size of files is in the way (ulimit -f, LimitFSIZE): lift it; the daemon goes on by itself, and the slot keeps the WAL meanwhile
    "#]].assert_eq(&said);
    let hot = world.hot().await;
    audit_testkit::eventually_async("the hot table goes on", async || {
        let row = hot.query_one("SELECT count(*) FROM cdc_audit.versions", &[]).await.expect("the hot table");
        row.get::<_, i64>(0) == 400
    })
    .await;
    assert!(by_log(&world.lake).is_empty());
    daemon.kill();
    world.catch_up().await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).listening().build().await;
    // If nothing may be mounted, the test above replaces this one.
    let Some(disk) = Disk::under(&world, "3m") else { return };
    insert(server, &world, 1);
    world.catch_up().await;
    insert_large(server, &world, 1000, 2000);
    let (mut daemon, said) = failing(&world, "archive");
    expect![[r#"
        cannot write <folder>/lake/public.t/data/<file>.parquet: No space left on device (os error 28)
          hint: the disk is full: make room; the daemon goes on by itself, and the slot keeps the WAL meanwhile
    "#]]
    .assert_eq(&said);
    disk.remount("size=100m");
    recovers(&world);
    eventually("the lake catches up", || by_log(&world.lake).len() == 2010);
    assert!(daemon.stop().success(), "{}", daemon.output());
    world.catch_up().await;
    world.check().await;
}

/// A lake that cannot be written to: a read-only disk if this user may mount one, because permissions do not stop root,
/// or else read-only folders.
enum ReadOnly {
    Disk(Disk),
    Folders(PathBuf),
}

impl ReadOnly {
    fn begin(&self) {
        match self {
            ReadOnly::Disk(disk) => disk.remount("ro"),
            ReadOnly::Folders(path) => permit(path, "a-w"),
        }
    }

    fn end(&self) {
        match self {
            ReadOnly::Disk(disk) => disk.remount("rw"),
            ReadOnly::Folders(path) => permit(path, "u+w"),
        }
    }
}

fn permit(path: &Path, what: &str) {
    let status = Command::new("chmod").args(["-R", what]).arg(path).status().expect("chmod runs");
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_lake_is_refused() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).build().await;
    let lake = Disk::under(&world, "10m").map_or_else(|| ReadOnly::Folders(world.lake.clone()), ReadOnly::Disk);
    insert(server, &world, 1);
    world.catch_up().await;
    insert(server, &world, 100);
    lake.begin();
    let said = refused(&world);
    match lake {
        ReadOnly::Disk(_) => expect![[r#"
            exit 1
            error: sink archive failed
              detail: cannot write <folder>/lake/_cdc_audit/checkpoint/00000000000000000004.json: Read-only file system (os error 30)
              hint: the file system is mounted read-only: mount it writable, then start again
        "#]].assert_eq(&said),
        ReadOnly::Folders(_) => assert!(said.contains("hint: give the daemon's user write permission"), "{said}"),
    }
    lake.end();
    world.catch_up().await;
    world.check().await;
}

/// A prefix belongs to one source.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_of_another_source_is_refused() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).build().await;
    insert(server, &world, 1);
    world.catch_up().await;
    let other = World::on(server).sql(TABLE).without_hot().unwitnessed().build().await;
    other.edit_config(&other.lake.display().to_string(), &world.lake.display().to_string());
    other.edit_config("name = \"shop\"", "name = \"other\"");
    let said = refused(&other).replace(&world.folder.path().display().to_string(), "<folder of shop>");
    expect![[r#"
        exit 1
        error: sink archive failed
          detail: the lake at <folder of shop>/lake belongs to source "shop", not to "other"
          hint: give each source a lake of its own: change `url` of this sink
    "#]]
    .assert_eq(&said);
    insert(server, &world, 100);
    world.catch_up().await;
    world.check().await;
}

/// A person moved away a table's log, or the lake's checkpoints.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_was_altered_by_hand_is_refused() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).build().await;
    insert(server, &world, 1);
    world.catch_up().await;
    insert(server, &world, 100);
    let aside = world.path("aside");
    for (what, said) in [
        (
            "public.t/_delta_log",
            expect![[r#"
        exit 1
        error: sink archive failed
          detail: <folder>/lake/public.t/_delta_log is not as cdc-audit wrote it: it is gone, and the table has files that were in it
          hint: restore what was changed or removed, from a backup or with `RESTORE`; the daemon does not guess what the lake holds
    "#]],
        ),
        (
            "_cdc_audit",
            expect![[r#"
        exit 1
        error: sink archive failed
          detail: <folder>/lake/_cdc_audit/checkpoint is not as cdc-audit wrote it: the lake has tables, and no checkpoint
          hint: restore what was changed or removed, from a backup or with `RESTORE`; the daemon does not guess what the lake holds
    "#]],
        ),
    ] {
        std::fs::rename(world.lake.join(what), &aside).expect("it is moved away");
        said.assert_eq(&refused(&world));
        // Remove what the daemon made before it noticed.
        drop(std::fs::remove_dir_all(world.lake.join(what)));
        std::fs::rename(&aside, world.lake.join(what)).expect("it comes back");
    }
    world.catch_up().await;
    world.check().await;
}
