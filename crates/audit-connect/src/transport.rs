//! A byte stream to a server, plain or in TLS, before the session starts: [`Transport`].
//!
//! One implementation serves ordinary sessions, where the driver speaks the protocol, and replication, where
//! `audit-capture` does. So the meaning of `sslmode` is implemented only once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::{ChannelBinding, TlsStream};
use tokio_rustls::TlsConnector;

use crate::binding;
use crate::config::TcpOptions;
use crate::error::ConnectError;
use crate::methods::{Methods, Watch};
use crate::ssl::SslMode;

/// A stream to a server. Reading and writing are cancellation safe, like those of the underlying stream.
pub struct Transport {
    stream: Stream,
    end_point: Option<Vec<u8>>,
    login: Watch,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// The options that say how a TCP stream becomes a transport.
pub(crate) struct Negotiation<'a> {
    pub(crate) mode: SslMode,
    pub(crate) direct: bool,
    /// `None` exactly if the mode is `disable`.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) host: &'a str,
    pub(crate) endpoint: &'a str,
    /// True if TLS in this mode verifies the server's identity.
    pub(crate) verifies: bool,
    pub(crate) methods: Option<Methods>,
}

impl Transport {
    /// Tells whether bytes go through TCP, where small reads are expensive.
    pub fn is_tcp(&self) -> bool {
        !matches!(self.stream, Stream::Unix(_))
    }

    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// The hash of the server's certificate, to which a SCRAM login may be bound (`tls-server-end-point`).
    pub fn server_end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }

    /// Makes a transport from a Unix socket. It is trusted, because the system protects the socket and nobody else can
    /// read what is sent.
    pub(crate) fn unix(stream: UnixStream, methods: Option<Methods>) -> Transport {
        Transport { stream: Stream::Unix(stream), end_point: None, login: Watch::new(methods, true) }
    }

    fn plain(tcp: TcpStream, how: &Negotiation<'_>) -> Transport {
        Transport { stream: Stream::Tcp(tcp), end_point: None, login: Watch::new(how.methods, false) }
    }

    /// Asks the server for TLS if the mode needs it (PostgreSQL's manual, section "SSL Session Encryption").
    pub(crate) async fn negotiate(mut tcp: TcpStream, how: &Negotiation<'_>) -> Result<Transport, ConnectError> {
        let Some(config) = &how.tls else { return Ok(Transport::plain(tcp, how)) };
        if !how.direct {
            // The answer is one byte, read without a buffer, so that an attacker on the path cannot insert plain text
            // that we would later take for the server's (CVE-2021-23222).
            match ask_for_tls(&mut tcp).await.map_err(|error| ConnectError::lost(how.endpoint, error))? {
                b'S' => {}
                b'N' if how.mode == SslMode::Prefer => return Ok(Transport::plain(tcp, how)),
                b'N' => return Err(ConnectError::NoTls { endpoint: how.endpoint.to_owned() }),
                _ => return Err(ConnectError::protocol(how.endpoint, "no answer to the request for TLS")),
            }
        }
        let name = ServerName::try_from(how.host.to_owned()).map_err(|_| {
            ConnectError::config(
                format!("{} is no name that a certificate could bear", how.host),
                "connect by host name",
            )
        })?;
        let connecting = TlsConnector::from(config.clone()).connect(name, tcp);
        let tls = connecting.await.map_err(|error| ConnectError::lost(how.endpoint, error))?;
        let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let end_point = certificate.and_then(binding::server_end_point);
        let login = Watch::new(how.methods, how.verifies);
        Ok(Transport { stream: Stream::Tls(Box::new(tls)), end_point, login })
    }
}

pub(crate) async fn open_tcp(address: SocketAddr, options: &TcpOptions) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let socket = socket2::SockRef::from(&tcp);
    if let Some(keepalive) = &options.keepalive {
        socket.set_tcp_keepalive(keepalive)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(options.user_timeout)?;
    Ok(tcp)
}

async fn ask_for_tls(tcp: &mut TcpStream) -> io::Result<u8> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await?;
    tcp.read_u8().await
}

/// Passes a call on to the underlying stream.
macro_rules! below {
    ($self:ident, $method:ident ( $($argument:expr),* )) => {
        match &mut $self.as_mut().get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(below!(self, poll_read(cx, buf)))?;
        Poll::Ready(self.login.read(&buf.filled()[before..]))
    }
}

#[deny(clippy::missing_trait_methods)]
impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        below!(self, poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        below!(self, poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        below!(self, poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        below!(self, poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

/// Tells the driver what to bind a login to.
impl TlsStream for Transport {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.end_point {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.clone()),
            None => ChannelBinding::none(),
        }
    }
}
