//! The gRPC face: gives each call its deadline, hands it to its use case, counts the answer. Who calls was
//! checked by the gate before it.

use access::Claims;
use proto::{
    status,
    usage::{self as pb, usage_service_server::UsageService},
};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use crate::{
    breakdown,
    call::{self, Call},
    log,
    metrics::Metrics,
    series,
    store::Store,
    summary,
};

/// `keymeter.usage.v1.UsageService`.
pub(crate) struct Usage {
    store: Store,
    metrics: Metrics,
}

impl Usage {
    pub(crate) const fn new(store: Store, metrics: Metrics) -> Self {
        Self { store, metrics }
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
        let _running = self.metrics.running();
        let answer = match request.extensions_mut().remove::<Claims>() {
            Some(claims) => {
                let deadline = arrived + call::time_allowed(request.metadata());
                let call = Call { claims, store: self.store.clone(), deadline };
                use_case(call, request.into_inner()).await
            }
            None => {
                tracing::error!(rpc, "a call came past the gate");
                Err(status::internal())
            }
        };
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.metrics.answered(rpc, code, arrived.elapsed());
        answer.map(Response::new)
    }
}

#[tonic::async_trait]
impl UsageService for Usage {
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
}
