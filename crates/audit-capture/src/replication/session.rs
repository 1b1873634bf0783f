//! A replication session before the stream begins: messages, simple queries, START_REPLICATION. [`Session`] runs on the
//! receiver's thread.

use std::io;
use std::sync::Arc;

use audit_connect::{Login, ServerError, Transport};
use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::fallible_iterator::FallibleIterator;

use super::error::ReplicationError;
use super::frame;

/// A row of a simple query: each value is text or NULL.
pub type Row = Vec<Option<String>>;

/// Largest size of an answer before the stream. Answers are short; the longest is the history of a timeline. What
/// announces more is not a PostgreSQL server.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

pub(crate) struct Session {
    transport: Transport,
    login: Arc<Login>,
    input: BytesMut,
    server_version: String,
}

impl Session {
    pub(crate) fn new(transport: Transport, login: Arc<Login>) -> Session {
        let input = BytesMut::with_capacity(8 * 1024);
        Session { transport, login, input, server_version: String::new() }
    }

    pub(crate) fn login(&self) -> Arc<Login> {
        self.login.clone()
    }

    pub(crate) fn server_version(&self) -> &str {
        &self.server_version
    }

    pub(crate) fn set_server_version(&mut self, version: &str) {
        version.clone_into(&mut self.server_version);
    }

    pub(crate) fn server_end_point(&self) -> Option<&[u8]> {
        self.transport.server_end_point()
    }

    /// Runs statements, or one command of the replication grammar, and returns the rows. `command` names them in
    /// errors.
    pub(crate) async fn query(&mut self, command: &'static str, text: &str) -> Result<Vec<Row>, ReplicationError> {
        self.send_query(command, text).await?;
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            match self.message().await.map_err(lost)? {
                Message::DataRow(body) => rows.push(row(&body).map_err(|what| unexpected(command, what))?),
                // The server skips the rest and then reports that it is ready again.
                Message::ErrorResponse(body) => refused = Some(ServerError::from_fields(body.fields())),
                Message::ReadyForQuery(_) => break,
                _ => {}
            }
        }
        match refused {
            Some(source) => Err(ReplicationError::Refused { command, source }),
            None => Ok(rows),
        }
    }

    /// Sends START_REPLICATION and waits for the stream to begin. After a refusal the session can be used for other
    /// queries.
    pub(crate) async fn start_replication(&mut self, text: &str) -> Result<(), ReplicationError> {
        const COMMAND: &str = "START_REPLICATION";
        self.send_query(COMMAND, text).await?;
        let mut refused = None;
        loop {
            self.whole_message().await.map_err(lost)?;
            // CopyBothResponse, which the protocol crate does not know. It contains the formats of columns, of which
            // there are none.
            if self.input.first() == Some(&b'W') {
                let len = frame::header(&self.input).ok().flatten().map_or(0, |(_, len)| len);
                self.input.advance(len);
                return Ok(());
            }
            match Message::parse(&mut self.input).map_err(lost)? {
                Some(Message::ErrorResponse(body)) => refused = Some(ServerError::from_fields(body.fields())),
                Some(Message::ReadyForQuery(_)) => break,
                _ => {}
            }
        }
        match refused {
            Some(source) => Err(ReplicationError::Refused { command: COMMAND, source }),
            None => Err(unexpected(COMMAND, "no stream")),
        }
    }

    /// The stream, and those of its bytes that were already read.
    pub(crate) fn into_stream(self) -> (Transport, BytesMut) {
        (self.transport, self.input)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.transport.write_all(bytes).await?;
        self.transport.flush().await
    }

    /// The next message. Notices are skipped, because nobody could act on them here.
    pub(crate) async fn message(&mut self) -> io::Result<Message> {
        loop {
            self.whole_message().await?;
            match Message::parse(&mut self.input)? {
                None | Some(Message::NoticeResponse(_)) => {}
                Some(message) => return Ok(message),
            }
        }
    }

    /// Sends the server a Terminate message, if the connection still works.
    pub(crate) async fn close(mut self) {
        let mut goodbye = BytesMut::new();
        frontend::terminate(&mut goodbye);
        // The peer may already have closed the connection; nothing is left to do then.
        let _ = self.send(&goodbye).await;
    }

    async fn send_query(&mut self, command: &'static str, text: &str) -> Result<(), ReplicationError> {
        let mut query = BytesMut::new();
        frontend::query(text, &mut query).map_err(|_| unexpected(command, "a name with a zero byte"))?;
        self.send(&query).await.map_err(lost)
    }

    /// Reads until a complete message is at the beginning of the input.
    async fn whole_message(&mut self) -> io::Result<()> {
        loop {
            let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
            match frame::header(&self.input).map_err(|what| invalid(what.to_string()))? {
                Some((_, len)) if len > ANSWER_LIMIT => return Err(invalid(format!("an answer of {len} bytes"))),
                Some((_, len)) if self.input.len() >= len => return Ok(()),
                _ => {}
            }
            if self.transport.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn row(body: &DataRowBody) -> Result<Row, String> {
    let text = |range: Option<std::ops::Range<usize>>| match range {
        None => Ok(None),
        Some(range) => match body.buffer().get(range).map(std::str::from_utf8) {
            Some(Ok(text)) => Ok(Some(text.to_owned())),
            _ => Err("a value that is not text".to_owned()),
        },
    };
    let ranges: Vec<_> = body.ranges().collect().map_err(|error| error.to_string())?;
    ranges.into_iter().map(text).collect()
}

pub(crate) fn lost(source: io::Error) -> ReplicationError {
    ReplicationError::Lost { source }
}

pub(crate) fn unexpected(command: &'static str, what: impl Into<String>) -> ReplicationError {
    ReplicationError::Unexpected { command, what: what.into() }
}
