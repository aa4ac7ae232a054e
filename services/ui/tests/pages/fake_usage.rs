//! The usage service in memory: computed from a list of calls under the real filter.

use proto::usage as u;
use tokio_stream::Iter;
use tonic::{Request, Response, Status};

use crate::fakes::{Fakes, counts};

/// Answers of a stream that ends by itself.
type Answers<T> = Iter<std::vec::IntoIter<Result<T, Status>>>;
/// Bars of a series.
const BARS: i64 = 4;

#[tonic::async_trait]
impl u::usage_service_server::UsageService for Fakes {
    type TailRequestsStream = Answers<u::TailRequestsResponse>;
    type ExportRequestsStream = Answers<u::ExportRequestsResponse>;

    async fn get_summary(
        &self,
        request: Request<u::GetSummaryRequest>,
    ) -> Result<Response<u::Summary>, Status> {
        self.admit("GetSummary", &request, &request.get_ref().parent)?;
        let calls = self.matching(request.into_inner().filter)?;
        let (freshness, previous_counts) =
            self.change(|state| (Some(state.freshness.clone()), state.previous_counts));
        Ok(Response::new(u::Summary { counts: Some(counts(calls.iter())), freshness, previous_counts }))
    }

    async fn get_breakdown(
        &self,
        request: Request<u::GetBreakdownRequest>,
    ) -> Result<Response<u::Breakdown>, Status> {
        let dimension = request.get_ref().dimension();
        let rpc = match dimension {
            u::Dimension::ClientIp => "GetBreakdown by address",
            u::Dimension::Key => "GetBreakdown by key",
            u::Dimension::Secret => "GetBreakdown by secret",
            _ => "GetBreakdown by route",
        };
        self.admit(rpc, &request, &request.get_ref().parent)?;
        let u::GetBreakdownRequest { filter, limit, with_p95, .. } = request.into_inner();
        let value = |call: &u::Request| match dimension {
            u::Dimension::ClientIp => call.client_ip.clone(),
            u::Dimension::Key => call.key_id.clone(),
            u::Dimension::Secret => call.secret_id.clone(),
            _ => call.route.clone(),
        };
        let p95_us = if with_p95 { 95_000 } else { 0 };
        Ok(Response::new(breakdown(&self.matching(filter)?, limit, p95_us, value)))
    }

    async fn get_time_series(
        &self,
        _: Request<u::GetTimeSeriesRequest>,
    ) -> Result<Response<u::TimeSeries>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn get_overview(
        &self,
        request: Request<u::GetOverviewRequest>,
    ) -> Result<Response<u::Overview>, Status> {
        self.admit("GetOverview", &request, &request.get_ref().parent)?;
        let u::GetOverviewRequest { filter, time_zone, limit, .. } = request.into_inner();
        if time_zone == "Mars/Olympus" {
            return Err(Status::invalid_argument("time_zone: is unknown"));
        }
        let seconds = |at: Option<prost_types::Timestamp>| at.unwrap_or_default().seconds;
        let filter = filter.unwrap_or_default();
        let (from, to) = (seconds(filter.from), seconds(filter.to));
        let calls = self.matching(Some(filter))?;
        let width = ((to - from) / BARS).max(1);
        let bar = |call: &&u::Request| ((seconds(call.occurred_at) - from) / width).min(BARS - 1);
        let point = |at: i64| u::TimeSeriesPoint {
            start_time: Some(prost_types::Timestamp { seconds: from + at * width, nanos: 0 }),
            counts: Some(counts(calls.iter().filter(|call| bar(call) == at))),
        };
        let points = (0..BARS).map(point).collect();
        let granularity = u::Granularity::Day.into();
        let (freshness, previous_counts) =
            self.change(|state| (Some(state.freshness.clone()), state.previous_counts));
        Ok(Response::new(u::Overview {
            summary: Some(u::Summary { counts: Some(counts(calls.iter())), freshness, previous_counts }),
            series: Some(u::TimeSeries { points, granularity, time_zone, freshness: None }),
            methods: Some(breakdown(&calls, limit, 0, |call| call.method.clone())),
            status_codes: Some(breakdown(&calls, limit, 0, |call| call.status_code.to_string())),
        }))
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
        let mask = request.read_mask.unwrap_or_default();
        let requests = calls.into_iter().skip(from).take(size).map(|call| masked(&call, &mask)).collect();
        Ok(Response::new(u::ListRequestsResponse {
            requests,
            next_page_token,
            freshness: None,
            ..Default::default()
        }))
    }

    async fn get_request(
        &self,
        request: Request<u::GetRequestRequest>,
    ) -> Result<Response<u::Request>, Status> {
        self.admit("GetRequest", &request, &request.get_ref().name)?;
        let name = request.into_inner().name;
        let found = self.change(|state| state.requests.iter().find(|call| call.name == name).cloned());
        found.map(Response::new).ok_or_else(|| Status::not_found("no such request"))
    }

    async fn get_latency(
        &self,
        request: Request<u::GetLatencyRequest>,
    ) -> Result<Response<u::Latency>, Status> {
        self.admit("GetLatency", &request, &request.get_ref().parent)?;
        let calls = self.matching(request.into_inner().filter)?;
        Ok(Response::new(u::Latency {
            call_count: calls.len() as u64,
            p50_us: 50_000,
            p90_us: 90_000,
            p95_us: 95_000,
            p99_us: 99_000,
            max_us: 1_500_000,
            error_max: 1.0 / 32.0,
            freshness: None,
        }))
    }

    async fn get_callers(&self, _: Request<u::GetCallersRequest>) -> Result<Response<u::Callers>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn list_key_usage(
        &self,
        request: Request<u::ListKeyUsageRequest>,
    ) -> Result<Response<u::ListKeyUsageResponse>, Status> {
        self.admit("ListKeyUsage", &request, &request.get_ref().parent)?;
        assert_eq!(request.get_ref().granularity(), u::Granularity::Hour);
        let filter = request.into_inner().filter;
        let from = filter.as_ref().and_then(|filter| filter.from).unwrap().seconds;
        let to = filter.as_ref().and_then(|filter| filter.to).unwrap().seconds;
        let calls = self.matching(filter)?;
        let mut ids: Vec<_> = calls.iter().map(|call| call.key_id.clone()).collect();
        ids.sort();
        ids.dedup();
        let bar_of =
            |call: &u::Request| usize::try_from((call.occurred_at.unwrap().seconds - from) / 3600).unwrap();
        let bars = usize::try_from((to - from) / 3600 + 1).unwrap();
        let usage = |key_id: String| {
            let own = calls.iter().filter(|call| call.key_id == key_id);
            let (mut bar_counts, mut bar_error_counts) = (vec![0; bars], vec![0; bars]);
            for call in own.clone() {
                bar_counts[bar_of(call)] += 1;
                bar_error_counts[bar_of(call)] += u64::from(call.outcome() != u::Outcome::Completed);
            }
            let counts = Some(counts(own));
            u::KeyUsage { key_id, counts, bar_counts, bar_error_counts, ..Default::default() }
        };
        Ok(Response::new(u::ListKeyUsageResponse {
            keys: ids.into_iter().map(usage).collect(),
            ..Default::default()
        }))
    }

    async fn tail_requests(
        &self,
        request: Request<u::TailRequestsRequest>,
    ) -> Result<Response<Self::TailRequestsStream>, Status> {
        self.admit("TailRequests", &request, &request.get_ref().parent)?;
        let request = request.into_inner();
        assert_eq!(request.ingested_from.is_some(), request.resume_token.is_empty());
        let mut requests = self.matching(request.filter)?;
        requests.reverse();
        let resume_token = format!("after {}", request.resume_token);
        let answer = u::TailRequestsResponse { requests, dropped_count: 3, resume_token, freshness: None };
        Ok(Response::new(tokio_stream::iter(vec![Ok(answer)])))
    }

    async fn export_requests(
        &self,
        request: Request<u::ExportRequestsRequest>,
    ) -> Result<Response<Self::ExportRequestsStream>, Status> {
        self.admit("ExportRequests", &request, &request.get_ref().parent)?;
        let request = request.into_inner();
        let calls = self.matching(request.filter)?;
        let line = |call: &u::Request| format!("{},{}\n", call.method, call.status_code);
        let mut pieces: Vec<_> = calls
            .iter()
            .map(|call| Ok(u::ExportRequestsResponse { data: line(call).into(), ..Default::default() }))
            .collect();
        pieces.push(self.change(|state| match state.failures.get("a piece of a file") {
            Some(status) => Err(status.clone()),
            None => Ok(u::ExportRequestsResponse {
                row_count: calls.len() as u64,
                freshness: Some(state.freshness.clone()),
                ..Default::default()
            }),
        }));
        Ok(Response::new(tokio_stream::iter(pieces)))
    }
}

/// Calls by what `value` says of them.
fn breakdown(
    calls: &[u::Request],
    limit: i32,
    p95_us: u32,
    value: impl Fn(&u::Request) -> String,
) -> u::Breakdown {
    let mut values: Vec<String> = calls.iter().map(&value).collect();
    values.sort();
    values.dedup();
    let row = |of: String| u::BreakdownRow {
        counts: Some(counts(calls.iter().filter(|call| value(call) == of))),
        value: of,
        p95_us,
        ..Default::default()
    };
    let mut rows: Vec<_> = values.into_iter().map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.counts.as_ref().unwrap().total_count));
    let rest = rows.split_off(rows.len().min(usize::try_from(limit).unwrap()));
    let other_calls = calls.iter().filter(|call| rest.iter().any(|row| row.value == value(call)));
    let other = Some(counts(other_calls));
    u::Breakdown { rows, other, other_value_count: rest.len() as u64, freshness: None }
}

/// The fields of a call that were asked for.
fn masked(call: &u::Request, mask: &prost_types::FieldMask) -> u::Request {
    let mut kept = u::Request {
        name: call.name.clone(),
        occurred_at: call.occurred_at,
        outcome: call.outcome,
        ..Default::default()
    };
    macro_rules! keep {
        ($($field:ident)*) => {
            for path in &mask.paths {
                match path.as_str() {
                    $(stringify!($field) => kept.$field = call.$field.clone(),)*
                    unknown => panic!("{unknown} is no field"),
                }
            }
        };
    }
    keep!(name key_id secret_id client_request_id method route path resource_id status_code origin denial limit_name
        latency_us request_bytes response_bytes client_ip user_agent region trace_id edge_id limit_window_s
        limit_remaining);
    kept
}
