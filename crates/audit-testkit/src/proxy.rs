//! A TCP proxy on 127.0.0.1 that loses, holds, delays and refuses traffic: [`Proxy`].
//!
//! It runs on its own thread, so that it is independent of the test's runtime, and so that tests without a runtime can
//! use it.

use std::future::pending;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The treatment of bytes that arrive, on existing and new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    Pass,
    /// Nothing moves in either direction; nothing is lost and no connection ends.
    Hold,
    /// The client's bytes arrive; the server's answers are held. [`Proxy::cut`] after it means: the server did it, and
    /// the answer was lost.
    HoldAnswers,
    /// New connections are closed at once; existing ones continue.
    Refuse,
}

/// A proxy. It runs until it is dropped; then its connections are reset.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

struct State {
    orders: watch::Sender<Orders>,
    open: AtomicUsize,
    accepted: AtomicUsize,
    /// Bytes that may still go from server to client before a cut.
    answer_budget: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Orders {
    traffic: Traffic,
    upstream: u16,
    delay: Duration,
    /// Connections that were opened with a lower number are reset.
    generation: u64,
    stop: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

const UNLIMITED: u64 = u64::MAX;

/// Listens on a free port of 127.0.0.1, in a new thread, and returns the port.
pub(crate) fn listen<F: Future>(serve: impl FnOnce(TcpListener) -> F + Send + 'static) -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("a socket for tokio");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a socket for tokio");
            serve(listener).await
        });
    });
    port
}

impl Proxy {
    /// Starts a proxy in front of a server on 127.0.0.1.
    pub fn to(upstream: u16) -> Proxy {
        let orders = Orders { traffic: Traffic::Pass, upstream, delay: Duration::ZERO, generation: 0, stop: false };
        let state = Arc::new(State {
            orders: watch::channel(orders).0,
            open: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            answer_budget: AtomicU64::new(UNLIMITED),
        });
        let served = Arc::clone(&state);
        Proxy { port: listen(move |listener| serve(listener, served)), state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the same address through this proxy: the server's port is replaced.
    #[track_caller]
    pub fn through(&self, url: &str) -> String {
        let upstream = format!("127.0.0.1:{}", self.state.orders.borrow().upstream);
        assert!(url.contains(&upstream), "the address does not name {upstream}");
        url.replacen(&upstream, &format!("127.0.0.1:{}", self.port), 1)
    }

    /// Leads new connections to another server, which is what clients see of a failover.
    pub fn redirect(&self, upstream: u16) {
        self.state.orders.send_modify(|orders| orders.upstream = upstream);
    }

    pub fn set(&self, traffic: Traffic) {
        self.state.orders.send_modify(|orders| orders.traffic = traffic);
    }

    /// Delays every piece of data by this time before it is passed on.
    pub fn delay(&self, delay: Duration) {
        self.state.orders.send_modify(|orders| orders.delay = delay);
    }

    /// Resets every existing connection.
    pub fn cut(&self) {
        self.state.cut();
    }

    /// Resets every connection after this many more bytes went from server to client.
    pub fn cut_after(&self, answer_bytes: u64) {
        self.state.answer_budget.store(answer_bytes, Ordering::SeqCst);
    }

    /// Number of existing connections.
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Number of connections that were ever made.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.orders.send_modify(|orders| orders.stop = true);
    }
}

impl State {
    fn cut(&self) {
        self.orders.send_modify(|orders| orders.generation += 1);
    }

    /// Returns how many of these bytes may pass, and whether a cut follows.
    fn spend(&self, way: Way, bytes: usize) -> (usize, bool) {
        let budget = self.answer_budget.load(Ordering::SeqCst);
        if way == Way::ToServer || budget == UNLIMITED {
            return (bytes, false);
        }
        let passing = bytes.min(usize::try_from(budget).unwrap_or(usize::MAX));
        let left = budget - passing as u64;
        self.answer_budget.store(if left == 0 { UNLIMITED } else { left }, Ordering::SeqCst);
        (passing, left == 0)
    }
}

/// Accepts connections until the proxy is dropped. The runtime then drops the tasks that still run.
async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut orders = state.orders.subscribe();
    let accept = async {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(connection(client, Arc::clone(&state)));
        }
    };
    tokio::select! {
        () = accept => {}
        _ = orders.wait_for(|orders| orders.stop) => {}
    }
}

async fn connection(client: TcpStream, state: Arc<State>) {
    let mut orders = state.orders.subscribe();
    let begun = *orders.borrow();
    // Without linger, so that the connection ends with a reset and unsent data is lost.
    drop((client.set_zero_linger(), client.set_nodelay(true)));
    if begun.traffic == Traffic::Refuse {
        return;
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, begun.upstream)).await else { return };
    drop((server.set_zero_linger(), server.set_nodelay(true)));
    state.accepted.fetch_add(1, Ordering::SeqCst);
    state.open.fetch_add(1, Ordering::SeqCst);
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let both = async {
        tokio::try_join!(
            pump(Way::ToServer, from_client, to_server, &state),
            pump(Way::ToClient, from_server, to_client, &state),
        )
    };
    tokio::select! {
        _ = both => {}
        _ = orders.wait_for(|now| now.generation > begun.generation) => {}
    }
    state.open.fetch_sub(1, Ordering::SeqCst);
}

async fn pump(way: Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) -> io::Result<()> {
    let mut orders = state.orders.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        let passes = |orders: &Orders| match orders.traffic {
            Traffic::Pass | Traffic::Refuse => true,
            Traffic::HoldAnswers => way == Way::ToServer,
            Traffic::Hold => false,
        };
        let delay = orders.wait_for(passes).await.map_err(io::Error::other)?.delay;
        tokio::time::sleep(delay).await;
        if read == 0 {
            return to.shutdown().await;
        }
        let (passing, cut) = state.spend(way, read);
        to.write_all(&buffer[..passing]).await?;
        if cut {
            state.cut();
            // This connection is one of those that end.
            return pending().await;
        }
    }
}
