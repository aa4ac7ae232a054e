//! One connection of a client: HTTP/1.1 or HTTP/2, told apart by its first bytes, with or without TLS. Knows
//! nothing of what answers.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    clock::{Alarm, Timer},
    exchange::http2::LocalExecutor,
    gather,
    headers::Asker,
    worker::{Phase, Worker},
};

/// How long a client may take for the TLS handshake and the head of its first request, and for each further head
/// over HTTP/1.1.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What is read of a client over HTTP/1.1 before it is used, in bytes: the longest head of a request, whose path alone may
/// have 64 KiB.
const READ_BYTES_MAX: usize = 96 * 1024;
/// How long a client may leave unread what waits for it.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a client over HTTP/2 is asked whether it lives, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Most calls at a time on a connection of HTTP/2.
const STREAMS_MAX: u32 = 256;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What answers requests.
pub(crate) trait Handler: 'static {
    /// What answers carry.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + 'static;

    /// The answer; there always is one.
    fn answer(
        self: Rc<Self>,
        request: Request<Incoming>,
        asker: Rc<Asker>,
    ) -> impl Future<Output = Response<Self::Body>> + 'static;
}

/// Serves a connection until it ends, or the thread does.
pub(crate) async fn serve<H: Handler>(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    handler: Rc<H>,
    worker: &Worker,
) {
    // Without it a small answer can wait 40 ms; a connection that refuses it is gone anyway.
    let _ = stream.set_nodelay(true);
    let patience = Alarm::after(HEAD_TIMEOUT);
    let Some(tls) = tls else {
        return run(stream, Asker::new(peer, false), handler, worker, patience).await;
    };
    let shaken = tokio::select! {
        shaken = tls.accept(stream) => shaken,
        () = patience.due() => return,
        () = worker.cut() => return,
    };
    match shaken {
        Ok(stream) => run(stream, Asker::new(peer, true), handler, worker, patience).await,
        Err(error) => tracing::debug!(peer.port = peer.port(), %error, "a TLS handshake failed"),
    }
}

async fn run<H: Handler>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    asker: Asker,
    handler: Rc<H>,
    worker: &Worker,
    patience: Alarm,
) {
    let (peer, asker) = (asker.peer, Rc::new(asker));
    let has_asked = Rc::new(Cell::new(false));
    let asked = has_asked.clone();
    let service = service_fn(move |request| {
        asked.set(true);
        // In a place of its own, which the next call takes that begins, of whatever connection: inside the connection its
        // five kilobytes would be cold each time, and be moved twice.
        let answer = Box::pin(handler.clone().answer(request, asker.clone()));
        async { Ok::<_, Infallible>(answer.await) }
    });
    let builder = builder();
    let stream = Steady { io: stream, stalled: None };
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut is_told = false;
    let served = poll_fn(|cx| {
        if patience.poll_due(cx).is_ready() && !has_asked.get() {
            return Poll::Ready(Err("no request in time".into()));
        }
        match worker.phase() {
            Phase::Serving => {}
            Phase::Cut => return Poll::Ready(Ok(())),
            Phase::Draining if is_told => {}
            Phase::Draining => {
                is_told = true;
                connection.as_mut().graceful_shutdown();
            }
        }
        connection.as_mut().poll(cx)
    });
    if let Err(error) = served.await {
        tracing::debug!(peer.port = peer.port(), error, "a connection broke");
    }
}

fn builder() -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    builder.http1().timer(Timer).header_read_timeout(HEAD_TIMEOUT).max_buf_size(READ_BYTES_MAX);
    builder
        .http2()
        .timer(Timer)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX);
    builder
}

/// A connection that ends when the client takes nothing for too long.
struct Steady<I> {
    io: I,
    stalled: Option<Alarm>,
}

impl<I> Steady<I> {
    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        ready!(self.stalled.get_or_insert_with(|| Alarm::after(STALL_TIMEOUT)).poll_due(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Steady<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Steady<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = gather::poll_write(Pin::new(&mut self.io), cx, slices);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
