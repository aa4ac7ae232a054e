//! Every metric of a gRPC server: how many calls of each method run, how long they take and how they end. Methods that
//! nobody knows count together, so that strangers make up no labels.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use access::table::who;
use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use opentelemetry::{
    KeyValue,
    metrics::{Histogram, UpDownCounter},
};
use tonic::Code;
use tower::{Layer, Service};

/// Upper bounds of the duration's buckets, in seconds.
const BOUNDARIES_S: [f64; 13] = [0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 10.0, 30.0];
const OTHER: &str = "_OTHER";

/// Measures the calls of the services behind it.
#[derive(Clone)]
pub(crate) struct MeasureLayer(Arc<Instruments>);

struct Instruments {
    /// `keymeter_rpc_duration_seconds{rpc, code}`: from a call's arrival to the end of its answer.
    duration: Histogram<f64>,
    /// `keymeter_rpc_running{rpc}`: calls that are being answered.
    running: UpDownCounter<i64>,
}

/// Services whose calls are measured.
#[derive(Clone)]
pub(crate) struct Measured<S> {
    inner: S,
    instruments: Arc<Instruments>,
}

/// A call, measured when it is dropped: then it has ended, or its caller has gone.
struct Call {
    instruments: Arc<Instruments>,
    rpc: String,
    arrived: Instant,
    code: Option<Code>,
}

/// The body of an answer; its last frame has the code.
pub(crate) struct Answer<B> {
    body: B,
    call: Option<Call>,
}

impl MeasureLayer {
    pub(crate) fn new() -> Self {
        let duration = boot::meter()
            .f64_histogram("keymeter_rpc_duration")
            .with_description("From a call's arrival to the end of its answer.")
            .with_unit("s")
            .with_boundaries(BOUNDARIES_S.to_vec())
            .build();
        let running = boot::meter()
            .i64_up_down_counter("keymeter_rpc_running")
            .with_description("Calls that are being answered.")
            .build();
        Self(Arc::new(Instruments { duration, running }))
    }
}

impl<S> Layer<S> for MeasureLayer {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured { inner, instruments: Arc::clone(&self.0) }
    }
}

impl<S, I, O> Service<Request<I>> for Measured<S>
where
    S: Service<Request<I>, Response = Response<O>>,
    S::Future: Send + 'static,
{
    type Response = Response<Answer<O>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer<O>>, S::Error>> + Send>>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let call = Call::begin(&self.instruments, request.uri().path());
        let answered = move |answer: Response<O>| {
            let mut call = call;
            // An answer without a body has its code here.
            call.note(answer.headers());
            answer.map(|body| Answer { body, call: Some(call) })
        };
        self.inner.call(request).map(|answer| answer.map(answered)).boxed()
    }
}

impl Call {
    fn begin(instruments: &Arc<Instruments>, path: &str) -> Self {
        let rpc = if who(path).is_ok() { path.trim_start_matches('/') } else { OTHER }.to_owned();
        instruments.running.add(1, &[KeyValue::new("rpc", rpc.clone())]);
        Self { instruments: Arc::clone(instruments), rpc, arrived: Instant::now(), code: None }
    }

    fn note(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.code = Some(Code::from_bytes(code.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let rpc = KeyValue::new("rpc", std::mem::take(&mut self.rpc));
        self.instruments.running.add(-1, std::slice::from_ref(&rpc));
        let code = KeyValue::new("code", format!("{:?}", self.code.unwrap_or(Code::Cancelled)));
        self.instruments.duration.record(self.arrived.elapsed().as_secs_f64(), &[rpc, code]);
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(task);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let (Some(trailers), Some(call)) = (frame.trailers_ref(), &mut self.call)
        {
            call.note(trailers);
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

impl<B: Default> Default for Answer<B> {
    fn default() -> Self {
        Self { body: B::default(), call: None }
    }
}
