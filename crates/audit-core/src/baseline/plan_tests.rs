use super::*;
use expect_test::{Expect, expect};
use proptest::prelude::*;

fn name(sink: &str) -> Arc<str> {
    sink.into()
}

fn at(baseline: u32, chunk: u32) -> Option<ChunkProgress> {
    Some(ChunkProgress { baseline, chunk, done: false })
}

fn done(baseline: u32, chunk: u32) -> Option<ChunkProgress> {
    Some(ChunkProgress { baseline, chunk, done: true })
}

fn stored(sinks: &[&str], chunks: u32, last: bool) -> StoredBaseline {
    StoredBaseline { sinks: sinks.iter().map(|sink| name(sink)).collect(), chunks, last, by_key: true }
}

fn plan(sinks: &[(&str, Option<ChunkProgress>)], baselines: &[(u32, StoredBaseline)]) -> Plan {
    Plan::new(
        sinks.iter().map(|(sink, progress)| (name(sink), *progress)).collect(),
        baselines.iter().cloned().collect(),
    )
}

fn shown(sinks: &BTreeSet<Arc<str>>) -> String {
    sinks.iter().map(|sink| sink.as_ref()).collect::<Vec<_>>().join(" ")
}

/// Does what the runner would do, with tables of `chunks` chunks.
#[track_caller]
fn check(mut plan: Plan, chunks: u32, expected: Expect) {
    let mut log = String::new();
    for _ in 0..100 {
        if let Some(begin) = plan.to_begin() {
            let what = if begin.join { "join" } else { "begin" };
            log += &format!("{what} {} for {}\n", begin.baseline, shown(&begin.sinks));
            plan.begun(&begin, true);
        } else if let Some(step) = plan.next() {
            let again = if step.stored { " again" } else { "" };
            log += &format!("read {}.{}{again} for {}\n", step.baseline, step.chunk, shown(&step.sinks));
            let last = step.chunk >= chunks;
            plan.stored(step.baseline, step.chunk, last);
            let last = plan.baselines[&step.baseline].last && plan.baselines[&step.baseline].chunks == step.chunk;
            plan.delivered(&step.sinks, ChunkProgress { baseline: step.baseline, chunk: step.chunk, done: last });
        }
    }
    assert!(plan.is_done());
    expected.assert_eq(&log);
}

#[test]
fn the_first_start_reads_for_all_sinks_at_once() {
    check(
        plan(&[("hot", None), ("lake", None)], &[]),
        2,
        expect![[r#"
        begin 1 for hot lake
        read 1.1 for hot lake
        read 1.2 for hot lake
    "#]],
    );
}

#[test]
fn after_a_kill_between_two_sinks_the_one_that_lacks_chunks_gets_them_again() {
    let both = &["hot", "lake"];
    check(
        plan(&[("hot", at(1, 3)), ("lake", at(1, 1))], &[(1, stored(both, 4, false))]),
        5,
        expect![[r#"
        read 1.2 again for lake
        read 1.3 again for lake
        read 1.4 again for hot lake
        read 1.5 for hot lake
    "#]],
    );
    check(
        plan(&[("hot", done(1, 2)), ("lake", at(1, 1))], &[(1, stored(both, 2, true))]),
        2,
        expect![[r#"
        read 1.2 again for lake
    "#]],
    );
    check(
        plan(&[("hot", done(1, 1)), ("lake", None)], &[(1, stored(both, 1, true))]),
        1,
        expect![[r#"
        read 1.1 again for lake
    "#]],
    );
}

#[test]
fn a_sink_added_later_has_a_baseline_of_its_own() {
    check(
        plan(&[("hot", done(1, 2)), ("lake", None)], &[(1, stored(&["hot"], 2, true))]),
        2,
        expect![[r#"
        begin 2 for lake
        read 2.1 for lake
        read 2.2 for lake
    "#]],
    );
    // The same holds if the source no longer knows the first baseline.
    check(
        plan(&[("hot", done(1, 2)), ("lake", None)], &[]),
        1,
        expect![[r#"
        begin 2 for lake
        read 2.1 for lake
    "#]],
    );
}

#[test]
fn a_sink_added_while_a_baseline_runs_joins_it() {
    check(
        plan(&[("hot", at(1, 2)), ("lake", None)], &[(1, stored(&["hot"], 2, false))]),
        3,
        expect![[r#"
        join 1 for lake
        read 1.1 again for lake
        read 1.2 again for lake
        read 1.3 for hot lake
    "#]],
    );
}

#[test]
fn a_baseline_by_ctid_is_not_joined() {
    let by_ctid = StoredBaseline { by_key: false, ..stored(&["hot"], 2, false) };
    check(
        plan(&[("hot", at(1, 2)), ("lake", None)], &[(1, by_ctid)]),
        3,
        expect![[r#"
            begin 2 for lake
            read 1.3 for hot
            read 2.1 for lake
            read 2.2 for lake
            read 2.3 for lake
        "#]],
    );
}

#[test]
fn who_has_nothing_does_not_rely_on_the_end_of_a_last_chunk() {
    check(
        plan(&[("hot", done(1, 2)), ("lake", None)], &[(1, stored(&["hot", "lake"], 2, true))]),
        2,
        expect![[r#"
        begin 2 for lake
        read 2.1 for lake
        read 2.2 for lake
    "#]],
    );
}

#[test]
fn lost_bounds_begin_a_new_baseline_for_who_needs_them() {
    let both = &["hot", "lake"];
    check(
        plan(&[("hot", at(1, 7)), ("lake", at(1, 5))], &[(1, stored(both, 6, false))]),
        7,
        expect![[r#"
        begin 2 for hot
        read 1.6 again for lake
        read 1.7 for lake
        read 2.1 for hot
        read 2.2 for hot
        read 2.3 for hot
        read 2.4 for hot
        read 2.5 for hot
        read 2.6 for hot
        read 2.7 for hot
    "#]],
    );
    check(
        plan(&[("hot", at(3, 1))], &[]),
        1,
        expect![[r#"
        begin 4 for hot
        read 4.1 for hot
    "#]],
    );
}

#[test]
fn a_new_baseline_that_was_begun_goes_before_an_older_one() {
    let mut plan = plan(&[("hot", at(1, 2)), ("lake", done(1, 3))], &[(1, stored(&["hot", "lake"], 3, true))]);
    let begin = plan.instead_of(1);
    assert_eq!((begin.baseline, shown(&begin.sinks)), (2, "hot".to_string()));
    plan.begun(&begin, true);
    let begin = plan.anew();
    assert_eq!((begin.baseline, shown(&begin.sinks)), (3, "hot lake".to_string()));
    plan.begun(&begin, true);
    check(
        plan,
        1,
        expect![[r#"
        read 3.1 for hot lake
    "#]],
    );
}

/// What one sink has, both durable and not.
#[derive(Clone, Debug, Default)]
struct Sink {
    taken: Vec<ChunkProgress>,
    durable: usize,
}

#[derive(Clone, Debug)]
enum Deed {
    Step,
    /// The sink with this number makes so many chunks durable.
    Flush(usize, usize),
    Kill,
    /// One more sink is configured; it takes effect after a kill.
    Add,
    /// The bounds of the current baseline no longer serve.
    Restart,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        8 => Just(Deed::Step),
        4 => (0..3usize, 1..4usize).prop_map(|(sink, chunks)| Deed::Flush(sink, chunks)),
        2 => Just(Deed::Kill),
        1 => Just(Deed::Add),
        1 => Just(Deed::Restart),
    ];
    prop::collection::vec(deed, 0..120)
}

proptest! {
    /// Whenever the process is killed: in each sink the chunks of a baseline follow one another without gap or repeat,
    /// and in the end each sink has one whole baseline.
    #[test]
    fn each_sink_has_each_chunk_once(deeds in deeds(), chunks in 1..6u32) {
        let mut sinks = vec![Sink::default()];
        let mut baselines: BTreeMap<u32, StoredBaseline> = BTreeMap::new();
        let names = ["a", "b", "c"].map(name);
        let progress = |sinks: &Vec<Sink>| {
            names.iter().cloned().zip(sinks.iter().map(|sink| sink.taken.last().copied())).collect::<BTreeMap<_, _>>()
        };
        let mut plan = Plan::new(progress(&sinks), baselines.clone());
        let finish = std::iter::repeat_n(Deed::Step, 200);
        for deed in deeds.into_iter().chain(finish) {
            match deed {
                Deed::Step => {
                    if let Some(begin) = plan.to_begin() {
                        let store = baselines.entry(begin.baseline).or_default();
                        store.sinks.extend(begin.sinks.iter().cloned());
                        store.by_key = true;
                        plan.begun(&begin, true);
                    } else if let Some(step) = plan.next() {
                        let store = baselines.get_mut(&step.baseline).unwrap();
                        prop_assert_eq!(step.stored, store.chunks >= step.chunk);
                        if !step.stored {
                            prop_assert!(store.chunks + 1 == step.chunk && !store.last);
                            store.chunks = step.chunk;
                            store.last = step.chunk == chunks;
                        }
                        let last = store.last && store.chunks == step.chunk;
                        plan.stored(step.baseline, step.chunk, last);
                        let progress = ChunkProgress { baseline: step.baseline, chunk: step.chunk, done: last };
                        plan.delivered(&step.sinks, progress);
                        for sink in &step.sinks {
                            let sink = &mut sinks[names.iter().position(|name| name == sink).unwrap()];
                            let before = sink.taken.last().filter(|before| before.baseline == step.baseline);
                            prop_assert_eq!(before.map_or(0, |before| before.chunk) + 1, step.chunk);
                            sink.taken.push(progress);
                        }
                    }
                }
                Deed::Flush(sink, more) => if let Some(sink) = sinks.get_mut(sink) {
                    sink.durable = sink.taken.len().min(sink.durable + more);
                },
                Deed::Kill => {
                    sinks.iter_mut().for_each(|sink| sink.taken.truncate(sink.durable));
                    plan = Plan::new(progress(&sinks), baselines.clone());
                }
                Deed::Add => if sinks.len() < names.len() {
                    sinks.push(Sink::default());
                },
                Deed::Restart => if let Some(step) = plan.next() {
                    let begin = plan.instead_of(step.baseline);
                    baselines.entry(begin.baseline).or_default().sinks.extend(begin.sinks.iter().cloned());
                    plan.begun(&begin, true);
                },
            }
        }
        prop_assert!(plan.is_done());
        for sink in sinks.iter().take(plan.sinks.len()) {
            prop_assert!(sink.taken.last().unwrap().done);
        }
    }
}
