use audit_core::batch::Batch;
use audit_core::sink::{Action, Sink};
use fail::FailScenario;

use crate::POINTS;
use crate::common::story::{first_run, next_run, read_at};
use crate::common::tenants::{check, fixture, on_disk, places, world};
use crate::common::{Lake, View, write};

const USERS: &str = "public.users";

/// Makes passage `passage` of `point` fail. Returns false if there is no such passage.
async fn broken_off(lake: Lake, point: &str, passage: u32, whole: bool) -> bool {
    let (mut world, places) = (world(), places(&lake));
    fail::cfg(point, &format!("{passage}*off->1*return->off")).unwrap();
    let broken = first_run(&lake, &world, whole).await;
    fail::remove(point);
    let Err(error) = broken else { return false };
    assert_eq!(error.action, Action::Retry, "{error}");
    for day in [5, 6] {
        // The second run begins from the start: nothing is written twice.
        next_run(&lake, &mut world, day).await.unwrap();
        check(&places, &world).await;
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_off_anywhere_each_tenant_has_each_version_once() {
    let _scenario = FailScenario::setup();
    let (mut runs, step) = (0, if audit_testkit::thorough() { 1 } else { 3 });
    for point in POINTS.iter().filter(|point| **point != "lake::before_adopt") {
        for (whole, fresh) in [(true, false), (false, true)] {
            let lake = || if fresh { on_disk().fresh() } else { on_disk() };
            let mut passage = 0;
            while broken_off(lake(), point, passage, whole).await {
                passage += step;
                runs += 1;
            }
            assert!(passage > 0, "{point} is never passed");
        }
    }
    println!("{runs} runs");
}

/// The second daemon dies while it recovers what the first has left; the third one finishes.
#[tokio::test(flavor = "multi_thread")]
async fn broken_off_while_taking_up_what_tenants_were_left() {
    let _scenario = FailScenario::setup();
    let mut runs = 0;
    let (step, tries) = if audit_testkit::thorough() { (1, 0..4) } else { (6, 1..2) };
    for first in ["lake::after_put", "lake::before_commit", "lake::after_commit"] {
        for passage in (1..30).step_by(step) {
            for second in POINTS {
                for again in tries.clone() {
                    let lake = on_disk();
                    let (mut world, places) = (world(), places(&lake));
                    fail::cfg(first, &format!("{passage}*off->1*return->off")).unwrap();
                    let broken = first_run(&lake, &world, true).await;
                    fail::remove(first);
                    if broken.is_ok() {
                        continue;
                    }
                    fail::cfg(second, &format!("{again}*off->1*return->off")).unwrap();
                    let broken = next_run(&lake, &mut world, 5).await;
                    fail::remove(second);
                    if broken.is_ok() {
                        continue;
                    }
                    runs += 1;
                    next_run(&lake, &mut world, 6).await.unwrap();
                    check(&places, &world).await;
                }
            }
        }
    }
    println!("{runs} runs");
    assert!(runs > 30);
}

/// Chunks with rows of no tenant, of one tenant, and of two.
fn chunks() -> (Vec<Batch>, Vec<Batch>) {
    let mut fixture = fixture();
    let head = fixture.batches(
        r#"table public.users (id int4 key, name text, owner text) full
           begin
           insert public.users [1, "Ann", "acme"]
           insert public.users [2, "Bea", "hooli"]
           commit"#,
    );
    let chunk = r#"chunk public.users baseline=1 chunk=1 last for=lake
                   snapshot public.users [100, "Old", "acme"]
                   snapshot public.users [101, "Older", "hooli"]"#;
    (head, fixture.batches(&read_at(chunk, 4)))
}

async fn snapshots(lake: &Lake) -> usize {
    let mut count = 0;
    for path in places(lake).values() {
        count += View::of(path).agreed(USERS).await.iter().filter(|row| row.contains(" snapshot ")).count();
    }
    count
}

/// ⚠ Home decides whether a chunk that is spread over tenants counts. A daemon that is paused before that, and wakes up
/// after another took over, cannot make it count any more; its files are removed and the chunk is read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_spread_chunk_counts_when_home_says_so() {
    let _scenario = FailScenario::setup();
    // After home's first commit of the baseline: its decision, the commits of two tenants, and home's final commit.
    for passage in 1.. {
        let (lake, (head, chunk)) = (on_disk(), chunks());
        let (mut first, _) = lake.taken().await;
        write(&mut first, &head).await.unwrap();
        fail::cfg("lake::before_commit", &format!("{passage}*off->1*return->off")).unwrap();
        let paused = write(&mut first, &chunk).await;
        fail::remove("lake::before_commit");
        if paused.is_ok() {
            assert_eq!(passage, 5);
            return;
        }
        let (mut second, stored) = lake.taken().await;
        let has = stored.baselines.get(USERS).copied().unwrap_or_default();
        assert_eq!(has.done, passage >= 2, "passage {passage}: {has:?}");
        assert_eq!(snapshots(&lake).await, if has.done { 2 } else { 0 }, "what does not count is gone");
        let woken = first.flush(true).await.unwrap_err();
        assert_eq!(woken.action, Action::Fenced, "passage {passage}: {woken}");
        write(&mut second, &chunk).await.unwrap();
        assert_eq!(snapshots(&lake).await, 2, "passage {passage}");
    }
}
