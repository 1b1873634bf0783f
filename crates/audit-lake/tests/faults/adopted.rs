use std::time::{Duration, Instant};

use audit_core::batch::Batch;
use audit_core::protect::Policy;
use audit_core::rules::{Rules, TableRule};
use audit_core::sink::Sink;
use audit_lake::LakeSink;
use audit_testkit::Fixture;
use fail::FailScenario;

use crate::common::{Lake, identity, start, write};

const USERS: &str = "public.users";
const HEAD: &str = "table public.users (id int4 key, name text) full\nbegin\ninsert public.users [1, \"Ann\"]\ncommit";

fn insert(fixture: &mut Fixture, id: u32, day: u32) -> Vec<Batch> {
    fixture.batches(&format!("begin at=2026-03-{day:02}T10:00:00Z\ninsert public.users [{id}, \"x\"]\ncommit"))
}

/// Writes `batches`, and dies after its first file was put.
async fn leave_a_file(lake: &Lake, head: &[Batch], batches: &[Batch]) {
    let (mut first, _) = lake.taken().await;
    write(&mut first, head).await.unwrap();
    fail::cfg("lake::before_put", "1*off->1*return->off").unwrap();
    fail::cfg("lake::before_commit", "return").unwrap();
    write(&mut first, batches).await.unwrap_err();
    fail::remove("lake::before_put");
    fail::remove("lake::before_commit");
}

/// ⚠ A table that waits for the end of an adopted file is not due: a flush would have no effect, and would be due again
/// at once, before any more of the stream is taken in.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_waits_for_the_end_of_an_adopted_file_is_not_due() {
    let _scenario = FailScenario::setup();
    let (mut lake, mut fixture) = (Lake::new(), Fixture::default());
    let head = fixture.batches(HEAD);
    let parts: Vec<Batch> = (2..5).flat_map(|id| insert(&mut fixture, id, 1)).collect();
    leave_a_file(&lake, &head, &parts).await;
    lake.config.file_age = Duration::ZERO.into();
    let (mut sink, _) = lake.taken().await;
    for part in &parts[..2] {
        sink.write(&[part]).await.unwrap();
        sink.flush(false).await.unwrap();
        let due = sink.due().is_some_and(|due| due <= Instant::now());
        assert!(!due, "due while the end of the file is waited for");
    }
    sink.write(&[&parts[2]]).await.unwrap();
    assert!(sink.due().is_some_and(|due| due <= Instant::now()), "the end of the file has come");
    sink.flush(false).await.unwrap();
    assert_eq!(sink.durable(), parts[2].progress);
    assert_eq!(lake.agreed(USERS).await.len(), 4);
}

/// What such a table holds cannot be closed, but other tables free their memory.
#[tokio::test(flavor = "multi_thread")]
async fn memory_of_others_is_bounded_while_a_table_waits() {
    let _scenario = FailScenario::setup();
    let (lake, mut fixture) = (Lake::new(), Fixture::default());
    let head = fixture.batches(HEAD);
    let mut parts = insert(&mut fixture, 2, 2);
    parts.extend(insert(&mut fixture, 3, 1));
    let mut text = String::new();
    (0..200).for_each(|at| text.push_str(&format!("table public.t{at} (id int4 key) full\n")));
    text.push_str("begin\n");
    (0..200).for_each(|at| text.push_str(&format!("insert public.t{at} [1]\n")));
    let others = fixture.batches(&format!("{text}commit"));
    parts.extend(insert(&mut fixture, 4, 2));
    leave_a_file(&lake, &head, &parts).await;
    let memory = 1 << 20;
    let mut sink = LakeSink::new("lake", &lake.config, memory).unwrap();
    let stored = sink.take(&identity()).await.unwrap();
    sink.begin(stored.checkpoint.map_or(start(), |checkpoint| checkpoint.progress())).await.unwrap();
    sink.write(&[&parts[0], &parts[1]]).await.unwrap();
    assert!(sink.held_bytes() > 0, "rows of the other day");
    for batch in &others {
        sink.write(&[batch]).await.unwrap();
        assert!(sink.held_bytes() <= memory, "{}", sink.held_bytes());
    }
}

/// ⚠ While the table waits for the end of an adopted file, rows of other partitions that need a file with another
/// layout get one: the existing files cannot be committed yet, and retrying would never end.
#[tokio::test(flavor = "multi_thread")]
async fn a_layout_may_change_before_the_end_of_an_adopted_file() {
    let _scenario = FailScenario::setup();
    let lake = Lake::new();
    let text = |part: usize| {
        let kind = if part == 1 { "text" } else { "int4" };
        let head = format!("table public.users (id int4 key, name text, c {kind}) full\n");
        let row = |id: usize, day: u32| {
            format!("begin at=2026-03-{day:02}T10:00:00Z\ninsert public.users [{id}, \"x\", 7]\ncommit\n")
        };
        format!("{head}{}{}", row(2 * part, 1), row(2 * part + 1, 2))
    };
    let batches = |rules: Rules| {
        let mut fixture = Fixture::under(rules, Policy::default());
        let head = fixture.batches(HEAD);
        (head, (1..3).flat_map(|part| fixture.batches(&text(part))).collect::<Vec<Batch>>())
    };
    let rule = TableRule { name: "*".into(), ignore: Some(vec!["c".into()]), ..TableRule::default() };
    let (head, rows) = batches(Rules { tables: vec![rule], ..Rules::default() });
    leave_a_file(&lake, &head, &rows).await;
    // The column is recorded from now on.
    let (_, rows) = batches(Rules::default());
    let (mut sink, _) = lake.taken().await;
    let written = tokio::spawn(async move { write(&mut sink, &rows).await });
    tokio::time::timeout(Duration::from_secs(60), written).await.expect("it ends").unwrap().unwrap();
    assert_eq!(lake.agreed(USERS).await.len(), 5);
}
