//! Counters of one stream: [`Traffic`].

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use audit_core::position::{Lsn, Micros};

/// What a receiver has read so far, for metrics. Written by the receiver's thread and readable by any thread at the
/// cost of a load.
#[derive(Debug, Default)]
pub struct Traffic {
    bytes: AtomicU64,
    reads: AtomicU64,
    naps: AtomicU64,
    chunks: AtomicU64,
    received: AtomicU64,
    last_read_at: AtomicI64,
}

impl Traffic {
    /// Bytes read from the server.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Number of reads that returned any bytes.
    pub fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// Number of naps, in which bytes gathered.
    pub fn naps(&self) -> u64 {
        self.naps.load(Relaxed)
    }

    /// Number of chunks handed over.
    pub fn chunks(&self) -> u64 {
        self.chunks.load(Relaxed)
    }

    /// The position up to which the server has sent.
    pub fn received(&self) -> Lsn {
        Lsn(self.received.load(Relaxed))
    }

    /// When any bytes were last read; `None` before the first byte.
    pub fn last_read_at(&self) -> Option<Micros> {
        Some(Micros(self.last_read_at.load(Relaxed))).filter(|at| *at != Micros::default())
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.reads.fetch_add(1, Relaxed);
    }

    pub(crate) fn drained(&self, received: Lsn, at: Micros) {
        self.received.store(received.0, Relaxed);
        self.last_read_at.store(at.0, Relaxed);
    }

    pub(crate) fn napped(&self) {
        self.naps.fetch_add(1, Relaxed);
    }

    pub(crate) fn handed_over(&self) {
        self.chunks.fetch_add(1, Relaxed);
    }
}
