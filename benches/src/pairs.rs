//! One workload: every variant on copies of the same slot, in alternating order, until each gate is decided.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::process::Cost;
use crate::report::{Gate, Report, Run};
use crate::stats::Median;
use crate::variant::{Bench, Variant};
use crate::workload::{Kind, Prepared, Table, Workload};

/// A rate of one variant divided by another's, in the same pair.
#[derive(Clone, Copy, Debug)]
struct Goal {
    variant: Variant,
    against: Variant,
    gate: Option<f64>,
}

/// More pairs than this decide nothing any more.
const PAIRS_MAX: usize = 11;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub pairs: usize,
    /// No further pairs for an undecided gate after this.
    pub until: Option<Instant>,
}

/// What `limits.md` demands, by workload; where variants are named, of those only.
fn goals(workload: Workload, only: &[String]) -> Vec<Goal> {
    let mut goals = all_goals(workload);
    goals.retain(|goal| only.is_empty() || only.iter().any(|only| only == goal.variant.name()));
    goals
}

fn all_goals(workload: Workload) -> Vec<Goal> {
    use Variant::{
        All, BareCopy, Both, Debezium, Hot, Kafka, KafkaDebezium, Lake, LakeS3, NoSink, Producer, Reference,
    };
    let goal = |variant, against, gate| Goal { variant, against, gate };
    let no_sink = |gate| goal(NoSink, Reference, gate);
    match (workload.table, workload.kind) {
        (Table::Narrow, Kind::A | Kind::C) => vec![no_sink(Some(1.7))],
        (Table::Narrow, Kind::B) => {
            vec![
                no_sink(Some(1.7)),
                goal(Lake, Reference, Some(1.0)),
                goal(Both, Reference, Some(0.6)),
                goal(Kafka, Producer, None),
                // 1.0, or 0.8 of librdkafka's own benchmark, whichever is lower: see `gate`.
                goal(Kafka, Reference, Some(1.0)),
                goal(LakeS3, Lake, Some(0.8)),
                goal(All, Reference, None),
                goal(KafkaDebezium, Reference, None),
                goal(KafkaDebezium, Debezium, Some(5.0)),
            ]
        }
        (_, Kind::D) => vec![no_sink(Some(1.4))],
        (Table::Wide, Kind::A) => vec![no_sink(None)],
        (Table::Wide, Kind::B) => vec![
            no_sink(Some(1.1)),
            goal(Lake, Reference, Some(0.9)),
            goal(Hot, BareCopy, Some(0.85)),
            goal(Both, Reference, Some(0.4)),
            goal(Kafka, Producer, None),
            goal(Kafka, Reference, None),
            goal(LakeS3, Lake, Some(0.8)),
            goal(All, Reference, None),
            goal(KafkaDebezium, Reference, None),
            goal(KafkaDebezium, Debezium, Some(5.0)),
        ],
        (Table::Wide, Kind::C) => vec![
            no_sink(Some(1.1)),
            goal(Hot, BareCopy, None),
            // 0.75, or 0.85 of a bare COPY, whichever is lower: see `lower_gate`.
            goal(Hot, Reference, Some(0.75)),
        ],
    }
}

/// One pair's times, by variant.
type Pair = HashMap<Variant, Cost>;

pub fn measure(
    bench: &Bench,
    prepared: &Prepared,
    only: &[String],
    patience: Patience,
    report: &mut Report,
) -> Result<()> {
    let goals = goals(prepared.workload, only);
    if goals.iter().any(|goal| goal.against == Variant::BareCopy) {
        bench.record(prepared)?;
    }
    if goals.iter().any(|goal| goal.against == Variant::Producer) {
        bench.size(prepared)?;
    }
    let mut pairs: Vec<Pair> = Vec::new();
    let mut set_aside = 0;
    let mut variants = variants(&goals);
    while !variants.is_empty() {
        let pair = one_pair(bench, prepared, &variants, pairs.len() + set_aside, report)?;
        // A busy machine is met with patience, but not for ever.
        if pair.values().any(Cost::is_disturbed) && set_aside < patience.pairs && patience.until.is_some() {
            set_aside += 1;
        } else {
            pairs.push(pair);
        }
        if pairs.len() >= patience.pairs {
            let may_go_on = pairs.len() < PAIRS_MAX && patience.until.is_some_and(|until| Instant::now() < until);
            let undecided = goals.iter().filter(|goal| may_go_on && is_undecided(goal, &pairs));
            variants = self::variants(&undecided.copied().collect::<Vec<_>>());
        }
    }
    conclude(bench, prepared.workload, &goals, &pairs, report);
    Ok(())
}

/// Those that the goals need, each once.
fn variants(goals: &[Goal]) -> Vec<Variant> {
    let mut variants = Vec::new();
    for variant in goals.iter().flat_map(|goal| [goal.against, goal.variant]) {
        if !variants.contains(&variant) {
            variants.push(variant);
        }
    }
    variants
}

fn one_pair(
    bench: &Bench,
    prepared: &Prepared,
    variants: &[Variant],
    number: usize,
    report: &mut Report,
) -> Result<Pair> {
    let mut order = variants.to_vec();
    if number % 2 == 1 {
        order.reverse();
    }
    let mut pair = Pair::new();
    for variant in order {
        let cost = bench.run(prepared, variant)?;
        report.run(Run {
            workload: prepared.workload.to_string(),
            variant: variant.name(),
            rows: prepared.workload.rows,
            pair: number,
            disturbed: cost.is_disturbed(),
            cost: cost.clone(),
        });
        pair.insert(variant, cost);
    }
    Ok(pair)
}

fn ratio(goal: &Goal, pairs: &[Pair]) -> Option<Median> {
    let ratios =
        pairs.iter().filter_map(|pair| Some(pair.get(&goal.against)?.seconds / pair.get(&goal.variant)?.seconds));
    Median::of(&ratios.collect::<Vec<_>>())
}

/// The goal's gate; against the reference at most a share of what is the best that could be: 0.85 of a bare COPY for hot with updates, 0.8
/// of librdkafka's own benchmark for Kafka.
fn gate(goal: &Goal, pairs: &[Pair]) -> Option<f64> {
    let (best, share) = match (goal.variant, goal.against) {
        (Variant::Hot, Variant::Reference) => (Variant::BareCopy, 0.85),
        (Variant::Kafka, Variant::Reference) => (Variant::Producer, 0.8),
        _ => return goal.gate,
    };
    let best = ratio(&Goal { variant: best, against: Variant::Reference, gate: None }, pairs);
    goal.gate.map(|gate| best.map_or(gate, |best| gate.min(share * best.value)))
}

fn is_undecided(goal: &Goal, pairs: &[Pair]) -> bool {
    gate(goal, pairs).zip(ratio(goal, pairs)).is_some_and(|(gate, ratio)| ratio.straddles(gate))
}

fn conclude(bench: &Bench, workload: Workload, goals: &[Goal], pairs: &[Pair], report: &mut Report) {
    for goal in goals {
        let Some(ratio) = ratio(goal, pairs) else { continue };
        let (name, unit) = match goal.against {
            Variant::BareCopy => (format!("{}, {workload}, of a bare COPY", goal.variant.name()), "x bare COPY"),
            Variant::Producer => {
                (format!("{}, {workload}, of rdkafka_performance", goal.variant.name()), "x rdkafka_performance")
            }
            Variant::Debezium => {
                beside_debezium(goal, workload, pairs, report);
                (format!("{}, {workload}, of Debezium", goal.variant.name()), "x Debezium")
            }
            Variant::Lake => (format!("{}, {workload}, of local disk", goal.variant.name()), "x lake"),
            _ => (format!("{}, {workload}", goal.variant.name()), "x pg_recvlogical"),
        };
        report.median(name, ratio, unit, gate(goal, pairs).map(Gate::AtLeast));
    }
    for variant in variants(goals) {
        let of = |value: &dyn Fn(&Cost) -> f64| -> Vec<f64> {
            pairs.iter().filter_map(|pair| pair.get(&variant)).map(value).collect()
        };
        let rows = workload.rows as f64;
        let mut median = |what: &str, unit, values: Vec<f64>| {
            if let Some(median) = Median::of(&values) {
                report.median(format!("{}, {workload}, {what}", variant.name()), median, unit, None);
            }
        };
        median("rate", "rows/s", of(&|cost| rows / cost.seconds));
        if variant.has_messages() && variant != Variant::KafkaDebezium {
            let megabytes = bench.message_bytes() as f64 * rows / 1e6;
            median("rate", "MB/s", of(&|cost| megabytes / cost.seconds));
        }
        median("CPU", "µs/row", of(&|cost| cost.cpu_seconds * 1e6 / rows));
        if !matches!(variant, Variant::BareCopy | Variant::Producer | Variant::Debezium) {
            median("walsender's CPU", "µs/row", of(&|cost| cost.walsender_cpu_seconds * 1e6 / rows));
        }
        if variant.has_hot() || variant == Variant::BareCopy {
            median("hot server's CPU", "µs/row", of(&|cost| cost.server_cpu_seconds * 1e6 / rows));
        }
        let peak = of(&|cost| cost.peak_bytes as f64 / MIB).into_iter().fold(0.0, f64::max);
        let gate = variant.is_daemon().then_some(Gate::AtMost(crate::workload::MEMORY_LIMIT_MIB as f64));
        report.value(format!("{}, {workload}, peak memory", variant.name()), peak, "MiB", gate);
    }
}

/// A tenth of Debezium's work for a row and of its memory is the goal.
fn beside_debezium(goal: &Goal, workload: Workload, pairs: &[Pair], report: &mut Report) {
    let cpu: fn(&Cost) -> f64 = |cost| cost.cpu_seconds;
    let memory: fn(&Cost) -> f64 = |cost| cost.peak_bytes as f64;
    for (what, of) in [("CPU", cpu), ("peak memory", memory)] {
        let ratios = pairs.iter().filter_map(|pair| Some(of(pair.get(&goal.variant)?) / of(pair.get(&goal.against)?)));
        if let Some(median) = Median::of(&ratios.collect::<Vec<_>>()) {
            let name = format!("{}, {workload}, {what}, of Debezium's", goal.variant.name());
            report.median(name, median, "x Debezium", Some(Gate::AtMost(0.1)));
        }
    }
}

const MIB: f64 = 1048576.0;

/// Where each of the workload's daemons spends its time.
pub fn profile(bench: &Bench, prepared: &Prepared, only: &[String], folder: &Path) -> Result<()> {
    for variant in variants(&goals(prepared.workload, only)).into_iter().filter(|variant| variant.is_daemon()) {
        bench.profile(prepared, variant, folder)?;
    }
    Ok(())
}
