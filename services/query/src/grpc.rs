//! The gRPC face: gives each call its deadline, hands it to its use case, counts the answer. Who calls was
//! checked by the gate before it.

use access::Claims;
use proto::{
    status,
    usage::{self as pb, usage_service_server::UsageService},
};
use time::OffsetDateTime;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use crate::{
    breakdown,
    call::{self, Call, Cost},
    callers,
    export::Export,
    key_usage, latency, log, overview, series,
    store::Store,
    summary,
    tail::Tail,
    turns::Turns,
};

/// Streams that are open at once, of all workspaces.
const STREAMS_MAX: usize = 256;
/// Answers of a stream that wait for the caller; then ClickHouse waits.
const ANSWERS_MAX: usize = 4;

/// `keymeter.usage.v1.UsageService`.
pub(crate) struct Usage {
    store: Store,
    streams: Turns,
}

type Answers<A> = mpsc::Sender<Result<A, Status>>;

impl Usage {
    pub(crate) fn new(store: Store, workspace_streams_max: usize) -> Self {
        Self { store, streams: Turns::new(STREAMS_MAX, workspace_streams_max) }
    }

    async fn answer<Q, A, F>(
        &self,
        rpc: &'static str,
        mut request: Request<Q>,
        use_case: impl FnOnce(Call, Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, Status>>,
    {
        let arrived = Instant::now();
        let call = self.call(rpc, &mut request, arrived, call::CALL_MAX)?;
        use_case(call, request.into_inner()).await.map(Response::new)
    }

    /// Checks a question, then answers it piece by piece, beside the call.
    async fn stream<Q, A, T, F>(
        &self,
        rpc: &'static str,
        mut request: Request<Q>,
        check: impl FnOnce(&Call, Q) -> Result<T, Status>,
        run: impl FnOnce(T, Call, Answers<A>) -> F + Send + 'static,
    ) -> Result<Response<ReceiverStream<Result<A, Status>>>, Status>
    where
        T: Send + 'static,
        A: Send + 'static,
        F: Future<Output = Result<(), Status>> + Send,
    {
        let arrived = Instant::now();
        let call = self.call(rpc, &mut request, arrived, call::STREAM_MAX)?;
        let workspace_id = call.claims.workspace_id;
        let checked = check(&call, request.into_inner())?;
        let Some(turn) = self.streams.take(workspace_id, arrived).await else {
            let why =
                "too many exports and tails of this workspace or of all are open; end one and try again";
            return Err(status::error(Code::ResourceExhausted, "TOO_MANY_STREAMS", why));
        };
        let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
        tokio::spawn(trace::carried(async move {
            let _turn = turn;
            let ended = tokio::select! {
                ended = run(checked, call, sender.clone()) => ended,
                () = sender.closed() => Err(Status::cancelled("the caller has gone")),
            };
            if let Err(status) = ended {
                // Who has gone needs no answer.
                let _ = sender.send(Err(status)).await;
            }
        }));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    fn call<Q>(
        &self,
        rpc: &'static str,
        request: &mut Request<Q>,
        arrived: Instant,
        most: std::time::Duration,
    ) -> Result<Call, Status> {
        let Some(claims) = request.extensions_mut().remove::<Claims>() else {
            tracing::error!(rpc, "a call came past the gate");
            return Err(status::internal());
        };
        let deadline = arrived + call::time_allowed(request.metadata(), most);
        let now = OffsetDateTime::now_utc();
        Ok(Call { claims, store: self.store.clone(), deadline, now, arrived, cost: Cost::default() })
    }
}

#[tonic::async_trait]
impl UsageService for Usage {
    type TailRequestsStream = ReceiverStream<Result<pb::TailRequestsResponse, Status>>;
    type ExportRequestsStream = ReceiverStream<Result<pb::ExportRequestsResponse, Status>>;

    async fn get_summary(
        &self,
        request: Request<pb::GetSummaryRequest>,
    ) -> Result<Response<pb::Summary>, Status> {
        self.answer("GetSummary", request, summary::summary).await
    }

    async fn get_breakdown(
        &self,
        request: Request<pb::GetBreakdownRequest>,
    ) -> Result<Response<pb::Breakdown>, Status> {
        self.answer("GetBreakdown", request, breakdown::breakdown).await
    }

    async fn get_time_series(
        &self,
        request: Request<pb::GetTimeSeriesRequest>,
    ) -> Result<Response<pb::TimeSeries>, Status> {
        self.answer("GetTimeSeries", request, series::series).await
    }

    async fn get_overview(
        &self,
        request: Request<pb::GetOverviewRequest>,
    ) -> Result<Response<pb::Overview>, Status> {
        self.answer("GetOverview", request, overview::overview).await
    }

    async fn list_requests(
        &self,
        request: Request<pb::ListRequestsRequest>,
    ) -> Result<Response<pb::ListRequestsResponse>, Status> {
        self.answer("ListRequests", request, log::list).await
    }

    async fn get_request(
        &self,
        request: Request<pb::GetRequestRequest>,
    ) -> Result<Response<pb::Request>, Status> {
        self.answer("GetRequest", request, log::get).await
    }

    async fn get_latency(
        &self,
        request: Request<pb::GetLatencyRequest>,
    ) -> Result<Response<pb::Latency>, Status> {
        self.answer("GetLatency", request, latency::latency).await
    }

    async fn get_callers(
        &self,
        request: Request<pb::GetCallersRequest>,
    ) -> Result<Response<pb::Callers>, Status> {
        self.answer("GetCallers", request, callers::callers).await
    }

    async fn list_key_usage(
        &self,
        request: Request<pb::ListKeyUsageRequest>,
    ) -> Result<Response<pb::ListKeyUsageResponse>, Status> {
        self.answer("ListKeyUsage", request, key_usage::key_usage).await
    }

    async fn tail_requests(
        &self,
        request: Request<pb::TailRequestsRequest>,
    ) -> Result<Response<Self::TailRequestsStream>, Status> {
        self.stream("TailRequests", request, Tail::new, Tail::run).await
    }

    async fn export_requests(
        &self,
        request: Request<pb::ExportRequestsRequest>,
    ) -> Result<Response<Self::ExportRequestsStream>, Status> {
        self.stream("ExportRequests", request, Export::new, Export::run).await
    }
}
