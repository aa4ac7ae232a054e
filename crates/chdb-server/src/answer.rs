//! From a statement's output to an HTTP response: held back until it is known to go well or to be long, then streamed.
//! A client that goes away ends its statement. Never blocks a thread of the runtime.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Response,
    body::{Frame, Incoming},
};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
    time::{sleep, timeout},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use crate::{
    body,
    compression::Encoder,
    engine::Counters,
    exception::Exception,
    headers,
    request::{Coding, Request},
    server::{Identity, Registration},
    statement::{self, Job},
};

/// Output held back before the head of the answer is sent; an error until then has its own HTTP status.
const HELD_BYTES: usize = 256 << 10;
/// Output held back for `wait_end_of_query=1`.
const WHOLE_BYTES_MAX: usize = 256 << 20;
/// Output that is read, compressed and sent at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces between a statement and its client.
const PIECES_MAX: usize = 2;
/// Between two tries to end a statement in the engine.
const KILL_PAUSE: Duration = Duration::from_millis(50);
/// How long a client may take to read the text of an exception that ends its stream.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(5);
/// Between that text and the break of the connection: the text must be on its way.
const BREAK_PAUSE: Duration = Duration::from_millis(100);

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Runs a statement and answers it; ends it if it is cancelled or if nobody waits for the answer any more.
pub(crate) async fn run(
    registration: Registration,
    request: Request,
    body: Option<Incoming>,
    reply: oneshot::Sender<Response<Body>>,
) {
    let identity = registration.server.clone();
    match Running::start(registration, request, body) {
        Ok(running) => running.answer(reply).await,
        Err(cause) => {
            let exception = Exception::new(1002, format!("no pipe for the statement's output: {cause}"));
            let _ = reply.send(error(&exception, &identity.identity));
        }
    }
}

/// An answer that says why there is none.
pub(crate) fn error(exception: &Exception, identity: &Identity) -> Response<Body> {
    let mut response = Response::new(full(exception.body(&identity.version).into_bytes()));
    *response.status_mut() = exception.status();
    headers::error(response.headers_mut(), exception, identity);
    response
}

/// A body that is known whole.
pub(crate) fn full(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync()
}

/// A statement on its thread.
struct Running {
    registration: Registration,
    job: JoinHandle<Result<Counters, Exception>>,
    /// What the statement prints; closed, it makes the engine's writes fail.
    output: Option<pipe::Receiver>,
    /// The name of the output's format, when it is known.
    format: oneshot::Receiver<String>,
    coding: Coding,
    whole: bool,
}

impl Running {
    fn start(registration: Registration, request: Request, body: Option<Incoming>) -> io::Result<Self> {
        let (output, writer) = io::pipe()?;
        let output = pipe::Receiver::from_owned_fd(output.into())?;
        let (named, format) = oneshot::channel();
        let cancelled = registration.cancelled.clone();
        let body: Box<dyn io::Read + Send> = match body {
            Some(body) => Box::new(body::forward(body, cancelled.clone())),
            None => Box::new(io::empty()),
        };
        let (coding, whole) = (request.output, request.whole_answer);
        let (server, id) = (registration.server.clone(), registration.id.clone());
        let job = tokio::task::spawn_blocking(move || {
            Job { server: &server, request, id, body, output: writer, format: named, cancelled }.run()
        });
        Ok(Self { registration, job, output: Some(output), format, coding, whole })
    }

    async fn answer(mut self, mut reply: oneshot::Sender<Response<Body>>) {
        let limit = if self.whole { WHOLE_BYTES_MAX } else { HELD_BYTES };
        let mut held = Vec::new();
        let cancelled = self.registration.cancelled.clone();
        let ended = tokio::select! {
            ended = read_up_to(limit, self.output.as_mut(), &mut held) => Some(ended),
            () = cancelled.cancelled() => None,
            () = reply.closed() => None,
        };
        let result = match ended {
            Some(true) => joined((&mut self.job).await),
            Some(false) if self.whole => {
                let message = format!("an answer with wait_end_of_query may have {WHOLE_BYTES_MAX} bytes");
                self.end().await.and(Err(Exception::new(241, message)))
            }
            Some(false) => return self.stream(reply, held).await,
            None => match self.end().await {
                // It was too late to end it: the rows are written, so say so.
                Ok(counters) if counters.written_rows > 0 => Ok(counters),
                Ok(_) => Err(statement::cancelled()),
                Err(exception) => Err(exception),
            },
        };
        let response = match result {
            Ok(counters) => self.whole_response(held, counters),
            Err(exception) => {
                tracing::debug!(query.id = self.registration.id, %exception, "a statement failed");
                let mut response = error(&exception, self.identity());
                headers::query_id(response.headers_mut(), &self.registration.id);
                response
            }
        };
        // Its id is free again before the client can know that it has ended.
        drop(self);
        let _ = reply.send(response);
    }

    fn whole_response(&mut self, held: Vec<u8>, counters: Counters) -> Response<Body> {
        let mut encoder = encoder(self.coding);
        let mut bytes = if held.is_empty() { held } else { encoder.encode(held) };
        bytes.extend(encoder.finish());
        let mut response = Response::new(full(bytes));
        self.head(response.headers_mut());
        headers::summary(response.headers_mut(), counters);
        response
    }

    /// Sends the head and what is held back, then the rest as it comes. An exception from here on is written after
    /// the rows, and the body is broken off.
    async fn stream(mut self, reply: oneshot::Sender<Response<Body>>, held: Vec<u8>) {
        let (pieces, receiver) = mpsc::channel(PIECES_MAX);
        let body =
            ReceiverStream::new(receiver).map(|piece: io::Result<Vec<u8>>| Ok(Frame::data(piece?.into())));
        let mut response = Response::new(StreamBody::new(body).boxed_unsync());
        self.head(response.headers_mut());
        let tag = headers::exception_tag(response.headers_mut());
        let _ = reply.send(response);
        let mut encoder = encoder(self.coding);
        let result = self.forward(&pieces, &mut encoder, held).await;
        let mut last = Vec::new();
        if let Err(exception) = &result {
            tracing::debug!(query.id = self.registration.id, %exception, "a statement failed midway");
            last = encoder.encode(exception.frame(&self.identity().version, &tag).into_bytes());
        }
        last.extend(encoder.finish());
        drop(self);
        if !last.is_empty() {
            let _ = timeout(LAST_WORD_LIMIT, pieces.send(Ok(last))).await;
        }
        if result.is_err() {
            sleep(BREAK_PAUSE).await;
            let broken = io::Error::other("the statement failed midway");
            let _ = timeout(LAST_WORD_LIMIT, pieces.send(Err(broken))).await;
        }
    }

    async fn forward(
        &mut self,
        pieces: &mpsc::Sender<io::Result<Vec<u8>>>,
        encoder: &mut Encoder,
        mut piece: Vec<u8>,
    ) -> Result<Counters, Exception> {
        let cancelled = self.registration.cancelled.clone();
        loop {
            let bytes = encoder.encode(std::mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES)));
            let step = async {
                pieces.send(Ok(bytes)).await.map_err(|_| ())?;
                Ok(read_up_to(0, self.output.as_mut(), &mut piece).await)
            };
            let ended = tokio::select! {
                ended = step => ended,
                () = cancelled.cancelled() => Err(()),
                () = pieces.closed() => Err(()),
            };
            match ended {
                Ok(false) => {}
                Ok(true) => return joined((&mut self.job).await),
                Err(()) => return self.end().await.and(Err(statement::cancelled())),
            }
        }
    }

    /// Ends the statement wherever it is: reading rows, in the engine, or writing.
    async fn end(&mut self) -> Result<Counters, Exception> {
        self.registration.cancelled.cancel();
        self.output = None;
        loop {
            if let Ok(result) = timeout(KILL_PAUSE, &mut self.job).await {
                return joined(result);
            }
            let (server, id) = (self.registration.server.clone(), self.registration.id.clone());
            if let Ok(Err(exception)) = tokio::task::spawn_blocking(move || server.kill(&id)).await {
                tracing::warn!(query.id = self.registration.id, %exception, "a statement can not be ended yet");
            }
        }
    }

    fn head(&mut self, headers: &mut HeaderMap) {
        let format = self.format.try_recv().unwrap_or_default();
        headers::answer(headers, &format, self.coding, self.identity());
        headers::query_id(headers, &self.registration.id);
    }

    fn identity(&self) -> &Identity {
        &self.registration.server.identity
    }
}

/// Reads more than `limit` bytes, or to the end: then true.
async fn read_up_to(limit: usize, output: Option<&mut pipe::Receiver>, held: &mut Vec<u8>) -> bool {
    let Some(output) = output else { return true };
    while held.len() <= limit {
        held.reserve(PIECE_BYTES);
        if matches!(output.read_buf(held).await, Ok(0) | Err(_)) {
            return true;
        }
    }
    false
}

fn encoder(coding: Coding) -> Encoder {
    match coding {
        Coding::Identity => Encoder::Identity,
        Coding::Blocks => Encoder::Blocks,
        Coding::Frame => Encoder::frame(),
    }
}

fn joined(result: Result<Result<Counters, Exception>, JoinError>) -> Result<Counters, Exception> {
    result
        .unwrap_or_else(|error| Err(Exception::new(1002, format!("the statement's thread failed: {error}"))))
}
