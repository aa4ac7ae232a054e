//! One call from its request to its event. The event is written when the last handle on the call goes, on
//! whatever way that happens: the answer's end, a client that left, a panic, the end of a tunnel.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Buf as _, Bytes};
use domain::{Denial, Origin};
use http_body::{Body, Frame, SizeHint};
use proto::{event_bytes, nats};
use trace::Span;

use crate::{
    metrics::Metrics,
    problem::CLIENT_CLOSED_REQUEST,
    quota::Quota,
    spans,
    spool::{Draft, Ending, Spool, Ticket, Turn},
};

/// Where calls are recorded.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) spool: Arc<Spool>,
    pub(crate) metrics: Metrics,
    /// Number of shards.
    pub(crate) shards: u16,
    /// What is beyond goes to the bulk shard.
    pub(crate) quota: Arc<Quota>,
    /// Calls end since the edge stops.
    pub(crate) is_cutting: AtomicBool,
}

/// One call with a known key.
#[derive(Debug)]
pub(crate) struct Call {
    recorder: Arc<Recorder>,
    started: Instant,
    shard: u16,
    /// The event so far; gone once it is in the spool.
    event: Mutex<Option<Draft>>,
    answer: OnceLock<Answer>,
    sent: Arc<Counters>,
    /// Of a sampled call.
    span: Option<Span>,
}

#[derive(Debug)]
struct Answer {
    ticket: Ticket,
    turn: Turn,
    status_code: u16,
    denial: Option<Denial>,
}

/// Body bytes so far, and whether the answer is complete.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    is_complete: AtomicBool,
}

impl Call {
    /// A call that began at `started`; nothing is written yet.
    pub(crate) fn begin(
        recorder: Arc<Recorder>,
        started: Instant,
        event: &event_bytes::Beginning<'_>,
        span: Option<Span>,
    ) -> Arc<Self> {
        let shard = if recorder.quota.admits(&event.workspace_id, started) {
            nats::shard_of(&event.key_id, recorder.shards)
        } else {
            nats::bulk_shard(recorder.shards)
        };
        Arc::new(Self {
            recorder,
            started,
            shard,
            event: Mutex::new(Some(Draft::new(|out| event_bytes::begin(event, out)))),
            answer: OnceLock::new(),
            sent: Arc::default(),
            span,
        })
    }

    /// The span that the call has if it is sampled.
    pub(crate) const fn span(&self) -> Option<&Span> {
        self.span.as_ref()
    }

    /// What the call was about, as its answer says; to be called before [`Self::answered`].
    pub(crate) fn is_about(&self, resource_id: &str) {
        if let Some(event) = self.event.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            event.add(|out| event_bytes::about(out, resource_id));
        }
    }

    /// Has the call written down, together with others that are answered just now; to be awaited before anything of the
    /// answer leaves.
    pub(crate) async fn answered(&self, status_code: u16, origin: Origin, denial: Option<Denial>) {
        self.conclude(status_code, origin, denial);
        // Those that are ready too come first, and one write does for all.
        tokio::task::yield_now().await;
        self.write_down();
    }

    fn conclude(&self, status_code: u16, origin: Origin, denial: Option<Denial>) {
        let Some(mut event) = self.event.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        event.add(|out| event_bytes::answer(out, status_code, origin, denial));
        let (ticket, turn) = self.recorder.spool.opened(self.shard, event);
        let _ = self.answer.set(Answer { ticket, turn, status_code, denial });
    }

    fn write_down(&self) {
        if let Some(answer) = self.answer.get() {
            self.recorder.spool.write_down(answer.turn);
        }
    }

    /// The body counters.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.sent.clone()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.answer.get().is_none() {
            self.conclude(CLIENT_CLOSED_REQUEST, Origin::Edge, None);
            self.write_down();
        }
        let Some(answer) = self.answer.get() else { return };
        let is_cut = self.recorder.is_cutting.load(Relaxed) && !self.sent.is_complete.load(Relaxed);
        let ending = Ending {
            started: self.started,
            status_code: answer.status_code,
            request_bytes: self.sent.request_bytes.load(Relaxed),
            response_bytes: self.sent.response_bytes.load(Relaxed),
            interrupted: is_cut,
        };
        self.recorder.spool.closed(&answer.ticket, &ending);
        self.recorder.metrics.answered(answer.status_code, answer.denial, self.started.elapsed());
        if let Some(span) = &self.span {
            spans::answered(span, answer.status_code, answer.denial);
        }
    }
}

/// Keeps a call open beyond its answer, for a connection that was upgraded. In the extensions of each request
/// that reaches the inner service and asks for an upgrade or a tunnel.
#[derive(Debug, Clone)]
pub struct Tunnel(Weak<Call>);

impl Tunnel {
    pub(crate) fn of(call: &Arc<Call>) -> Self {
        Self(Arc::downgrade(call))
    }

    /// The call stays open until what this returns is dropped; `None` once it has ended.
    #[must_use]
    pub fn hold(&self) -> Option<Held> {
        self.0.upgrade().map(Held)
    }
}

/// A call that is kept open.
#[derive(Debug)]
pub struct Held(Arc<Call>);

impl Held {
    /// Counts bytes from the client.
    pub fn count_request(&self, bytes: u64) {
        self.0.sent.request_bytes.fetch_add(bytes, Relaxed);
    }

    /// Counts bytes to the client.
    pub fn count_response(&self, bytes: u64) {
        self.0.sent.response_bytes.fetch_add(bytes, Relaxed);
    }

    /// The tunnel ended by itself.
    pub fn complete(&self) {
        self.0.sent.is_complete.store(true, Relaxed);
    }
}

/// A request's body; counts what comes in.
#[derive(Debug)]
pub struct RequestBody<B> {
    body: B,
    sent: Arc<Counters>,
}

impl<B> RequestBody<B> {
    pub(crate) fn new(body: B, sent: Arc<Counters>) -> Self {
        Self { body, sent }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.sent.request_bytes.fetch_add(data_bytes(frame), Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body; counts what goes out, and ends its call when it is dropped.
#[derive(Debug)]
pub struct ResponseBody<B> {
    body: B,
    /// `None` for a call without an event.
    call: Option<Arc<Call>>,
}

impl<B: Body> ResponseBody<B> {
    pub(crate) fn new(body: B, call: Option<Arc<Call>>) -> Self {
        let whole = Self { body, call };
        whole.note_end(whole.body.is_end_stream());
        whole
    }

    /// An upgraded connection goes on behind its empty body.
    fn note_end(&self, is_end: bool) {
        let is_answer = |call: &&Arc<Call>| call.answer.get().is_none_or(|answer| answer.status_code != 101);
        if let Some(call) = self.call.as_ref().filter(|_| is_end).filter(is_answer) {
            call.sent.is_complete.store(true, Relaxed);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(call) = &self.call {
                    call.sent.response_bytes.fetch_add(data_bytes(frame), Relaxed);
                }
                self.note_end(self.body.is_end_stream());
            }
            Poll::Ready(None) => self.note_end(true),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn data_bytes(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.remaining() as u64)
}
