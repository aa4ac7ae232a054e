//! A listener whose connections are plain, or TLS if it is asked for, for axum, tonic and hyper alike. Connections that
//! do not take up TLS hold up nobody.

use std::{
    future::pending,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::Identity;

/// How long taking up TLS may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// So many connections may be at it; more wait to be accepted.
const HANDSHAKES_MAX: usize = 256;
/// Pause after a failure of the system, such as too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    handshakes: JoinSet<Option<(Stream, SocketAddr)>>,
}

impl Listener {
    /// Takes connections of `tcp`; with `tls` only those that take it up.
    #[must_use]
    pub fn new(tcp: TcpListener, tls: Option<Arc<ServerConfig>>) -> Self {
        Self { tcp, tls, handshakes: JoinSet::new() }
    }

    /// As [`Self::new`]: with an identity only callers are let in that show a certificate of its authorities.
    ///
    /// # Errors
    /// If the identity cannot be used.
    pub fn of(tcp: TcpListener, identity: Option<&Identity>) -> anyhow::Result<Self> {
        Ok(Self::new(tcp, identity.map(Identity::server).transpose()?))
    }

    /// The next connection, and whose it is. Nothing is lost if it is dropped.
    pub async fn accept(&mut self) -> (Stream, SocketAddr) {
        loop {
            let is_full = self.handshakes.len() >= HANDSHAKES_MAX;
            let shaken = async {
                match self.handshakes.join_next().await {
                    Some(shaken) => shaken,
                    None => pending().await,
                }
            };
            tokio::select! {
                shaken = shaken => if let Ok(Some(accepted)) = shaken {
                    return accepted;
                },
                accepted = self.tcp.accept(), if !is_full => match accepted {
                    Ok((stream, peer)) => {
                        // Else small frames at the end of an answer wait for the client's delayed acknowledgement.
                        let _ = stream.set_nodelay(true);
                        let Some(tls) = &self.tls else { return (Stream::Plain(stream), peer) };
                        self.handshakes.spawn(shake(TlsAcceptor::from(tls.clone()), stream, peer));
                    }
                    Err(_) => sleep(PAUSE).await,
                },
            }
        }
    }
}

async fn shake(tls: TlsAcceptor, stream: TcpStream, peer: SocketAddr) -> Option<(Stream, SocketAddr)> {
    let why = match timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => return Some((Stream::Tls(Box::new(stream)), peer)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("nothing was agreed within {HANDSHAKE_MAX:?}"),
    };
    tracing::debug!(client.address = %peer, reason = why, "a connection without TLS, or without a certificate that is believed, was refused");
    None
}

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// As it comes.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Stream {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match self {
            Self::Plain(stream) => stream.connect_info(),
            Self::Tls(stream) => stream.get_ref().0.connect_info(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
