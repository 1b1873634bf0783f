//! The tests, and the trait through which they use a sink's store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use audit_core::batch::{Batch, Progress};
use audit_core::position::Lsn;
use audit_core::quarantine::Quarantined;
use audit_core::sink::{Action, Checkpoint, ChunkProgress, Identity, Sink, SinkError, Stored, quarantine_command};
use audit_testkit::Fixture;

/// The name of every sink here.
pub const SINK: &str = "conforming";

/// A value of the column `name` that a place refuses after [`Place::refuse`].
pub const UNWANTED: &str = "unwanted";

/// A version as a reader of the store finds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub position: String,
    pub event: String,
}

/// A store that is still empty, for one source and one sink.
pub trait Place: Sized {
    type Sink: Sink;
    /// A backup of the store.
    type Backup;

    /// True if the store has each version once. Otherwise it may have repeats after a failure, but nothing is missing.
    const EXACTLY_ONCE: bool = true;

    fn new() -> impl Future<Output = Self>;

    /// The source whose versions the store has.
    fn source(&self) -> &str {
        "shop"
    }

    /// Makes a sink like a daemon that starts.
    fn sink(&self) -> Self::Sink;

    /// Reads everything that readers find, in any order.
    fn found(&self) -> impl Future<Output = Vec<Found>>;

    fn backup(&self) -> impl Future<Output = Self::Backup>;

    fn restore(&self, backup: Self::Backup) -> impl Future<Output = ()>;

    /// Makes the store refuse versions from now on: those whose `name` is [`UNWANTED`], or the text in the answer.
    /// `None` if there is nothing that this store refuses.
    fn refuse(&self) -> impl Future<Output = Option<String>>;
}

fn identity(source: &str) -> Identity {
    Identity { source: source.into(), system_id: u64::MAX - 1, timeline: 1, timeline_start: Lsn::ZERO }
}

/// Takes the sink over like a daemon that starts: tries again after an error that passes by itself, and continues from
/// what is stored.
async fn take<P: Place>(place: &P, sink: &mut P::Sink) -> Stored {
    for _ in 0..100 {
        match sink.take(&identity(place.source())).await {
            Ok(stored) => {
                let start = stored.checkpoint.as_ref().map(Checkpoint::progress).unwrap_or_default();
                sink.begin(start).await.unwrap();
                return stored;
            }
            Err(error) if error.action == Action::Retry => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{error} ({error:?})"),
        }
    }
    panic!("the sink cannot be taken over");
}

async fn taken<P: Place>(place: &P) -> P::Sink {
    let mut sink = place.sink();
    take(place, &mut sink).await;
    sink
}

/// Writes batches and makes them durable; tries again after an error that passes by itself.
async fn deliver<S: Sink>(sink: &mut S, batches: &[Batch]) -> Result<(), SinkError> {
    let batches: Vec<&Batch> = batches.iter().collect();
    let mut done = Ok(());
    for _ in 0..100 {
        done = match sink.write(&batches).await {
            Ok(()) => sink.flush(true).await,
            Err(error) => Err(error),
        };
        match &done {
            Err(error) if error.action == Action::Retry => tokio::time::sleep(Duration::from_millis(50)).await,
            _ => return done,
        }
    }
    done
}

/// Does the same, and begins the stream again if the sink asks for that.
async fn deliver_again<P: Place>(place: &P, sink: &mut P::Sink, batches: &[Batch]) -> Result<(), SinkError> {
    for _ in 0..10 {
        match deliver(sink, batches).await {
            Err(error) if error.action == Action::Restart => take(place, sink).await,
            done => return done,
        };
    }
    panic!("the sink begins again and again");
}

/// Checks that the store has the versions of these batches, each as often as it promises, and nothing else.
async fn holds<P: Place>(place: &P, batches: &[Batch]) {
    let mut found: Vec<String> = place.found().await.into_iter().map(|version| version.position).collect();
    found.sort();
    if !P::EXACTLY_ONCE {
        found.dedup();
    }
    assert_eq!(found, positions(batches));
}

fn positions(batches: &[Batch]) -> Vec<String> {
    batches.iter().flat_map(|batch| batch.versions().map(|version| version.position().to_string())).collect()
}

/// Makes a source with two tables.
fn source() -> Fixture {
    let mut fixture = Fixture::default();
    fixture.batches("table public.users (id int4 key, name text) full\ntable public.orders (id int4 key, name text)");
    fixture
}

/// Makes one transaction that inserts, changes and deletes a row in both tables.
fn transaction(source: &mut Fixture, id: u32) -> Batch {
    let text = format!(
        "begin
         insert public.users [{id}, \"Ann\"]
         insert public.orders [{id}, \"first\"]
         update public.users [{id}, \"Ann\"] -> [{id}, \"Bea\"]
         delete public.users [{id}, \"Bea\"]
         commit"
    );
    source.batches(&text).remove(0)
}

fn transactions(source: &mut Fixture, ids: std::ops::Range<u32>) -> Vec<Batch> {
    ids.map(|id| transaction(source, id)).collect()
}

/// Batches that the sink has, or has in part, may come again, in any division.
pub async fn a_repeat_changes_nothing<P: Place>() {
    let place = P::new().await;
    let all = transactions(&mut source(), 0..4);
    let mut sink = taken(&place).await;
    deliver(&mut sink, &all[..2]).await.unwrap();
    deliver(&mut sink, &all[..2]).await.unwrap();
    deliver(&mut sink, &all[1..]).await.unwrap();
    assert_eq!(sink.durable(), all[3].progress);
    let mut next = taken(&place).await;
    deliver(&mut next, &all).await.unwrap();
    holds(&place, &all).await;
}

/// Each daemon gets one batch further than the one before, and begins with everything.
pub async fn a_restart_at_every_step_loses_nothing<P: Place>() {
    let place = P::new().await;
    let all = transactions(&mut source(), 0..5);
    for step in 0..all.len() {
        let mut sink = place.sink();
        let stored = take(&place, &mut sink).await;
        let before = step.checked_sub(1).map(|last| all[last].progress);
        let checkpoint = stored.checkpoint.map(|checkpoint| checkpoint.progress());
        assert_eq!(checkpoint.filter(|progress| *progress != Progress::default()), before);
        deliver(&mut sink, &all[..=step]).await.unwrap();
        holds(&place, &all[..=step]).await;
    }
}

/// A daemon that ends before it makes its work durable leaves whole transactions; the next one adds what is missing.
pub async fn what_a_daemon_leaves_half_written_is_whole_or_absent<P: Place>() {
    let place = P::new().await;
    let all = transactions(&mut source(), 0..6);
    for step in 0..all.len() {
        let mut sink = taken(&place).await;
        sink.write(&all[..=step].iter().collect::<Vec<_>>()).await.unwrap();
        drop(sink);
        let found: BTreeSet<String> = place.found().await.into_iter().map(|version| version.position).collect();
        for batch in &all {
            let there =
                positions(std::slice::from_ref(batch)).iter().filter(|position| found.contains(*position)).count();
            assert!(there == 0 || there == batch.versions().count(), "a transaction is there in part");
        }
    }
    deliver(&mut taken(&place).await, &all).await.unwrap();
    holds(&place, &all).await;
}

/// A baseline that begins again after a restart reads its chunks again, at other positions.
pub async fn a_chunk_that_is_read_again_comes_once<P: Place>() {
    let place = P::new().await;
    let mut source = source();
    let mut chunk = |number: u32, last: &str| {
        let text = format!(
            "chunk public.users baseline=1 chunk={number}{last} for={SINK}\nbegin\nsnapshot public.users [{number}, \"Ann\"]\ncommit"
        );
        source.batches(&text).remove(0)
    };
    let (first, again, last) = (chunk(1, ""), chunk(1, ""), chunk(2, " last"));
    deliver(&mut taken(&place).await, std::slice::from_ref(&first)).await.unwrap();
    deliver(&mut taken(&place).await, &[again]).await.unwrap();
    deliver(&mut taken(&place).await, std::slice::from_ref(&last)).await.unwrap();
    holds(&place, &[first, last]).await;
    let stored = take(&place, &mut place.sink()).await;
    assert_eq!(stored.baselines["public.users"], ChunkProgress { baseline: 1, chunk: 2, done: true });
}

/// If two daemons use one sink, the one that took it first ends at its next write. Its unfinished work counts once, or
/// not at all.
pub async fn an_overtaken_owner_stops<P: Place>() {
    let place = P::new().await;
    let all = transactions(&mut source(), 0..3);
    let mut first = taken(&place).await;
    deliver(&mut first, &all[..1]).await.unwrap();
    let mut second = taken(&place).await;
    let error = deliver(&mut first, &all[1..2]).await.unwrap_err();
    assert_eq!(error.action, Action::Fenced, "{error}");
    deliver_again(&place, &mut second, &all).await.unwrap();
    holds(&place, &all).await;
}

/// While there is nothing for the sink, its checkpoint still advances, so that the slot can release earlier WAL.
pub async fn idle_positions_are_stored<P: Place>() {
    let place = P::new().await;
    let mut source = source();
    let mut all = transactions(&mut source, 0..1);
    all.extend(source.batches("idle 0/99000"));
    let mut sink = taken(&place).await;
    deliver(&mut sink, &all).await.unwrap();
    assert_eq!(sink.durable().flushed_lsn, Lsn(0x99000));
    let stored = take(&place, &mut place.sink()).await.checkpoint.unwrap();
    assert_eq!(stored.flushed_lsn, Lsn(0x99000));
    holds(&place, &all).await;
}

/// The slot may no longer have what a sink reported as durable. A store that has less than that is not written to; a
/// new takeover reports what is there, so that what is missing can be sent again.
pub async fn a_store_that_was_put_back_is_not_written_on<P: Place>() {
    let place = P::new().await;
    let all = transactions(&mut source(), 0..3);
    let mut sink = taken(&place).await;
    deliver(&mut sink, &all[..1]).await.unwrap();
    let backup = place.backup().await;
    // The session may have ended for the backup.
    let mut sink = taken(&place).await;
    deliver(&mut sink, &all[..2]).await.unwrap();
    place.restore(backup).await;
    let error = deliver(&mut sink, &all[2..]).await.unwrap_err();
    assert_eq!(error.action, Action::Restart, "{error}");
    assert!(error.message.contains("went back to an earlier state than this process has stored"), "{error}");
    assert_eq!(sink.durable(), all[1].progress);
    let stored = take(&place, &mut sink).await.checkpoint.unwrap();
    assert_eq!(stored.progress(), all[0].progress);
    deliver(&mut sink, &all).await.unwrap();
    holds(&place, &all).await;
}

/// A version that the store refuses is named, with the command that quarantines it. After that an `error` record is in
/// its place, and everything else stays as it was.
pub async fn a_version_that_was_quarantined_is_an_error_record<P: Place>() {
    let place = P::new().await;
    let mut source = source();
    let name = place.refuse().await;
    let mut all = transactions(&mut source, 0..2);
    let text = format!(
        "begin\ninsert public.users [70, \"Ann\"]\ninsert public.users [71, \"{}\"]\ninsert public.users [72, \"Ann\"]\ncommit",
        name.as_deref().unwrap_or(UNWANTED)
    );
    all.extend(source.batches(&text));
    all.extend(transactions(&mut source, 3..5));
    let refused = all[2].versions().nth(1).unwrap().position();
    let mut sink = taken(&place).await;
    if name.is_some() {
        let error = deliver_again(&place, &mut sink, &all).await.unwrap_err();
        assert_eq!((error.action, error.refused), (Action::Stop, Some(refused)), "{error}");
        let command = quarantine_command(SINK, refused);
        assert!(error.hint.as_ref().unwrap().contains(&command), "{:?}", error.hint);
    }
    sink.quarantine(Arc::new([(refused, Quarantined::default())].into()));
    if name.is_some() {
        take(&place, &mut sink).await;
    }
    deliver(&mut sink, &all).await.unwrap();
    holds(&place, &all).await;
    let found = place.found().await;
    let errors: BTreeSet<&String> =
        found.iter().filter(|version| version.event == "error").map(|version| &version.position).collect();
    assert_eq!(errors, BTreeSet::from([&refused.to_string()]));
}
