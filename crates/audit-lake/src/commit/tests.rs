#![allow(clippy::unwrap_used)]

use audit_core::sink::ChunkProgress;
use object_store::memory::InMemory;

use super::*;

const TABLE: &str = "public.t";

fn store() -> Store {
    Store::over(Arc::new(InMemory::new()), "the lake")
}

async fn open(store: &Store) -> TableLog {
    TableLog::open(store, &"shop".into(), TABLE, Partitioning::Day).await.unwrap()
}

/// A commit without files.
fn change(txn: Txn, begins: bool) -> Change {
    let schema = begins.then(|| (first_fields(false, Partitioning::Day), Vec::new()));
    Change { adds: Vec::new(), removes: Vec::new(), txn, schema }
}

fn id(log: &TableLog) -> &Value {
    &log.state.as_ref().unwrap().metadata["id"]
}

/// Two handles of one daemon: one of them commits what the other one has sent without receiving the answer.
#[tokio::test]
async fn an_entry_is_ours_only_if_it_says_the_same() {
    let store = store();
    let owned = Txn { owner: 1, ..Txn::default() };
    open(&store).await.commit(&change(owned, true)).await.unwrap();
    let (mut unheard, mut log) = (open(&store).await, open(&store).await);
    // The lost answer was that of another commit without files, by the same owner.
    unheard.commit(&change(owned, false)).await.unwrap();
    let chunk = ChunkProgress { baseline: 1, chunk: 1, done: false };
    log.commit(&change(Txn { baseline: chunk, ..owned }, false)).await.unwrap();
    assert_eq!(open(&store).await.txn().baseline, chunk);
    // A repeat of the same commit is recognised and not written again.
    let (mut unheard, mut log) = (open(&store).await, open(&store).await);
    let chunk = ChunkProgress { chunk: 2, ..chunk };
    unheard.commit(&change(Txn { baseline: chunk, ..owned }, false)).await.unwrap();
    log.commit(&change(Txn { baseline: chunk, ..owned }, false)).await.unwrap();
    assert_eq!(log.version(), unheard.version());
    assert_eq!(open(&store).await.version(), log.version());
}

#[tokio::test]
async fn a_table_keeps_the_id_that_it_began_with() {
    let store = store();
    let (mut unheard, mut log) = (open(&store).await, open(&store).await);
    let first = change(Txn { owner: 1, ..Txn::default() }, true);
    unheard.commit(&first).await.unwrap();
    log.commit(&first).await.unwrap();
    assert_eq!(id(&log), id(&unheard));
    assert_eq!(id(&log), id(&open(&store).await));
}

fn fresh_file() -> Add {
    Add { path: "fresh/year=2026/month=03/day=01/a.parquet".into(), ..Add::default() }
}

/// An entry of another tool that removes the file under its own spelling of the path.
async fn rewritten(store: &Store, file: &Add) {
    let log = open(store).await;
    let path = file.path.replace('=', "%3D");
    let remove = Remove { path, data_change: false, ..Remove::default() };
    let operation = DeltaOperation::Optimize { predicate: None, target_size: 1 };
    let data = CommitData::new(vec![Action::Remove(remove)], operation, client(), Vec::new());
    let entry = CommitOrBytes::LogBytes(data.get_bytes().unwrap());
    log.log.write_commit_entry(log.version() + 1, entry, uuid::Uuid::nil()).await.unwrap();
}

#[tokio::test]
async fn what_another_tool_has_rewritten_is_not_rolled() {
    for stepped_over_before in [false, true] {
        let store = store();
        let txn = Txn { owner: 1, ..Txn::default() };
        let mut log = open(&store).await;
        log.commit(&Change { adds: vec![fresh_file()], ..change(txn, true) }).await.unwrap();
        rewritten(&store, &fresh_file()).await;
        if stepped_over_before {
            log.commit(&change(txn, false)).await.unwrap();
        }
        let removes = vec![Remove { path: fresh_file().path, ..Remove::default() }];
        let rolled = Add { path: "data/year=2026/month=03/day=01/b.parquet".into(), ..Add::default() };
        let roll = Change { adds: vec![rolled], removes, ..change(txn, false) };
        let error = log.commit(&roll).await.unwrap_err();
        assert!(matches!(error, LakeError::Rewritten { .. }), "{error}");
    }
}
