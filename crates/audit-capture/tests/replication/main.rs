//! The replication connection with real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contract; // what is asked for: whole transactions, values as text
mod ends; // how a stream ends: told to, by the server, by an error
mod flow; // what arrives, how, and what the server hears of it
mod login; // methods, TLS, roles
mod questions; // what is asked before the stream

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use audit_capture::replication::{
    Chunk, Frame, Receiver, ReplicationClient, ReplicationError, STATUS_INTERVAL, StreamOptions,
};
use audit_connect::PgEndpoint;
use audit_core::position::Lsn;
use audit_testkit::{PATIENCE, Postgres, unique};
use tokio::sync::watch;

/// A slot with a publication of everything, and the consumer's side of a stream from it.
struct Rig {
    slot: String,
    safe: watch::Sender<Lsn>,
    stop: watch::Sender<bool>,
    message_limit: usize,
}

impl Rig {
    /// Creates table `t (id int, v text)`, publication `p` and a slot in this database.
    fn new(server: &Postgres, database: &str) -> Rig {
        let slot = unique("slot");
        server.execute(database, "CREATE TABLE t (id int, v text); CREATE PUBLICATION p FOR ALL TABLES");
        server.execute(database, &format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
        Rig { slot, safe: watch::Sender::new(Lsn::ZERO), stop: watch::Sender::new(false), message_limit: 1 << 30 }
    }

    fn options(&self) -> StreamOptions {
        StreamOptions {
            slot: self.slot.clone(),
            publications: vec!["p".to_owned()],
            status_interval: STATUS_INTERVAL,
            message_limit: self.message_limit,
            safe: self.safe.subscribe(),
            stop: self.stop.subscribe(),
        }
    }

    async fn start(&self, url: &str) -> Result<Receiver, ReplicationError> {
        connect(url).await?.start(self.options()).await
    }

    /// Starts again, once the server has released the slot of a stream that ended.
    async fn start_again(&self, url: &str) -> Receiver {
        let begun = Instant::now();
        loop {
            match self.start(url).await {
                Err(ReplicationError::SlotInUse { .. }) if begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                started => return started.unwrap(),
            }
        }
    }
}

async fn connect(url: &str) -> Result<ReplicationClient, ReplicationError> {
    ReplicationClient::connect(&PgEndpoint::new(url), "audit-test").await
}

/// Number of pgoutput's messages of each kind.
type Counts = BTreeMap<char, u64>;

fn count(chunk: &Chunk, counts: &mut Counts) {
    for frame in chunk.frames() {
        if let Frame::XLogData { data, .. } = frame.unwrap() {
            *counts.entry(char::from(data[0])).or_default() += 1;
        }
    }
}

/// Receives until there are this many messages of a kind.
async fn receive_until(receiver: &mut Receiver, counts: &mut Counts, kind: char, number: u64) {
    while counts.get(&kind).copied().unwrap_or_default() < number {
        count(&receiver.recv().await.unwrap().expect("the stream goes on"), counts);
    }
}

/// The error with its cause and hint in one text, for comparing.
fn text(error: &ReplicationError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source} [{}]", error.hint().unwrap_or_default())
}

#[track_caller]
fn refused<T>(result: Result<T, ReplicationError>) -> ReplicationError {
    result.err().expect("an error")
}
