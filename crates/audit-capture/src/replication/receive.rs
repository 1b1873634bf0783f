//! The receiving loop: it drains the socket, hands chunks over and reports progress, on a thread of its own.
//!
//! One pass: note the server's requests and send an update if one is due, drain the socket without waiting, hand over
//! the complete messages, nap if that makes the server faster ([`Pace`]), else wait for the next [`Event`]. If the
//! consumer has no room for a chunk, the buffer fills up, reading stops, and so the server waits too; updates are still
//! sent.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use audit_connect::Transport;
use audit_core::position::{Lsn, Micros};
use bytes::BytesMut;
use futures::FutureExt;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::error::ReplicationError;
use super::feedback::Feedback;
use super::frame::Chunk;
use super::inbox::{End, Inbox};
use super::pace::{Haste, NAP, Pace};
use super::session::lost;
use super::traffic::Traffic;

/// What to stream, and how to learn about progress and the end.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    pub slot: String,
    pub publications: Vec<String>,
    /// The longest time between two status updates; it is shortened if the server's `wal_sender_timeout` requires it.
    pub status_interval: Duration,
    /// The largest protocol message to accept, in bytes.
    pub message_limit: usize,
    /// The position up to which every sink has stored everything: the server is told that this is safe.
    pub safe: watch::Receiver<Lsn>,
    /// When true, the stream sends a last update and ends.
    pub stop: watch::Receiver<bool>,
}

/// While the stream lags, this number of bytes is worth waking the consumer for.
const WORTHWHILE: usize = 64 * 1024;

/// How long they may wait for more bytes.
const GATHER: Duration = Duration::from_millis(2);

/// How long the server may take to end a stream that we want to end. It answers at once unless it is in the middle of a
/// transaction, of which it sends the rest first.
const GOODBYE: Duration = Duration::from_secs(2);

/// Everything that the loop waits for.
enum Event {
    /// Bytes were read.
    Read(usize),
    /// The consumer has room for a chunk.
    Room,
    /// The announced large message may be received.
    Large(OwnedSemaphorePermit),
    /// An update is due, or the time to close the connection has come.
    Due,
    /// The sinks have stored more.
    Progress,
    /// The sender that reports progress no longer exists.
    NoMoreProgress,
    /// The receiver was told to stop, or nobody listens any more.
    Stop,
}

pub(crate) struct Stream {
    transport: Transport,
    inbox: Inbox,
    outbox: BytesMut,
    pace: Pace,
    feedback: Feedback,
    /// Since when complete messages gather.
    gathering_since: Option<Instant>,
    /// Whether the consumer had no room for them.
    is_held: bool,
    /// The permit for large messages: only one at a time is in the pipeline, from here to the last holder that needs
    /// it.
    large: Arc<Semaphore>,
    /// The permit of the large message that is being received.
    large_permit: Option<OwnedSemaphorePermit>,
    chunks: mpsc::Sender<Chunk>,
    safe: watch::Receiver<Lsn>,
    hears_of_progress: bool,
    stop: watch::Receiver<bool>,
    traffic: Arc<Traffic>,
}

impl Stream {
    pub(crate) fn new(
        transport: Transport,
        head: &[u8],
        options: StreamOptions,
        status_interval: Duration,
        chunks: mpsc::Sender<Chunk>,
        traffic: Arc<Traffic>,
    ) -> Stream {
        Stream {
            pace: Pace::new(transport.is_tcp()),
            transport,
            inbox: Inbox::new(head, options.message_limit),
            outbox: BytesMut::new(),
            feedback: Feedback::new(status_interval, Instant::now()),
            gathering_since: None,
            is_held: false,
            large: Arc::new(Semaphore::new(1)),
            large_permit: None,
            chunks,
            safe: options.safe,
            hears_of_progress: true,
            stop: options.stop,
            traffic,
        }
    }
}

/// Receives until told to stop (`Ok`) or until the stream ends otherwise. What was received completely before an error
/// is handed over first.
pub(crate) async fn run(mut stream: Stream) -> Result<(), ReplicationError> {
    match stream.receive().await {
        Ok(()) => {
            stream.say_goodbye().await;
            Ok(())
        }
        Err(error) => {
            if stream.inbox.complete() > 0 {
                // Waits for room; if nobody listens any more, nobody misses it.
                let chunk = stream.take();
                let _ = stream.chunks.send(chunk).await;
            }
            Err(error)
        }
    }
}

impl Stream {
    async fn receive(&mut self) -> Result<(), ReplicationError> {
        self.inbox.scan()?;
        let mut fresh = 0;
        while !self.is_stopped() {
            self.update_if_due(Instant::now())?;
            fresh += self.drain()?;
            self.check_end()?;
            let now = Instant::now();
            if fresh > 0 {
                self.traffic.drained(self.inbox.seen().received, Micros::now());
            }
            let haste = self.pace.judge(fresh, self.inbox.seen().lag_micros, now);
            fresh = 0;
            if haste == Haste::HandOver || self.is_worthwhile(now) {
                self.hand_over()?;
            }
            if haste == Haste::Nap && self.inbox.has_room() {
                self.traffic.napped();
                std::thread::sleep(NAP);
                // Lets the runtime check the socket.
                tokio::task::yield_now().await;
                continue;
            }
            match self.wait().await? {
                Event::Read(n) => {
                    self.after_read(n)?;
                    fresh = n;
                }
                Event::Large(permit) => {
                    self.inbox.grow();
                    self.large_permit = Some(permit);
                }
                Event::Room | Event::Due | Event::Progress => {}
                Event::NoMoreProgress => self.hears_of_progress = false,
                Event::Stop => {}
            }
        }
        Ok(())
    }

    /// Whether the receiver was told to stop, or nobody listens.
    fn is_stopped(&self) -> bool {
        *self.stop.borrow() || self.chunks.is_closed()
    }

    /// Reads what is available, without waiting. Returns the number of bytes.
    fn drain(&mut self) -> Result<usize, ReplicationError> {
        let mut bytes = 0;
        while self.inbox.has_room() {
            let Some(read) = self.transport.read_buf(self.inbox.buffer()).now_or_never() else { break };
            let n = read.map_err(lost)?;
            self.after_read(n)?;
            bytes += n;
        }
        Ok(bytes)
    }

    fn after_read(&mut self, n: usize) -> Result<(), ReplicationError> {
        if n == 0 {
            return Err(lost(io::ErrorKind::UnexpectedEof.into()));
        }
        self.traffic.read(n);
        self.inbox.scan()
    }

    fn check_end(&self) -> Result<(), ReplicationError> {
        match &self.inbox.seen().end {
            None => Ok(()),
            Some(End::Done) => Err(ReplicationError::Ended { source: None }),
            Some(End::Error(error)) => Err(ReplicationError::Ended { source: Some(error.clone()) }),
        }
    }

    /// Whether gathered bytes are enough, or have waited long enough, to wake the consumer.
    fn is_worthwhile(&mut self, now: Instant) -> bool {
        if self.inbox.complete() == 0 {
            return false;
        }
        let since = *self.gathering_since.get_or_insert(now);
        self.inbox.complete() >= WORTHWHILE || now.saturating_duration_since(since) >= GATHER
    }

    /// Takes the complete messages. A large message is in a chunk of its own, because nothing fits next to it.
    fn take(&mut self) -> Chunk {
        Chunk::with(self.inbox.take(), self.large_permit.take())
    }

    /// Gives the consumer the complete messages, if it has room.
    fn hand_over(&mut self) -> Result<(), ReplicationError> {
        if self.inbox.complete() == 0 {
            return Ok(());
        }
        match self.chunks.clone().try_reserve_owned() {
            Ok(permit) => {
                permit.send(self.take());
                self.traffic.handed_over();
                self.gathering_since = None;
                self.is_held = false;
                self.inbox.scan()
            }
            // There is no room, or no consumer; `wait` notices both.
            Err(_) => {
                self.is_held = true;
                Ok(())
            }
        }
    }

    fn update_if_due(&mut self, now: Instant) -> Result<(), ReplicationError> {
        let seen = self.inbox.seen();
        self.feedback.note(seen.asked, now);
        if self.feedback.give_up_at().is_some_and(|at| at <= now) {
            return Err(ReplicationError::ShuttingDown);
        }
        let safe = *self.safe.borrow_and_update();
        // If the socket has not yet accepted the last update, no other one is needed.
        if self.outbox.is_empty() && self.feedback.due(safe, seen.asked) <= now {
            let update = self.feedback.update(seen.received, safe, seen.asked, now, Micros::now());
            self.outbox.extend_from_slice(&update);
        }
        if !self.outbox.is_empty() {
            let written = poll_fn(|cx| poll_write(&mut self.transport, &mut self.outbox, cx)).now_or_never();
            written.unwrap_or(Ok(())).map_err(lost)?;
        }
        Ok(())
    }

    async fn wait(&mut self) -> Result<Event, ReplicationError> {
        let due = self.next_due();
        let Stream { transport, inbox, outbox, chunks, safe, stop, is_held, hears_of_progress, large, .. } = self;
        let event = tokio::select! {
            biased;
            () = stopped(stop) => Event::Stop,
            () = chunks.closed() => Event::Stop,
            Ok(permit) = large.clone().acquire_owned(), if inbox.is_at_large() => Event::Large(permit),
            read = poll_fn(|cx| poll_io(transport, inbox, outbox, cx)) => Event::Read(read.map_err(lost)?),
            _ = chunks.reserve(), if *is_held => Event::Room,
            changed = safe.changed(), if *hears_of_progress => match changed {
                Ok(()) => Event::Progress,
                Err(_) => Event::NoMoreProgress,
            },
            () = sleep_until(due) => Event::Due,
        };
        Ok(event)
    }

    /// When the loop next has something to do without an event.
    fn next_due(&self) -> Option<Instant> {
        let update = self.feedback.due(*self.safe.borrow(), self.inbox.seen().asked);
        // Nothing more is sent or handed over before the pending update, or the held chunk, has left.
        let update = Some(update).filter(|_| self.outbox.is_empty());
        let gathered = self.gathering_since.map(|since| since + GATHER).filter(|_| !self.is_held);
        [update, gathered, self.feedback.give_up_at()].into_iter().flatten().min()
    }

    /// Sends the last update, then CopyDone, which the server answers with its own once it has read both. What it still
    /// sends is dropped: it was not acknowledged and comes again.
    async fn say_goodbye(&mut self) {
        let now = Instant::now();
        let seen = self.inbox.seen();
        let update = self.feedback.update(seen.received, *self.safe.borrow(), seen.asked, now, Micros::now());
        self.outbox.extend_from_slice(&update);
        frontend::copy_done(&mut self.outbox);
        let answered = timeout(GOODBYE, self.discard_to_end()).await;
        tracing::debug!(answered = answered.is_ok(), "replication stream stopped");
        frontend::terminate(&mut self.outbox);
        let leaving = async {
            poll_fn(|cx| poll_write(&mut self.transport, &mut self.outbox, cx)).await?;
            self.transport.shutdown().await
        };
        // The peer may already have closed the connection; nothing is left to do then.
        let _ = timeout(GOODBYE, leaving).await;
    }

    async fn discard_to_end(&mut self) {
        loop {
            self.inbox.discard();
            if self.inbox.scan().is_err() || !self.inbox.has_room() {
                return;
            }
            let read = poll_fn(|cx| poll_io(&mut self.transport, &mut self.inbox, &mut self.outbox, cx)).await;
            if !read.is_ok_and(|n| n > 0) || self.inbox.scan().is_err() {
                return;
            }
        }
    }
}

/// Waits for the order to stop, for ever if its sender no longer exists.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Writes pending bytes, and reads if there is room. Ready when bytes were read.
fn poll_io(
    transport: &mut Transport,
    inbox: &mut Inbox,
    outbox: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if let Poll::Ready(Err(error)) = poll_write(transport, outbox, cx) {
        return Poll::Ready(Err(error));
    }
    if !inbox.has_room() {
        return Poll::Pending;
    }
    pin!(transport.read_buf(inbox.buffer())).poll(cx)
}

/// Ready when everything is written and, with TLS, sent.
fn poll_write(transport: &mut Transport, outbox: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !outbox.is_empty() {
        if ready!(pin!(transport.write_buf(outbox)).poll(cx))? == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
    }
    pin!(transport.flush()).poll(cx)
}
