//! A look at the source: which tables are published now, and what that means for their baselines.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use audit_core::baseline::Command;
use audit_core::baseline::plan::{Begin, Plan};
use audit_core::plan::chunk_rows;
use tokio::time::Instant;
use tokio_postgres::Client;
use tracing::info;

use super::super::SinkProgress;
use super::super::captured::{Captured, Since};
use super::super::describe::{describe, part_identity, part_of};
use super::super::error::BaselineError;
use super::super::listed::{self, Listed, Publishes, names_of};
use super::super::report::Phase;
use super::super::settle::{Standing, snapshot};
use super::super::store::{Baselines, Description, Kind, Store};
use super::super::work::Work;
use super::decide::{Asked, Facts, decide, reads_all};
use super::{LOOK_EVERY, OWN_SCHEMA, Runner, State, WAIT_MIN};
use crate::former_names;

/// What the source has stored about its tables.
pub(super) struct Known {
    captured: BTreeMap<Arc<str>, Captured>,
    /// The point in the past. If it is `None`, every table without a record is read.
    since: Option<Since>,
}

/// What has to be stored before anything is read.
#[derive(Default)]
struct Decided {
    captured: Vec<(Arc<str>, Captured)>,
    /// The baselines to request, each with its limit.
    asked: Vec<(Arc<str>, Begin, Vec<String>)>,
    /// The tables to work on, each with whether it has a key.
    works: Vec<(Box<Work>, bool)>,
    /// Tables of which every sink has everything that it wants.
    done: Vec<Arc<str>>,
    /// Baselines that every sink has completely.
    whole: Vec<(Arc<str>, u32)>,
}

impl Runner {
    /// Forgets the point from which on everything is captured, if one is stored.
    pub(super) async fn forget_since(&self) -> Result<(), BaselineError> {
        let client = self.shared.control.get().await?;
        match (Store { client: &client, source: &self.shared.source }).forget_since().await {
            // If the table does not exist, no point can have been stored for a stream that needs it.
            Err(BaselineError::Chunks { source }) if source.is_missing() => Ok(()),
            ended => ended,
        }
    }

    /// Finds tables that need a baseline and are not known yet, and forgets those that no longer exist.
    pub(super) async fn look(&mut self) -> Result<(), BaselineError> {
        self.looked_at = Instant::now();
        self.look_at = self.looked_at + LOOK_EVERY;
        let shared = self.shared.clone();
        let client = shared.control.get().await?;
        let settled = snapshot(&client).await?;
        let xmin = i64::try_from(settled.xmin()).unwrap_or(i64::MAX);
        shared.send(Command::Settled(settled)).await?;
        let publishes = listed::read_publication(&client, &shared.publication).await?.unwrap_or_default();
        let names = former_names::store(&client, &shared.source, &shared.publication, &self.names).await;
        let mut uncaptured = listed::uncaptured(&client, &shared.publication, &publishes, &self.rules).await?;
        let store = Store { client: &client, source: &shared.source };
        if self.first_look {
            self.disown(&store).await?;
        }
        if !shared.config.enabled {
            shared.progress.uncaptured(uncaptured);
            shared.progress.looked();
            self.first_look = false;
            return Ok(names?);
        }
        names?;
        let digest = listed::digest(&self.rules);
        if self.known.is_none() {
            self.known = Some(Known { captured: store.captured().await?, since: store.since().await? });
        }
        let stored = self.known.as_ref().and_then(|known| known.since.clone());
        let since = stored.clone().filter(|since| since.holds(&publishes, &digest));
        let (made, joined) = (since.as_ref().map(|since| since.xid), stored.as_ref().map(|stored| stored.settled));
        let listed = listed::list(&client, &shared.publication, made, joined).await?;
        self.forget_unlisted(&listed);
        uncaptured.left = self.note_left(&store, &listed, &uncaptured.tables).await?;
        shared.progress.uncaptured(uncaptured);
        let requested = store.requested().await?;
        let news: Vec<&Listed> = listed.iter().filter(|listed| self.is_news(listed, &requested)).collect();
        if !news.is_empty() {
            self.take_in(&client, news, since.as_ref(), &requested).await?;
        }
        self.move_since(&store, xmin, &publishes, &digest, &listed).await?;
        shared.progress.looked();
        self.first_look = false;
        self.anew = false;
        Ok(())
    }

    /// Baselines that were begun for a sink with the name of a new one were begun for another sink.
    async fn disown(&self, store: &Store<'_>) -> Result<(), BaselineError> {
        let new: Vec<&str> = self.sinks.iter().filter(|sink| sink.is_new).map(|sink| sink.name.as_ref()).collect();
        if new.is_empty() {
            return Ok(());
        }
        let disowned = store.disown(&new).await;
        // This is also done if no baseline is wanted today, but then nothing has to exist.
        if self.shared.config.enabled { disowned } else { Ok(()) }
    }

    fn forget_unlisted(&mut self, listed: &[Listed]) {
        let names = names_of(listed);
        let progress = &self.shared.progress;
        self.tables.retain(|table, state| {
            // A table that is being read notices it by itself.
            let keep = matches!(state, State::Working) || names.contains(table.as_ref());
            if !keep {
                progress.forget(table);
            }
            keep
        });
        let tables = &self.tables;
        self.queue.retain(|table| tables.contains_key(table));
    }

    /// Stores which tables are no longer published, or no longer selected by the rules: when they return, changes in
    /// between are missing. Returns those that the rules select.
    async fn note_left(
        &mut self,
        store: &Store<'_>,
        listed: &[Listed],
        unpublished: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, BaselineError> {
        let taken = listed.iter().filter(|listed| self.rules_of(listed).captured());
        let taken: HashSet<String> = taken.map(|listed| listed.name().to_string()).collect();
        let Some(known) = &mut self.known else { return Ok(BTreeSet::new()) };
        let gone = known
            .captured
            .iter()
            .filter(|(table, captured)| !captured.by.is_empty() && !taken.contains(table.as_ref()));
        let gone: Vec<(Arc<str>, Captured)> = gone
            .map(|(table, captured)| (table.clone(), Captured { by: BTreeSet::new(), ..captured.clone() }))
            .collect();
        store.store_captured(&gone).await?;
        known.captured.extend(gone);
        let left = known.captured.iter().filter(|(_, captured)| captured.by.is_empty());
        Ok(left.map(|(table, _)| table.to_string()).filter(|table| unpublished.contains(table)).collect())
    }

    /// Whether something has to be decided about a table.
    fn is_news(&self, listed: &Listed, requested: &HashSet<String>) -> bool {
        let name = listed.name();
        if name.schema == OWN_SCHEMA || !self.rules_of(listed).wants_baseline() {
            return false;
        }
        let table = name.to_string();
        let captured = self.known.as_ref().and_then(|known| known.captured.get(table.as_str()));
        let is_another = captured.is_none_or(|captured| !captured.goes_on(listed));
        match self.tables.get(table.as_str()) {
            None => true,
            Some(State::Working) => false,
            Some(State::Done) => {
                captured.is_none_or(|captured| captured.oid != listed.oid || captured.by != listed.by)
                    || requested.contains(&table)
                    || self.joined(&Arc::from(table), listed).is_some()
            }
            Some(_) => is_another,
        }
    }

    /// A partition with rows that the stream may not have had, and that was not requested yet.
    fn joined<'l>(&self, table: &Arc<str>, listed: &'l Listed) -> Option<&'l String> {
        listed.joined.iter().find(|part| !self.joined.contains(&(table.clone(), (*part).clone())))
    }

    async fn take_in(
        &mut self,
        client: &Client,
        news: Vec<&Listed>,
        since: Option<&Since>,
        requested: &HashSet<String>,
    ) -> Result<(), BaselineError> {
        let store = Store { client, source: &self.shared.source.clone() };
        let mut stored = store.baselines().await?;
        let standing = Standing::read(client).await?;
        let mut decided = Decided::default();
        for listed in news {
            let table: Arc<str> = Arc::from(listed.name().to_string());
            self.tables.remove(&table);
            self.queue.retain(|queued| *queued != table);
            let baselines = stored.remove(table.as_ref()).unwrap_or_default();
            self.decide(&mut decided, table, listed, baselines, since, requested);
        }
        let Decided { captured, asked, mut works, done, whole } = decided;
        // This order matters: after a kill in between, a baseline is requested once more, and nothing is forgotten.
        store.ask_for(&asked).await?;
        store.store_captured(&captured).await?;
        if let Some(known) = &mut self.known {
            known.captured.extend(captured);
        }
        if self.first_look {
            store.tidy(&whole).await?;
        }
        let mut followed = Vec::new();
        for (work, _) in works.iter_mut().filter(|(_, keyed)| !keyed) {
            followed.extend(self.begin_early(client, work).await?);
        }
        if !followed.is_empty() {
            self.shared.send(Command::Follow { tables: followed }).await?;
        }
        for table in done {
            self.shared.progress.phase(&table, Phase::Done);
            self.tables.insert(table, State::Done);
        }
        for (work, _) in works {
            let writers = standing.writers(work.oid);
            self.tables.insert(work.table.clone(), State::Settling(work, writers));
        }
        self.check_at = Instant::now();
        self.check_every = WAIT_MIN;
        Ok(())
    }

    fn decide(
        &mut self,
        decided: &mut Decided,
        table: Arc<str>,
        listed: &Listed,
        baselines: Baselines,
        since: Option<&Since>,
        requested: &HashSet<String>,
    ) {
        let rows: u64 = baselines.last_key_value().map_or(0, |(_, (_, description))| description.rows);
        let (stored, mut descriptions): (BTreeMap<_, _>, BTreeMap<_, _>) = baselines
            .into_iter()
            .map(|(number, (stored, description))| ((number, stored), (number, description)))
            .unzip();
        self.note_parts(&table, &descriptions);
        if self.lost_wal && self.first_look {
            // Rows that are younger than the baseline may be among those that the stream has lost.
            descriptions.values_mut().for_each(|description: &mut Description| description.snapshot = None);
        }
        let rules = self.rules_of(listed);
        let has = |sink: &SinkProgress| (sink.name.clone(), sink.baselines.get(table.as_ref()).copied());
        let sinks = self.sinks.iter().filter(|sink| rules.goes_to(&sink.name)).map(has);
        let mut plan = Plan::new(sinks.collect(), stored);
        let facts = Facts {
            listed,
            before: self.known.as_ref().and_then(|known| known.captured.get(&table)),
            since,
            requested: requested.contains(table.as_ref()),
            anew: self.anew,
            joined: self.joined(&table, listed),
        };
        let (captured, asked) = decide(&mut plan, &facts);
        if reads_all(&plan, asked.as_ref()) {
            // This includes the partitions that exist by now.
            self.joined.extend(listed.joined.iter().map(|part| (table.clone(), part.clone())));
        }
        if let Some(Asked { begin, part, why }) = asked {
            info!(%table, baseline = begin.baseline, partition = part, "a baseline is wanted: {why}");
            let identity = part.as_deref().map(part_identity).into_iter().collect();
            let description = Description { identity, ..Description::default() };
            descriptions.insert(begin.baseline, description.clone());
            decided.asked.push((table.clone(), begin, description.identity));
            self.note_parts(&table, &descriptions);
        }
        decided.captured.push((table.clone(), captured));
        self.shared.progress.expect(&table, listed.rows, rows);
        if plan.is_done() {
            decided.whole.extend(descriptions.into_keys().map(|baseline| (table.clone(), baseline)));
            decided.done.push(table);
        } else {
            let rows = chunk_rows(rules.rule.versions_table.as_ref(), self.shared.config.chunk_rows);
            let work = Work::new(table, listed.name(), listed.oid, plan, descriptions, rows);
            decided.works.push((Box::new(work), listed.keyed));
        }
    }

    fn note_parts(&mut self, table: &Arc<str>, descriptions: &BTreeMap<u32, Description>) {
        let parts = descriptions.values().filter_map(|description| part_of(&description.identity));
        self.joined.extend(parts.map(|part| (table.clone(), part.to_owned())));
    }

    /// Begins a table without a key before its turn comes: the earlier it begins, the fewer of its rows have come
    /// through the stream before.
    async fn begin_early(&self, client: &Client, work: &mut Work) -> Result<Option<(Arc<str>, u32)>, BaselineError> {
        // A table that is locked is described when its turn comes, and does not delay the others.
        let found = describe(client, &self.shared.publication, work.oid, work.part()).await.unwrap_or_default();
        let Some(table) = found.filter(|table| table.kind() == Kind::Ctid) else { return Ok(None) };
        work.begin_what_is_due(&self.shared, &table).await?;
        Ok(work.followed())
    }

    /// Moves the point in the past to the present, if it no longer serves and everything that is published is accounted
    /// for by then.
    async fn move_since(
        &mut self,
        store: &Store<'_>,
        xmin: i64,
        publishes: &Publishes,
        digest: &str,
        listed: &[Listed],
    ) -> Result<(), BaselineError> {
        // Partitions of a table that needs no baseline are never requested.
        let asks = |listed: &&Listed| self.rules_of(listed).wants_baseline();
        let mut wanted = listed.iter().filter(asks);
        let waits = wanted.any(|listed| self.joined(&Arc::from(listed.name().to_string()), listed).is_some());
        let sinks: BTreeSet<Arc<str>> = self.sinks.iter().map(|sink| sink.name.clone()).collect();
        let Some(known) = &mut self.known else { return Ok(()) };
        let outdated = known.since.as_ref().is_none_or(|since| since.is_outdated(xmin, publishes, digest, &sinks));
        // After a start, this process's knowledge about attached partitions is lost.
        let outdated = outdated || listed.iter().any(|listed| !listed.joined.is_empty());
        if outdated && !waits && publishes.operations.contains("insert") {
            known.since = Some(store.store_since(xmin, publishes, digest, &sinks).await?);
        }
        Ok(())
    }

    /// Remembers what the sinks have by now: the plan of a later baseline begins with it.
    pub(super) fn remember(&mut self, work: &Work) {
        for sink in &mut self.sinks {
            if let Some(progress) = work.plan.progress(&sink.name) {
                sink.baselines.insert(work.table.to_string(), progress);
            }
        }
    }
}
