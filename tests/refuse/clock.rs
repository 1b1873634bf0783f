use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use audit_testkit::install::faketime;
use audit_testkit::{Postgres, Shutdown, eventually_async, shared};
use cdc_audit_tests::world::World;
use expect_test::expect;

use crate::said::{TABLE, insert};

/// Returns the environment that shifts a program's wall clock by `shift`. The monotonic clock is not changed.
fn environment(shift: &str) -> [(&'static str, String); 3] {
    let library = faketime().expect("libfaketime; `cargo xtask test` installs it");
    let shift = shift.to_owned();
    [("LD_PRELOAD", library.display().to_string()), ("FAKETIME", shift), ("DONT_FAKE_MONOTONIC", "1".to_owned())]
}

/// The clock of the daemon's machine goes back a day, and a year, and ahead: only `recorded_at` depends on it.
#[tokio::test(flavor = "multi_thread")]
async fn the_daemons_clock_goes_backwards() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).build().await;
    for (round, shift) in ["+0", "-1d", "-400d", "+2d", "-1d"].into_iter().enumerate() {
        insert(server, &world, 100 * round as u32);
        let until = world.wal_end().await;
        let launch = world.launch().argument("--until").argument(&until);
        let launch = environment(shift).iter().fold(launch, |launch, (name, value)| launch.environment(name, value));
        let mut daemon = launch.start();
        let status = daemon.wait();
        assert!(status.success(), "{shift}: {status}\n{}", daemon.output());
        let warned = daemon.stderr().contains("committed_at and recorded_at do not fit together");
        assert_eq!(warned, shift != "+0", "{shift}: {}", daemon.output());
    }
    world.check().await;
    let hot = world.hot().await;
    let sql = "SELECT count(*) FROM cdc_audit.versions WHERE recorded_at < committed_at - interval '300 days'";
    assert_eq!(hot.query_one(sql, &[]).await.expect("the hot table").get::<_, i64>(0), 10, "the clock was another");
}

/// The source's clock goes back over days and months while everything runs: commits are stored in the order of the WAL,
/// in the folders and partitions of their dates, and the operator is warned.
#[tokio::test(flavor = "multi_thread")]
async fn the_sources_clock_goes_backwards() {
    let server = Postgres::start(15);
    let (_, hot_url) = shared(15).await.new_database();
    let world = World::on(&server).hot_url(&hot_url).sql(TABLE).build().await;
    let clock = PathBuf::from(server.socket_dir()).join("clock");
    std::fs::write(&clock, "+0\n").expect("a clock");
    server.stop(Shutdown::Fast);
    let library = faketime().expect("libfaketime; `cargo xtask test` installs it");
    server.start_in(&[
        ("LD_PRELOAD", library.to_str().expect("a plain name")),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().expect("a plain name")),
        ("FAKETIME_NO_CACHE", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]);
    let mut daemon = world.launch().start();
    daemon.wait_for_line("streaming");
    let hot = world.hot().await;
    for (round, shift) in ["+0", "-1d", "-40d", "-1d", "+0"].into_iter().enumerate() {
        std::fs::write(&clock, format!("{shift}\n")).expect("a clock");
        insert(&server, &world, 100 * round as u32);
        eventually_async("the rows are recorded", async || {
            let row = hot.query_one("SELECT count(*) FROM cdc_audit.versions", &[]).await.expect("the hot table");
            row.get::<_, i64>(0) == 10 * (round as i64 + 1)
        })
        .await;
    }
    // A server whose clock jumps may drop the connection; then it sends the same commit again, which warns again.
    let output = daemon.output();
    let warnings = output.lines().filter(|line| line.contains("the source's clock went back by"));
    let commits: BTreeSet<&str> =
        warnings.filter_map(|line| line.split_once("committed_at=")?.1.split(' ').next()).collect();
    assert_eq!(commits.len(), 2, "{output}");
    assert!(daemon.stop().success(), "{}", daemon.output());
    world.catch_up().await;
    let recorded = world.check().await;
    assert_eq!(recorded.by_listing.len(), 50);
    let days = "SELECT count(DISTINCT committed_at::date) FROM cdc_audit.versions";
    assert!(hot.query_one(days, &[]).await.expect("the hot table").get::<_, i64>(0) >= 3);
}

/// `check` shows a skewed clock to the operator.
#[tokio::test(flavor = "multi_thread")]
async fn check_tells_of_a_skewed_clock() {
    let server = shared(15).await;
    let world = World::on(server).sql(TABLE).build().await;
    let mut check = Command::new(audit_testkit::program());
    check.arg("check").arg("--config").arg(&world.config).envs(environment("-1d"));
    let output = check.output().expect("cdc-audit starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = said.lines().skip_while(|line| !line.contains("clock")).take(2).collect();
    let words = |line: &&str| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n";
    let said: String = lines.iter().map(words).collect();
    let off = said.find("86").map_or(said.clone(), |at| said.replacen(&said[at..at + 7], "<a day>", 1));
    expect![[r#"
        warn server clock the server's clock is <a day> s ahead of this machine's: committed_at and recorded_at do not fit together
        fix: keep the clocks of both machines by NTP
    "#]].assert_eq(&off);
}
