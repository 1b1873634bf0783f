//! A sequence of protected versions, in the order of their positions: what the pipeline hands to the sinks.
//!
//! One text buffer and one list of cells hold all rows, so that a version needs no allocation of its own. Everything in
//! a batch has passed protection: the functions that add to it are visible only to [`crate::protect`].

use std::sync::Arc;

use audit_cipher::Aad;

use crate::change::{Cell, Value};
use crate::context::{Context, Missing};
use crate::position::{Lsn, Micros, Position};
use crate::quarantine::{Quarantine, Quarantined};
use crate::seal::SealError;
use crate::table::{Column, Table};
use crate::version::{Event, Place};

/// A transaction as the versions of a batch refer to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    pub xid: u32,
    pub commit_lsn: Lsn,
    pub committed_at: Micros,
}

/// How far the stream has been read: everything up to here has been seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last change, whether or not it made a version.
    pub position: Position,
    /// Start of that change's WAL record.
    pub change_lsn: Lsn,
    /// End of the last finished transaction, commit LSN of a transaction in progress, or an idle position.
    pub flushed_lsn: Lsn,
}

/// Marks a batch as one whole chunk of a baseline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkMark {
    pub table: Arc<str>,
    pub baseline: u32,
    /// Number of the chunk in this baseline of the table, from 1.
    pub chunk: u32,
    /// Whether it is the last chunk.
    pub last: bool,
    /// The sinks that this chunk is for.
    pub sinks: Vec<Arc<str>>,
}

/// Where the row's actor comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActorSource {
    Context,
    Row,
    RowUnchanged,
}

impl ActorSource {
    pub fn name(self) -> &'static str {
        match self {
            ActorSource::Context => "context",
            ActorSource::Row => "row",
            ActorSource::RowUnchanged => "row_unchanged",
        }
    }
}

/// What a batch holds of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCount {
    pub versions: u64,
    /// Bytes of the text of their rows.
    pub bytes: u64,
    /// Versions that should name an actor but do not.
    pub without_actor: u64,
    /// Versions that should give a reason but do not.
    pub without_reason: u64,
    /// Columns that are not recorded, because no rule decides about them.
    pub withheld: u64,
    /// Number of columns that are protected only because of an earlier name, plus one if the rules match only an
    /// earlier name of the table.
    pub lost_protection: u64,
}

/// A place in the batch's text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    start: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub table: u32,
    pub transaction: u32,
    pub context: Option<u32>,
    pub position: Position,
    pub lsn: Lsn,
    pub event: Event,
    pub key: Option<Span>,
    pub old_key: Option<Span>,
    /// First cell of the row; the number of cells is that of the table's columns.
    pub before: Option<u32>,
    pub after: Option<u32>,
    pub before_known: bool,
    /// First flag of the row in `changed`.
    pub changed: Option<u32>,
    /// The members of documents that changed: index of the first one, and their number.
    pub members: (u32, u32),
    pub actor_source: Option<ActorSource>,
}

/// A member of a document that changed; see [`Version::members`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemberCell {
    pub column: u32,
    pub name: Span,
    pub old: Option<Span>,
    pub new: Option<Span>,
}

/// A batch of versions; see the module's documentation.
#[derive(Debug, Default)]
pub struct Batch {
    text: String,
    pub(crate) cells: Vec<Cell>,
    changed: Vec<bool>,
    pub(crate) members: Vec<MemberCell>,
    entries: Vec<Entry>,
    tables: Vec<Arc<Table>>,
    transactions: Vec<Transaction>,
    contexts: Vec<Arc<Context>>,
    /// The last context that was made to state what is missing: index of the original context, what is missing, and its
    /// own index.
    flagged: Option<(Option<u32>, Missing, u32)>,
    /// The progress of the stream after this batch.
    pub progress: Progress,
    /// Set if the batch is a chunk of a baseline: a sink stores it whole or not at all.
    pub chunk: Option<ChunkMark>,
    /// The context that the encrypted values of the current row are bound to.
    pub(crate) aad: Aad,
}

/// Limit of the room that a new batch reserves: one large value is no reason to expect another.
const ROOM_MAX: usize = 2 << 20;

pub(crate) struct Mark {
    text: usize,
    cells: usize,
    changed: usize,
    members: usize,
}

impl Batch {
    /// An empty batch with room for as much as `other` holds, so that batches of a busy stream do not grow step by
    /// step.
    pub fn with_room_of(other: &Batch) -> Batch {
        Batch {
            text: String::with_capacity(other.text.len().min(ROOM_MAX)),
            cells: Vec::with_capacity(other.cells.len()),
            changed: Vec::with_capacity(other.changed.len()),
            entries: Vec::with_capacity(other.entries.len()),
            ..Batch::default()
        }
    }

    /// Sets the transaction of the versions that are sealed after this call.
    pub fn transaction(&mut self, transaction: Transaction) {
        if self.transactions.last() != Some(&transaction) {
            self.transactions.push(transaction);
        }
    }

    /// Appends a record that has no row: a lost stretch of WAL (`gap`), or a change that cannot be decoded and is
    /// quarantined (`error`). `note` becomes its context; it must hold no value of any row. The actor that it names
    /// becomes the record's actor.
    pub fn note(&mut self, event: Event, table: &Arc<Table>, position: Position, lsn: Lsn, note: Context) {
        self.note_of(event, table, (None, None), Place { position, lsn }, note);
    }

    /// Appends such a record about a row whose key, and key before, could be sealed.
    pub(crate) fn note_of(
        &mut self,
        event: Event,
        table: &Arc<Table>,
        (key, old_key): (Option<Span>, Option<Span>),
        Place { position, lsn }: Place,
        note: Context,
    ) {
        let named = note.actor_id.is_some() || note.actor.is_some();
        let entry = Entry {
            table: self.table(table),
            transaction: self.current_transaction(),
            context: Some(self.context(&Arc::new(note))),
            position,
            lsn,
            event,
            key,
            old_key,
            before: None,
            after: None,
            before_known: false,
            changed: None,
            members: (0, 0),
            actor_source: named.then_some(ActorSource::Context),
        };
        self.push(entry);
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Memory that the batch holds, in bytes.
    pub fn bytes(&self) -> usize {
        self.text.capacity()
            + self.cells.capacity() * size_of::<Cell>()
            + self.changed.capacity()
            + self.members.capacity() * size_of::<MemberCell>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.transactions.capacity() * size_of::<Transaction>()
            + self.contexts.iter().map(|context| context.json.len()).sum::<usize>()
    }

    /// The versions in order of position.
    pub fn versions(&self) -> impl DoubleEndedIterator<Item = Version<'_>> + ExactSizeIterator + Clone {
        self.entries.iter().map(|entry| Version { batch: self, entry, instead: None })
    }

    /// The versions in the same order, with `error` records in place of the quarantined ones.
    pub fn versions_unless<'b>(&'b self, quarantine: &'b Quarantine) -> impl Iterator<Item = Version<'b>> + use<'b> {
        self.versions().map(move |version| version.unless_quarantined(quarantine))
    }

    /// The tables that versions of this batch refer to, each once.
    pub fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    /// Counts what the batch holds of each table.
    pub fn table_counts(&self) -> impl Iterator<Item = (&Arc<str>, TableCount)> {
        let mut counts = vec![TableCount::default(); self.tables.len()];
        for entry in &self.entries {
            let count = &mut counts[entry.table as usize];
            let columns = self.tables[entry.table as usize].columns.len();
            let row = |start: Option<u32>| {
                let start = start.map_or(0..0, |start| start as usize..start as usize + columns);
                self.cells.get(start).unwrap_or_default().iter().map(|cell| cell.bytes()).sum::<u64>()
            };
            count.versions += 1;
            count.bytes += row(entry.after.or(entry.before));
            let missing = entry.context.map_or(Missing::default(), |at| self.contexts[at as usize].missing);
            count.without_actor += u64::from(missing.actor);
            count.without_reason += u64::from(missing.reason);
        }
        for (count, table) in counts.iter_mut().zip(&self.tables) {
            count.withheld = table.withheld.len() as u64;
            count.lost_protection = table.lost.len() as u64 + u64::from(table.renamed_from.is_some());
        }
        self.tables.iter().map(|table| &table.name).zip(counts)
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            text: self.text.len(),
            cells: self.cells.len(),
            changed: self.changed.len(),
            members: self.members.len(),
        }
    }

    pub(crate) fn rewind(&mut self, mark: Mark) {
        self.text.truncate(mark.text);
        self.cells.truncate(mark.cells);
        self.changed.truncate(mark.changed);
        self.members.truncate(mark.members);
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Appends a version. If its table requires more than its context says, the context names what is missing.
    pub(crate) fn push_attributed(&mut self, entry: Entry) {
        self.entries.push(entry);
        let missing = self.missing();
        if missing.is_nothing() {
            return;
        }
        // Versions of one transaction share such a context.
        let index = match self.flagged {
            Some((of, what, index)) if of == entry.context && what == missing => index,
            _ => {
                let context = entry.context.map(|index| self.contexts[index as usize].as_ref());
                let flagged = Arc::new(Context::flagged(context, missing));
                self.contexts.push(flagged);
                let index = (self.contexts.len() - 1) as u32;
                self.flagged = Some((entry.context, missing, index));
                index
            }
        };
        if let Some(last) = self.entries.last_mut() {
            last.context = Some(index);
        }
    }

    /// What the last version should have said but does not.
    fn missing(&self) -> Missing {
        let Some(entry) = self.entries.last() else { return Missing::default() };
        let version = Version { batch: self, entry, instead: None };
        let table = version.table();
        Missing {
            actor: table.require_actor.contains(entry.event) && entry.actor_source.is_none(),
            reason: table.require_reason.contains(entry.event) && version.reason().is_none(),
        }
    }

    pub(crate) fn append(&mut self, text: &str) -> Result<Span, SealError> {
        let start = u32::try_from(self.text.len()).map_err(|_| SealError::TooLarge)?;
        let len = u32::try_from(text.len()).map_err(|_| SealError::TooLarge)?;
        start.checked_add(len).ok_or(SealError::TooLarge)?;
        if text.len() > self.text.capacity() / 2 {
            // A large value gets exactly the room that it needs: doubling the buffer would take memory that the budget
            // does not include.
            self.text.reserve_exact(text.len());
        }
        self.text.push_str(text);
        Ok(Span { start, len })
    }

    pub(crate) fn append_cell(&mut self, text: &str) -> Result<Cell, SealError> {
        let span = self.append(text)?;
        Ok(Cell::text(span.start as usize, span.len as usize))
    }

    /// Makes a cell of what `write` appends.
    pub(crate) fn append_with(
        &mut self,
        write: impl FnOnce(&mut String) -> Result<(), SealError>,
    ) -> Result<Cell, SealError> {
        let start = self.text.len();
        write(&mut self.text)?;
        u32::try_from(self.text.len()).map_err(|_| SealError::TooLarge)?;
        Ok(Cell::text(start, self.text.len() - start))
    }

    pub(crate) fn changed(&mut self, flags: &[bool]) -> u32 {
        let start = self.changed.len();
        self.changed.extend_from_slice(flags);
        start as u32
    }

    pub(crate) fn table(&mut self, table: &Arc<Table>) -> u32 {
        // Versions of one table usually follow one another, and a batch refers to few tables.
        let at = self.tables.iter().rposition(|known| Arc::ptr_eq(known, table));
        at.unwrap_or_else(|| {
            self.tables.push(table.clone());
            self.tables.len() - 1
        }) as u32
    }

    pub(crate) fn context(&mut self, context: &Arc<Context>) -> u32 {
        // The last context may be a copy that states what is missing.
        let from = self.contexts.len().saturating_sub(2);
        let at = self.contexts[from..].iter().rposition(|known| Arc::ptr_eq(known, context)).map(|at| from + at);
        at.unwrap_or_else(|| {
            self.contexts.push(context.clone());
            self.contexts.len() - 1
        }) as u32
    }

    pub(crate) fn current_transaction(&mut self) -> u32 {
        if self.transactions.is_empty() {
            self.transactions.push(Transaction::default());
        }
        (self.transactions.len() - 1) as u32
    }

    /// The text that a cell holds, if it holds one.
    pub(crate) fn text_of(&self, cell: Cell) -> Option<&str> {
        cell.get_str(&self.text).text()
    }

    /// The id of the transaction whose versions are being sealed.
    pub(crate) fn xid(&self) -> u32 {
        self.transactions.last().map_or(0, |transaction| transaction.xid)
    }

    pub(crate) fn text_at(&self, span: Span) -> &str {
        self.text.get(span.start as usize..span.start as usize + span.len as usize).unwrap_or_default()
    }
}

/// A member of an expanded column, with its old and new value; `None` on a side where it does not exist.
#[derive(Clone, Copy, Debug)]
pub struct Member<'b> {
    /// Index into the table's columns.
    pub column: usize,
    /// The path of the member.
    pub name: &'b str,
    pub old: Option<&'b str>,
    pub new: Option<&'b str>,
}

/// A protected version in its batch.
#[derive(Clone, Copy, Debug)]
pub struct Version<'b> {
    batch: &'b Batch,
    entry: &'b Entry,
    /// Set if the sink refuses the version and it was quarantined: this is recorded in its place.
    instead: Option<&'b Quarantined>,
}

impl<'b> Version<'b> {
    /// The version; or, if it is quarantined, the `error` record that takes its place, with key and actor and nothing
    /// else of the row.
    #[must_use]
    pub fn unless_quarantined(self, quarantine: &'b Quarantine) -> Version<'b> {
        match quarantine.is_empty() {
            true => self,
            false => Version { instead: quarantine.get(&self.entry.position), ..self },
        }
    }

    /// The context of the record that takes the version's place, if it is quarantined.
    fn record(&self) -> Option<&'b Context> {
        let own = Version { instead: None, ..*self };
        self.instead.map(|instead| instead.record(own.event(), own.context(), own.actor_id()))
    }

    fn keeps_key(&self) -> bool {
        self.instead.is_none_or(|instead| !instead.is_bare())
    }

    pub fn position(&self) -> Position {
        self.entry.position
    }

    /// Start of the change's own WAL record.
    pub fn lsn(&self) -> Lsn {
        self.entry.lsn
    }

    pub fn transaction(&self) -> &'b Transaction {
        &self.batch.transactions[self.entry.transaction as usize]
    }

    pub fn event(&self) -> Event {
        self.instead.map_or(self.entry.event, |_| Event::Error)
    }

    pub fn table(&self) -> &'b Arc<Table> {
        &self.batch.tables[self.entry.table as usize]
    }

    pub fn key(&self) -> Option<&'b str> {
        self.entry.key.filter(|_| self.keeps_key()).map(|span| self.batch.text_at(span))
    }

    pub fn old_key(&self) -> Option<&'b str> {
        self.entry.old_key.filter(|_| self.keeps_key()).map(|span| self.batch.text_at(span))
    }

    /// The row before, as far as it is known.
    pub fn before(&self) -> Option<Image<'b>> {
        self.image(self.entry.before)
    }

    pub fn after(&self) -> Option<Image<'b>> {
        self.image(self.entry.after)
    }

    /// Whether the server sent the whole old row.
    pub fn before_known(&self) -> bool {
        self.entry.before_known && self.instead.is_none()
    }

    /// Whether its values together take more than this many bytes.
    pub fn is_larger_than(&self, bytes: usize) -> bool {
        let row = |image: Option<Image<'_>>| image.map_or(0, |image| image.cells.iter().map(|cell| cell.bytes()).sum());
        self.batch.text.len() > bytes && row(self.before()) + row(self.after()) > bytes as u64
    }

    /// A flag for each of the table's columns, for an update whose row before is known.
    pub fn changed(&self) -> Option<&'b [bool]> {
        let start = self.entry.changed.filter(|_| self.instead.is_none())? as usize;
        self.batch.changed.get(start..start + self.table().columns.len())
    }

    /// The members of expanded columns that changed, in the order of the table's columns, as JSON texts.
    pub fn members(self) -> impl Iterator<Item = Member<'b>> + use<'b> {
        let (first, count) = if self.instead.is_some() { (0, 0) } else { self.entry.members };
        let cells = self.batch.members.get(first as usize..(first + count) as usize).unwrap_or_default();
        let batch = self.batch;
        cells.iter().map(move |cell| Member {
            column: cell.column as usize,
            name: batch.text_at(cell.name),
            old: cell.old.map(|span| batch.text_at(span)),
            new: cell.new.map(|span| batch.text_at(span)),
        })
    }

    pub fn context(&self) -> Option<&'b Context> {
        if let Some(record) = self.record() {
            return Some(record);
        }
        self.entry.context.map(|index| self.batch.contexts[index as usize].as_ref())
    }

    /// Whether the context came through `cdc_audit.set_context`; `None` if no application set one.
    pub fn context_verified(&self) -> Option<bool> {
        self.context().and_then(|context| context.verified)
    }

    pub fn actor_source(&self) -> Option<ActorSource> {
        self.entry.actor_source.filter(|_| self.keeps_key())
    }

    pub fn actor_id(&self) -> Option<&'b str> {
        if let Some(record) = self.record() {
            return record.actor_id.as_deref();
        }
        match self.entry.actor_source? {
            ActorSource::Context => self.context()?.actor_id.as_deref(),
            ActorSource::Row | ActorSource::RowUnchanged => self.after()?.get(self.table().actor?).text(),
        }
    }

    /// The actor, as a JSON text.
    pub fn actor(&self) -> Option<&'b str> {
        self.context()?.actor.as_deref()
    }

    pub fn reason(&self) -> Option<&'b str> {
        let from_context = self.context().and_then(|context| context.reason.as_deref());
        from_context.or_else(|| {
            let set_here = self.entry.actor_source == Some(ActorSource::Row);
            self.after().filter(|_| set_here)?.get(self.table().reason?).text()
        })
    }

    pub fn tenant(&self) -> Option<&'b str> {
        self.after().or(self.before())?.get(self.table().tenant?).text()
    }

    /// Number of the baseline that a snapshot belongs to.
    pub fn baseline(&self) -> Option<u32> {
        self.batch.chunk.as_ref().map(|chunk| chunk.baseline)
    }

    fn image(&self, start: Option<u32>) -> Option<Image<'b>> {
        let start = start.filter(|_| self.instead.is_none())? as usize;
        let table = self.table();
        let cells = self.batch.cells.get(start..start + table.columns.len())?;
        Some(Image { table, cells, text: &self.batch.text })
    }
}

/// One side of a version, with a value for each of the table's columns.
#[derive(Clone, Copy, Debug)]
pub struct Image<'b> {
    table: &'b Table,
    cells: &'b [Cell],
    text: &'b str,
}

impl<'b> Image<'b> {
    /// The value of the table's column `index`, in PostgreSQL's text form or as protection left it.
    pub fn get(&self, index: usize) -> Value<&'b str> {
        self.cells.get(index).map_or(Value::Unknown, |cell| cell.get_str(self.text))
    }

    pub fn iter(self) -> impl Iterator<Item = (&'b Column, Value<&'b str>)> {
        let text = self.text;
        self.table.columns.iter().zip(self.cells).map(move |(column, cell)| (column, cell.get_str(text)))
    }
}
