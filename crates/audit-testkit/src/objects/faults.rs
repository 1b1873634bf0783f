//! A proxy in front of an object store that answers in its place, loses answers, or cuts requests: [`FaultProxy`].
//!
//! It knows where a request begins and ends, so that a test can say which request has a fault and what the server has
//! done before. Each connection serves one request.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::http::{Request, answer};
use crate::proxy::listen;

/// A fault that happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server does not get the request; the client is told that it is too busy (503).
    SlowDown,
    /// The server does not get the request; the client is told that it failed (500).
    Fails,
    /// The connection is reset in the middle of the request.
    CutRequest,
    /// The server executes the request; the client is told that it failed (500).
    DoneButFails,
    /// The server executes the request; the connection ends without an answer.
    DoneButClosed,
    /// The server executes the request; the connection is reset.
    DoneButReset,
    /// The server executes the request; the connection is reset in the middle of the answer.
    CutAnswer,
    /// The server executes the request; the client never gets an answer.
    DoneButSilent,
    /// The answer comes in pieces, with pauses.
    Slow,
    /// The server gets the request without its condition, so that it acts like a store that does not know conditions.
    /// Only for a server that does not check signatures.
    Unconditional,
}

impl Fault {
    /// All faults that can happen to a store that keeps its promises.
    pub const ALL: [Fault; 9] = [
        Fault::SlowDown,
        Fault::Fails,
        Fault::CutRequest,
        Fault::DoneButFails,
        Fault::DoneButClosed,
        Fault::DoneButReset,
        Fault::CutAnswer,
        Fault::DoneButSilent,
        Fault::Slow,
    ];
}

/// Decides what happens to a request. The number counts the requests since the plan was made, from 0.
type Plan = Box<dyn FnMut(&Request, u64) -> Option<Fault> + Send>;

/// A proxy that makes faults. It runs until it is dropped.
pub struct FaultProxy {
    port: u16,
    state: Arc<State>,
}

struct State {
    upstream: u16,
    plan: Mutex<(Plan, u64)>,
    /// Number of faults that have happened since the plan was made. It counts after the server has done its part.
    struck: watch::Sender<u64>,
    stop: watch::Sender<bool>,
}

impl FaultProxy {
    /// Starts a proxy in front of a server on 127.0.0.1. At first everything passes.
    pub fn to(upstream: u16) -> FaultProxy {
        let state = Arc::new(State {
            upstream,
            plan: Mutex::new((Box::new(|_, _| None), 0)),
            struck: watch::channel(0).0,
            stop: watch::channel(false).0,
        });
        let served = Arc::clone(&state);
        FaultProxy { port: listen(move |listener| serve(listener, served)), state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets the plan for the requests from now on.
    pub fn plan(&self, plan: impl FnMut(&Request, u64) -> Option<Fault> + Send + 'static) {
        *self.state.plan.lock().expect("a plan does not panic") = (Box::new(plan), 0);
        self.state.struck.send_replace(0);
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.plan(|_, _| None);
    }

    /// Number of faults that have happened since the plan was made.
    pub fn struck(&self) -> u64 {
        *self.state.struck.borrow()
    }

    /// Waits for the first fault.
    pub async fn strike(&self) {
        let mut struck = self.state.struck.subscribe();
        drop(struck.wait_for(|struck| *struck > 0).await);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.state.stop.send_replace(true);
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut stop = state.stop.subscribe();
    let accept = async {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(connection(client, Arc::clone(&state)));
        }
    };
    tokio::select! {
        () = accept => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

const SLOW_DOWN: &str =
    "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>";
const FAILS: &str = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>Try again.</Message></Error>";

/// Serves a connection. Its error is ignored, because only the client needs to see that the connection breaks.
async fn connection(client: TcpStream, state: Arc<State>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (from, mut to) = client.into_split();
    let mut from = BufReader::new(from);
    let Some(mut request) = Request::read(&mut from).await? else { return Ok(()) };
    let fault = {
        let (plan, number) = &mut *state.plan.lock().expect("a plan does not panic");
        *number += 1;
        plan(&request, *number - 1)
    };
    let closing = [("connection", "close".to_owned())];
    let head_only = request.method == "HEAD";
    let strike = || state.struck.send_modify(|struck| *struck += 1);
    let reset = |to: tokio::net::tcp::OwnedWriteHalf| to.as_ref().set_zero_linger();
    if let Some(Fault::SlowDown | Fault::Fails) = fault {
        strike();
        let (status, body) = if fault == Some(Fault::Fails) {
            ("500 Internal Server Error", FAILS)
        } else {
            ("503 Slow Down", SLOW_DOWN)
        };
        return answer(&mut to, status, &closing, body.as_bytes(), head_only).await;
    }
    if fault == Some(Fault::Unconditional) {
        request.headers.retain(|(name, _)| name != "x-goog-if-generation-match");
    }
    let bytes = request.bytes();
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, state.upstream)).await?;
    server.set_nodelay(true)?;
    if fault == Some(Fault::CutRequest) {
        server.write_all(&bytes[..bytes.len() / 2]).await?;
        server.set_zero_linger()?;
        strike();
        return reset(to);
    }
    server.write_all(&bytes).await?;
    let mut answered = Vec::new();
    server.read_to_end(&mut answered).await?;
    if fault.is_some() {
        strike();
    }
    match fault {
        Some(Fault::DoneButFails) => {
            answer(&mut to, "500 Internal Server Error", &closing, FAILS.as_bytes(), head_only).await
        }
        Some(Fault::DoneButClosed) => Ok(()),
        Some(Fault::DoneButReset) => reset(to),
        Some(Fault::CutAnswer) => {
            to.write_all(&answered[..answered.len() / 2]).await?;
            reset(to)
        }
        // Wait until the client closes the connection.
        Some(Fault::DoneButSilent) => from.read(&mut [0]).await.map(drop),
        Some(Fault::Slow) => {
            for piece in answered.chunks(answered.len().div_ceil(4).max(1)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
                to.write_all(piece).await?;
            }
            to.shutdown().await
        }
        _ => {
            to.write_all(&answered).await?;
            to.shutdown().await
        }
    }
}
