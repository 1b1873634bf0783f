//! Tests what the daemon expects of every sink, with the same tests for each sink.
//!
//! The tests are in [`suite`]. They use a sink only through the trait `Sink`, and its store only through the trait
//! [`suite::Place`]. A new sink needs a module in `places`, and one line at the end of this file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod suite;

mod places {
    pub mod hot;
    pub mod kafka;
    pub mod lake;
    pub mod webhook;
}

/// Makes a module of tests for each sink, with every function of the suite on a new place.
macro_rules! conforming {
    ($($sink:ident: $place:ty),+ $(,)?) => { $(conforming! {
        $sink, $place:
        a_repeat_changes_nothing,
        a_restart_at_every_step_loses_nothing,
        what_a_daemon_leaves_half_written_is_whole_or_absent,
        a_chunk_that_is_read_again_comes_once,
        an_overtaken_owner_stops,
        idle_positions_are_stored,
        a_store_that_was_put_back_is_not_written_on,
        a_version_that_was_quarantined_is_an_error_record,
    })+ };
    ($sink:ident, $place:ty: $($test:ident),+ $(,)?) => {
        mod $sink {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                crate::suite::$test::<$place>().await;
            })+
        }
    };
}

conforming! {
    hot: crate::places::hot::Hot,
    lake: crate::places::lake::Lake,
    kafka: crate::places::kafka::Topics,
    webhook: crate::places::webhook::Hook,
}
