//! One call over one HTTP/1.1 connection, driven by whoever waits for it: no task and no channel of its own, so
//! that a call costs two wake-ups. Decides whether the connection may have another call.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, Version, request};
use http_body::{Body, Frame, SizeHint};
use tokio_util::io::poll_read_buf;

pub(crate) mod chunked;
pub(crate) mod duplex;
pub(crate) mod head;
pub(crate) mod http2;
mod upload;

use self::{
    chunked::{Decoder, Piece},
    head::{Head, Length},
    upload::{Upload, UploadError},
};
use crate::{
    clock::Alarm,
    guard::{GuardError, Guarded, Pace},
    timeouts::{Timeouts, Watch},
    upstream::{
        connect::Io,
        pool::{Connection, Turn},
    },
};

/// Room for what is read at once: for heads and small bodies, and for the rest.
const READ_BYTES: usize = 16 * 1024;
const READ_BYTES_LARGE: usize = 64 * 1024;
/// Most answers before the real one, such as 103.
const INFORMATIONAL_MAX: usize = 16;
/// How long a body waits for 100 Continue before it is sent all the same (RFC 9110, section 10.1.1).
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The client's part failed.
    #[error(transparent)]
    Request(#[from] GuardError),
    /// The client did not send its body in time.
    #[error("the body of the request did not come in time")]
    RequestTimeout,
    /// The API did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection ended before any byte of an answer.
    #[error("the connection was closed before an answer")]
    Closed,
    /// The connection broke, or what came was no answer.
    #[error("the API failed")]
    Broken(#[source] BoxError),
}

/// Why the body of an answer ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The connection ended first.
    #[error("the API ended its answer early")]
    Cut,
    /// Nothing came for too long.
    #[error("the API fell silent in its answer")]
    Silent,
    /// The chunks are wrong, the connection broke, or the request did.
    #[error(transparent)]
    Broken(BoxError),
}

/// A call that is under way, and the body of its answer.
pub(crate) struct Exchange<B> {
    turn: Turn<Guarded<B>>,
    /// Gone once it is idle again, or closed.
    connection: Option<Box<Connection>>,
    upload: Upload<Guarded<B>>,
    pace: Pace,
    watch: Watch,
    idle: Duration,
    is_reusable: bool,
    /// The API takes no more of the request.
    is_deaf: bool,
    download: Download,
}

#[derive(Debug)]
enum Download {
    Known(u64),
    Chunked(Decoder),
    UntilClose,
    Done,
}

/// A connection that is HTTP no more, and what was read from it already.
pub(crate) struct Upgraded {
    pub(crate) io: Io,
    pub(crate) read: BytesMut,
}

impl<B> Exchange<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static,
{
    /// Sends a request and waits for the head of its answer. Gives a body back that there was nothing of.
    pub(crate) async fn start(
        turn: Turn<Guarded<B>>,
        mut connection: Box<Connection>,
        request: &request::Parts,
        body: Guarded<B>,
        timeouts: &Timeouts,
    ) -> Result<(Head, Box<Self>), (Fault, Option<Guarded<B>>)> {
        let length = request_length(request, &body);
        let mut out = std::mem::take(&mut connection.out);
        head::write(&mut out, request, &turn.0.connector.address, length);
        let is_held = length != Length::None && expects_continue(request);
        let pace = body.pace();
        let (empty, body) = if length == Length::None { (Some(body), None) } else { (None, Some(body)) };
        let mut exchange = Box::new(Self {
            turn,
            connection: Some(connection),
            upload: Upload::new(out, body, length, is_held),
            pace,
            watch: Watch::new(timeouts),
            idle: timeouts.idle,
            is_reusable: true,
            is_deaf: false,
            download: Download::Done,
        });
        let mut waiting = Waiting {
            method: &request.method,
            has_read: false,
            informational: 0,
            patience: is_held.then(|| Alarm::after(CONTINUE_TIMEOUT)),
            seen: None,
        };
        match poll_fn(|cx| exchange.poll_head(cx, &mut waiting, timeouts)).await {
            Ok(answer) => {
                exchange.take_up(&answer);
                Ok((answer, exchange))
            }
            Err(fault) => Err((fault, empty)),
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        waiting: &mut Waiting<'_>,
        timeouts: &Timeouts,
    ) -> Poll<Result<Head, Fault>> {
        loop {
            if let Some(patience) = &waiting.patience
                && patience.poll_due(cx).is_ready()
            {
                waiting.patience = None;
                self.upload.release();
            }
            self.poll_upload(cx).map_err(|error| match error {
                UploadError::Body(error) => Fault::Request(error),
                error => Fault::Broken(error.into()),
            })?;
            match self.poll_read_head(cx, waiting) {
                Poll::Ready(Ok(Some(head))) => return Poll::Ready(Ok(head)),
                // The API asks for the body.
                Poll::Ready(Ok(None)) => {
                    waiting.patience = None;
                    self.upload.release();
                }
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Pending => break,
            }
        }
        let (frames, is_starved) = self.pace.of();
        if waiting.seen.replace((frames, is_starved)) != Some((frames, is_starved)) {
            self.watch.expect_within(if is_starved { timeouts.idle } else { timeouts.answer });
        }
        ready!(self.watch.poll_due(cx));
        Poll::Ready(Err(if is_starved { Fault::RequestTimeout } else { Fault::Timeout }))
    }

    /// Sends what can be sent of the request. A connection that takes no more may still have an answer.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), UploadError> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if !self.is_deaf && !self.upload.is_done() {
            match self.upload.poll(cx, &mut connection.io) {
                Poll::Ready(Err(UploadError::Io(error))) => {
                    tracing::debug!(%error, "the API takes no more of a request");
                    (self.is_deaf, self.is_reusable) = (true, false);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// The head of the answer; `None` for 100.
    fn poll_read_head(
        &mut self,
        cx: &mut Context<'_>,
        waiting: &mut Waiting<'_>,
    ) -> Poll<Result<Option<Head>, Fault>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Err(Fault::Closed)) };
        loop {
            if waiting.has_read
                && let Some(head) = head::read(&mut connection.read, waiting.method)
                    .map_err(|error| Fault::Broken(error.into()))?
            {
                if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok(Some(head)));
                }
                waiting.informational += 1;
                if waiting.informational > INFORMATIONAL_MAX {
                    return Poll::Ready(Err(Fault::Broken(
                        "it answers without end before its answer".into(),
                    )));
                }
                if head.status == StatusCode::CONTINUE {
                    return Poll::Ready(Ok(None));
                }
                continue;
            }
            make_room(&mut connection.read, READ_BYTES);
            match ready!(poll_read_buf(Pin::new(&mut connection.io), cx, &mut connection.read)) {
                Ok(0) if waiting.has_read => {
                    return Poll::Ready(Err(Fault::Broken("its answer was cut".into())));
                }
                Ok(0) => return Poll::Ready(Err(Fault::Closed)),
                Ok(_) => waiting.has_read = true,
                Err(error) if waiting.has_read => return Poll::Ready(Err(Fault::Broken(error.into()))),
                Err(error) if is_closed(&error) => return Poll::Ready(Err(Fault::Closed)),
                Err(error) => return Poll::Ready(Err(Fault::Broken(error.into()))),
            }
        }
    }

    /// Goes on with the body of the answer.
    fn take_up(&mut self, head: &Head) {
        self.is_reusable &= head.is_reusable;
        self.watch.rest();
        self.download = match head.length {
            Length::Known(0) | Length::None => Download::Done,
            Length::Known(bytes) => Download::Known(bytes),
            Length::Chunked => Download::Chunked(Decoder::default()),
            Length::UntilClose => Download::UntilClose,
        };
        if matches!(self.download, Download::Done) && head.status != StatusCode::SWITCHING_PROTOCOLS {
            self.finish();
        }
    }

    /// Whether something of the request is still to be sent.
    pub(crate) fn is_uploading(&self) -> bool {
        !self.is_deaf && self.connection.is_some() && !self.upload.is_done()
    }

    /// The connection itself, after 101.
    pub(crate) fn upgrade(&mut self) -> Option<Upgraded> {
        let connection = self.connection.take()?;
        Some(Upgraded { io: connection.io, read: connection.read })
    }

    /// The answer has ended: keeps the connection if nothing of this call can come or go on it any more.
    fn finish(&mut self) {
        self.download = Download::Done;
        self.watch.clear();
        if let Some(mut connection) = self.connection.take()
            && self.is_reusable
            && self.upload.is_done()
            && connection.read.is_empty()
        {
            connection.out = self.upload.take_buffer();
            self.turn.0.put_idle(connection);
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, AnswerError>> {
        self.poll_upload(cx).map_err(|error| AnswerError::Broken(error.into()))?;
        loop {
            let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(None)) };
            let read = &mut connection.read;
            match &mut self.download {
                Download::Done => return Poll::Ready(Ok(None)),
                Download::Known(left) if !read.is_empty() => {
                    let count = usize::try_from(*left).map_or(read.len(), |left| left.min(read.len()));
                    *left -= count as u64;
                    let (data, is_end) = (read.split_to(count).freeze(), *left == 0);
                    if is_end {
                        self.finish();
                    }
                    return Poll::Ready(Ok(Some(Frame::data(data))));
                }
                Download::UntilClose if !read.is_empty() => {
                    return Poll::Ready(Ok(Some(Frame::data(read.split().freeze()))));
                }
                Download::Chunked(decoder) => match decoder.next(read) {
                    Ok(Piece::Data(data)) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                    Ok(Piece::Trailers(trailers)) => {
                        self.finish();
                        return Poll::Ready(Ok(Some(Frame::trailers(trailers))));
                    }
                    Ok(Piece::End) => {
                        self.finish();
                        return Poll::Ready(Ok(None));
                    }
                    Ok(Piece::Missing) => {}
                    Err(error) => return Poll::Ready(Err(AnswerError::Broken(error.into()))),
                },
                Download::Known(_) | Download::UntilClose => {}
            }
            ready!(self.poll_more(cx))?;
        }
    }

    /// Reads more of the answer.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AnswerError>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(())) };
        make_room(&mut connection.read, READ_BYTES_LARGE);
        match poll_read_buf(Pin::new(&mut connection.io), cx, &mut connection.read) {
            Poll::Ready(Ok(0)) if matches!(self.download, Download::UntilClose) => {
                self.is_reusable = false;
                self.finish();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(0)) => Poll::Ready(Err(AnswerError::Cut)),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(AnswerError::Broken(error.into()))),
            Poll::Pending => {
                self.watch.wait(self.idle);
                ready!(self.watch.poll_due(cx));
                Poll::Ready(Err(AnswerError::Silent))
            }
        }
    }
}

impl<B> Body for Exchange<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static,
{
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let piece = ready!(self.poll_piece(cx));
        self.watch.rest();
        if piece.is_err() {
            // Never to be used again.
            self.connection = None;
            self.download = Download::Done;
        }
        Poll::Ready(piece.transpose())
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.download, Download::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match self.download {
            Download::Known(left) => SizeHint::with_exact(left),
            Download::Done => SizeHint::with_exact(0),
            Download::Chunked(_) | Download::UntilClose => SizeHint::default(),
        }
    }
}

/// What is known while there is no answer.
struct Waiting<'a> {
    method: &'a Method,
    has_read: bool,
    informational: usize,
    /// Until when the API may ask for the body.
    patience: Option<Alarm>,
    /// The pace when it was last looked at.
    seen: Option<(u64, bool)>,
}

/// How the body of a request is framed for the API.
fn request_length(request: &request::Parts, body: &impl Body) -> Length {
    match body.size_hint().exact() {
        // A POST without a body says so, a GET says nothing.
        Some(0) if !request.headers.contains_key(http::header::CONTENT_LENGTH) => Length::None,
        Some(bytes) => Length::Known(bytes),
        None if body.is_end_stream() => Length::None,
        None => Length::Chunked,
    }
}

fn expects_continue(request: &request::Parts) -> bool {
    let expected = request.headers.get(http::header::EXPECT);
    request.version >= Version::HTTP_11
        && expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn make_room(buffer: &mut BytesMut, bytes: usize) {
    if buffer.capacity() - buffer.len() < 1024 {
        buffer.reserve(bytes);
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
    )
}
