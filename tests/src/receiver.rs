//! A receiver of webhooks whose reactions a test defines: an HTTP server on this machine.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use serde_json::Value;
use tokio::net::TcpListener;

/// The reaction of a receiver to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reaction {
    Take,
    /// Forgets the request, and answers with this status.
    Status(u16),
    /// Forgets the request, answers with this status, and names a pause in seconds.
    Later(u16, u64),
    /// Accepts the request, but answers with a failure.
    TakeAndFail,
    /// Forgets the request and never answers.
    Hang,
    /// Accepts the request but never answers.
    TakeAndHang,
    /// Knows the request's key, and answers as before without accepting it again.
    Replay,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub headers: HeaderMap,
    pub body: Bytes,
    pub reaction: Reaction,
}

#[derive(Default)]
struct Inner {
    requests: Vec<Request>,
    /// Reactions to the next requests; after them everything is accepted.
    script: VecDeque<Reaction>,
    /// Requests with this text are unprocessable, whatever the script says.
    poison: Option<String>,
    /// Larger requests are refused as too large.
    bytes_max: Option<usize>,
    /// If set, idempotency keys are honoured: each has the body that came first, and the number of requests for which
    /// it is still being processed.
    known: Option<HashMap<String, (Bytes, u32)>>,
}

impl Inner {
    /// Reacts as the Idempotency-Key draft requires (draft-ietf-httpapi-idempotency-key-header, 2.6 and 2.7).
    fn honour(&mut self, headers: &HeaderMap, body: &Bytes, reaction: Reaction) -> Reaction {
        let Some(known) = &mut self.known else { return reaction };
        let key = headers["idempotency-key"].to_str().unwrap().to_owned();
        match known.get_mut(&key) {
            Some((first, _)) if first != body => Reaction::Status(422),
            Some((_, busy)) if *busy > 0 => {
                *busy -= 1;
                Reaction::Status(409)
            }
            Some(_) => Reaction::Replay,
            None => {
                let busy = if reaction == Reaction::TakeAndHang { 2 } else { 0 };
                known.insert(key, (body.clone(), busy));
                reaction
            }
        }
    }
}

/// An HTTP server on 127.0.0.1 that runs until it is dropped.
pub struct Receiver {
    port: u16,
    inner: Arc<Mutex<Inner>>,
    server: tokio::task::JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Receiver {
        Receiver::on(0, Arc::default()).await
    }

    async fn on(port: u16, inner: Arc<Mutex<Inner>>) -> Receiver {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().route("/cdc", routing::post(receive)).with_state(inner.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Receiver { port, inner, server }
    }

    /// Closes every connection and starts again on the same port with the same state.
    pub async fn restart(self) -> Receiver {
        let (port, inner) = (self.port, self.inner.clone());
        drop(self);
        loop {
            if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
                return Receiver::on(port, inner).await;
            }
            tokio::task::yield_now().await;
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/cdc", self.port)
    }

    /// Writes the section of the sink `hook`, with further keys.
    pub fn section(&self, keys: &str) -> String {
        format!("[sinks.hook]\ntype = \"webhook\"\nurl = \"{}\"\n{keys}\n", self.url())
    }

    pub fn script(&self, reactions: &[Reaction]) {
        self.inner.lock().unwrap().script = reactions.iter().copied().collect();
    }

    /// Number of the script's reactions that have not happened yet.
    pub fn left(&self) -> usize {
        self.inner.lock().unwrap().script.len()
    }

    /// Honours idempotency keys from now on: each means one content, which is accepted only once.
    pub fn honour_keys(&self) {
        self.inner.lock().unwrap().known = Some(HashMap::new());
    }

    pub fn refuse(&self, poison: Option<&str>, bytes_max: Option<usize>) {
        let mut inner = self.inner.lock().unwrap();
        (inner.poison, inner.bytes_max) = (poison.map(str::to_owned), bytes_max);
    }

    pub fn requests(&self) -> Vec<Request> {
        self.inner.lock().unwrap().requests.clone()
    }

    /// Lists the messages that were accepted, in the order of their arrival, including repeats.
    pub fn taken(&self) -> Vec<Value> {
        let requests = self.requests();
        let taken = requests.iter().filter(|request| {
            matches!(request.reaction, Reaction::Take | Reaction::TakeAndFail | Reaction::TakeAndHang)
        });
        taken.flat_map(messages).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Parses the messages of a body, which is a list or lines.
pub fn messages(request: &Request) -> Vec<Value> {
    match request.headers["content-type"].to_str().unwrap() {
        "application/x-ndjson" => std::str::from_utf8(&request.body)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
        _ => serde_json::from_slice(&request.body).unwrap(),
    }
}

async fn receive(State(inner): State<Arc<Mutex<Inner>>>, headers: HeaderMap, body: Bytes) -> Response {
    let reaction = {
        let mut inner = inner.lock().unwrap();
        let poisoned = inner.poison.as_ref().is_some_and(|text| String::from_utf8_lossy(&body).contains(text));
        let large = inner.bytes_max.is_some_and(|max| body.len() > max);
        let reaction = match (poisoned, large) {
            (true, _) => Reaction::Status(422),
            (_, true) => Reaction::Status(413),
            _ => inner.script.pop_front().unwrap_or(Reaction::Take),
        };
        let reaction = inner.honour(&headers, &body, reaction);
        inner.requests.push(Request { headers, body, reaction });
        reaction
    };
    let status = |code| StatusCode::from_u16(code).unwrap();
    match reaction {
        Reaction::Take | Reaction::Replay => StatusCode::NO_CONTENT.into_response(),
        Reaction::Status(code) => (status(code), "no").into_response(),
        Reaction::Later(code, pause) => (status(code), [("retry-after", pause.to_string())]).into_response(),
        Reaction::TakeAndFail => StatusCode::BAD_GATEWAY.into_response(),
        Reaction::Hang | Reaction::TakeAndHang => std::future::pending().await,
    }
}
