use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit_core::position::{Micros, Position, Window};
use audit_core::protect::Policy;
use audit_core::rules::{Rules, TableRule};
use audit_core::search::Wanted;
use audit_core::stored::Record;
use audit_lake::store::{DurableLocal, Store};
use audit_lake::{LakeError, LakeReader};
use audit_testkit::Fixture;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use crate::common::Lake;

fn reader(lake: &Lake) -> LakeReader {
    LakeReader::open(&lake.config).unwrap()
}

fn shown(records: &[Record]) -> Vec<String> {
    let text =
        |json: &Option<audit_core::stored::Json>| json.as_ref().map_or("-".to_string(), |json| json.get().to_string());
    records
        .iter()
        .map(|record| {
            let key = record.key.as_deref().unwrap_or("-");
            format!("{} {key} {} {} {}", record.event, text(&record.before), text(&record.after), text(&record.changes))
        })
        .collect()
}

async fn export(lake: &Lake, table: &str) -> Vec<Record> {
    reader(lake).export("shop", table, None, None).await.unwrap().try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_of_a_row_is_followed_through_its_keys_and_to_its_truncation() {
    let lake = Lake::new();
    let batches = Fixture::of(
        r#"table public.t (id int4 key, v text) full
         begin
         insert public.t [1, "a"]
         insert public.t [9, "other"]
         commit
         ---
         begin
         update public.t [1, "a"] -> [2, "a"]
         commit
         begin at=2026-03-05T00:00:00Z
         update public.t [2, "a"] -> [3, "b"]
         insert public.t [1, "another"]
         commit
         begin
         truncate public.t
         insert public.t [3, "new"]
         commit"#,
    );
    lake.write(&batches).await;
    let trail = async |key: &str, limit| shown(&reader(&lake).history("shop", "public.t", key, limit).await.unwrap());
    let expected = [
        r#"created 3 - {"id": 3, "v": "new"} {"id": [null, 3], "v": [null, "new"]}"#,
        "truncated - - - -",
        r#"updated 3 - {"id": 3, "v": "b"} {"id": [2, 3], "v": ["a", "b"]}"#,
        r#"updated 2 - {"id": 2, "v": "a"} {"id": [1, 2]}"#,
        r#"created 1 - {"id": 1, "v": "a"} {"id": [null, 1], "v": [null, "a"]}"#,
    ];
    assert_eq!(trail("3", 100).await, expected);
    assert_eq!(trail("3", 2).await, expected[..2]);
    assert_eq!(trail("9", 100).await.len(), 2);
    // A key that was used again belongs to more than one row.
    assert_eq!(trail("1", 100).await.len(), 5);
    assert_eq!(trail("none", 100).await, [""; 0]);
    let missing = reader(&lake).history("shop", "public.none", "1", 1).await.unwrap_err();
    assert!(matches!(missing, LakeError::NoTable { .. }), "{missing}");
    assert_eq!(reader(&lake).tables("shop").await.unwrap(), ["public.t"]);
    assert_eq!(reader(&lake).tables("another").await.unwrap(), [""; 0]);
    assert_eq!(reader(&lake).shapes("shop", "public.t").await.unwrap().last().unwrap().key, ["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_in_order_of_position_over_days_chunks_and_files() {
    let lake = Lake::new();
    let mut fixture = Fixture::default();
    let batches = fixture.batches(
        r#"table public.t (id int4 key, at timestamptz, n numeric(10,2), doc jsonb) full
         begin at=2026-03-01T23:59:00Z
         insert public.t [1, "2026-03-01 10:00:00.25+00", 1.50, "{\"a\": 1}"]
         commit
         begin at=2026-03-02T00:00:00Z
         insert public.t [2, "infinity", "NaN", "null"]
         commit
         begin at=2026-03-01T23:59:30Z
         delete public.t [1, "2026-03-01 10:00:00.25+00", 1.50, "{\"a\": 1}"]
         commit
         ---
         begin at=2026-03-02T12:00:00Z
         chunk public.t baseline=1 chunk=1 last for=lake
         snapshot public.t [7, null, 0, "{}"]
         commit
         ---
         begin at=2026-03-03T00:00:00Z
         update public.t [2, "infinity", "NaN", "null"] -> [2, null, 2, "null"]
         commit"#,
    );
    lake.write(&batches).await;
    let records = export(&lake, "public.t").await;
    assert!(records.is_sorted_by_key(|record| record.position));
    assert_eq!(
        shown(&records),
        [
            r#"created 1 - {"id": 1, "at": "2026-03-01T10:00:00.25Z", "n": "1.50", "doc": {"a": 1}} {"id": [null, 1], "at": [null, "2026-03-01T10:00:00.25Z"], "n": [null, "1.50"], "doc": [null, {"a": 1}]}"#,
            r#"created 2 - {"id": 2, "at": "infinity", "n": "NaN", "doc": {"$json": null}} {"id": [null, 2], "at": [null, "infinity"], "n": [null, "NaN"], "doc": [null, {"$json": null}]}"#,
            r#"deleted 1 {"id": 1, "at": "2026-03-01T10:00:00.25Z", "n": "1.50", "doc": {"a": 1}} - {"id": [1, null], "at": ["2026-03-01T10:00:00.25Z", null], "n": ["1.50", null], "doc": [{"a": 1}, null]}"#,
            r#"snapshot 7 - {"id": 7, "at": null, "n": "0.00", "doc": {}} {"id": [null, 7], "at": [null, null], "n": [null, "0.00"], "doc": [null, {}]}"#,
            r#"updated 2 - {"id": 2, "at": null, "n": "2.00", "doc": {"$json": null}} {"at": ["infinity", null], "n": ["NaN", "2"]}"#,
        ]
    );
    assert_eq!(records[3].baseline, Some(1));
    let (since, until) = (records[1].committed_at, records[4].committed_at);
    let some: Vec<Record> =
        reader(&lake).export("shop", "public.t", Some(since), Some(until)).await.unwrap().try_collect().await.unwrap();
    assert_eq!(some.iter().map(|record| record.event.as_str()).collect::<Vec<_>>(), ["created", "snapshot"]);
    assert_eq!(reader(&lake).count("shop", "public.t", None, None).await.unwrap(), 5);
}

/// ⚠ Other tables may lack what one table has beyond the lake's checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_commit_is_one_that_every_table_has() {
    let lake = Lake::new();
    let mut fixture = Fixture::default();
    let first = "table public.t (id int4 key) full\nbegin at=2026-03-01T10:00:00Z\ninsert public.t [1]\ncommit";
    lake.write(&fixture.batches(first)).await;
    let notes = || {
        let entries = std::fs::read_dir(lake.path().join("_cdc_audit/checkpoint")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let tables = ["public.t".to_string()];
    let newest = async || reader(&lake).newest("shop", &tables).await.unwrap();
    let at = |text: &str| Some(text.parse::<Micros>().unwrap());
    let known = notes();
    assert_eq!(newest().await, at("2026-03-01T10:00:00Z"));
    lake.write(&fixture.batches("begin at=2026-03-01T11:00:00Z\ninsert public.t [2]\ncommit")).await;
    assert_eq!(newest().await, at("2026-03-01T11:00:00Z"));
    // The state between a table's commit and the checkpoint.
    for later in notes().iter().filter(|path| !known.contains(path)) {
        std::fs::remove_file(later).unwrap();
    }
    assert_eq!(newest().await, at("2026-03-01T10:00:00Z"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_is_left_out() {
    let mut lake = Lake::new();
    lake.config.keep_before = true;
    let batches = Fixture::of(
        r#"table public.t (id int4 key, v text, w text) default
         begin
         update public.t -> [1, "a", {}]
         update public.t key [1, null, null] -> [2, "a", null]
         delete public.t key [2, null, null]
         commit"#,
    );
    lake.write(&batches).await;
    let records = export(&lake, "public.t").await;
    let expected = [
        r#"updated 1 - {"id": 1, "v": "a"} -"#,
        r#"updated 2 {"id": 1} {"id": 2, "v": "a", "w": null} -"#,
        r#"deleted 2 {"id": 2} - {"id": [2, null]}"#,
    ];
    assert_eq!(shown(&records), expected);
    assert_eq!(records[0].unknown, ["w"]);
    assert!(!records[0].before_known && records[0].changed.is_none());
}

/// Records which objects are read.
#[derive(Debug)]
struct Noting {
    inner: DurableLocal,
    read: Arc<Mutex<Vec<String>>>,
    /// Number of data files that are gone when they are asked for.
    gone: AtomicU32,
}

impl Noting {
    fn note(&self, location: &Path) -> Result<()> {
        self.read.lock().unwrap().push(location.to_string());
        let one_less = |gone: u32| gone.checked_sub(1);
        let is_data = location.as_ref().contains("/data/");
        match is_data && self.gone.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            true => Err(object_store::Error::NotFound { path: location.to_string(), source: "gone".into() }),
            false => Ok(()),
        }
    }
}

impl std::fmt::Display for Noting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Noting {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.note(location)?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.note(location)?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_hold_the_key_are_not_read() {
    let lake = Lake::new();
    let (mut sink, _) = lake.taken().await;
    let mut fixture = Fixture::default();
    fixture.batches("table public.t (id text key, v text) full");
    for file in 0..10 {
        // The key ranges of the files do not overlap. In the middle of each range there is a gap that only the Bloom
        // filter knows.
        let text = format!("begin\ninsert public.t [\"{file}a\", \"x\"]\ninsert public.t [\"{file}z\", \"x\"]\ncommit");
        crate::common::write(&mut sink, &fixture.batches(&text)).await.unwrap();
    }
    let read = Arc::new(Mutex::new(Vec::new()));
    let inner = DurableLocal::new(lake.path()).unwrap();
    let noting = Noting { inner, read: read.clone(), gone: AtomicU32::new(0) };
    let reader = LakeReader::over(Store::over(Arc::new(noting), "the lake"));
    let data = async |key: &str| {
        read.lock().unwrap().clear();
        let found = reader.history("shop", "public.t", key, 10).await.unwrap().len();
        let mut files: Vec<String> =
            read.lock().unwrap().iter().filter(|path| path.contains("/data/")).cloned().collect();
        files.sort();
        files.dedup();
        (found, files.len())
    };
    assert_eq!(data("4z").await, (1, 1));
    assert_eq!(data("4m").await, (0, 1));
    assert_eq!(data("a").await, (0, 0));
}

/// Files are replaced and removed while they are read: an export continues after the last version that it returned.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_goes_on_where_its_files_were_replaced() {
    let mut lake = Lake::new().fresh();
    lake.config.roll_age = Duration::from_secs(3600).into();
    let (mut sink, _) = lake.taken().await;
    let mut fixture = Fixture::default();
    fixture.batches("table public.t (id int4 key) full");
    let insert = |id: u32| format!("begin at=2026-03-{:02}T10:00:00Z\ninsert public.t [{id}]\ncommit", 1 + id / 5);
    for id in 0..15 {
        crate::common::write(&mut sink, &fixture.batches(&insert(id))).await.unwrap();
    }
    let mut stream = reader(&lake).export("shop", "public.t", None, None).await.unwrap();
    let mut keys = Vec::new();
    for _ in 0..7 {
        keys.push(stream.try_next().await.unwrap().unwrap().key.unwrap());
    }
    drop(sink);
    lake.config.roll_age = Duration::ZERO.into();
    let (mut sink, _) = lake.taken().await;
    crate::common::roll(&mut sink).await.unwrap();
    assert!(lake.fresh_rows("public.t").await.is_empty(), "everything is rolled, and the fresh files are gone");
    crate::common::write(&mut sink, &fixture.batches(&insert(15))).await.unwrap();
    while let Some(record) = stream.try_next().await.unwrap() {
        keys.push(record.key.unwrap());
    }
    let expected: Vec<String> = (0..15).map(|id| id.to_string()).collect();
    assert_eq!(keys, expected, "what was there when it began, each once");
    let after = stored_position(&lake, "6").await;
    let rest = reader(&lake)
        .within(Window { from: Some(after.next()), to: None })
        .export("shop", "public.t", None, None)
        .await
        .unwrap();
    let rest: Vec<Record> = rest.try_collect().await.unwrap();
    assert_eq!(rest.len(), 9);

    // If a file that the log names does not exist, the export ends with an error.
    for file in lake.listed_files("public.t") {
        std::fs::remove_file(file).unwrap();
    }
    let lost = reader(&lake).export("shop", "public.t", None, None).await.unwrap();
    let error = lost.try_collect::<Vec<Record>>().await.unwrap_err();
    assert!(matches!(error, LakeError::Read { .. }), "{error}");
}

async fn stored_position(lake: &Lake, key: &str) -> Position {
    reader(lake).history("shop", "public.t", key, 1).await.unwrap()[0].position
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_begins_anew_where_its_files_were_replaced() {
    let lake = Lake::new();
    lake.write(&Fixture::of("table public.t (id int4 key) full\nbegin\ninsert public.t [1]\ncommit")).await;
    for (gone, found) in [(1, true), (1000, false)] {
        let inner = DurableLocal::new(lake.path()).unwrap();
        let noting = Noting { inner, read: Arc::default(), gone: AtomicU32::new(gone) };
        let reader = LakeReader::over(Store::over(Arc::new(noting), "the lake"));
        assert_eq!(reader.history("shop", "public.t", "1", 10).await.is_ok(), found);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_for_what_is_rare_skips_files_and_row_groups() {
    let mut lake = Lake::new();
    lake.config.row_group_rows = 100;
    let rule = TableRule { name: "public.t".into(), actor_column: Some("who".into()), ..TableRule::default() };
    let mut fixture = Fixture::under(Rules { tables: vec![rule], ..Rules::default() }, Policy::default());
    fixture.batches("table public.t (id int4 key, who text)");
    for file in 0..6 {
        let who = |row| match (file, row) {
            (3, 250) => "rare",
            (5, _) => "ann",
            (_, row) => ["ann", "bob", "zoe"][row % 3],
        };
        let rows: String =
            (0..500).map(|row| format!("insert public.t [{}, \"{}\"]\n", file * 1000 + row, who(row))).collect();
        let last = if file == 2 { "delete public.t [2007, \"bob\"]\n" } else { "" };
        lake.write(&fixture.batches(&format!("begin\n{rows}{last}commit"))).await;
    }
    let table = Wanted { source: "shop".into(), tables: vec!["public.t".into()], ..Wanted::default() };
    let searched = async |wanted: Wanted| {
        let reader = reader(&lake);
        let found = reader.search(&wanted, &|_| true, 50).await.unwrap();
        let cost = reader.cost();
        let read = (cost.files, cost.files_skipped, cost.row_groups, cost.row_groups_skipped);
        assert!(cost.bytes > 0);
        (found.into_iter().map(|record| record.key.unwrap_or_default()).collect::<Vec<_>>(), read)
    };
    // By the bounds in the log one file is left out, by Bloom filters all row groups but one.
    let (found, read) = searched(Wanted { actors: vec!["rare".into()], ..table.clone() }).await;
    assert_eq!((found, read), (vec!["3250".to_owned()], (5, 1, 1, 25)));
    let (found, read) = searched(Wanted { events: vec!["deleted".into()], ..table.clone() }).await;
    assert_eq!((found, read), (vec!["2007".to_owned()], (1, 5, 1, 5)));
    let (found, read) = searched(Wanted { actors: vec!["nobody".into()], ..table }).await;
    assert_eq!((found.len(), read.2), (0, 0));
}
