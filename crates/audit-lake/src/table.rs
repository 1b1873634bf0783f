//! One table of the lake while it is written: its log, its open files, and what of them is not committed yet.
//!
//! A table is open (rows come in) or closing (its files are whole, then put, then committed). Closing goes on from where an error left it;
//! no row is taken in before it is through, so that one commit has all partitions of one stretch of the stream.

pub mod fresh;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use audit_core::batch::{Batch, ChunkMark, Progress, Version};
use audit_core::position::Position;
use audit_core::shape::Shape;
use audit_core::sink::ChunkProgress;
use audit_core::table::Table;
use deltalake_core::kernel::Add;
use object_store::path::Path;

use crate::adopt::{self, Adopted, Found};
use crate::commit::{Change, TableLog, Txn};
use crate::encode::LARGE;
use crate::error::{LakeError, fault};
use crate::file::{ChunkNote, FileContext, Limits, OpenFile, WholeFile};
use crate::layout::FileName;
use crate::merge::LogFile;
use crate::partition::Partition;
use crate::rows::{Shared, TooLarge};
use crate::schema::{self, DeltaField, RowPlan};
use crate::table::fresh::Fresh;

/// What must happen before more rows of the table can come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Its files are to be closed and committed.
    Close,
    /// The folder of this partition is to be looked at.
    Visit(Partition),
    /// Rows are to be encoded, perhaps uploaded.
    Encode,
}

/// See the module's text.
#[derive(Debug)]
pub struct OpenTable {
    pub log: TableLog,
    /// The last version of the stream that was taken in, or passed over as stored.
    pub taken: Position,
    /// The chunks that were taken in.
    pub chunks: ChunkProgress,
    /// Where the stream stood before the first version that is not committed.
    pub before_first: Option<Progress>,
    /// When that version came.
    pub since: Option<Instant>,
    /// Memory held when it was last counted.
    pub counted: usize,
    /// Rises with each write to any table; the smallest was written least recently.
    pub touched: u64,
    context: FileContext,
    limits: Limits,
    keep_before: bool,
    layout: Option<Layout>,
    /// Columns and shapes that the next commit adds.
    schema: Option<(Vec<DeltaField>, Vec<Shape>)>,
    files: BTreeMap<Partition, OpenFile>,
    snapshot: Option<OpenFile>,
    /// The chunk that comes in has a large row.
    large_chunk: bool,
    /// Partitions whose folder was looked at.
    visited: BTreeSet<Partition>,
    adopted: BTreeMap<Partition, Vec<Adopted>>,
    pub fresh: Fresh,
    whole: Vec<WholeFile>,
    adds: Vec<Add>,
    /// Where the stream will stand in the table once what is being closed is committed.
    commit_to: Option<Position>,
    /// Something is to be committed though there may be no file: a chunk without rows.
    bare: bool,
}

/// How rows are laid out now.
#[derive(Debug)]
struct Layout {
    table: Arc<Table>,
    plan: Arc<RowPlan>,
}

impl OpenTable {
    pub fn new(log: TableLog, mut context: FileContext, limits: Limits, keep_before: bool) -> OpenTable {
        let txn = log.txn();
        (context.table, context.folder) = (log.table.clone(), log.folder.clone());
        OpenTable {
            taken: txn.position,
            chunks: txn.baseline,
            log,
            before_first: None,
            since: None,
            counted: 0,
            touched: 0,
            context,
            limits,
            keep_before,
            layout: None,
            schema: None,
            files: BTreeMap::new(),
            snapshot: None,
            large_chunk: false,
            visited: BTreeSet::new(),
            adopted: BTreeMap::new(),
            fresh: Fresh::default(),
            whole: Vec::new(),
            adds: Vec::new(),
            commit_to: None,
            bare: false,
        }
    }

    pub fn context(&self) -> &FileContext {
        &self.context
    }

    /// Whether something is not committed.
    pub fn is_dirty(&self) -> bool {
        self.has_rows() || self.is_closing() || self.bare || self.adopts()
    }

    fn has_rows(&self) -> bool {
        !self.files.is_empty() || self.snapshot.is_some()
    }

    fn adopts(&self) -> bool {
        self.adopted.values().any(|files| !files.is_empty())
    }

    /// Closing has begun and is not through.
    pub fn is_closing(&self) -> bool {
        !self.whole.is_empty() || !self.adds.is_empty()
    }

    /// Memory held, in bytes.
    pub fn held_bytes(&self) -> usize {
        let open = self.files.values().chain(&self.snapshot).map(OpenFile::held_bytes).sum::<usize>();
        open + self.whole.iter().map(WholeFile::held_bytes).sum::<usize>()
    }

    /// Lays out rows of `table`, if its files can have them.
    fn lay_out(&mut self, table: &Arc<Table>) -> Result<Arc<RowPlan>, Need> {
        if let Some(layout) = &self.layout
            && Arc::ptr_eq(&layout.table, table)
        {
            return Ok(layout.plan.clone());
        }
        let mut fields = match &self.schema {
            Some((fields, _)) => fields.clone(),
            None => self.log.fields(self.keep_before),
        };
        let (plan, more_columns) = schema::plan(table, self.keep_before, &mut fields);
        let plan = match &self.layout {
            Some(layout) if layout.plan.columns == plan.columns && layout.plan.targets == plan.targets => {
                layout.plan.clone()
            }
            _ if self.has_rows() => return Err(Need::Close),
            _ => Arc::new(plan),
        };
        let known = match (&self.schema, &self.log.state) {
            (Some((_, shapes)), _) => shapes.as_slice(),
            (None, Some(state)) => state.shapes.as_slice(),
            (None, None) => &[],
        };
        let new_shape = !table.shape.digest.is_empty()
            && !known.iter().any(|shape| shape.schema_version == table.shape.schema_version);
        if more_columns || new_shape || self.log.state.is_none() {
            let mut shapes = known.to_vec();
            if new_shape {
                shapes.push(table.shape.as_ref().clone());
            }
            self.schema = Some((fields, shapes));
        }
        self.layout = Some(Layout { table: table.clone(), plan: plan.clone() });
        Ok(plan)
    }

    /// Takes in a version of the stream. `before` is where the stream stood before it.
    pub fn append(&mut self, version: &Version<'_>, append: Append<'_>) -> Result<Option<Need>, TooLarge> {
        let position = version.position();
        if self.is_closing() || self.is_cut_at(position) {
            return Ok(Some(Need::Close));
        }
        let plan = match self.lay_out(version.table()) {
            Ok(plan) => plan,
            Err(need) => return Ok(Some(need)),
        };
        let partition = self.partition(version);
        if !self.visited.contains(&partition) {
            return Ok(Some(Need::Visit(partition)));
        }
        let stored =
            self.adopted.get(&partition).is_some_and(|files| files.iter().any(|file| file.name.holds(position)));
        let mut encode = false;
        if !stored {
            if version.is_larger_than(LARGE) && self.files.get(&partition).is_some_and(|file| !file.takes_large()) {
                return Ok(Some(Need::Close));
            }
            let file = self.files.entry(partition).or_insert_with(|| OpenFile::new(plan, partition, position));
            encode = append.to(file, version)?;
        }
        self.taken = position;
        self.before_first.get_or_insert(append.before);
        self.since.get_or_insert_with(Instant::now);
        Ok(encode.then_some(Need::Encode))
    }

    fn partition(&self, version: &Version<'_>) -> Partition {
        Partition::of(self.log.partitioning(), version.transaction().committed_at)
    }

    /// Whether adopted files end before `position`: they are committed before anything later comes in.
    fn is_cut_at(&self, position: Position) -> bool {
        let last = self.adopted.values().flatten().map(|file| file.name.last).max();
        last.is_some_and(|last| last < position)
    }

    /// Takes in a version of a chunk. All of the chunk's versions follow one another, without a commit between them.
    pub fn append_snapshot(
        &mut self,
        version: &Version<'_>,
        mark: &ChunkMark,
        append: Append<'_>,
    ) -> Result<Option<Need>, TooLarge> {
        let plan = match self.lay_out(version.table()) {
            Ok(plan) => plan,
            Err(need) => return Ok(Some(need)),
        };
        let partition = self.partition(version);
        let note = ChunkNote { baseline: mark.baseline, first: mark.chunk, last: mark.chunk, done: mark.last };
        let large = self.large_chunk;
        let file = self.snapshot.get_or_insert_with(|| {
            let mut file = OpenFile::new(plan, partition, version.position());
            (file.chunks, file.large) = (Some(note), large);
            file
        });
        if let Some(chunks) = &mut file.chunks {
            (chunks.last, chunks.done) = (mark.chunk, mark.last);
        }
        Ok(append.to(file, version)?.then_some(Need::Encode))
    }

    /// What must happen before a chunk can come in whole.
    pub fn before_chunk(&mut self, mark: &ChunkMark, chunk: &Batch) -> Option<Need> {
        if self.is_closing() {
            return Some(Need::Close);
        }
        let first = &chunk.versions().next()?;
        self.large_chunk = chunk.versions().any(|version| version.is_larger_than(LARGE));
        let partition = self.partition(first);
        let other = |file: &OpenFile| {
            file.partition != partition
                || file.chunks.is_none_or(|chunks| chunks.baseline != mark.baseline)
                || (self.large_chunk && !file.takes_large())
        };
        if self.snapshot.as_ref().is_some_and(other) {
            return Some(Need::Close);
        }
        self.lay_out(first.table()).err()
    }

    /// The chunk is whole.
    pub fn chunk_taken(&mut self, mark: &ChunkMark) {
        self.chunks = ChunkProgress { baseline: mark.baseline, chunk: mark.chunk, done: mark.last };
        self.since.get_or_insert_with(Instant::now);
        self.bare = true;
    }

    /// Whether the files have reached their size.
    pub fn is_full(&self) -> bool {
        let full = |file: &OpenFile| self.limits.reached(file.size(), file.rows_total);
        self.files.values().chain(&self.snapshot).any(full)
    }

    pub fn wants_upload(&self) -> bool {
        self.files.values().chain(&self.snapshot).any(|file| file.wants_upload(&self.context))
    }

    /// Encodes what is due in all files. Takes processor time.
    pub fn encode(&mut self) -> Result<(), LakeError> {
        self.files
            .values_mut()
            .chain(&mut self.snapshot)
            .filter(|file| file.is_due())
            .try_for_each(|file| file.encode(&self.context))
    }

    /// Uploads what is encoded.
    pub async fn upload(&mut self) -> Result<(), LakeError> {
        for file in self.files.values_mut().chain(&mut self.snapshot) {
            file.upload(&self.context).await?;
        }
        Ok(())
    }

    /// Ends the row groups of all files and uploads them: the most that can be given back without closing files.
    pub async fn shrink(&mut self) -> Result<(), LakeError> {
        for file in self.files.values_mut().chain(&mut self.snapshot) {
            crate::encode::on_cpu(|| file.end_row_group(&self.context))?;
            file.upload(&self.context).await?;
        }
        Ok(())
    }

    /// Looks at a partition's folder before its first row: unknown files are adopted or removed.
    pub async fn visit(&mut self, partition: Partition) -> Result<(), LakeError> {
        let found = adopt::look_at(&self.log, partition, self.log.txn().position, self.context.owner).await?;
        if !found.is_empty() {
            let files = self.settle(&found).await?;
            self.adopted.insert(partition, files);
        }
        self.visited.insert(partition);
        self.leave(partition).await
    }

    /// Reads the unknown files that are kept, for the next commit to name, and removes the others; both under a commit of our own.
    async fn settle(&mut self, found: &Found) -> Result<Vec<Adopted>, LakeError> {
        self.own().await?;
        fault!("lake::before_adopt");
        let mut files = Vec::new();
        for seen in &found.adopt {
            files.push(adopt::read(&self.log, seen).await?);
        }
        adopt::remove(&self.log, found.remove.iter().map(|seen| seen.meta.location.clone())).await?;
        self.add_columns(&files);
        Ok(files)
    }

    /// Columns of adopted files that the log does not know yet.
    fn add_columns(&mut self, files: &[Adopted]) {
        let (mut fields, shapes) = self.schema.clone().unwrap_or_else(|| {
            let shapes = self.log.state.as_ref().map_or_else(Vec::new, |state| state.shapes.clone());
            (self.log.fields(self.keep_before), shapes)
        });
        let mut more = false;
        for file in files {
            more |= schema::add_columns_of(&file.schema, &mut fields);
        }
        if more {
            self.schema = Some((fields, shapes));
        }
    }

    /// When a new partition begins, those before it are looked at once more: a daemon that was fenced may have put a file there late.
    async fn leave(&mut self, begun: Partition) -> Result<(), LakeError> {
        let left: Vec<Partition> =
            self.visited.range(..begun).copied().filter(|partition| !self.files.contains_key(partition)).collect();
        for partition in left {
            if self.adopted.get(&partition).is_none_or(Vec::is_empty) {
                let found = adopt::look_at(&self.log, partition, self.taken, self.context.owner).await?;
                // A file beyond what was taken in waits until the stream is there.
                if !found.remove.is_empty() {
                    self.own().await?;
                    adopt::remove(&self.log, found.remove.iter().map(|seen| seen.meta.location.clone())).await?;
                }
                self.visited.remove(&partition);
            }
        }
        Ok(())
    }

    /// Makes sure that the last commit of the table is ours.
    async fn own(&mut self) -> Result<(), LakeError> {
        let txn = self.log.txn();
        self.commit_bare(Txn { owner: self.context.owner, ..txn }).await
    }

    /// Makes sure that the log knows of the baseline before a file of its chunks is put.
    pub async fn begin_baseline(&mut self, baseline: u32) -> Result<(), LakeError> {
        let txn = self.log.txn();
        if txn.baseline.baseline == baseline && self.log.state.is_some() {
            return Ok(());
        }
        let begun = ChunkProgress { baseline, chunk: 0, done: false };
        self.chunks = begun;
        self.commit_bare(Txn { owner: self.context.owner, baseline: begun, ..txn }).await
    }

    /// A commit without files, if the log does not say so already. Where there is no table, it makes one.
    async fn commit_bare(&mut self, txn: Txn) -> Result<(), LakeError> {
        if self.log.txn() == txn && self.log.state.is_some() {
            return Ok(());
        }
        let schema = match self.log.state {
            Some(_) => None,
            None => Some(self.schema.clone().unwrap_or_else(|| (self.log.fields(self.keep_before), Vec::new()))),
        };
        self.log.commit(&Change { adds: Vec::new(), removes: Vec::new(), txn, schema }).await
    }

    /// Adopts chunks that an earlier daemon left whole but uncommitted. Called before anything else is written.
    pub async fn adopt_chunks(&mut self) -> Result<(), LakeError> {
        let found = adopt::look_at_baseline(&self.log, self.context.owner).await?;
        if found.is_empty() {
            return Ok(());
        }
        let files = self.settle(&found).await?;
        if let Some(note) = files.last().and_then(|file| file.chunks) {
            self.chunks = ChunkProgress { baseline: note.baseline, chunk: note.last, done: note.done };
        }
        self.adds.extend(files.into_iter().map(|file| file.add));
        self.commit().await
    }

    /// Closes the table's files and commits them; `seen` is how far the stream is. What is in memory is lost with an error of action
    /// `Restart`; after others, call it again.
    ///
    /// Files of the stream stay open while an adopted file reaches beyond `seen`: a commit says that the table has everything up to its
    /// position, and rows of other partitions may still come before the end of that file.
    pub async fn close(&mut self, seen: Position) -> Result<(), LakeError> {
        let adopted_to = self.adopted.values().flatten().map(|file| file.name.last).max();
        if !self.is_closing() && adopted_to.is_none_or(|last| last <= seen) {
            self.commit_to = Some(adopted_to.map_or(self.taken, |last| last.max(self.taken)));
        }
        if self.commit_to.is_some() {
            while let Some((_, file)) = self.files.pop_first() {
                self.whole.push(file.close(&self.context).await?);
            }
        }
        if let Some(file) = self.snapshot.take() {
            self.whole.push(file.close(&self.context).await?);
        }
        while let Some(file) = self.whole.last() {
            let add = file.put(&self.context).await?;
            self.whole.pop();
            self.adds.push(add);
        }
        if self.commit_to.is_some() {
            for files in std::mem::take(&mut self.adopted).into_values() {
                self.adds.extend(files.into_iter().map(|file| file.add));
            }
        }
        if self.adds.is_empty() && !self.bare {
            self.commit_to = None;
            return Ok(());
        }
        self.commit().await
    }

    /// Removes the files that lost to an earlier owner's commit: what they hold comes again. They are this daemon's own, but even so only
    /// after a commit of its own.
    async fn withdraw(&mut self) -> Result<(), LakeError> {
        self.own().await?;
        let paths = self.adds.drain(..).map(|add| Path::from(format!("{}/{}", self.log.folder, add.path)));
        let ours = |path: &Path| FileName::of_path(path).is_some_and(|name| name.owner == self.context.owner);
        adopt::remove(&self.log, paths.filter(ours)).await
    }

    async fn commit(&mut self) -> Result<(), LakeError> {
        let position = self.commit_to.unwrap_or(self.log.txn().position);
        let txn = Txn { position, baseline: self.chunks, owner: self.context.owner };
        let change = Change { adds: self.adds.clone(), removes: Vec::new(), txn, schema: self.schema.clone() };
        if let Err(error) = self.log.commit(&change).await {
            if matches!(error, LakeError::Overtaken { .. }) {
                self.withdraw().await?;
            }
            return Err(error);
        }
        let by = self.log.partitioning();
        let files: Vec<LogFile> = self.adds.drain(..).filter_map(|add| LogFile::of_add(&add, by)).collect();
        self.fresh.committed(&files);
        self.schema = None;
        self.bare = false;
        self.since = None;
        if self.commit_to.take().is_some() {
            self.taken = self.taken.max(position);
            self.before_first = None;
        }
        if self.has_rows() {
            self.since = Some(Instant::now());
        }
        self.log.maintain().await;
        Ok(())
    }
}

/// What goes with a version into its file.
#[derive(Clone, Copy, Debug)]
pub struct Append<'a> {
    pub shared: Shared<'a>,
    pub before: Progress,
    /// The version was given up: event `error` takes its place.
    pub quarantined: bool,
}

impl Append<'_> {
    fn to(&self, file: &mut OpenFile, version: &Version<'_>) -> Result<bool, TooLarge> {
        if self.quarantined {
            let note = r#"{"error": "the lake could not take this version; it was given up by command"}"#;
            return Ok(file.append_error(version, self.shared, note));
        }
        file.append(version, self.shared)
    }
}
