//! The steps that take a month out: [`Archiver`].

use std::collections::BTreeMap;

use audit_core::position::Micros;
use audit_core::rules::Rules;
use audit_history::compare::{Compared, Difference, compare};
use audit_history::{Selection, Store, StoreError};
use audit_hot::{Archive, Archived, HotReader, Partition, ReadError, State};
use audit_lake::LakeReader;
use serde_json::{Value, json};

use crate::due::{Due, due, undue};

/// The version of the canonical record by which months are compared.
const FORM: u32 = 1;

/// The reason why a month could not be taken out.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Hot(#[from] ReadError),
    /// The partition cannot be proved by this source alone.
    #[error("partition {partition} holds versions of source {source_name} too")]
    OtherSource { partition: String, source_name: String },
    #[error("lake {lake} has no checkpoint yet: it was never written to")]
    NoLake { lake: String },
}

impl ArchiveError {
    pub fn hint(&self) -> Option<String> {
        match self {
            ArchiveError::Store(error) => error.hint(),
            ArchiveError::Hot(error) => error.hint(),
            ArchiveError::OtherSource { .. } => Some(
                "a month can leave where one source has the hot tables for itself: give each a database".to_owned(),
            ),
            ArchiveError::NoLake { .. } => Some("months leave the hot tables only to a lake that has them".to_owned()),
        }
    }
}

/// What a month holds: the number of versions of each captured table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    pub tables: BTreeMap<String, u64>,
}

impl Proof {
    pub fn versions(&self) -> u64 {
        self.tables.values().sum()
    }

    fn note(&self, lake: &str) -> Value {
        json!({"lake": lake, "form": FORM, "tables": self.tables})
    }
}

/// What the comparison of a month found.
#[derive(Debug)]
pub enum Finding {
    Equal(Proof),
    /// The lake tells something else of a table. It may only be behind.
    Different {
        table: String,
        differences: Vec<Difference>,
        behind: bool,
    },
}

/// Takes months of one source out of its hot tables.
pub struct Archiver {
    pub source: String,
    /// The name of the hot sink, and a session that may read its tables.
    pub hot: (String, HotReader),
    /// The name of the lake, and its reader.
    pub lake: (String, LakeReader),
    /// A session of a role that may take months out.
    pub archive: Archive,
    /// The user of the operating system, which is recorded.
    pub user: String,
}

impl Archiver {
    /// The captured tables that have versions in a month, with how many.
    ///
    /// # Errors
    /// Fails if the hot database cannot be read, or if another source has versions in the partition.
    pub async fn tables(&self, partition: &Partition) -> Result<Proof, ArchiveError> {
        let mut tables = BTreeMap::new();
        for (source, table, count) in self.hot.1.counts(partition).await? {
            if source != self.source {
                let partition = partition.name.clone();
                return Err(ArchiveError::OtherSource { partition, source_name: source });
            }
            tables.insert(table, count);
        }
        Ok(Proof { tables })
    }

    /// Whether a month may leave. Those that no rule can let go yet are not read.
    ///
    /// # Errors
    /// Fails if the hot database cannot be read, or if another source has versions in the partition.
    pub async fn due(&self, rules: &Rules, partition: &Partition, now: Micros) -> Result<Due, ArchiveError> {
        if let Some(early) = undue(rules, partition.to, now) {
            return Ok(early);
        }
        let tables: Vec<String> = self.tables(partition).await?.tables.into_keys().collect();
        Ok(due(rules, &tables, partition.to, now))
    }

    /// Compares each version of a month with the lake.
    ///
    /// # Errors
    /// Fails if a store cannot be read.
    pub async fn compare(&self, partition: &Partition) -> Result<Finding, ArchiveError> {
        self.hot.1.pin(&self.source).await?;
        let found = self.compare_pinned(partition).await;
        self.hot.1.unpin().await?;
        found
    }

    async fn compare_pinned(&self, partition: &Partition) -> Result<Finding, ArchiveError> {
        let proof = self.tables(partition).await?;
        let (hot, lake) = (Store::Hot(self.hot.1.clone()), Store::Lake(self.lake.1.clone()));
        let began = hot.head(&self.source, &self.hot.0).await?.and_then(|head| head.began);
        let Some(reached) = lake.head(&self.source, &self.lake.0).await? else {
            return Err(ArchiveError::NoLake { lake: self.lake.0.clone() });
        };
        for table in proof.tables.keys() {
            let (since, until) = (Some(partition.from), Some(partition.to));
            // The lake may have what was before the hot sink began. What another hot sink left in the tables is
            // from before, too, and it leaves with the others, so it is compared with them.
            let (source, tables) = (self.source.clone(), vec![table.clone()]);
            let held = audit_hot::Selection { source, tables, since, until, unattributed: false };
            let first = self.hot.1.first(&held).await?;
            let began = began.filter(|began| first.is_some_and(|first| first >= *began));
            let selection = Selection {
                source: self.source.clone(),
                table: table.clone(),
                since,
                until,
                unattributed: false,
                after: began.and_then(|began| began.previous()),
            };
            let Compared { differences, .. } = compare(&hot, &lake, &selection, rand::random()).await?;
            if let Some(first) = differences.first() {
                let behind = first.position >= reached.end();
                return Ok(Finding::Different { table: table.clone(), differences, behind });
            }
        }
        Ok(Finding::Equal(proof))
    }

    /// Notes that a month was proved, takes it out, and returns the number under which it is kept. If a version came
    /// meanwhile, the month is put back.
    ///
    /// # Errors
    /// Fails if the partition has other versions by now, or if readers leave no moment for it.
    pub async fn take_out(&self, partition: &Partition, proof: &Proof) -> Result<i64, ArchiveError> {
        let note = proof.note(&self.lake.0);
        let id = self.archive.prove(&self.source, &partition.name, proof.versions(), &note, &self.user).await?;
        self.archive.detach(id).await?;
        match self.archive.verify(id).await {
            Ok(()) => Ok(id),
            Err(error) => {
                self.archive.attach(id).await?;
                Err(error.into())
            }
        }
    }

    /// Drops what is wanted of what was taken out and whose time of grace is over, and returns it, each with what became of it: a
    /// partition that does not hold what was proved stays, and keeps no other one.
    ///
    /// # Errors
    /// Fails if it cannot be read what was taken out.
    pub async fn drop_old(
        &self,
        now: Micros,
        wanted: impl Fn(&Archived) -> bool,
    ) -> Result<Vec<(Archived, Result<(), ArchiveError>)>, ArchiveError> {
        let mut tried = Vec::new();
        for archived in self.archive.list(&self.source).await? {
            let over = archived.keep_until.is_some_and(|until| until <= now);
            if archived.state == State::Detached && over && wanted(&archived) {
                let dropped = self.archive.drop(archived.id).await;
                tried.push((archived, dropped.map_err(ArchiveError::from)));
            }
        }
        Ok(tried)
    }
}
