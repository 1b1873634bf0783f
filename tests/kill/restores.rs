use std::time::Duration;

use audit_testkit::{Daemon, eventually_async};
use cdc_audit_tests::trail::lsn;

use crate::arena::{Arena, LAST_WORDS};

/// The exit code of a daemon that was stopped by a discontinuity.
const DISCONTINUITY: i32 = 4;

impl Arena {
    /// Replaces the hot database by an older copy of itself, while the daemon runs or while it is down. Missing changes
    /// are still in the slot, or are a gap of this sink.
    pub async fn put_back_hot(&mut self, mut daemon: Daemon) -> Daemon {
        // A copy from before the first write is another case: the daemon then finds an empty place, and stops.
        self.progress(&mut daemon).await;
        let copy = self.hot.clone_stopped();
        self.progress(&mut daemon).await;
        self.pass_time().await;
        let down = self.dice.one_in(2);
        if down {
            daemon.kill();
        }
        self.hot.put_back(&copy);
        if down {
            daemon = self.launch().start();
        }
        self.source.execute(&self.world.database, LAST_WORDS);
        let now = lsn(&self.world.wal_end().await);
        eventually_async("the daemon goes on, or names a gap", async || {
            daemon.ended().is_some() || self.stored(now).await
        })
        .await;
        let gap = daemon.ended().is_some();
        eprintln!("  hot is an older copy, put back {}: gap: {gap}", if down { "before a start" } else { "at once" });
        if gap {
            names(&mut daemon, &["sink hot has everything to"], &["sink archive", "sink stream"]);
            daemon = self.accept_gap().await;
        }
        daemon
    }

    /// Replaces the source by an older copy of itself, on the same timeline or on a new one. The sinks have changes
    /// that the copy does not have.
    pub async fn put_back_source(&mut self, mut daemon: Daemon) -> Daemon {
        let (copy, schema) = (self.source.clone_stopped(), self.schema.clone());
        self.progress(&mut daemon).await;
        self.pass_time().await;
        self.stop_writing().await;
        let (down, forked) = (self.dice.one_in(2), self.dice.one_in(2));
        if down {
            daemon.kill();
        }
        let history = self.history().await;
        self.histories.push(history);
        let lost = lsn(&self.world.wal_end().await);
        if forked {
            self.source.put_back_by_recovery(&copy);
        } else {
            self.source.put_back(&copy);
        }
        let begun = lsn(&self.world.wal_end().await);
        self.schema = schema.put_back(begun);
        self.write();
        if down {
            daemon = self.launch().start();
        }
        names(&mut daemon, &["sink hot has everything to", "sink archive has everything to"], &[]);
        eprintln!("  the source is an older copy, timeline is new: {forked}, put back before a start: {down}");
        self.write_past(lost).await;
        self.accept_gap().await
    }

    /// Writes until the WAL is longer than before, because the tests measure progress by LSNs.
    async fn write_past(&self, lost: u64) {
        while lsn(&self.world.wal_end().await) <= lost {
            let sql = "SELECT pg_logical_emit_message(false, 'filler', ''); SELECT pg_switch_wal()";
            self.source.execute(&self.world.database, sql);
        }
    }

    /// Continues as the daemon's hint says, until all tables are read again after the gap.
    async fn accept_gap(&mut self) -> Daemon {
        let mut daemon = self.launch().argument("--accept-gap").argument("--new-baseline").start();
        self.progress(&mut daemon).await;
        let tables = "SELECT string_agg(schemaname || '.' || tablename, ' ') FROM pg_publication_tables WHERE schemaname = 'public'";
        let tables = self.source.execute(&self.world.database, tables);
        let complete = |said: &str, table: &str| {
            said.lines()
                .any(|line| line.contains("baseline complete") && line.split(['"', '=', ' ']).any(|word| word == table))
        };
        daemon.wait_for("the tables are read anew", |daemon| {
            let said = daemon.output();
            tables.split(' ').all(|table| complete(&said, table))
        });
        daemon
    }

    async fn pass_time(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.dice.below(1500))).await;
    }
}

/// Checks that the daemon ends because of a gap of `sinks`, and not of `others`.
fn names(daemon: &mut Daemon, sinks: &[&str], others: &[&str]) {
    assert_eq!(daemon.wait().code(), Some(DISCONTINUITY), "{}", daemon.output());
    let said = daemon.output();
    assert!(said.contains("`cdc-audit run --accept-gap`"), "{said}");
    // If the source has written as much again as it lost, only the stream shows the difference, at the position of one
    // sink. That is possible only if the source went back, which concerns every sink.
    if others.is_empty() && said.contains("without sending that change again") {
        return;
    }
    let error = said.lines().rfind(|line| line.contains("has everything to")).unwrap_or_else(|| panic!("{said}"));
    for sink in sinks {
        assert!(error.contains(sink), "{sink}: {error}");
    }
    for sink in others {
        assert!(!error.contains(sink), "{sink}: {error}");
    }
}
