//! Chunks of a baseline in a table: their rows are taken in and committed separately from the stream's.
//!
//! A chunk's rows may go to several tables, of several tenants. Home then decides. First every table puts its file,
//! which readers of its log do not see yet. Then one commit in home's table says how far the baseline is, and thereby
//! that these files count. Then every table commits its own file. What a kill leaves before home's commit is removed
//! and read again. What it leaves after home's commit is committed by the next daemon ([`OpenTable::adopt_spread`]),
//! which first makes its own commit in home, so that the daemon that put those files can decide nothing any more.

use std::sync::Arc;

use audit_core::batch::Version;
use audit_core::shape::Shape;
use audit_core::sink::ChunkProgress;
use audit_core::table::Table;
use deltalake_core::kernel::Add;

use super::{Append, Layout, Need, OpenTable};
use crate::adopt;
use crate::commit::{Change, Txn};
use crate::error::LakeError;
use crate::file::{ChunkNote, OpenFile, WholeFile};
use crate::rows::TooLarge;

/// What is not committed of a table's chunks.
#[derive(Debug, Default)]
pub struct OpenChunks {
    layout: Option<Layout>,
    file: Option<OpenFile>,
    whole: Option<WholeFile>,
    adds: Vec<Add>,
}

impl OpenChunks {
    pub fn file(&self) -> Option<&OpenFile> {
        self.file.as_ref()
    }

    pub fn file_mut(&mut self) -> Option<&mut OpenFile> {
        self.file.as_mut()
    }

    pub fn whole(&self) -> Option<&WholeFile> {
        self.whole.as_ref()
    }
}

impl OpenTable {
    pub fn has_chunks(&self) -> bool {
        self.chunks.file.is_some() || self.chunks.whole.is_some() || !self.chunks.adds.is_empty()
    }

    /// Whether the rows of another chunk, which begins with `first`, can join those that were taken in. `large` says
    /// that one of them is a large row.
    pub fn takes_chunk(&mut self, first: &Version<'_>, large: bool) -> bool {
        let partition = self.partition(first);
        let other = |file: &OpenFile| file.partition != partition || (large && !file.takes_large());
        !self.chunks.file.as_ref().is_some_and(other) && self.lay_out_chunk(first.table()).is_some()
    }

    fn lay_out_chunk(&mut self, table: &Arc<Table>) -> Option<()> {
        let present = self.chunks.layout.take();
        let (layout, fits) = self.laid_out(table, present, self.chunks.file.is_none());
        self.chunks.layout = Some(layout);
        fits.then_some(())
    }

    /// Takes in a version of a chunk after [`OpenTable::takes_chunk`] has returned true. All versions of the chunk
    /// follow one another, without a commit between them.
    pub fn append_snapshot(
        &mut self,
        version: &Version<'_>,
        large: bool,
        append: Append<'_>,
    ) -> Result<Option<Need>, TooLarge> {
        let partition = self.partition(version);
        let Some(layout) = &self.chunks.layout else { return Ok(Some(Need::Close)) };
        let file = self.chunks.file.get_or_insert_with(|| {
            let mut file = OpenFile::new(layout.plan.clone(), partition, version.position());
            file.large = large;
            file
        });
        Ok(file.append(version, append.shared)?.then_some(Need::Encode))
    }

    /// Called in home before the first file of a baseline's chunks is put anywhere. Makes sure that the log knows of
    /// the baseline, and that no earlier daemon can change how far it is any more.
    pub async fn begin_baseline(&mut self, baseline: u32) -> Result<(), LakeError> {
        let txn = self.log.txn();
        let begun = match txn.baseline.baseline == baseline {
            true => Txn { owner: self.context.owner, ..txn },
            false => {
                let begun = ChunkProgress { baseline, chunk: 0, done: false };
                Txn { owner: self.context.owner, baseline: begun, spread_by: 0, ..txn }
            }
        };
        self.commit_bare(begun).await?;
        self.baseline = begun.baseline;
        Ok(())
    }

    /// Puts the file of these chunks, if there is one. A repeat after an error continues.
    pub async fn put_chunks(&mut self, note: ChunkNote, spread: bool) -> Result<(), LakeError> {
        if let Some(mut file) = self.chunks.file.take() {
            (file.chunks, file.spread) = (Some(note), spread);
            self.chunks.whole = Some(file.close(&self.context).await?);
        }
        if let Some(file) = &self.chunks.whole {
            let add = file.put(&self.context).await?;
            self.chunks.adds.push(add);
            self.chunks.whole = None;
        }
        Ok(())
    }

    /// Commits what was put, and how far the baseline is. A repeat changes nothing.
    pub async fn commit_chunks(&mut self, progress: ChunkProgress, spread_by: u64) -> Result<(), LakeError> {
        let txn = Txn { baseline: progress, owner: self.context.owner, spread_by, ..self.log.txn() };
        if self.chunks.adds.is_empty() {
            self.commit_bare(txn).await?;
        } else {
            let adds = self.chunks.adds.clone();
            self.log.commit(&Change { adds, removes: Vec::new(), txn, schema: self.schema.clone() }).await?;
            self.chunks.adds.clear();
            self.schema = None;
        }
        self.baseline = progress;
        self.log.maintain().await;
        Ok(())
    }

    /// Removes what was put and lost against an earlier owner's commit.
    pub async fn withdraw_chunks(&mut self) -> Result<(), LakeError> {
        let adds = std::mem::take(&mut self.chunks.adds);
        if adds.is_empty() { Ok(()) } else { self.withdraw(adds).await }
    }

    /// Called in home before anything else is written: adopts chunks that an earlier daemon left complete but
    /// uncommitted.
    pub async fn adopt_chunks(&mut self) -> Result<(), LakeError> {
        let found = adopt::look_at_baseline(&self.log, self.context.owner).await?;
        if found.is_empty() {
            return Ok(());
        }
        let files = self.settle(&found).await?;
        let note = files.last().and_then(|file| file.chunks);
        let progress = note.map_or(self.log.txn().baseline, ChunkNote::progress);
        self.chunks.adds.extend(files.into_iter().map(|file| file.add));
        self.commit_chunks(progress, self.log.txn().spread_by).await
    }

    /// Called in a tenant's table: commits the files that an earlier daemon put for chunks that count, according to
    /// home, and removes those that do not. `shapes` are home's, for a table that was never committed to.
    pub async fn adopt_spread(&mut self, home: Txn, shapes: &[Shape]) -> Result<(), LakeError> {
        let found = adopt::look_at_spread(&self.log, home.baseline, home.spread_by, self.context.owner).await?;
        if found.is_empty() {
            return Ok(());
        }
        if self.log.state.is_none() {
            self.schema = Some((self.log.fields(self.keep_before), shapes.to_vec()));
        }
        let files = self.settle(&found).await?;
        if files.is_empty() {
            return Ok(());
        }
        self.chunks.adds.extend(files.into_iter().map(|file| file.add));
        self.commit_chunks(home.baseline, 0).await
    }
}

impl ChunkNote {
    pub fn progress(self) -> ChunkProgress {
        ChunkProgress { baseline: self.baseline, chunk: self.last, done: self.done }
    }
}
