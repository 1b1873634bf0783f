//! One table of the lake while it is written: its log, its open files, and what of them is not committed yet.
//!
//! A table is open (rows are added) or closing (its files are completed, then put, then committed). Closing continues
//! where an error interrupted it. No row is added before it is finished, so that one commit has all partitions of one
//! range of the stream.

pub mod chunks;
pub mod fresh;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit_core::batch::{Progress, Version};
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
use crate::file::{FileContext, Limits, OpenFile, WholeFile};
use crate::layout::FileName;
use crate::merge::LogFile;
use crate::partition::Partition;
use crate::rows::{Shared, TooLarge};
use crate::schema::{self, DeltaField, RowPlan};
use crate::table::chunks::OpenChunks;
use crate::table::fresh::Fresh;

/// A table of a tenant or of home.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    pub tenant: Option<Arc<str>>,
    pub name: Arc<str>,
}

impl TableId {
    pub fn at_home(name: &Arc<str>) -> TableId {
        TableId { tenant: None, name: name.clone() }
    }
}

/// What must happen before more rows can be added to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Its files must be closed and committed.
    Close,
    /// The folder of this partition must be examined.
    Visit(Partition),
    /// Rows must be encoded and perhaps uploaded.
    Encode,
}

/// A table that is written, as the module's documentation describes.
#[derive(Debug)]
pub struct OpenTable {
    pub log: TableLog,
    pub tenant: Option<Arc<str>>,
    /// The last version of the stream that was taken in, or skipped because it was stored.
    pub taken: Position,
    /// How far the baseline is, according to home.
    pub baseline: ChunkProgress,
    /// The progress of the stream before the first version that is not committed.
    pub before_first: Option<Progress>,
    /// When that version came.
    pub since: Option<Instant>,
    /// Bytes of memory in use when they were last counted.
    pub counted: usize,
    /// Rises with each write to any table; the smallest value belongs to the table that was written least recently.
    pub touched: u64,
    context: FileContext,
    limits: Limits,
    keep_before: bool,
    layout: Option<Layout>,
    /// Columns and shapes that the next commit adds.
    schema: Option<(Vec<DeltaField>, Vec<Shape>)>,
    files: BTreeMap<Partition, OpenFile>,
    /// Files that get no more rows and wait until the stream has passed the end of an adopted file.
    aside: Vec<OpenFile>,
    chunks: OpenChunks,
    /// Partitions whose folder was examined.
    visited: BTreeSet<Partition>,
    adopted: BTreeMap<Partition, Vec<Adopted>>,
    pub fresh: Fresh,
    whole: Vec<WholeFile>,
    adds: Vec<Add>,
    /// The stream's position in the table after the commit of what is being closed.
    commit_to: Option<Position>,
}

/// How rows are laid out now.
#[derive(Clone, Debug)]
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
            baseline: txn.baseline,
            tenant: None,
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
            aside: Vec::new(),
            chunks: OpenChunks::default(),
            visited: BTreeSet::new(),
            adopted: BTreeMap::new(),
            fresh: Fresh::default(),
            whole: Vec::new(),
            adds: Vec::new(),
            commit_to: None,
        }
    }

    pub fn context(&self) -> &FileContext {
        &self.context
    }

    pub fn id(&self) -> TableId {
        TableId { tenant: self.tenant.clone(), name: self.log.table.clone() }
    }

    /// Whether something of the stream is not committed.
    pub fn is_dirty(&self) -> bool {
        !self.files.is_empty() || !self.aside.is_empty() || self.is_closing() || self.adopts()
    }

    /// Whether nothing can be committed before the stream, whose position is `seen`, reaches the end of an adopted
    /// file: a commit says that the table has everything up to its position, and rows of other partitions may still
    /// come before that end.
    pub fn waits(&self, seen: Position) -> bool {
        !self.is_closing() && self.adopted_to().is_some_and(|last| last > seen)
    }

    fn adopted_to(&self) -> Option<Position> {
        self.adopted.values().flatten().map(|file| file.name.last).max()
    }

    /// When its files must be committed because of their age. A table that waits is not due, because the attempt would
    /// have no effect.
    pub fn due(&self, age: Duration, seen: Position) -> Option<Instant> {
        let begun = self.since.filter(|_| self.is_dirty() && !self.waits(seen))?;
        Some(if self.is_closing() { begun } else { begun + age })
    }

    /// Whether nothing would be lost if the table were dropped from memory and opened again.
    pub fn is_idle(&self) -> bool {
        !self.is_dirty() && !self.has_chunks()
    }

    fn adopts(&self) -> bool {
        self.adopted.values().any(|files| !files.is_empty())
    }

    /// Whether closing has begun but is not finished.
    pub fn is_closing(&self) -> bool {
        !self.whole.is_empty() || !self.adds.is_empty()
    }

    /// Bytes of memory in use.
    pub fn held_bytes(&self) -> usize {
        let whole = self.whole.iter().chain(self.chunks.whole()).map(WholeFile::held_bytes).sum::<usize>();
        self.open_files().map(OpenFile::held_bytes).sum::<usize>() + whole
    }

    fn open_files(&self) -> impl Iterator<Item = &OpenFile> {
        self.files.values().chain(&self.aside).chain(self.chunks.file())
    }

    fn open_files_mut(&mut self) -> impl Iterator<Item = &mut OpenFile> {
        self.files.values_mut().chain(&mut self.aside).chain(self.chunks.file_mut())
    }

    /// Lays out rows of the stream, if its files can hold them.
    fn lay_out(&mut self, table: &Arc<Table>) -> Result<Arc<RowPlan>, Need> {
        let present = self.layout.take();
        let (layout, fits) = self.laid_out(table, present, self.files.is_empty());
        let plan = layout.plan.clone();
        self.layout = Some(layout);
        if fits { Ok(plan) } else { Err(Need::Close) }
    }

    /// Lays out rows of `table`, in the same way as `present` if possible. Returns false if open files have another
    /// layout, which then stays.
    fn laid_out(&mut self, table: &Arc<Table>, present: Option<Layout>, free: bool) -> (Layout, bool) {
        if let Some(layout) = present.as_ref().filter(|layout| Arc::ptr_eq(&layout.table, table)) {
            return (layout.clone(), true);
        }
        let mut fields = match &self.schema {
            Some((fields, _)) => fields.clone(),
            None => self.log.fields(self.keep_before),
        };
        let (plan, more_columns) = schema::plan(table, self.keep_before, &mut fields);
        let plan = match present {
            Some(layout) if layout.plan.columns == plan.columns && layout.plan.targets == plan.targets => layout.plan,
            Some(layout) if !free => return (layout, false),
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
        (Layout { table: table.clone(), plan }, true)
    }

    /// Takes in a version of the stream. `append.before` is the stream's progress before it.
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
            encode = file.append(version, append.shared)?;
        }
        self.taken = position;
        self.before_first.get_or_insert(append.before);
        self.since.get_or_insert_with(Instant::now);
        Ok(encode.then_some(Need::Encode))
    }

    fn partition(&self, version: &Version<'_>) -> Partition {
        Partition::of(self.log.partitioning(), version.transaction().committed_at)
    }

    /// Whether adopted files end before `position`: they are committed before anything later is taken in.
    fn is_cut_at(&self, position: Position) -> bool {
        self.adopted_to().is_some_and(|last| last < position)
    }

    /// Whether one of the files has reached its size.
    pub fn is_full(&self) -> bool {
        let full = |file: &OpenFile| file.is_full(self.limits, &self.context.settings);
        self.files.values().chain(self.chunks.file()).any(full)
    }

    pub fn wants_upload(&self) -> bool {
        self.open_files().any(|file| file.wants_upload(&self.context))
    }

    /// Encodes what is due in all files. Takes processor time.
    pub fn encode(&mut self) -> Result<(), LakeError> {
        let context = self.context.clone();
        self.open_files_mut().filter(|file| file.is_due()).try_for_each(|file| file.encode(&context))
    }

    /// Uploads what is encoded.
    pub async fn upload(&mut self) -> Result<(), LakeError> {
        let context = self.context.clone();
        for file in self.open_files_mut() {
            file.upload(&context).await?;
        }
        Ok(())
    }

    /// Ends the row groups of all files and uploads them: the most memory that can be freed without closing files.
    pub async fn shrink(&mut self) -> Result<(), LakeError> {
        let context = self.context.clone();
        for file in self.open_files_mut() {
            crate::encode::on_cpu(|| file.end_row_group(&context))?;
            file.upload(&context).await?;
        }
        Ok(())
    }

    /// Examines a partition's folder before its first row: unknown files are adopted or removed.
    pub async fn visit(&mut self, partition: Partition) -> Result<(), LakeError> {
        let position = self.log.txn().position;
        let found = adopt::look_at(&self.log, partition, position, self.baseline, self.context.owner).await?;
        if !found.is_empty() {
            let files = self.settle(&found).await?;
            self.adopted.insert(partition, files);
        }
        self.visited.insert(partition);
        self.leave(partition).await
    }

    /// Reads the unknown files that are kept, so that the next commit names them, and removes the others; both happen
    /// after a commit of our own.
    async fn settle(&mut self, found: &Found) -> Result<Vec<Adopted>, LakeError> {
        self.own().await?;
        fault!("lake::before_adopt");
        let mut files = Vec::new();
        for seen in &found.adopt {
            files.push(adopt::read(&self.log, seen).await?);
        }
        self.drop_late(found).await?;
        self.add_columns(&files);
        Ok(files)
    }

    /// Removes files whose versions are in other files; the log has a commit of ours. If no reader lists, a compaction
    /// may have replaced them: then they stay for readers of an older state of the log.
    async fn drop_late(&mut self, found: &Found) -> Result<(), LakeError> {
        let paths = found.remove.iter().map(|seen| seen.meta.location.clone());
        if self.context.listed {
            return adopt::remove(&self.log, paths).await;
        }
        let by = self.log.partitioning();
        for path in paths {
            if let Some(partition) = Partition::from_path(by, path.as_ref()) {
                self.fresh.leave(path, partition);
            }
        }
        Ok(())
    }

    /// Adds columns of adopted files that the log does not know yet.
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

    /// When a new partition begins, examines the earlier ones once more: a daemon that was fenced may have put a file
    /// there late.
    async fn leave(&mut self, begun: Partition) -> Result<(), LakeError> {
        let left: Vec<Partition> =
            self.visited.range(..begun).copied().filter(|partition| !self.files.contains_key(partition)).collect();
        for partition in left {
            if self.adopted.get(&partition).is_none_or(Vec::is_empty) {
                self.look_again(partition).await?;
                self.visited.remove(&partition);
            }
        }
        Ok(())
    }

    /// Removes what a daemon that was fenced has put into a partition late.
    pub async fn look_again(&mut self, partition: Partition) -> Result<(), LakeError> {
        let owner = self.context.owner;
        // A file beyond what was taken in stays until the stream has reached it.
        let found = adopt::look_at(&self.log, partition, self.taken, self.baseline, owner).await?;
        if found.remove.is_empty() {
            return Ok(());
        }
        self.own().await?;
        self.drop_late(&found).await
    }

    /// Makes sure that the last commit of the table is ours.
    pub async fn own(&mut self) -> Result<(), LakeError> {
        let txn = self.log.txn();
        self.commit_bare(Txn { owner: self.context.owner, ..txn }).await
    }

    /// Makes a commit without files, unless the log already says the same. If there is no table, this makes it.
    async fn commit_bare(&mut self, txn: Txn) -> Result<(), LakeError> {
        if self.log.txn() == txn && self.log.state.is_some() {
            return Ok(());
        }
        let first = || (self.log.fields(self.keep_before), Vec::new());
        let schema = match self.log.state {
            Some(_) => self.schema.clone(),
            None => Some(self.schema.clone().unwrap_or_else(first)),
        };
        self.log.commit(&Change { adds: Vec::new(), removes: Vec::new(), txn, schema }).await?;
        self.schema = None;
        Ok(())
    }

    /// Closes the table's files and commits them; `seen` is how far the stream is. After an error with the action
    /// `Restart` the rows in memory are lost; after other errors, call it again. Files of a table that waits
    /// ([`OpenTable::waits`]) get no more rows, and are committed later.
    pub async fn close(&mut self, seen: Position) -> Result<(), LakeError> {
        if self.waits(seen) {
            self.aside.extend(std::mem::take(&mut self.files).into_values());
            return Ok(());
        }
        if !self.is_closing() {
            self.commit_to = Some(self.adopted_to().map_or(self.taken, |last| last.max(self.taken)));
        }
        self.aside.extend(std::mem::take(&mut self.files).into_values());
        while !self.aside.is_empty() {
            let file = self.aside.remove(0);
            self.whole.push(file.close(&self.context).await?);
        }
        while let Some(file) = self.whole.last() {
            let add = file.put(&self.context).await?;
            self.whole.pop();
            self.adds.push(add);
        }
        for files in std::mem::take(&mut self.adopted).into_values() {
            self.adds.extend(files.into_iter().map(|file| file.add));
        }
        if self.adds.is_empty() {
            self.commit_to = None;
            return Ok(());
        }
        self.commit().await
    }

    /// Removes the files that lost against an earlier owner's commit; their rows are sent again. They are this daemon's
    /// own files, but even these are removed only after a commit of its own.
    async fn withdraw(&mut self, adds: Vec<Add>) -> Result<(), LakeError> {
        self.own().await?;
        let paths = adds.into_iter().map(|add| Path::from(format!("{}/{}", self.log.folder, add.path)));
        let ours = |path: &Path| FileName::of_path(path).is_some_and(|name| name.owner == self.context.owner);
        adopt::remove(&self.log, paths.filter(ours)).await
    }

    async fn commit(&mut self) -> Result<(), LakeError> {
        let position = self.commit_to.unwrap_or(self.log.txn().position);
        let txn = Txn { position, owner: self.context.owner, ..self.log.txn() };
        let change = Change { adds: self.adds.clone(), removes: Vec::new(), txn, schema: self.schema.clone() };
        if let Err(error) = self.log.commit(&change).await {
            if matches!(error, LakeError::Overtaken { .. }) {
                let adds = std::mem::take(&mut self.adds);
                self.withdraw(adds).await?;
            }
            return Err(error);
        }
        let by = self.log.partitioning();
        let files: Vec<LogFile> = self.adds.drain(..).filter_map(|add| LogFile::of_add(&add, by)).collect();
        self.fresh.committed(&files);
        self.schema = None;
        self.commit_to = None;
        self.taken = self.taken.max(position);
        self.before_first = None;
        self.since = None;
        self.log.maintain().await;
        Ok(())
    }
}

/// What is stored with a version in its file.
#[derive(Clone, Copy, Debug)]
pub struct Append<'a> {
    pub shared: Shared<'a>,
    pub before: Progress,
}
