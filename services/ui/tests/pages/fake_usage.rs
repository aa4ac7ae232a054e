//! The usage service in memory: computed from a list of calls under the real filter.

use proto::usage as u;
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use crate::fakes::{Fakes, counts};

#[tonic::async_trait]
impl u::usage_service_server::UsageService for Fakes {
    type TailRequestsStream = Empty<Result<u::TailRequestsResponse, Status>>;
    type ExportRequestsStream = Empty<Result<u::ExportRequestsResponse, Status>>;

    async fn get_summary(
        &self,
        request: Request<u::GetSummaryRequest>,
    ) -> Result<Response<u::Summary>, Status> {
        self.admit("GetSummary", &request, &request.get_ref().parent)?;
        let calls = self.matching(request.into_inner().filter)?;
        let freshness = Some(self.change(|state| state.freshness.clone()));
        Ok(Response::new(u::Summary { counts: Some(counts(calls.iter())), freshness, ..Default::default() }))
    }

    async fn get_breakdown(
        &self,
        request: Request<u::GetBreakdownRequest>,
    ) -> Result<Response<u::Breakdown>, Status> {
        let rpc = match request.get_ref().dimension() {
            u::Dimension::Method => "GetBreakdown by method",
            u::Dimension::StatusCode => "GetBreakdown by status",
            u::Dimension::ClientIp => "GetBreakdown by address",
            _ => "GetBreakdown by route",
        };
        self.admit(rpc, &request, &request.get_ref().parent)?;
        let (dimension, limit) = (request.get_ref().dimension(), request.get_ref().limit);
        let calls = self.matching(request.into_inner().filter)?;
        let value = |call: &u::Request| match dimension {
            u::Dimension::Method => call.method.clone(),
            u::Dimension::StatusCode => call.status_code.to_string(),
            u::Dimension::ClientIp => call.client_ip.clone(),
            _ => call.route.clone(),
        };
        let mut values: Vec<String> = calls.iter().map(value).collect();
        values.sort();
        values.dedup();
        let row = |of: String| u::BreakdownRow {
            counts: Some(counts(calls.iter().filter(|call| value(call) == of))),
            value: of,
            ..Default::default()
        };
        let mut rows: Vec<_> = values.into_iter().map(row).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.counts.as_ref().unwrap().total_count));
        let rest = rows.split_off(rows.len().min(usize::try_from(limit).unwrap()));
        let other_calls = calls.iter().filter(|call| rest.iter().any(|row| row.value == value(call)));
        let other = Some(counts(other_calls));
        Ok(Response::new(u::Breakdown { rows, other, other_value_count: rest.len() as u64, freshness: None }))
    }

    async fn get_time_series(
        &self,
        _: Request<u::GetTimeSeriesRequest>,
    ) -> Result<Response<u::TimeSeries>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn list_requests(
        &self,
        request: Request<u::ListRequestsRequest>,
    ) -> Result<Response<u::ListRequestsResponse>, Status> {
        self.admit("ListRequests", &request, &request.get_ref().parent)?;
        let request = request.into_inner();
        let calls = self.matching(request.filter)?;
        let (from, size) =
            (request.page_token.parse().unwrap_or(0), usize::try_from(request.page_size).unwrap());
        let next_page_token =
            if from + size < calls.len() { (from + size).to_string() } else { String::new() };
        let requests = calls.into_iter().skip(from).take(size).collect();
        Ok(Response::new(u::ListRequestsResponse {
            requests,
            next_page_token,
            freshness: None,
            ..Default::default()
        }))
    }

    async fn get_request(&self, _: Request<u::GetRequestRequest>) -> Result<Response<u::Request>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn get_latency(&self, _: Request<u::GetLatencyRequest>) -> Result<Response<u::Latency>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn get_callers(&self, _: Request<u::GetCallersRequest>) -> Result<Response<u::Callers>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn list_key_usage(
        &self,
        _: Request<u::ListKeyUsageRequest>,
    ) -> Result<Response<u::ListKeyUsageResponse>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn tail_requests(
        &self,
        _: Request<u::TailRequestsRequest>,
    ) -> Result<Response<Self::TailRequestsStream>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn export_requests(
        &self,
        _: Request<u::ExportRequestsRequest>,
    ) -> Result<Response<Self::ExportRequestsStream>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }
}
