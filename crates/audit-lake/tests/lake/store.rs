use audit_lake::store::DurableLocal;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use crate::common::Lake;

async fn names(store: &DurableLocal) -> Vec<String> {
    let mut names: Vec<String> = store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
    names.sort();
    names
}

#[tokio::test]
async fn a_create_never_replaces_and_an_overwrite_does() {
    let folder = tempfile::tempdir().unwrap();
    let store = DurableLocal::new(folder.path()).unwrap();
    let path = Path::from("a/b/c.json");
    store.put_opts(&path, PutPayload::from_static(b"1"), PutMode::Create.into()).await.unwrap();
    let again = store.put_opts(&path, PutPayload::from_static(b"2"), PutMode::Create.into()).await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
    let read = async || store.get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(&read().await[..], b"1");
    store.put(&path, PutPayload::from_static(b"3")).await.unwrap();
    assert_eq!(&read().await[..], b"3");
    assert_eq!(names(&store).await, ["a/b/c.json"]);
    let other = Path::from("x/y.json");
    assert!(matches!(store.copy_if_not_exists(&path, &path).await, Err(Error::AlreadyExists { .. })));
    store.copy(&path, &other).await.unwrap();
    assert!(matches!(store.rename_if_not_exists(&path, &other).await, Err(Error::AlreadyExists { .. })));
    store.rename(&path, &other).await.unwrap();
    assert_eq!(names(&store).await, ["x/y.json"]);
    store.delete(&other).await.unwrap();
    assert!(matches!(store.delete(&other).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.get(&other).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn an_upload_in_parts_is_there_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = DurableLocal::new(folder.path()).unwrap();
    let path = Path::from("data/file.parquet");
    let mut upload = store.put_multipart(&path).await.unwrap();
    let parts = [upload.put_part(vec![1u8; 6 << 20].into()), upload.put_part(vec![2u8; 100].into())];
    for part in parts {
        part.await.unwrap();
    }
    assert_eq!(names(&store).await.len(), 1, "only what is staged");
    assert!(names(&store).await[0].starts_with("_cdc_audit/tmp/"));
    upload.complete().await.unwrap();
    assert_eq!(names(&store).await, ["data/file.parquet"]);
    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    assert!(bytes.len() == (6 << 20) + 100 && bytes[0] == 1 && bytes[6 << 20] == 2);
    let mut broken = store.put_multipart(&Path::from("data/other.parquet")).await.unwrap();
    broken.put_part(vec![1u8; 10].into()).await.unwrap();
    drop(broken);
    let mut aborted = store.put_multipart(&Path::from("data/other.parquet")).await.unwrap();
    aborted.abort().await.unwrap();
    assert_eq!(names(&store).await, ["data/file.parquet"]);
}

#[tokio::test]
async fn a_listing_from_an_offset_is_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = DurableLocal::new(folder.path()).unwrap();
    for number in [7, 3, 11, 1, 9, 5] {
        store.put(&Path::from(format!("log/{number:020}.json")), PutPayload::from_static(b"")).await.unwrap();
    }
    let offset = Path::from(format!("log/{:020}.json", 3));
    let listed = store.list_with_offset(Some(&Path::from("log")), &offset);
    let numbers: Vec<String> =
        listed.map(|meta| meta.unwrap().location.filename().unwrap().to_string()).collect().await;
    let expected: Vec<String> = [5, 7, 9, 11].iter().map(|number| format!("{number:020}.json")).collect();
    assert_eq!(numbers, expected);
}

/// ⚠ What a kill left half-written is in one place, and is removed.
#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_a_kill_are_swept() {
    let lake = Lake::new();
    let tmp = lake.path().join("_cdc_audit/tmp");
    std::fs::create_dir_all(&tmp).unwrap();
    std::fs::write(tmp.join("4711-00c0ffee00c0ffee-0"), "half a file").unwrap();
    lake.taken().await;
    assert_eq!(std::fs::read_dir(&tmp).unwrap().count(), 0);
}
