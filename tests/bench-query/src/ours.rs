//! The query service as a process over an engine with calls, and how a question goes to it. Never asks the engine itself
//! but to find the keys.

use anyhow::Context as _;
use domain::{Id, WorkspaceId};
use proto::{
    resource,
    usage::{self as pb, usage_service_client::UsageServiceClient},
};
use tonic::{Request, Response, Status, transport::Channel};

use crate::{
    keys::Keys,
    load::{Loaded, run},
    questions::{By, Field, Key, Kind, Question},
};

/// Rows of a page of the log.
pub(crate) const LOG_ROWS: i32 = 50;
/// What such a page shows unless somebody chooses other columns, beside id, time and outcome.
const PAGE_FIELDS: [&str; 3] = ["method", "route", "status_code"];
/// Who is asked about, by rank.
const RANKS: [(&str, u16); 3] = [("hottest", 0), ("medium", 100), ("cold", 5_000)];

/// The service and what it stands on.
pub(crate) struct Ours {
    pub(crate) loaded: Loaded,
    keys: Keys,
    client: UsageServiceClient<Channel>,
    query_url: String,
    _service: parts::Service,
}

impl Ours {
    pub(crate) async fn start(loaded: Loaded) -> anyhow::Result<Self> {
        let keys = Keys::start().await?;
        let addr = |port: u16| format!("127.0.0.1:{port}");
        let (grpc, health) = (addr(parts::free_port()), addr(parts::free_port()));
        let environment = [
            ("KEYMETER_QUERY_GRPC_ADDR", grpc.as_str()),
            ("KEYMETER_QUERY_HEALTH_ADDR", &health),
            ("KEYMETER_QUERY_CLICKHOUSE_URL", &loaded.clickhouse.url()),
            ("KEYMETER_QUERY_KEYS_URL", &keys.url),
        ];
        let mut service = parts::Service::spawn("query", &environment).await;
        service.wait_ready(&health).await;
        let query_url = format!("http://{grpc}");
        let client = UsageServiceClient::connect(query_url.clone()).await?;
        Ok(Self { loaded, keys, client, query_url, _service: service })
    }

    /// Whoever signs in sees this workspace from now on.
    pub(crate) fn show(&self, workspace_id: WorkspaceId) {
        self.keys.show(workspace_id);
    }

    /// The pages over this query, and their address.
    pub(crate) async fn start_ui(&self) -> (parts::Service, String) {
        let addr = |port: u16| format!("127.0.0.1:{port}");
        let (pages, health) = (addr(parts::free_port()), addr(parts::free_port()));
        let environment = [
            ("KEYMETER_UI_ADDR", pages.as_str()),
            ("KEYMETER_UI_HEALTH_ADDR", &health),
            ("KEYMETER_UI_KEYS_URL", &self.keys.url),
            ("KEYMETER_UI_QUERY_URL", &self.query_url),
        ];
        let service = parts::Service::spawn("ui", &environment).await;
        (service, format!("http://{pages}"))
    }

    /// The keys that are asked about.
    pub(crate) async fn ranks(&self) -> anyhow::Result<Vec<Key>> {
        let mut keys = Vec::new();
        for (name, rank) in RANKS {
            let prefix = format!("10.{}.{}.", rank >> 8, rank & 0xff);
            let found = run(
                &self.loaded.clickhouse,
                &format!(
                    "select workspace_id, key_id, secret_id, request_id from keymeter.request_events \
                     where client_ip in ('::ffff:{prefix}0', '::ffff:{prefix}1', '::ffff:{prefix}2') limit 1"
                ),
            )
            .await?;
            let ids: Vec<_> = found.trim().split('\t').collect();
            let [workspace_id, key_id, secret_id, request_id] = ids[..] else {
                anyhow::bail!("the key of rank {rank} was never called");
            };
            keys.push(Key {
                name,
                rank,
                workspace_id: Id::from_uuid(workspace_id.parse()?),
                key_id: Id::from_uuid(key_id.parse()?),
                secret_id: Id::from_uuid(secret_id.parse()?),
                request_id: Id::from_uuid(request_id.parse()?),
            });
        }
        Ok(keys)
    }

    /// Asks, and tells how many calls were counted, or rows were given.
    pub(crate) async fn ask(&self, question: &Question) -> Result<u64, Status> {
        match question.kind {
            Kind::Page => {
                let (overview, endpoints, log) = tokio::try_join!(
                    self.overview(question),
                    self.ask_one(question, Kind::Breakdown(By::Route)),
                    self.ask_one(question, Kind::Log),
                )?;
                Ok(overview + endpoints + log)
            }
            kind => self.ask_one(question, kind).await,
        }
    }

    /// What a page has above its log: also bars, and totals of the range before.
    async fn overview(&self, question: &Question) -> Result<u64, Status> {
        let request = pb::GetOverviewRequest {
            parent: resource::workspace_name(question.key.workspace_id),
            filter: Some(filter(question)),
            with_previous: true,
            limit: By::Method.limit(),
            ..Default::default()
        };
        let request = self.signed(question.key.workspace_id, request)?;
        let answer = self.client.clone().get_overview(request).await?.into_inner();
        let counts = answer.summary.unwrap_or_default().counts.unwrap_or_default();
        let rows =
            [answer.methods, answer.status_codes].map(|each| each.unwrap_or_default().rows.len() as u64);
        Ok(counts.total_count + rows.iter().sum::<u64>())
    }

    async fn ask_one(&self, question: &Question, kind: Kind) -> Result<u64, Status> {
        let workspace_id = question.key.workspace_id;
        let parent = resource::workspace_name(workspace_id);
        let filter = Some(filter(question));
        let mut client = self.client.clone();
        match kind {
            Kind::Summary => {
                let request = pb::GetSummaryRequest { parent, filter, ..Default::default() };
                let answer = client.get_summary(self.signed(workspace_id, request)?).await?.into_inner();
                Ok(answer.counts.unwrap_or_default().total_count)
            }
            Kind::Breakdown(by) => {
                let dimension = dimension(by).into();
                let limit = by.limit();
                let request =
                    pb::GetBreakdownRequest { parent, filter, dimension, limit, ..Default::default() };
                rows(client.get_breakdown(self.signed(workspace_id, request)?).await?, |answer| answer.rows)
            }
            Kind::Series(zone) => {
                let (granularity, time_zone) = (pb::Granularity::Day.into(), zone.to_owned());
                let request = pb::GetTimeSeriesRequest { parent, filter, granularity, time_zone };
                rows(client.get_time_series(self.signed(workspace_id, request)?).await?, |answer| {
                    answer.points
                })
            }
            Kind::Latency => {
                let request = pb::GetLatencyRequest { parent, filter };
                Ok(client.get_latency(self.signed(workspace_id, request)?).await?.into_inner().call_count)
            }
            Kind::Log | Kind::Page => {
                let page_size = LOG_ROWS;
                let paths = PAGE_FIELDS.map(str::to_owned).into();
                let read_mask = Some(prost_types::FieldMask { paths });
                let request =
                    pb::ListRequestsRequest { parent, filter, page_size, read_mask, ..Default::default() };
                rows(client.list_requests(self.signed(workspace_id, request)?).await?, |answer| {
                    answer.requests
                })
            }
            Kind::Call => {
                let name = resource::request_name(workspace_id, question.key.request_id);
                let request = pb::GetRequestRequest { name };
                client.get_request(self.signed(workspace_id, request)?).await?;
                Ok(1)
            }
            Kind::KeyUsage => {
                let granularity = pb::Granularity::Day.into();
                let request = pb::ListKeyUsageRequest { parent, filter, granularity, ..Default::default() };
                rows(client.list_key_usage(self.signed(workspace_id, request)?).await?, |answer| answer.keys)
            }
        }
    }

    /// The calls of a workspace as a file, read until that many have come, and how many came.
    pub(crate) async fn export(
        &self,
        key: &Key,
        question: &Question,
        format: pb::ExportFormat,
        rows_max: u64,
    ) -> anyhow::Result<u64> {
        let filter = pb::UsageFilter { key_ids: vec![], ..filter(question) };
        let request = pb::ExportRequestsRequest {
            parent: resource::workspace_name(key.workspace_id),
            filter: Some(filter),
            format: format.into(),
            resume_token: String::new(),
        };
        let request = self.signed(key.workspace_id, request)?;
        let mut pieces = self.client.clone().export_requests(request).await?.into_inner();
        let mut rows = 0;
        while let Some(piece) = pieces.message().await.context("an export breaks off")? {
            rows = rows.max(piece.row_count);
            if rows >= rows_max {
                break;
            }
        }
        Ok(rows)
    }

    fn signed<T>(&self, workspace_id: WorkspaceId, message: T) -> Result<Request<T>, Status> {
        self.keys.request(workspace_id, message)
    }
}

fn rows<T, R>(answer: Response<T>, of: impl FnOnce(T) -> Vec<R>) -> Result<u64, Status> {
    Ok(of(answer.into_inner()).len() as u64)
}

const fn dimension(by: By) -> pb::Dimension {
    match by {
        By::Method => pb::Dimension::Method,
        By::StatusCode => pb::Dimension::StatusCode,
        By::Route => pb::Dimension::Route,
    }
}

/// The question's time, key and conditions; the key's workspace alone if all of its keys are meant.
fn filter(question: &Question) -> pb::UsageFilter {
    let key_ids =
        if question.kind == Kind::KeyUsage { vec![] } else { vec![question.key.key_id.to_string()] };
    let mut filter = pb::UsageFilter {
        from: Some(timestamp(question.range.from_ms)),
        to: Some(timestamp(question.range.to_ms)),
        key_ids,
        ..Default::default()
    };
    for (field, value) in &question.conditions {
        let text = value.clone();
        match field {
            Field::Method => filter.methods.push(text),
            Field::Route => filter.routes.push(text),
            Field::StatusCode => filter.status_codes.push(value.parse().unwrap_or_default()),
            Field::Outcome => filter.outcomes.push(outcome(value).into()),
            Field::Origin => filter.origins.push(origin(value).into()),
            Field::Denial => filter.denials.push(text),
            Field::ResourceId => filter.resource_ids.push(text),
            Field::ClientIp => filter.client_ips.push(text),
            Field::LatencyUsFrom => filter.latency_us_from = value.parse().ok(),
            Field::SecretId => {
                let secret_id = value.parse().map(domain::SecretId::from_uuid);
                filter.secret_ids.extend(secret_id.ok().map(|id| id.to_string()));
            }
        }
    }
    filter
}

fn outcome(value: &str) -> pb::Outcome {
    match value {
        "completed" => pb::Outcome::Completed,
        "rate_limited" => pb::Outcome::RateLimited,
        _ => pb::Outcome::Failed,
    }
}

fn origin(value: &str) -> pb::Origin {
    if value == "edge" { pb::Origin::Edge } else { pb::Origin::Upstream }
}

fn timestamp(ms: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: ms.div_euclid(1000), nanos: (ms.rem_euclid(1000) * 1_000_000) as i32 }
}
