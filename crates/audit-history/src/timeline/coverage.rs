//! What an answer covers: [`Coverage`].

use std::fmt;

use audit_core::position::{Lsn, Position};
use audit_core::stored::Record;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::{Tier, Timeline};
use crate::export::GAPS;
use crate::store::{Head, Selection, StoreError};

/// Maximum number of gaps that are listed.
const GAPS_MAX: usize = 100;

/// What an answer covers, and what it lacks.
#[derive(Clone, Debug, Serialize)]
pub struct Coverage {
    /// Nothing at or before it is missing, except what `lacks` names; nothing after it is shown.
    pub head: Option<Position>,
    /// The sinks that were read, in the order in which they were asked.
    pub sinks: Vec<Reached>,
    pub complete: bool,
    /// What is missing, each as a clause.
    pub lacks: Vec<String>,
    /// The lost stretches of WAL that no sink is known to have.
    pub gaps: Vec<Gap>,
}

/// How far a sink is.
#[derive(Clone, Debug, Serialize)]
pub struct Reached {
    pub sink: String,
    /// The last position of which it is known that its transaction is finished.
    pub head: Option<Position>,
    /// The position from which on it has every version, if that is known.
    pub since: Option<Position>,
    /// Whether another sink is further.
    pub behind: bool,
}

/// A lost stretch of WAL.
#[derive(Clone, Debug, Serialize)]
pub struct Gap {
    pub position: Position,
    pub committed_at: String,
}

/// What a `gap` record says.
#[derive(Deserialize)]
struct Note {
    #[serde(default)]
    lost: Vec<Lost>,
}

#[derive(Deserialize)]
struct Lost {
    sink: String,
    from: Lsn,
}

impl Timeline {
    /// Tells what answers cover.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn coverage(&self, source: &str) -> Result<Coverage, StoreError> {
        let head = self.head().and_then(|head| head.end().previous());
        let gaps = self.gaps(source).await?;
        let mut lacks = Vec::new();
        if head.is_none() {
            lacks.push("no sink has written anything yet".to_owned());
        }
        lacks.extend(self.hole());
        match gaps.len() {
            0 => {}
            1 => lacks.push("changes were lost in a gap".to_owned()),
            GAPS_MAX => lacks.push(format!("changes were lost in {GAPS_MAX} gaps or more")),
            several => lacks.push(format!("changes were lost in {several} gaps")),
        }
        let end = self.head().map(Head::end);
        let sinks = self.tiers.iter().map(|tier| tier.reached(end)).collect();
        Ok(Coverage { head, sinks, complete: lacks.is_empty(), lacks, gaps })
    }

    /// What lies between the end of one store and the beginning of the next.
    pub(crate) fn hole(&self) -> Option<String> {
        let heads: Vec<&Head> = self.tiers.iter().filter_map(|tier| tier.head.as_ref()).collect();
        let [hot, lake] = heads.as_slice() else { return None };
        let began = hot.began.filter(|began| lake.end() < *began)?;
        Some(format!("no sink has what lies between {} and {began}", lake.end()))
    }

    async fn gaps(&self, source: &str) -> Result<Vec<Gap>, StoreError> {
        if !self.tables(source).await?.iter().any(|table| table == GAPS) {
            return Ok(Vec::new());
        }
        let selection = Selection {
            source: source.to_owned(),
            table: GAPS.to_owned(),
            since: None,
            until: None,
            unattributed: false,
            after: None,
        };
        let gaps = self.versions(&selection).await?;
        let open = gaps.try_filter(|record| std::future::ready(!self.is_elsewhere(record)));
        let gap = |record: Record| Gap { position: record.position, committed_at: record.committed_at.to_string() };
        open.map_ok(gap).take(GAPS_MAX).try_collect().await
    }

    /// Whether a store is known to have what others lost: it did not lose it, and it began before.
    fn is_elsewhere(&self, gap: &Record) -> bool {
        let note = gap.context.as_deref().and_then(|context| serde_json::from_str::<Note>(context.get()).ok());
        let Some(Note { lost }) = note else { return false };
        let Some(first) = lost.iter().map(|lost| lost.from).min() else { return false };
        self.tiers.iter().any(|tier| {
            let began = tier.head.as_ref().and_then(|head| head.began);
            let before = began.is_some_and(|began| (began.epoch, began.commit_lsn) <= (gap.position.epoch, first));
            before && lost.iter().all(|lost| *lost.sink != *tier.sink)
        })
    }
}

impl Coverage {
    /// What an answer covers that shows nothing after `head`.
    pub fn up_to(mut self, head: Position) -> Coverage {
        if self.head.is_none_or(|last| last < head) {
            self.lacks.push(format!("no sink has reached {head}"));
            self.complete = false;
            return self;
        }
        Coverage { head: Some(head), ..self }
    }
}

impl Tier {
    fn reached(&self, end: Option<Position>) -> Reached {
        let own = self.head.as_ref().map(Head::end);
        Reached {
            sink: self.sink.to_string(),
            head: own.and_then(Position::previous),
            since: self.head.as_ref().and_then(|head| head.began),
            behind: own < end,
        }
    }
}

/// One line for people.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sinks: Vec<&str> = self.sinks.iter().map(|reached| reached.sink.as_str()).collect();
        write!(f, "from {}", sinks.join(" + "))?;
        if let Some(head) = self.head {
            write!(f, " · up to {head}")?;
        }
        for reached in self.sinks.iter().filter(|reached| reached.behind) {
            match reached.head {
                Some(head) => write!(f, " · {} is only at {head}", reached.sink)?,
                None => write!(f, " · {} has nothing yet", reached.sink)?,
            }
        }
        match self.complete {
            true => f.write_str(" · complete"),
            false => write!(f, " · incomplete: {}", self.lacks.join("; ")),
        }
    }
}
