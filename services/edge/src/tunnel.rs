//! Upgraded connections, WebSocket for one: bytes both ways until one side ends, or the edge does.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use edge_layer::Held;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// All upgraded connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tunnels {
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl Tunnels {
    /// Joins the two ends once both are upgraded; the call ends with them.
    pub(crate) fn join(&self, from_client: OnUpgrade, to_api: OnUpgrade, held: Held) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            let copied = cut.run_until_cancelled(copy(from_client, to_api, &held)).await;
            if let Some(Err(error)) = copied {
                tracing::debug!(%error, "an upgraded connection broke");
            }
            drop(held);
        });
    }

    /// Waits until all have ended.
    pub(crate) async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends them all.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }
}

async fn copy(from_client: OnUpgrade, to_api: OnUpgrade, held: &Held) -> anyhow::Result<()> {
    let (client, api) = tokio::try_join!(from_client, to_api)?;
    let mut client = Counted { io: TokioIo::new(client), held };
    let ended = copy_bidirectional(&mut client, &mut TokioIo::new(api)).await;
    held.complete();
    ended?;
    Ok(())
}

/// The client's end; counts what is read from it and written to it.
struct Counted<'a> {
    io: TokioIo<Upgraded>,
    held: &'a Held,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.held.count_request((buffer.filled().len() - before) as u64);
        read
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.held.count_response(count as u64);
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
