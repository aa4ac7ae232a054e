//! One call over an HTTP/2 connection to the API, which it shares with others.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header::HOST, request};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::TokioIo;

use super::{AnswerError, Fault};
use crate::{
    clock::Timer,
    guard::{Guarded, Pace},
    timeouts::{Timeouts, Watch},
    upstream::{
        connect::ConnectError,
        pool::{Shared, Turn, Upstreams},
    },
};

/// Calls on one connection before another one is made; servers commonly allow 100 and more.
const CALLS_MAX: usize = 100;
/// How often a connection with calls on it is asked whether it lives, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the tasks of a connection on its own thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// The body of an answer over HTTP/2.
pub(crate) struct Streamed<B> {
    body: Incoming,
    watch: Watch,
    idle: Duration,
    _turn: Turn<Guarded<B>>,
    _call: Rc<()>,
}

/// A place on a connection: an open one with room, or a new one.
pub(crate) async fn place<B>(
    upstreams: &Upstreams<Guarded<B>>,
    turn: &Turn<Guarded<B>>,
    is_fresh: bool,
) -> Result<Shared<Guarded<B>>, ConnectError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static,
{
    let mut shared = turn.0.shared.lock().await;
    shared.retain(|shared| !shared.sender.is_closed());
    let has_room = |shared: &&Shared<_>| Rc::strong_count(&shared.calls) <= CALLS_MAX;
    if !is_fresh && let Some(open) = shared.iter().find(has_room) {
        return Ok(open.clone());
    }
    let io = upstreams.open(turn).await?;
    let handshake = http2::Builder::new(LocalExecutor)
        .timer(Timer)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .adaptive_window(true)
        .handshake(TokioIo::new(io));
    let (sender, connection) = handshake.await.map_err(std::io::Error::other)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP/2 connection to the API broke");
        }
    });
    let opened = Shared { sender, calls: Rc::default() };
    shared.push(opened.clone());
    Ok(opened)
}

/// The request as HTTP/2 has it: the host is in the address.
pub(crate) fn request<B>(
    turn: &Turn<Guarded<B>>,
    mut head: request::Parts,
    body: Guarded<B>,
) -> Result<Request<Guarded<B>>, http::Error> {
    let host = head.headers.remove(HOST);
    let authority = turn.0.connector.address.authority().as_bytes();
    head.uri =
        turn.0.connector.address.uri(&head.uri, host.as_ref().map_or(authority, |host| host.as_bytes()))?;
    head.version = http::Version::HTTP_2;
    head.extensions.clear();
    Ok(Request::from_parts(head, body))
}

/// Why there is no answer, and the request if none of it was sent.
pub(crate) struct Unanswered<B>(pub(crate) Fault, pub(crate) Option<Request<Guarded<B>>>);

/// Sends a request and waits for the head of its answer.
pub(crate) async fn call<B>(
    turn: Turn<Guarded<B>>,
    place: Shared<Guarded<B>>,
    request: Request<Guarded<B>>,
    timeouts: &Timeouts,
) -> Result<Response<Streamed<B>>, Unanswered<B>>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static,
{
    let Shared { mut sender, calls } = place;
    let (pace, mut watch) = (request.body().pace(), Watch::new(timeouts));
    let answer = sender.try_send_request(request);
    let late = late(&pace, &mut watch, timeouts);
    let answer = tokio::select! {
        answer = answer => answer,
        fault = late => return Err(Unanswered(fault, None)),
    };
    let response = answer.map_err(|mut error| {
        let unsent = error.take_message();
        let fault = pace.fault().map_or_else(|| Fault::Broken(error.into_error().into()), Fault::Request);
        Unanswered(fault, unsent)
    })?;
    watch.rest();
    Ok(response.map(|body| Streamed { body, watch, idle: timeouts.idle, _turn: turn, _call: calls }))
}

/// Returns once the client or the API takes too long.
async fn late(pace: &Pace, watch: &mut Watch, timeouts: &Timeouts) -> Fault {
    let mut seen = None;
    std::future::poll_fn(|cx| {
        let (frames, is_starved) = pace.of();
        if seen.replace((frames, is_starved)) != Some((frames, is_starved)) {
            watch.expect_within(if is_starved { timeouts.idle } else { timeouts.answer });
        }
        ready!(watch.poll_due(cx));
        // The body moves in a task of the connection, which does not wake this one.
        if pace.of() != (frames, is_starved) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(if is_starved { Fault::RequestTimeout } else { Fault::Timeout })
    })
    .await
}

impl<B> Body for Streamed<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static,
{
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let idle = self.idle;
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.watch.rest();
                Poll::Ready(frame.map(|frame| frame.map_err(|error| AnswerError::Broken(error.into()))))
            }
            Poll::Pending => {
                self.watch.wait(idle);
                ready!(self.watch.poll_due(cx));
                Poll::Ready(Some(Err(AnswerError::Silent)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Clone for Shared<B> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), calls: self.calls.clone() }
    }
}
