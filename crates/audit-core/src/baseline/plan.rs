//! What has to be read next of a table, and for which sinks: [`Plan`].
//!
//! Two stores know something. Each sink knows its own progress, stored with its data. `cdc_audit.chunks` in the source
//! knows which baselines were begun for which sinks, and the bounds of every chunk from before it was first delivered.
//! From these two follows, after any kill, what each sink lacks, and nothing else has to be remembered:
//!
//! - a chunk that one sink has and another lacks is read again within its bounds, for the one that lacks it;
//! - a sink that has nothing of a table gets a baseline with a number of its own, or joins the latest one if the last
//!   chunk of that one is not known yet;
//! - if bounds are lost or no longer fit, the sinks concerned begin again under a new number. Sinks that are further
//!   are not touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::sink::ChunkProgress;

/// What the source has stored of one baseline of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredBaseline {
    /// The sinks that it was begun for.
    pub sinks: BTreeSet<Arc<str>>,
    /// The bounds of chunks 1 up to this number are stored.
    pub chunks: u32,
    /// No chunk follows those.
    pub last: bool,
    /// Whether a sink whose stream began later may join. Chunks that are read by key contain whatever is there when
    /// they are read. Chunks that are read by ctid skip rows that are younger than the baseline, because the stream has
    /// them, so a sink's stream must be at least as old as the baseline.
    pub by_key: bool,
}

/// A baseline to begin, or to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    pub baseline: u32,
    pub sinks: BTreeSet<Arc<str>>,
    /// The baseline exists already, and only the sinks are new to it.
    pub join: bool,
}

/// A chunk to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub baseline: u32,
    /// Counts from 1.
    pub chunk: u32,
    pub sinks: BTreeSet<Arc<str>>,
    /// Its bounds are stored and still hold.
    pub stored: bool,
}

/// The plan for one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    sinks: BTreeMap<Arc<str>, Option<ChunkProgress>>,
    baselines: BTreeMap<u32, StoredBaseline>,
}

/// How far a sink is.
enum Stands {
    Done,
    /// It is in this baseline, and this chunk is next.
    At(u32, u32),
    /// It has nothing that it could continue from.
    Lacks,
}

impl Plan {
    /// `sinks` are all the sinks that want the table, with the progress of each.
    pub fn new(sinks: BTreeMap<Arc<str>, Option<ChunkProgress>>, baselines: BTreeMap<u32, StoredBaseline>) -> Plan {
        Plan { sinks, baselines }
    }

    /// Whether every sink has a whole baseline, and none that was requested later is unfinished.
    pub fn is_done(&self) -> bool {
        self.sinks.iter().all(|(sink, progress)| matches!(self.stands(sink, *progress), Stands::Done))
    }

    /// The baseline that has to be begun before anything is read.
    pub fn to_begin(&self) -> Option<Begin> {
        let lacks = |(sink, progress): &(&Arc<str>, &Option<ChunkProgress>)| {
            matches!(self.stands(sink, **progress), Stands::Lacks)
        };
        let sinks: BTreeSet<Arc<str>> = self.sinks.iter().filter(lacks).map(|(sink, _)| sink.clone()).collect();
        if sinks.is_empty() {
            return None;
        }
        Some(match self.baselines.last_key_value() {
            // Sinks that were already named in it and cannot continue in it need another one.
            Some((baseline, latest)) if latest.by_key && !latest.last && latest.sinks.is_disjoint(&sinks) => {
                Begin { baseline: *baseline, sinks, join: true }
            }
            _ => Begin { baseline: self.next_number(), sinks, join: false },
        })
    }

    /// A new baseline in place of `baseline`, whose bounds no longer serve, for all sinks that are in the middle of it.
    pub fn instead_of(&self, baseline: u32) -> Begin {
        let at = |(sink, progress): &(&Arc<str>, &Option<ChunkProgress>)| matches!(self.stands(sink, **progress), Stands::At(at, _) if at == baseline);
        let sinks = self.sinks.iter().filter(at).map(|(sink, _)| sink.clone()).collect();
        Begin { baseline: self.next_number(), sinks, join: false }
    }

    /// A new baseline for every sink, whatever it has.
    pub fn anew(&self) -> Begin {
        self.new_for(self.sinks.keys().cloned().collect())
    }

    /// A new baseline for these sinks, whatever they have.
    pub fn new_for(&self, sinks: BTreeSet<Arc<str>>) -> Begin {
        Begin { baseline: self.next_number(), sinks, join: false }
    }

    /// The next chunk: the earliest one that a sink lacks, for all sinks that lack it next. `None` if nothing can be
    /// read before [`Plan::to_begin`] is done, or nothing at all.
    pub fn next(&self) -> Option<Step> {
        let at = |(sink, progress): (&Arc<str>, &Option<ChunkProgress>)| match self.stands(sink, *progress) {
            Stands::At(baseline, chunk) => Some(((baseline, chunk), sink.clone())),
            Stands::Done | Stands::Lacks => None,
        };
        let stand: Vec<((u32, u32), Arc<str>)> = self.sinks.iter().filter_map(at).collect();
        let next = stand.iter().map(|(at, _)| *at).min()?;
        let sinks = stand.into_iter().filter(|(at, _)| *at == next).map(|(_, sink)| sink).collect();
        let (baseline, chunk) = next;
        let stored = self.baselines.get(&baseline).is_some_and(|stored| stored.chunks >= chunk);
        Some(Step { baseline, chunk, sinks, stored })
    }

    /// Notes that the baseline is in the source's store.
    pub fn begun(&mut self, begin: &Begin, by_key: bool) {
        let stored = self.baselines.entry(begin.baseline).or_default();
        stored.sinks.extend(begin.sinks.iter().cloned());
        stored.by_key = by_key;
    }

    /// Notes that the bounds of a chunk are in the source's store.
    pub fn stored(&mut self, baseline: u32, chunk: u32, last: bool) {
        let stored = self.baselines.entry(baseline).or_default();
        if chunk > stored.chunks {
            stored.chunks = chunk;
            stored.last = last;
        }
    }

    /// Notes that the sinks have the chunk, or will have it before anything that follows.
    pub fn delivered(&mut self, sinks: &BTreeSet<Arc<str>>, progress: ChunkProgress) {
        for sink in sinks {
            self.sinks.insert(sink.clone(), Some(progress));
        }
    }

    /// Notes that the stream gave these sinks every row of the table: they want no baseline with a number up to this
    /// one.
    pub fn streamed(&mut self, sinks: &BTreeSet<Arc<str>>, baseline: u32) {
        for (sink, progress) in &mut self.sinks {
            if sinks.contains(sink) && progress.is_none_or(|progress| progress.baseline < baseline) {
                *progress = Some(ChunkProgress { baseline, chunk: 0, done: true });
            }
        }
    }

    /// The sinks that want the table.
    pub fn sinks(&self) -> impl Iterator<Item = &Arc<str>> {
        self.sinks.keys()
    }

    /// The progress that a sink has made, or will have made before anything that follows.
    pub fn progress(&self, sink: &str) -> Option<ChunkProgress> {
        self.sinks.get(sink).copied().flatten()
    }

    /// The number of a baseline that begins now.
    pub fn next_number(&self) -> u32 {
        let of_sinks = self.sinks.values().flatten().map(|progress| progress.baseline).max();
        let stored = self.baselines.keys().max().copied();
        of_sinks.max(stored).unwrap_or(0).saturating_add(1)
    }

    fn stands(&self, sink: &Arc<str>, progress: Option<ChunkProgress>) -> Stands {
        let named = self.baselines.iter().rev().find(|(_, stored)| stored.sinks.contains(sink));
        match (named, progress) {
            (Some((baseline, stored)), progress) if progress.is_none_or(|progress| progress.baseline < *baseline) => {
                // The upper bound of a last chunk is the last row that existed then, so a sink that has seen nothing of
                // the baseline may not rely on it. If the last chunk is also the first, it has no upper bound, and
                // reading it again costs only that chunk.
                if stored.last && stored.chunks > 1 { Stands::Lacks } else { Stands::At(*baseline, 1) }
            }
            (_, Some(progress)) if progress.done => Stands::Done,
            (_, Some(progress)) => match self.baselines.get(&progress.baseline) {
                // Chunks follow one another: the next one begins at the bounds of the last one that the sink has.
                Some(stored) if stored.chunks > progress.chunk || (stored.chunks == progress.chunk && !stored.last) => {
                    Stands::At(progress.baseline, progress.chunk + 1)
                }
                _ => Stands::Lacks,
            },
            (_, None) => Stands::Lacks,
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
