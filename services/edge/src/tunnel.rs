//! Upgraded connections, WebSocket for one: bytes both ways until one side ends, nothing moves for too long, or
//! the edge stops.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use edge_layer::Held;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional};

use crate::{clock::Alarm, exchange::Upgraded, worker::Worker};

/// The client's end before the API has agreed, and the call that lasts as long as the tunnel.
pub(crate) struct Ends {
    pub(crate) client: OnUpgrade,
    /// `None` for a call that nobody records.
    pub(crate) call: Option<Held>,
}

/// Joins the two ends once the client's is upgraded too; the call ends with them.
pub(crate) async fn join(ends: Ends, api: Upgraded, idle: Duration, worker: Rc<Worker>) {
    let call = ends.call.as_ref();
    let copied = tokio::select! {
        copied = copy(ends.client, api, call, idle) => copied,
        () = worker.cut() => return,
    };
    if let Err(error) = copied {
        tracing::debug!(error = &*error, "an upgraded connection broke");
    }
}

async fn copy(
    client: OnUpgrade,
    mut api: Upgraded,
    call: Option<&Held>,
    idle: Duration,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let silence = Alarm::new();
    let mut client = Counted { io: TokioIo::new(client.await?), call, silence: &silence, idle };
    // What the API sent right behind its 101.
    client.write_all(&api.read).await?;
    client.moved(0);
    let ended = tokio::select! {
        ended = copy_bidirectional(&mut client, &mut api.io) => ended,
        () = silence.due() => Err(io::ErrorKind::TimedOut.into()),
    };
    if let Some(call) = call {
        call.complete();
    }
    ended?;
    Ok(())
}

/// The client's end; counts what is read from it and written to it.
struct Counted<'a, I> {
    io: I,
    call: Option<&'a Held>,
    silence: &'a Alarm,
    idle: Duration,
}

impl<I> Counted<'_, I> {
    fn moved(&self, bytes: usize) -> u64 {
        if !self.idle.is_zero() {
            self.silence.set(self.idle);
        }
        bytes as u64
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<'_, I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if read.is_ready() {
            let bytes = self.moved(buffer.filled().len() - before);
            self.call.inspect(|call| call.count_request(bytes));
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<'_, I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            let bytes = self.moved(count);
            self.call.inspect(|call| call.count_response(bytes));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
