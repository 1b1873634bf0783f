//! Sorts rows: in memory and, if they exceed it, with scratch files.
//!
//! A scratch file has no name and disappears with the process. It holds what the lake's own files hold: protected
//! versions.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Seek};

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::encode::SORTED_BY;

type Result<T> = std::result::Result<T, ArrowError>;

/// The columns that rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By key, rows without a key first, then by position.
    Key,
    Position,
}

/// Maximum number of rows in a batch of the result.
const OUT_ROWS: usize = 4096;
/// About how many bytes such a batch has: if all rows are in memory, and if there are scratch files, for each of which
/// one batch is in memory while they are merged.
const OUT_ALONE_BYTES: usize = 1 << 20;
const OUT_BYTES: usize = 128 << 10;

/// Collects the rows.
#[derive(Debug)]
pub struct Sorter {
    order: Order,
    /// Bytes that are sorted in memory.
    window: usize,
    rows: Vec<RecordBatch>,
    bytes: usize,
    scratch: Vec<File>,
}

impl Sorter {
    pub fn new(order: Order, window: usize) -> Sorter {
        Sorter { order, window, rows: Vec::new(), bytes: 0, scratch: Vec::new() }
    }

    /// Adds rows; all batches must have the same schema. Takes processor time, and may write to disk.
    pub fn push(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.bytes += batch.get_array_memory_size();
        self.rows.push(batch);
        if self.bytes > self.window { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        let Some(mut run) = self.in_memory(OUT_BYTES)? else { return Ok(()) };
        let file = tempfile::tempfile()?;
        let mut writer = StreamWriter::try_new(BufWriter::new(file), &run.schema())?;
        while let Some(batch) = run.next()? {
            writer.write(&batch)?;
        }
        let mut file = writer.into_inner()?.into_inner().map_err(|error| error.into_error())?;
        file.rewind()?;
        self.scratch.push(file);
        Ok(())
    }

    /// Sorts the rows in memory. `out` is the number of bytes in a batch of the result.
    fn in_memory(&mut self, out: usize) -> Result<Option<Memory>> {
        let (rows, bytes) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.bytes));
        if rows.is_empty() { Ok(None) } else { Memory::sort(rows, bytes / out, self.order).map(Some) }
    }

    /// All rows, sorted.
    pub fn finish(mut self) -> Result<Sorted> {
        let out = if self.scratch.is_empty() { OUT_ALONE_BYTES } else { OUT_BYTES };
        let rest = self.in_memory(out)?.map(Run::Memory);
        let scratch = self.scratch.into_iter().map(|file| {
            Ok(Run::Scratch(Box::new(StreamReader::try_new(BufReader::with_capacity(OUT_BYTES, file), None)?)))
        });
        let mut runs: Vec<Run> = scratch.collect::<Result<_>>()?;
        runs.extend(rest);
        if runs.len() == 1 {
            return Ok(Sorted::One(runs.swap_remove(0)));
        }
        Merge::new(runs, self.order).map(Sorted::Many)
    }
}

/// The columns that rows are compared by.
#[derive(Clone, Debug)]
struct Places {
    keys: Option<StringArray>,
    positions: StringArray,
}

impl Places {
    fn of(batch: &RecordBatch, order: Order) -> Result<Places> {
        let [key, position] =
            SORTED_BY.map(|name| batch.column_by_name(name).and_then(|column| column.as_string_opt()));
        let missing = || ArrowError::SchemaError("rows without key or position".to_string());
        let keys = match order {
            Order::Key => Some(key.ok_or_else(missing)?.clone()),
            Order::Position => None,
        };
        Ok(Places { keys, positions: position.ok_or_else(missing)?.clone() })
    }

    fn at(&self, row: usize) -> (Option<&str>, &str) {
        let key = self.keys.as_ref().filter(|keys| keys.is_valid(row)).map(|keys| keys.value(row));
        (key, self.positions.value(row))
    }
}

/// A sorted run.
#[derive(Debug)]
pub enum Run {
    Memory(Memory),
    Scratch(Box<StreamReader<BufReader<File>>>),
}

impl Run {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self {
            Run::Memory(memory) => memory.next(),
            Run::Scratch(reader) => reader.next().transpose(),
        }
    }
}

/// Rows as they came, and their sorted order.
#[derive(Debug)]
pub struct Memory {
    batches: Vec<RecordBatch>,
    order: Vec<(usize, usize)>,
    at: usize,
    step: usize,
}

impl Memory {
    /// Sorts the rows. `parts` is about the number of batches that they are returned in.
    fn sort(batches: Vec<RecordBatch>, parts: usize, order: Order) -> Result<Memory> {
        let places: Vec<Places> = batches.iter().map(|batch| Places::of(batch, order)).collect::<Result<_>>()?;
        let mut rows: Vec<(usize, usize)> = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
        for (at, batch) in batches.iter().enumerate() {
            rows.extend((0..batch.num_rows()).map(|row| (at, row)));
        }
        rows.sort_unstable_by(|a, b| places[a.0].at(a.1).cmp(&places[b.0].at(b.1)));
        let step = (rows.len() / parts.max(1)).clamp(1, OUT_ROWS);
        Ok(Memory { batches, order: rows, at: 0, step })
    }

    fn schema(&self) -> SchemaRef {
        self.batches[0].schema()
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        let rows = &self.order[self.at..self.order.len().min(self.at + self.step)];
        if rows.is_empty() {
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let next = interleave_record_batch(&batches, rows)?;
        self.at += rows.len();
        Ok(Some(next))
    }
}

/// Returns the sorted rows.
#[derive(Debug)]
pub enum Sorted {
    One(Run),
    Many(Merge),
}

impl Sorted {
    /// The next rows; `None` after the last.
    pub fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self {
            Sorted::One(run) => run.next(),
            Sorted::Many(merge) => merge.next(),
        }
    }
}

/// The next row of one run.
#[derive(Debug)]
struct Head {
    run: usize,
    /// Index of its batch in `slots`.
    slot: usize,
    row: usize,
    places: Places,
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        self.places.at(self.row).cmp(&other.places.at(other.row))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// Several runs that are merged.
#[derive(Debug)]
pub struct Merge {
    order: Order,
    runs: Vec<Run>,
    heads: BinaryHeap<Reverse<Head>>,
    /// Batches that rows are currently taken from.
    slots: Vec<RecordBatch>,
}

impl Merge {
    fn new(runs: Vec<Run>, order: Order) -> Result<Merge> {
        let mut merge = Merge { order, heads: BinaryHeap::new(), slots: Vec::new(), runs };
        for run in 0..merge.runs.len() {
            merge.refill(run)?;
        }
        Ok(merge)
    }

    /// Adds the next batch of a run to the heads, if there is one.
    fn refill(&mut self, run: usize) -> Result<()> {
        if let Some(batch) = self.runs[run].next()? {
            let places = Places::of(&batch, self.order)?;
            self.heads.push(Reverse(Head { run, slot: self.slots.len(), row: 0, places }));
            self.slots.push(batch);
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        // Batches that are used up stay in memory until the rows are returned, so their number is limited too.
        let most = 2 * self.runs.len();
        let mut rows = Vec::new();
        while rows.len() < OUT_ROWS && self.slots.len() <= most {
            let Some(Reverse(mut head)) = self.heads.pop() else { break };
            rows.push((head.slot, head.row));
            head.row += 1;
            match head.row < head.places.positions.len() {
                true => self.heads.push(Reverse(head)),
                false => self.refill(head.run)?,
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = self.slots.iter().collect();
        let next = interleave_record_batch(&batches, &rows)?;
        self.drop_used();
        Ok(Some(next))
    }

    /// Keeps only the batches that have rows left.
    fn drop_used(&mut self) {
        let slots = std::mem::take(&mut self.slots);
        let mut heads = std::mem::take(&mut self.heads).into_vec();
        for Reverse(head) in &mut heads {
            self.slots.push(slots[head.slot].clone());
            head.slot = self.slots.len() - 1;
        }
        self.heads = heads.into();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn batch(rows: &[(Option<String>, String, i64)]) -> RecordBatch {
        let keys: StringArray = rows.iter().map(|(key, ..)| key.clone()).collect();
        let positions: StringArray = rows.iter().map(|(_, position, _)| Some(position.clone())).collect();
        let values: Int64Array = rows.iter().map(|(.., value)| Some(*value)).collect();
        let columns: [(&str, ArrayRef); 3] =
            [("cdc_key", Arc::new(keys)), ("cdc_position", Arc::new(positions)), ("value", Arc::new(values))];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn values(mut sorted: Sorted) -> Vec<i64> {
        let mut values = Vec::new();
        while let Some(batch) = sorted.next().unwrap() {
            let column = batch.column_by_name("value").unwrap().as_primitive::<arrow::datatypes::Int64Type>().clone();
            values.extend(column.values().iter().copied());
        }
        values
    }

    #[test]
    fn rows_come_in_their_order_whatever_the_window() {
        let rows: Vec<(Option<String>, String, i64)> = (0..20_000i64)
            .map(|at| {
                let mixed = at * 7919 % 20_011;
                ((mixed % 10 != 0).then(|| format!("{:03}", mixed % 997)), format!("{mixed:08}"), mixed)
            })
            .collect();
        for order in [Order::Key, Order::Position] {
            let mut expected = rows.clone();
            expected.sort_by_key(|(key, position, _)| match order {
                Order::Key => (key.clone(), position.clone()),
                Order::Position => (None, position.clone()),
            });
            let expected: Vec<i64> = expected.into_iter().map(|(.., value)| value).collect();
            for window in [usize::MAX, 300_000, 20_000] {
                let mut sorter = Sorter::new(order, window);
                rows.chunks(700).for_each(|rows| sorter.push(batch(rows)).unwrap());
                assert_eq!(sorter.scratch.is_empty(), window == usize::MAX);
                assert_eq!(values(sorter.finish().unwrap()), expected);
            }
        }
        assert_eq!(values(Sorter::new(Order::Key, 1).finish().unwrap()), [0; 0]);
    }
}
