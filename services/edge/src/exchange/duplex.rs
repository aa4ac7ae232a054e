//! An answer that began before its request had ended: a task of its own goes on sending the request, also while the
//! client does not read, or both could wait for each other for ever.

use std::{
    future::{Future as _, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::mpsc;

use super::{AnswerError, Exchange};
use crate::worker::Worker;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Piece = Result<Option<Frame<Bytes>>, AnswerError>;

/// The body of such an answer.
pub(crate) struct Duplex {
    pieces: mpsc::Receiver<Piece>,
    is_end: bool,
}

impl Duplex {
    /// The rest of `exchange`, which ends when this is dropped.
    pub(crate) fn start<B>(exchange: Box<Exchange<B>>, worker: &Worker) -> Self
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static,
    {
        let (sender, pieces) = mpsc::channel(1);
        worker.spawn(drive(exchange, sender));
        Self { pieces, is_end: false }
    }
}

/// Sends the request, and hands on the answer as fast as it is taken.
async fn drive<B>(mut exchange: Box<Exchange<B>>, pieces: mpsc::Sender<Piece>)
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static,
{
    loop {
        let mut room = pin!(pieces.reserve());
        let room = poll_fn(|cx| {
            // What fails here fails again where it is told.
            let _ = exchange.poll_upload(cx);
            room.as_mut().poll(cx)
        });
        let Ok(room) = room.await else { return };
        let mut gone = pin!(pieces.closed());
        let piece = poll_fn(|cx| match gone.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => exchange.poll_piece(cx).map(Some),
        });
        let Some(piece) = piece.await else { return };
        exchange.watch.rest();
        let is_last = !matches!(piece, Ok(Some(_)));
        room.send(piece);
        if is_last {
            return;
        }
    }
}

impl Body for Duplex {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        if self.is_end {
            return Poll::Ready(None);
        }
        // Without a last piece the task was ended.
        let piece = ready!(self.pieces.poll_recv(cx)).unwrap_or(Err(AnswerError::Cut));
        self.is_end = !matches!(piece, Ok(Some(_)));
        Poll::Ready(piece.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.is_end
    }
}
