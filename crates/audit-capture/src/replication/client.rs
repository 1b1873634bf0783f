//! A replication connection that waits for orders: [`ReplicationClient`].
//!
//! The connection belongs to a thread of its own from its first byte, because a socket stays with the runtime that
//! opened it. The client is a handle: each call sends an order to the thread and waits for the answer.
//! [`ReplicationClient::start`] is the last order; after it the thread only receives.

use std::sync::Arc;
use std::time::Duration;

use audit_connect::{ConnectConfig, PgEndpoint};
use tokio::sync::{mpsc, oneshot};

use super::auth;
use super::error::ReplicationError;
use super::identity::{Identity, TimelineFork, parse_history, parse_identity};
use super::receive::{self, Stream, StreamOptions};
use super::receiver::{QUEUE, Receiver};
use super::session::{Row, Session, unexpected};
use super::traffic::Traffic;

/// How long the few bytes of an update may stay unacknowledged before the connection counts as lost.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Default interval of status updates. It keeps `pg_stat_replication` fresh; the server needs one update a minute.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// A connection in replication mode, in which no stream has begun. Dropping it closes the connection.
pub struct ReplicationClient {
    orders: mpsc::Sender<Order>,
    server_version: String,
}

enum Order {
    Query { command: &'static str, text: String, answer: Answer<Vec<Row>> },
    Start { options: StreamOptions, answer: Answer<Receiver> },
}

type Answer<T> = oneshot::Sender<Result<T, ReplicationError>>;

impl ReplicationClient {
    /// Connects and logs in. `application_name` is shown in `pg_stat_replication`, unless the connection string sets
    /// another one.
    ///
    /// # Errors
    /// Returns [`ReplicationError::Connect`] if the connection string is invalid or the login fails.
    pub async fn connect(endpoint: &PgEndpoint, application_name: &str) -> Result<ReplicationClient, ReplicationError> {
        let config = endpoint.parse()?.or_tcp_user_timeout(TCP_USER_TIMEOUT);
        let (orders, incoming) = mpsc::channel(1);
        let (connected, answer) = oneshot::channel();
        let name = application_name.to_owned();
        let run = move || on_thread(&config, &name, connected, incoming);
        // The thread is never joined: it ends when the client, or the receiver made from it, is dropped or has ended.
        std::thread::Builder::new()
            .name("replication".to_owned())
            .spawn(run)
            .map_err(|source| ReplicationError::Lost { source })?;
        let server_version = answer.await.map_err(|_| ReplicationError::Thread)??;
        Ok(ReplicationClient { orders, server_version })
    }

    /// The server's version as it reports it: `15.18 (Debian 15.18-0+deb12u1)`.
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    /// The name under which the server knows this connection.
    ///
    /// # Errors
    /// Fails if the server refuses the query or the connection is lost.
    pub async fn application_name(&self) -> Result<String, ReplicationError> {
        let row = self.query("SELECT current_setting('application_name')").await?.pop();
        Ok(row.and_then(|mut row| row.pop()).flatten().unwrap_or_default())
    }

    /// The identity of the cluster, and how far its WAL goes.
    ///
    /// # Errors
    /// Fails if the server refuses the command or the connection is lost, or if its answer cannot be read.
    pub async fn identify_system(&self) -> Result<Identity, ReplicationError> {
        const COMMAND: &str = "IDENTIFY_SYSTEM";
        let rows = self.run(COMMAND, COMMAND.to_owned()).await?;
        parse_identity(&rows).ok_or_else(|| unexpected(COMMAND, "other columns than expected"))
    }

    /// The ancestors of a timeline, oldest first. The first timeline has none.
    ///
    /// # Errors
    /// Fails if the server refuses the command or the connection is lost, or if its answer cannot be read.
    pub async fn timeline_history(&self, timeline: u32) -> Result<Vec<TimelineFork>, ReplicationError> {
        const COMMAND: &str = "TIMELINE_HISTORY";
        if timeline <= 1 {
            return Ok(Vec::new());
        }
        let rows = self.run(COMMAND, format!("{COMMAND} {timeline}")).await?;
        let content = rows.first().and_then(|row| row.get(1)).and_then(Option::as_deref);
        content.and_then(parse_history).ok_or_else(|| unexpected(COMMAND, "a history that cannot be read"))
    }

    /// Runs SQL through the simple protocol, for questions to the server before the stream begins.
    ///
    /// # Errors
    /// Fails if the server refuses the query or the connection is lost.
    pub async fn query(&self, sql: &str) -> Result<Vec<Row>, ReplicationError> {
        self.run("a query", sql.to_owned()).await
    }

    /// Starts the stream at the slot's position.
    ///
    /// # Errors
    /// Returns [`ReplicationError::SlotInUse`] if another process reads from the slot; fails also if the server refuses
    /// the command or the connection is lost.
    pub async fn start(self, options: StreamOptions) -> Result<Receiver, ReplicationError> {
        self.order(|answer| Order::Start { options, answer }).await
    }

    async fn run(&self, command: &'static str, text: String) -> Result<Vec<Row>, ReplicationError> {
        self.order(|answer| Order::Query { command, text, answer }).await
    }

    async fn order<T>(&self, order: impl FnOnce(Answer<T>) -> Order) -> Result<T, ReplicationError> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(order(answer)).await.map_err(|_| ReplicationError::Thread)?;
        answered.await.map_err(|_| ReplicationError::Thread)?
    }
}

fn on_thread(config: &ConnectConfig, name: &str, connected: Answer<String>, orders: mpsc::Receiver<Order>) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(config, name, connected, orders)),
        Err(source) => drop(connected.send(Err(ReplicationError::Lost { source }))),
    }
}

/// Connects, then executes orders until there are no more. When a caller stops waiting, the work for its order ends.
async fn serve(config: &ConnectConfig, name: &str, mut connected: Answer<String>, mut orders: mpsc::Receiver<Order>) {
    let session = tokio::select! {
        session = config.open(name, auth::start) => session,
        () = connected.closed() => return,
    };
    let mut session = match session {
        Ok(session) => session,
        Err(error) => return drop(connected.send(Err(error.into()))),
    };
    if connected.send(Ok(session.server_version().to_owned())).is_err() {
        return session.close().await;
    }
    while let Some(order) = orders.recv().await {
        match order {
            Order::Query { command, text, mut answer } => {
                let rows = tokio::select! {
                    rows = session.query(command, &text) => rows,
                    // The session is in the middle of an answer, so this connection cannot be used for anything else.
                    () = answer.closed() => return,
                };
                drop(answer.send(rows));
            }
            Order::Start { options, mut answer } => {
                let started = tokio::select! {
                    started = start(&mut session, &options) => started,
                    () = answer.closed() => return,
                };
                return match started {
                    Ok(interval) => stream(session, options, interval, answer).await,
                    Err(error) => {
                        drop(answer.send(Err(error)));
                        session.close().await;
                    }
                };
            }
        }
    }
    session.close().await;
}

/// Begins the stream. Returns how often the server has to receive an update.
async fn start(session: &mut Session, options: &StreamOptions) -> Result<Duration, ReplicationError> {
    let timeout = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'";
    let rows = session.query("SELECT", timeout).await?;
    let millis: Option<u64> = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
    // A third of the timeout, so that one update may be late.
    let wanted = millis.filter(|&millis| millis > 0).map(|millis| Duration::from_millis(millis) / 3);
    let interval = wanted.map_or(options.status_interval, |wanted| wanted.min(options.status_interval));

    match session.start_replication(&start_command(options)).await {
        Err(ReplicationError::Refused { source, .. }) if source.sqlstate.code() == "55006" => {
            Err(who_uses(session, &options.slot).await)
        }
        started => started.map(|()| interval),
    }
}

fn start_command(options: &StreamOptions) -> String {
    let identifier = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let publications: Vec<String> = options.publications.iter().map(|name| identifier(name)).collect();
    let publications = publications.join(",").replace('\'', "''");
    // With position 0/0 the server continues at the slot's position, so a wrong position cannot make it skip anything.
    format!(
        "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names '{publications}', messages 'true')",
        identifier(&options.slot)
    )
}

/// Best effort: the other process may already have ended, or its name may be hidden from this role.
async fn who_uses(session: &mut Session, slot: &str) -> ReplicationError {
    let query = format!(
        "SELECT s.active_pid, a.application_name FROM pg_catalog.pg_replication_slots s \
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = '{}'",
        slot.replace('\'', "''")
    );
    let mut row = session.query("SELECT", &query).await.ok().and_then(|mut rows| rows.pop()).unwrap_or_default();
    let application = row.pop().flatten().filter(|name| !name.is_empty());
    let pid = row.pop().flatten().and_then(|pid| pid.parse().ok());
    ReplicationError::SlotInUse { slot: slot.to_owned(), pid, application }
}

async fn stream(session: Session, options: StreamOptions, interval: Duration, answer: Answer<Receiver>) {
    let (chunks, incoming) = mpsc::channel(QUEUE);
    let (ended, outcome) = oneshot::channel();
    let traffic = Arc::new(Traffic::default());
    if answer.send(Ok(Receiver::new(incoming, outcome, traffic.clone()))).is_ok() {
        let (transport, head) = session.into_stream();
        let result = receive::run(Stream::new(transport, &head, options, interval, chunks, traffic)).await;
        drop(ended.send(result));
    }
}

#[cfg(test)]
mod tests {
    use audit_core::position::Lsn;
    use tokio::sync::watch;

    use super::*;

    #[test]
    fn names_are_quoted() {
        let options = StreamOptions {
            slot: "my_slot".to_owned(),
            publications: vec!["plain".to_owned(), "O'Brien \"x\", y".to_owned()],
            status_interval: STATUS_INTERVAL,
            message_limit: 0,
            safe: watch::channel(Lsn::ZERO).1,
            stop: watch::channel(false).1,
        };
        assert_eq!(
            start_command(&options),
            "START_REPLICATION SLOT \"my_slot\" LOGICAL 0/0 (proto_version '1', \
             publication_names '\"plain\",\"O''Brien \"\"x\"\", y\"', messages 'true')"
        );
    }
}
