//! Distributes one stream of batches to every sink, under one memory limit.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::status::Shared;
use audit_core::batch::Batch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Number of bytes per permit. A semaphore is only guaranteed to count to 2^29, and memory can be larger.
const PERMIT_BYTES: usize = 1024;

/// Limits the bytes of all batches between the stream and the slowest sink.
#[derive(Clone, Debug)]
pub struct Budget {
    permits: Arc<Semaphore>,
    total: u32,
}

impl Budget {
    pub fn new(bytes: u64) -> Budget {
        let total = u32::try_from(bytes / PERMIT_BYTES as u64).unwrap_or(u32::MAX >> 3).clamp(1, u32::MAX >> 3);
        Budget { permits: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Number of bytes that are in use.
    pub fn used(&self) -> u64 {
        (self.total as u64).saturating_sub(self.permits.available_permits() as u64) * PERMIT_BYTES as u64
    }

    /// Waits for room. A batch larger than the whole budget passes when it is alone; the largest message is limited
    /// elsewhere.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let wanted = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX).min(self.total);
        self.permits.clone().acquire_many_owned(wanted).await.ok()
    }
}

/// Capacity of a sink's queue in batches. The byte budget is the real limit: each batch takes at least one permit, so a
/// full queue would hold 64 MiB.
pub const QUEUE: usize = 1 << 16;

/// A batch on its way. Its memory is released when the last sink has dropped it.
#[derive(Debug)]
pub struct Held {
    pub batch: Batch,
    _room: Option<OwnedSemaphorePermit>,
    _large: Option<OwnedSemaphorePermit>,
}

/// The sinks' ends of the stream.
pub struct Fanout {
    budget: Budget,
    sinks: Vec<mpsc::Sender<Arc<Held>>>,
    shared: Arc<Shared>,
}

impl Fanout {
    pub fn new(budget: Budget, sinks: Vec<mpsc::Sender<Arc<Held>>>, shared: Arc<Shared>) -> Fanout {
        Fanout { budget, sinks, shared }
    }

    /// Hands the batch to every sink once there is room for it. `large` is set if it contains a large message.
    pub async fn send(&self, batch: Batch, large: Option<OwnedSemaphorePermit>) {
        let since = std::time::Instant::now();
        let room = self.budget.take(batch.bytes()).await;
        // The time that is lost to back-pressure.
        self.shared.waiting_micros.fetch_add(since.elapsed().as_micros() as u64, Ordering::Relaxed);
        let held = Arc::new(Held { batch, _room: room, _large: large });
        for sink in &self.sinks {
            // A sink whose receiver is dropped has reported why; the session is about to end.
            let _ = sink.send(held.clone()).await;
        }
    }
}
