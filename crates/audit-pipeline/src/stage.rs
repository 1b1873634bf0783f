//! The stages between the socket and the sinks, as one synchronous function: a message goes in, and the batch grows.
//!
//! ```text
//! bytes ──decode──▶ Message ──assemble──▶ place ──version──▶ RawVersion ──protect──▶ Batch
//! ```
//!
//! Nothing here waits and nothing here is stored: beyond one message the stages know only the open transaction, the
//! tables' shapes, and the current batch.

use std::collections::HashMap;
use std::sync::Arc;

use audit_cipher::Wanted;
use audit_core::assemble::{AssembleError, Assembler};
use audit_core::baseline::{Command, Passed, WATERMARK_PREFIX, Watches};
use audit_core::batch::{Batch, Progress, Transaction};
use audit_core::change::Change;
use audit_core::context::{CONTEXT_PREFIX, Context, ContextKeys, Contexts, Said};
use audit_core::inside::Inside;
use audit_core::position::{Lsn, Position};
use audit_core::protect::{Place, Policy, SealError};
use audit_core::quarantine::{Quarantine, Quarantined};
use audit_core::rules::{FormerNames, Rules};
use audit_core::shape::{History, Relation, Shape, TableName};
use audit_core::sink::{ALL_SINKS, quarantine_command};
use audit_core::table::{Table, TableError};
use audit_core::version::{Event, version};
use audit_pgoutput::{DecodeError, Message, Scratch, decode};
use tracing::warn;

use self::chunk::UnderWay;
use self::target::{Known, Recorded, Target};
use crate::continuity::Verdict;

mod chunk;
mod tables;
mod target;

/// The schema of the daemon's own tables. Their changes make no versions, otherwise a hot table in the source would
/// produce versions of itself without end.
const OWN_SCHEMA: &str = "cdc_audit";

/// The stream cannot be followed any further.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("a message at {lsn} cannot be decoded, position {position}")]
    Decode { position: Position, lsn: Lsn, source: DecodeError },
    #[error("the change at position {position} cannot be recorded")]
    Seal { position: Position, source: SealError },
    #[error("the stream broke its protocol at {lsn}")]
    Assemble { lsn: Lsn, source: AssembleError },
    #[error("the change at position {position} refers to relation {oid}, which the server has not described")]
    UnknownRelation { oid: u32, position: Position },
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("sink {sink} has position {position} from a change at {expected}, but the server sends another one there")]
    Diverged { sink: Arc<str>, position: Position, expected: Lsn },
    #[error("sink {sink} has position {position}, but the server goes on after it without sending that change again")]
    NotSentAgain { sink: Arc<str>, position: Position },
}

impl StageError {
    /// The key whose absence kept something from being recorded. Nothing was lost: with the key, the caller passes in
    /// the same message, or the same chunk, again.
    pub fn wanted(&self) -> Option<Wanted> {
        match self {
            StageError::Seal { source: SealError::KeyWanted(wanted), .. } => Some(*wanted),
            _ => None,
        }
    }

    /// Whether the server's history is not the one that a sink has.
    pub fn is_discontinuity(&self) -> bool {
        matches!(self, StageError::Diverged { .. } | StageError::NotSentAgain { .. })
    }

    /// The position that `resume --quarantine` would leave out, if that can help.
    pub fn position(&self) -> Option<Position> {
        match self {
            StageError::Decode { position, .. }
            | StageError::Seal { position, .. }
            | StageError::UnknownRelation { position, .. } => Some(*position),
            _ => None,
        }
    }

    pub fn hint(&self) -> String {
        match self {
            StageError::Decode { position, .. }
            | StageError::Seal { position, .. }
            | StageError::UnknownRelation { position, .. } => {
                let command = quarantine_command(ALL_SINKS, *position);
                format!("to go on without it and leave an `error` record there: {command}")
            }
            StageError::Table(error) => error.hint(),
            StageError::Diverged { .. } | StageError::NotSentAgain { .. } => {
                "the server's WAL is not the one that was captured: a backup or a snapshot was restored, or [source] names another \
                 publication. If that cannot be undone, `cdc-audit run --accept-gap` goes on and records the gap in every sink; \
                 with --new-baseline it also reads every table anew"
                    .to_string()
            }
            StageError::Assemble { .. } => "please report this as a bug, with the server's version".to_string(),
        }
    }
}

/// The change that a sink's checkpoint is at must come again, if the slot begins at or before its commit, and must be
/// the same change: see [`StageError::NotSentAgain`] and [`StageError::Diverged`].
#[derive(Clone, Debug)]
pub struct ResumeCheck {
    pub sink: Arc<str>,
    pub position: Position,
    pub change_lsn: Lsn,
}

/// Everything that the stages get at the start.
pub struct StageConfig {
    pub rules: Rules,
    /// What objects were called before.
    pub names: FormerNames,
    pub policy: Policy,
    pub verdict: Verdict,
    /// Reads the messages that carry contexts.
    pub contexts: Contexts,
    /// The shapes that all sinks have stored.
    pub shapes: Vec<Shape>,
    /// The furthest position that any sink has stored.
    pub stored: Position,
    pub checks: Vec<ResumeCheck>,
    /// Changes that an `error` record replaces if they cannot be recorded.
    pub quarantine: Quarantine,
}

/// Numbers counted since the last [`Stage::take_counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub transactions: u64,
    pub changes: u64,
    pub versions: u64,
}

/// A change that has a place but is not in the batch yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    place: Place,
    /// The progress before this change.
    before: Progress,
}

pub struct Stage {
    /// What is protected inside contexts.
    context_inside: Inside,
    rules: Rules,
    names: FormerNames,
    policy: Policy,
    verdict: Verdict,
    histories: HashMap<TableName, History>,
    /// For each table's oid, the shapes that it had under any name, and whether each is trusted.
    lineage: HashMap<u32, Vec<(Arc<Shape>, bool)>>,
    /// Up to here sinks have what was recorded, so the key and number of a shape are those that they have.
    stored: Position,
    targets: HashMap<u32, Target>,
    /// The last two Relation messages, until another message comes.
    described: [Option<u32>; 2],
    assembler: Assembler,
    checks: Vec<ResumeCheck>,
    quarantine: Quarantine,
    /// Relations whose description was quarantined, and by whom: each of their changes becomes an `error` record.
    unreadable: HashMap<u32, Quarantined>,
    batch: Batch,
    scratch: Scratch,
    changed: Vec<bool>,
    counts: Counts,
    contexts: Contexts,
    /// A context that is signed with a key that is not known yet.
    unread: Option<(Vec<u8>, Lsn)>,
    /// The record of an accepted gap, until the stream reaches its place.
    gap: Option<Context>,
    /// What baselines need to know about the stream.
    watches: Watches,
    /// A chunk whose watermark has just passed.
    passed: Option<Passed>,
    /// That chunk, with those of its rows that are already sealed.
    chunk: Option<UnderWay>,
    /// The change that could not be sealed, if the last message was one: it may come again; see [`StageError::wanted`].
    pending: Option<Pending>,
}

impl Stage {
    pub fn new(config: StageConfig) -> Stage {
        let (histories, lineage) = tables::restored(config.shapes, &config.contexts, &config.names);
        let verdict = &config.verdict;
        let sent_again =
            |at: Position| at.commit_lsn >= verdict.slot_start && verdict.epoch_at(at.commit_lsn) == at.epoch;
        let mut checks = config.checks;
        checks.retain(|check| sent_again(check.position));
        checks.sort_by_key(|check| check.position);
        Stage {
            context_inside: config.rules.for_context(),
            rules: config.rules,
            names: config.names,
            policy: config.policy,
            assembler: Assembler::new(config.verdict.start()),
            verdict: config.verdict,
            histories,
            lineage,
            stored: config.stored,
            targets: HashMap::new(),
            described: [None, None],
            checks,
            quarantine: config.quarantine,
            unreadable: HashMap::new(),
            batch: Batch::default(),
            scratch: Scratch::default(),
            changed: Vec::new(),
            counts: Counts::default(),
            contexts: config.contexts,
            unread: None,
            gap: None,
            watches: Watches::default(),
            passed: None,
            chunk: None,
            pending: None,
        }
    }

    /// Puts a `gap` record where the stream leaves the history that the sinks have.
    pub fn record_gap(&mut self, note: Context) {
        self.gap = Some(note);
        self.reach(self.verdict.slot_start);
    }

    /// Whether the stream has shown that it continues what every sink has.
    pub fn continues(&self) -> bool {
        self.checks.is_empty()
    }

    /// What objects were called before, as far as that is known by now.
    pub fn names(&self) -> &FormerNames {
        &self.names
    }

    /// Bytes of the current batch.
    pub fn batch_bytes(&self) -> usize {
        self.batch.bytes()
    }

    pub fn batch_is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// The progress of the stream without a change that waits for its key: if it counted, a sink would treat it as
    /// stored and never get it.
    pub fn progress(&self) -> Progress {
        self.pending.map_or_else(|| self.assembler.progress(), |pending| pending.before)
    }

    /// Takes the current batch, which includes everything seen so far.
    pub fn take_batch(&mut self) -> Batch {
        let next = Batch::with_room_of(&self.batch);
        let mut batch = std::mem::replace(&mut self.batch, next);
        batch.progress = self.progress();
        if let Some(transaction) = self.assembler.transaction() {
            self.batch.transaction(*transaction);
        }
        batch
    }

    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Executes a baseline's command. Call it between any two messages.
    pub fn command(&mut self, command: Command) {
        self.watches.command(command);
    }

    /// Returns the chunk that the last message released, once. Its place in the stream is here, after the current
    /// batch.
    pub fn take_passed(&mut self) -> Option<Passed> {
        self.passed.take()
    }

    /// The server has nothing to send up to `wal_end`.
    ///
    /// # Errors
    /// Returns [`StageError::NotSentAgain`] if a change that a sink has from before `wal_end` did not come again.
    pub fn idle(&mut self, wal_end: Lsn) -> Result<(), StageError> {
        if self.assembler.transaction().is_none() {
            self.all_met_before(wal_end)?;
            self.assembler.idle(wal_end);
            self.reach(wal_end);
        }
        Ok(())
    }

    /// Processes the data of one XLogData message that begins at `lsn`. Returns a relation if the message is a change
    /// of it and its shape has to be found first: look it up in the catalog, call [`Stage::describe`], and pass in the
    /// same message again.
    ///
    /// # Errors
    /// Returns a [`StageError`] if the message cannot be decoded or recorded, or does not continue what a sink has.
    /// With the key that [`StageError::wanted`] names, the same message may be passed in again.
    pub fn message(&mut self, data: &[u8], lsn: Lsn) -> Result<Option<Relation>, StageError> {
        // The scratch space is lent to the message while the stage processes it.
        let mut scratch = std::mem::take(&mut self.scratch);
        let message = decode(data, &mut scratch);
        if let Some(wanted) = message.as_ref().ok().and_then(|message| self.wanted(message)) {
            self.scratch = scratch;
            return Ok(Some(wanted));
        }
        let result = match message {
            Ok(Message::Insert { relation, new }) => self.change(relation, Change::Insert { new }, lsn),
            Ok(Message::Update { relation, old, new }) => self.change(relation, Change::Update { old, new }, lsn),
            Ok(Message::Delete { relation, old }) => self.change(relation, Change::Delete { old }, lsn),
            Ok(Message::Truncate { relations }) => {
                relations.into_iter().try_for_each(|relation| self.change(relation, Change::Truncate, lsn))
            }
            Ok(Message::Begin { commit_lsn, committed_at, xid }) => {
                self.begin(Transaction { xid, commit_lsn, committed_at }, lsn)
            }
            Ok(Message::Commit { end_lsn, .. }) => self.commit(end_lsn, lsn),
            Ok(Message::Logical { transactional: true, prefix: WATERMARK_PREFIX, content }) => {
                self.passed = self.watches.watermark(content);
                Ok(())
            }
            Ok(Message::Logical { transactional: true, prefix, content }) => self.said(prefix, content, lsn),
            Ok(Message::Logical { transactional: false, .. }) => self.idle(lsn),
            Ok(Message::Relation(relation)) => {
                self.relation(relation);
                Ok(())
            }
            Ok(Message::Origin { .. } | Message::Type { .. }) => Ok(()),
            Err(source) => self.malformed(source, data, lsn),
        };
        self.scratch = scratch;
        result.map(|()| None)
    }

    fn begin(&mut self, transaction: Transaction, lsn: Lsn) -> Result<(), StageError> {
        let commit_lsn = transaction.commit_lsn;
        self.all_met_before(commit_lsn)?;
        self.reach(commit_lsn);
        self.batch.transaction(transaction);
        self.watches.begin(transaction.xid);
        let epoch = self.verdict.epoch_at(commit_lsn);
        self.assembler.begin(epoch, transaction).map_err(|source| StageError::Assemble { lsn, source })
    }

    fn said(&mut self, prefix: &str, content: &[u8], lsn: Lsn) -> Result<(), StageError> {
        let xid = self.assembler.transaction().map_or(0, |transaction| transaction.xid);
        match self.contexts.read(prefix, content, xid, lsn) {
            Said::Nothing => Ok(()),
            Said::Context(context) => self.context(context, lsn),
            Said::UnknownKey => {
                self.unread = Some((content.to_vec(), lsn));
                Ok(())
            }
        }
    }

    /// Whether the last message needs keys that were created after the last reading. If so, read them and call
    /// [`Stage::context_keys`], then [`Stage::unread_context`], before the next message.
    pub fn wants_context_keys(&self) -> bool {
        self.unread.is_some()
    }

    /// Replaces the known keys with the current ones.
    pub fn context_keys(&mut self, keys: ContextKeys) {
        self.contexts.keys(keys);
    }

    /// Processes the context that waited for keys.
    ///
    /// # Errors
    /// Returns a [`StageError`] if the context cannot be protected; it then still waits, see [`StageError::wanted`].
    pub fn unread_context(&mut self) -> Result<(), StageError> {
        let Some((content, lsn)) = self.unread.take() else { return Ok(()) };
        let xid = self.assembler.transaction().map_or(0, |transaction| transaction.xid);
        let context = match self.contexts.read(CONTEXT_PREFIX, &content, xid, lsn) {
            Said::Context(context) => context,
            Said::Nothing | Said::UnknownKey => self.contexts.unverified(&content),
        };
        let taken = self.context(context, lsn);
        self.unread = taken.is_err().then_some((content, lsn));
        taken
    }

    fn change(&mut self, oid: u32, change: Change<'_>, lsn: Lsn) -> Result<(), StageError> {
        // A change that comes again with its key was already counted, and the watches have seen it.
        let before = self.progress();
        let again = self.pending.take();
        let place = match again {
            Some(pending) => pending.place,
            None => self.assembler.change(lsn).map_err(|source| StageError::Assemble { lsn, source })?,
        };
        if again.is_none() {
            self.counts.changes += 1;
            self.check_resume(place)?;
        }
        let Some(target) = self.targets.get(&oid) else { return self.undescribed(oid, place.position, lsn) };
        let Some(Known::Record(Recorded { table, .. })) = &target.known else { return Ok(()) };
        let change = target.leaves.judge(change);
        if again.is_none() && !self.watches.is_idle() {
            let xid = self.assembler.transaction().map_or(0, |transaction| transaction.xid);
            self.watches.change(xid, table, &target.digest, change);
        }
        if table.shape.schema_version == 0 && version(table, change, &mut self.changed).is_some() {
            self.count_shape(oid, place.position);
        }
        let target = self.targets.get(&oid).ok_or(StageError::UnknownRelation { oid, position: place.position })?;
        let Some(Known::Record(Recorded { table, .. })) = &target.known else { return Ok(()) };
        let Some(raw) = version(table, change, &mut self.changed) else { return Ok(()) };
        let context = self.assembler.current_context();
        let sealed = self.policy.seal(&mut self.batch, table, &raw, place, context);
        let Err(source) = sealed else {
            self.counts.versions += 1;
            return Ok(());
        };
        let waits = matches!(source, SealError::KeyWanted(_));
        if let Some(decided) = self.quarantine.get(&place.position).filter(|_| !waits) {
            let note = decided.context(&source.to_string(), Some(raw.event), context.map(Arc::as_ref));
            self.policy.quarantine(&mut self.batch, table, &raw, place, note);
            return Ok(());
        }
        self.pending = Some(Pending { place, before });
        Err(StageError::Seal { position: place.position, source })
    }

    /// Processes a context that the application sent, without what is protected in it.
    fn context(&mut self, context: Option<Context>, lsn: Lsn) -> Result<(), StageError> {
        let position = self.assembler.next_position();
        let context = context.map(|context| self.policy.context(&self.context_inside, context)).transpose();
        let context = context.map_err(|source| StageError::Seal { position, source })?;
        self.assembler.context(context).map_err(|source| StageError::Assemble { lsn, source })
    }

    fn commit(&mut self, end_lsn: Lsn, lsn: Lsn) -> Result<(), StageError> {
        self.all_met_before(end_lsn)?;
        self.assembler.commit(end_lsn).map_err(|source| StageError::Assemble { lsn, source })?;
        self.counts.transactions += 1;
        Ok(())
    }

    fn check_resume(&mut self, place: Place) -> Result<(), StageError> {
        while let Some(check) = self.checks.first().filter(|check| check.position == place.position) {
            if check.change_lsn != place.lsn {
                let (sink, position, expected) = (check.sink.clone(), check.position, check.change_lsn);
                return Err(StageError::Diverged { sink, position, expected });
            }
            self.checks.remove(0);
        }
        Ok(())
    }

    /// Commits come in their order: what a sink has from before `lsn` should already have come again.
    fn all_met_before(&self, lsn: Lsn) -> Result<(), StageError> {
        match self.checks.first().filter(|check| check.position.commit_lsn < lsn) {
            Some(check) => Err(StageError::NotSentAgain { sink: check.sink.clone(), position: check.position }),
            None => Ok(()),
        }
    }

    /// Continues without a message that was quarantined; fails at its position if it was not.
    fn malformed(&mut self, source: DecodeError, data: &[u8], lsn: Lsn) -> Result<(), StageError> {
        let inside = self.assembler.transaction().is_some();
        // Between transactions, the position of the message's WAL record is unique: no commit has it.
        let own = Position::new(self.verdict.epoch_at(lsn), lsn, 0);
        let position = if inside { self.assembler.next_position() } else { own };
        let Some(decided) = self.quarantine.get(&position).cloned() else {
            return Err(StageError::Decode { position, lsn, source });
        };
        let error = source.to_string();
        warn!(%position, error, "a message that cannot be decoded was quarantined");
        match data.split_first() {
            _ if !inside => {
                self.idle(lsn)?;
                let now = audit_core::position::Micros::now();
                self.batch.transaction(Transaction { xid: 0, commit_lsn: lsn, committed_at: now });
                self.assembler.stand_at(own);
                self.note_error(own, lsn, &decided, &error);
            }
            Some((b'I' | b'U' | b'D' | b'T', _)) => {
                let place = self.assembler.change(lsn).map_err(|source| StageError::Assemble { lsn, source })?;
                self.check_resume(place)?;
                self.note_error(place.position, lsn, &decided, &error);
            }
            // This is not a change, so it has no place of its own in the trail; the changes that depend on it are
            // recorded as errors.
            Some((b'R', rest)) => {
                if let Some(oid) = rest.first_chunk() {
                    let oid = u32::from_be_bytes(*oid);
                    self.targets.remove(&oid);
                    self.unreadable.insert(oid, decided);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn note_error(&mut self, position: Position, lsn: Lsn, decided: &Quarantined, error: &str) {
        let note = decided.context(error, None, self.assembler.current_context().map(Arc::as_ref));
        self.batch.note(Event::Error, &Arc::new(Table::pseudo("cdc_audit.error")), position, lsn, note);
    }

    /// Handles a change of a relation that the server has not described, or whose description was quarantined.
    fn undescribed(&mut self, oid: u32, position: Position, lsn: Lsn) -> Result<(), StageError> {
        let decided = self.quarantine.get(&position).or_else(|| self.unreadable.get(&oid)).cloned();
        let decided = decided.ok_or(StageError::UnknownRelation { oid, position })?;
        self.note_error(position, lsn, &decided, &format!("the description of relation {oid} could not be read"));
        Ok(())
    }

    /// The stream has reached `lsn`: an accepted gap is recorded once the shared history has passed.
    fn reach(&mut self, lsn: Lsn) {
        if lsn < self.verdict.boundary {
            return;
        }
        if let Some(note) = self.gap.take() {
            let position = self.verdict.gap_position();
            let now = audit_core::position::Micros::now();
            self.batch.transaction(Transaction { xid: 0, commit_lsn: position.commit_lsn, committed_at: now });
            self.assembler.stand_at(position);
            self.batch.note(Event::Gap, &Arc::new(Table::pseudo("cdc_audit.gap")), position, position.commit_lsn, note);
        }
    }
}

#[cfg(test)]
mod tests;
