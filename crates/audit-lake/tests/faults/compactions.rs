use std::path::PathBuf;
use std::time::Duration;

use audit_core::position::Micros;
use audit_lake::{Compacted, Compactor, LakeError};
use audit_testkit::Fixture;
use fail::FailScenario;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::common::{Lake, write};

const USERS: &str = "public.users";
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A lake that no reader lists, with four files for each of three past days.
async fn written() -> Lake {
    let (mut lake, mut fixture) = (Lake::new(), Fixture::default());
    lake.config.listing_readers = false;
    lake.config.compact_within = CENTURY.into();
    lake.config.grace = Duration::ZERO.into();
    let (mut sink, _) = lake.taken().await;
    fixture.batches("table public.users (id int4 key, name text) full\n");
    for round in 0..12u32 {
        let day = 1 + round / 4;
        let text = format!("begin at=2026-03-{day:02}T10:00:00Z\ninsert public.users [{round}, \"x\"]\ncommit");
        write(&mut sink, &fixture.batches(&text)).await.unwrap();
    }
    lake
}

fn compactor(lake: &Lake) -> Compactor {
    Compactor::new(&lake.config, lake.store(), "shop", 8 << 20).unwrap()
}

fn notes(lake: &Lake) -> Vec<PathBuf> {
    let folder = lake.path().join("_cdc_audit/replaced");
    std::fs::read_dir(folder).map_or_else(|_| Vec::new(), |notes| notes.map(|note| note.unwrap().path()).collect())
}

/// A run that is paused after its first note, before the commit.
async fn paused_run(lake: &Lake) -> JoinHandle<Result<Compacted, LakeError>> {
    fail::cfg("lake::before_compact", "1*pause->off").unwrap();
    let run = compactor(lake);
    let run = tokio::spawn(async move { run.table(USERS).await });
    while notes(lake).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    run
}

/// Makes all notes more than a day older.
fn age_notes(lake: &Lake) {
    for path in notes(lake) {
        let mut note: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        note["at"] = (note["at"].as_i64().unwrap() - 90_000_000_000).into();
        std::fs::write(path, note.to_string()).unwrap();
    }
}

/// Checks that the files that the log names exist, and no others.
async fn assert_tidy(lake: &Lake, rows: &[String]) {
    assert_eq!(lake.delta_rows(USERS).await, rows);
    assert_eq!(lake.listed_files(USERS).len(), lake.delta_files(USERS).await.len());
}

/// ⚠ Files are listed once, and committed group by group: files that another run replaces in the meantime are noticed,
/// whichever group's commit came between.
#[tokio::test(flavor = "multi_thread")]
async fn every_entry_since_the_list_is_looked_at() {
    let _scenario = FailScenario::setup();
    let mut lake = written().await;
    let before = lake.delta_rows(USERS).await;
    let first = paused_run(&lake).await;
    // The second run leaves the first day alone.
    let since = Micros::now().0 - "2026-03-02T00:00:00Z".parse::<Micros>().unwrap().0;
    lake.config.compact_within = Duration::from_micros(since as u64).into();
    let second = compactor(&lake).table(USERS).await.unwrap();
    assert_eq!((second.files, second.into), (8, 2));
    fail::remove("lake::before_compact");
    let first = first.await.unwrap().unwrap();
    assert_eq!((first.files, first.into), (4, 1), "the other days are the second's");
    compactor(&lake).sweep().await.unwrap();
    assert_tidy(&lake, &before).await;
}

/// ⚠ A file that a run has made but not committed is removed only after a commit that announces it, because the run may
/// only be paused.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_has_made_is_given_up_in_the_log_before_it_is_removed() {
    let _scenario = FailScenario::setup();
    let lake = written().await;
    let before = lake.delta_rows(USERS).await;
    let sleeping = paused_run(&lake).await;
    let files = lake.listed_files(USERS).len();
    assert_eq!(compactor(&lake).sweep().await.unwrap(), 0, "it may still be at work");
    age_notes(&lake);
    assert_eq!(compactor(&lake).sweep().await.unwrap(), 1);
    assert_eq!(lake.listed_files(USERS).len(), files - 1);
    fail::remove("lake::before_compact");
    assert_eq!(sleeping.await.unwrap().unwrap().into, 2, "its first day is given up");
    compactor(&lake).sweep().await.unwrap();
    assert_tidy(&lake, &before).await;
    compactor(&lake).all().await.unwrap();
    assert_tidy(&lake, &before).await;
}

/// A run that commits its file just before that is abandoned keeps the file.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_meanwhile_stays() {
    let _scenario = FailScenario::setup();
    let lake = written().await;
    let before = lake.delta_rows(USERS).await;
    let sleeping = paused_run(&lake).await;
    age_notes(&lake);
    fail::cfg("lake::before_give_up", "1*pause->off").unwrap();
    let other = compactor(&lake);
    let sweep = tokio::spawn(async move { other.sweep().await });
    // The sweep has read the log or will read it: either way the log names the file before the sweep tries to abandon
    // it.
    fail::remove("lake::before_compact");
    assert_eq!(sleeping.await.unwrap().unwrap().into, 3);
    fail::remove("lake::before_give_up");
    sweep.await.unwrap().unwrap();
    assert_eq!(lake.delta_rows(USERS).await, before);
}

/// A run that was killed after another one had replaced its files leaves nothing for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_has_made_goes_after_a_day() {
    let _scenario = FailScenario::setup();
    let lake = written().await;
    let before = lake.delta_rows(USERS).await;
    fail::cfg("lake::before_compact", "1*return->off").unwrap();
    compactor(&lake).table(USERS).await.unwrap_err();
    fail::remove("lake::before_compact");
    compactor(&lake).all().await.unwrap();
    assert_eq!(lake.listed_files(USERS).len(), 4, "what the killed run has made is still there");
    age_notes(&lake);
    compactor(&lake).sweep().await.unwrap();
    assert_tidy(&lake, &before).await;
    assert!(notes(&lake).is_empty());
}
