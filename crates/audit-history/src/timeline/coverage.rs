//! What an answer covers: [`Coverage`].

use std::fmt;

use audit_core::position::{Lsn, Micros, Position, Window};
use audit_core::stored::Record;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize, Serializer};

use super::{Absence, Tier, Timeline};
use crate::store::{GAPS, Head, Selection, StoreError};

/// Maximum number of gaps that are listed.
const GAPS_MAX: usize = 100;

/// What an answer covers, and what it lacks.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Coverage {
    /// Nothing at or before it is missing, except what `lacks` names; nothing after it is shown.
    pub head: Option<Position>,
    /// The sinks that were read, in the order in which they were asked.
    pub sinks: Vec<Reached>,
    pub complete: bool,
    /// What is missing, each as a clause.
    pub lacks: Vec<String>,
    /// The lost stretches of WAL that no sink is known to have, and in which something of the span may have been lost.
    pub gaps: Vec<Gap>,
    /// The span of commit times that was asked for.
    #[serde(flatten)]
    pub span: Span,
    /// The sink whose first version of the row counts as version 1, where others that may have earlier ones were not
    /// read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numbered_from: Option<String>,
}

/// A span of commit times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Inclusive.
    #[serde(serialize_with = "time")]
    pub since: Option<Micros>,
    /// Exclusive.
    #[serde(serialize_with = "time")]
    pub until: Option<Micros>,
}

fn time<S: Serializer>(at: &Option<Micros>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(|at| at.to_string()).serialize(serializer)
}

/// How far a sink is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl Note {
    fn of(gap: &Record) -> Option<Note> {
        gap.context.as_deref().and_then(|context| serde_json::from_str(context.get()).ok())
    }

    /// Where the first lost stretch begins.
    fn first(&self) -> Option<Lsn> {
        self.lost.iter().map(|lost| lost.from).min()
    }
}

impl Absence {
    /// What an answer lacks without the sink.
    fn lacks(&self, sink: &str) -> Option<String> {
        match self {
            Absence::NotAsked => None,
            Absence::Apart => Some(format!(
                "{sink} was not read, because sinks that keep tenants apart are read one at a time: --from {sink} reads it"
            )),
            Absence::Unreadable(why) => Some(format!("{sink} could not be read: {why}")),
        }
    }
}

impl Timeline {
    /// Tells what answers cover.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn coverage(&self, source: &str) -> Result<Coverage, StoreError> {
        self.coverage_of(source, Span::default()).await
    }

    /// Tells what answers about a span of commit times cover.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn coverage_of(&self, source: &str, span: Span) -> Result<Coverage, StoreError> {
        let head = self.last();
        let gaps = self.gaps(source, span).await?;
        let mut lacks: Vec<String> = self.absent.iter().filter_map(|(sink, why)| why.lacks(sink)).collect();
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
        let sinks = self.reached();
        Ok(Coverage { head, sinks, complete: lacks.is_empty(), lacks, gaps, span, numbered_from: None })
    }

    /// How far each sink is that is read.
    pub fn reached(&self) -> Vec<Reached> {
        let end = self.end();
        self.tiers.iter().map(|tier| tier.reached(end)).collect()
    }

    /// What lies between the end of one store and the beginning of the next.
    pub(crate) fn hole(&self) -> Option<String> {
        let begun: Vec<(&Head, Position)> =
            self.tiers.iter().filter_map(|tier| Some((tier.head.as_ref()?, tier.end))).collect();
        let [(hot, _), (_, end)] = begun.as_slice() else { return None };
        let began = hot.began.filter(|began| end < began)?;
        Some(format!("no sink has what lies between {end} and {began}"))
    }

    async fn gaps(&self, source: &str, span: Span) -> Result<Vec<Gap>, StoreError> {
        if !self.tables(source).await?.iter().any(|table| table == GAPS) {
            return Ok(Vec::new());
        }
        let selection = Selection {
            source: source.to_owned(),
            table: GAPS.to_owned(),
            // What was lost was committed before its gap was noticed.
            since: span.since,
            until: None,
            unattributed: false,
            after: None,
        };
        let tables = self.tables(source).await?;
        let mut recorded = self.versions(&selection).await?;
        let mut gaps = Vec::new();
        while let Some(record) = recorded.try_next().await? {
            if gaps.len() < GAPS_MAX
                && !self.is_elsewhere(&record)
                && !self.is_later(source, &tables, span, &record).await?
            {
                gaps.push(Gap { position: record.position, committed_at: record.committed_at.to_string() });
            }
        }
        Ok(gaps)
    }

    /// Whether a gap lies after the span: something before it was committed when the span had ended.
    async fn is_later(&self, source: &str, tables: &[String], span: Span, gap: &Record) -> Result<bool, StoreError> {
        let Some(until) = span.until else { return Ok(false) };
        let lost = Note::of(gap).and_then(|note| note.first());
        let Some(first) = lost else { return Ok(false) };
        let before = Window { from: None, to: Some(Position::new(gap.position.epoch, first, 0)) };
        Ok(self.within(before).newest(source, tables, Some(until)).await?.is_some())
    }

    /// Whether a store is known to have what others lost: it did not lose it, and it began before.
    fn is_elsewhere(&self, gap: &Record) -> bool {
        let Some(note) = Note::of(gap) else { return false };
        let Some(first) = note.first() else { return false };
        self.tiers.iter().any(|tier| {
            let began = tier.head.as_ref().and_then(|head| head.began);
            let before = began.is_some_and(|began| (began.epoch, began.commit_lsn) <= (gap.position.epoch, first));
            before && note.lost.iter().all(|lost| *lost.sink != *tier.sink)
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
        let own = self.head.as_ref().map(|_| self.end);
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
        if let Some(sink) = &self.numbered_from {
            write!(f, " · versions are numbered from the first one that {sink} has")?;
        }
        match self.complete {
            true => f.write_str(" · complete"),
            false => write!(f, " · incomplete: {}", self.lacks.join("; ")),
        }
    }
}
