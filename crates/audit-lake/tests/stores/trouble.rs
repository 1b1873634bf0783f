use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use audit_core::batch::Batch;
use audit_core::sink::{Action, Sink, SinkError};
use audit_testkit::{Fault, Fixture, Request, thorough};

use crate::common::story::{World, check, first_run, next_run};
use crate::common::{Lake, identity, roll, start, write};
use crate::{LARGE_ROWS, Site, large, writes};

/// Does what the daemon does after an error that can be retried.
macro_rules! insist {
    ($call:expr) => {{
        let mut tries = 0;
        loop {
            match $call.await {
                Err(error) if error.action == Action::Retry && tries < 100 => tries += 1,
                done => break done,
            }
        }
    }};
}

/// A run as the daemon does it: the same call is repeated after an error that can be retried. Returns whether everything is
/// rolled and swept: a table of which a roll or a delete failed waits on its own, longer than a test does.
async fn insisting(lake: &Lake, stream: &[Batch]) -> Result<bool, SinkError> {
    let mut sink = lake.sink();
    let stored = insist!(sink.take(&identity()))?;
    let begin = stored.checkpoint.as_ref().map_or(start(), |checkpoint| checkpoint.progress());
    insist!(sink.begin(begin))?;
    for batch in stream {
        insist!(sink.write(&[batch]))?;
        insist!(sink.flush(true))?;
    }
    match roll(&mut sink).await {
        Err(trouble) if trouble.action == Action::Retry => Ok(false),
        done => done.map(|()| true),
    }
}

/// The same, with a new sink after an error that demands one, and where a table waits.
async fn through(lake: &Lake, stream: &[Batch]) {
    for _ in 0..50 {
        match insisting(lake, stream).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                assert_eq!(error.action, Action::Restart, "{error} {:?}", std::error::Error::source(&error));
            }
        }
    }
    panic!("no way through");
}

/// Checks that both kinds of readers see the stream alone.
async fn only_the_stream(lake: &Lake, world: &World) {
    lake.mirror().await;
    for table in crate::TABLES {
        let rows = lake.agreed(table).await;
        assert_eq!(rows, crate::common::story::positions(&world.stream, table));
    }
}

/// Makes the request that writes with this number fail.
pub fn strike(number: u64, fault: Fault) -> impl FnMut(&Request, u64) -> Option<Fault> + Send + 'static {
    let mut seen = 0;
    move |request, _| {
        if !writes(request) {
            return None;
        }
        seen += 1;
        (seen - 1 == number).then_some(fault)
    }
}

/// One fault at one request. In a thorough run every fault meets every request that writes, otherwise each request
/// meets one fault.
async fn struck_at_every_write(site: Site) {
    let faults: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| *fault != Fault::DoneButSilent).collect();
    let rounds = if thorough() { faults.len() as u64 } else { 1 };
    let mut runs = 0;
    for (round, fresh) in (0..rounds).flat_map(|round| site.modes().iter().map(move |fresh| (round, *fresh))) {
        for number in 0.. {
            let fault = faults[((number + round) % faults.len() as u64) as usize];
            let (lake, world) = (site.lake_of(fresh), World::new());
            site.proxy().plan(strike(number, fault));
            through(&lake, &world.stream).await;
            let struck = site.proxy().struck();
            site.proxy().heal();
            only_the_stream(&lake, &world).await;
            if struck == 0 {
                break;
            }
            runs += 1;
        }
    }
    assert!(runs >= 10 * rounds, "{runs} runs");
}

/// A kill after the store has done what was asked, but before its answer arrives.
async fn killed_at_every_write(site: Site) {
    // Azurite takes ten times as long as the others.
    let step = if site.is_slow() && !thorough() { 4 } else { 1 };
    let mut runs = 0;
    for fresh in site.modes() {
        for number in (0..).step_by(step) {
            let (lake, mut world) = (site.lake_of(*fresh), World::new());
            site.proxy().plan(strike(number, Fault::DoneButSilent));
            let killed = tokio::select! {
                biased;
                () = site.proxy().strike() => true,
                done = first_run(&lake, &world, true) => { done.unwrap(); false }
            };
            site.proxy().heal();
            next_run(&lake, &mut world, 5).await.unwrap();
            check(&lake, &world).await;
            if !killed {
                break;
            }
            runs += 1;
            // Once more from the start: nothing is written twice.
            next_run(&lake, &mut world, 6).await.unwrap();
            check(&lake, &world).await;
        }
    }
    assert!(runs * step >= 15, "{runs} runs");
}

/// Every fifth request fails in some way, whatever it asks.
async fn a_store_that_fails_all_the_time(site: Site) {
    let rounds = if thorough() { 30 } else { 3 };
    let mut struck = 0;
    for round in 0..rounds {
        let (lake, world) = (site.lake_of(round % 2 == 1), World::new());
        // The order of the requests is not always the same, so chance only decides which faults they meet.
        let word = Arc::new(AtomicU64::new(round + 1));
        let next = move || {
            let mixed = word
                .load(Ordering::Relaxed)
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            word.store(mixed, Ordering::Relaxed);
            mixed >> 33
        };
        site.proxy().plan(move |_, _| {
            let (hit, which) = (next().is_multiple_of(5), next() as usize);
            // A fault that waits until the client gives up is rare.
            let fault = Fault::ALL[which % Fault::ALL.len()];
            let rare = fault == Fault::DoneButSilent && !next().is_multiple_of(4);
            (hit && !rare).then_some(fault)
        });
        through(&lake, &world.stream).await;
        struck += site.proxy().struck();
        site.proxy().heal();
        only_the_stream(&lake, &world).await;
    }
    assert!(struck > 5 * rounds, "{struck} in {rounds} rounds");
}

/// An upload in parts: started, sent, ended; each step fails once.
async fn a_large_file_struck_at_every_request(site: Site) {
    let mut fixture = Fixture::default();
    let batches = large(&mut fixture);
    for number in 0.. {
        let lake = site.lake();
        let (mut sink, _) = lake.taken().await;
        let fault = [Fault::DoneButFails, Fault::DoneButReset, Fault::CutRequest][number as usize % 3];
        site.proxy().plan(strike(number, fault));
        let done = insist!(write(&mut sink, &batches));
        done.unwrap();
        let struck = site.proxy().struck();
        site.proxy().heal();
        lake.mirror().await;
        assert_eq!(lake.delta_files("public.users").await.len(), 1);
        assert_eq!(lake.listed_rows("public.users").len(), LARGE_ROWS);
        if struck == 0 {
            assert!(number >= 5, "{number}");
            break;
        }
    }
}

on_every_bucket! {
    struck_at_every_write
    killed_at_every_write
    a_store_that_fails_all_the_time
    a_large_file_struck_at_every_request
}
