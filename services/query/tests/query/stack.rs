//! The service in this process, before a real ClickHouse, with a keys service that knows one signing key.

use access::{Claims, LIFETIME, Role, Signer, Subject};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use boot::Health;
use clap::Parser as _;
use domain::{ServiceTokenId, WorkspaceId};
use proto::{
    keys::{
        self,
        sessions_service_server::{SessionsService, SessionsServiceServer},
    },
    resource,
    usage::{self as pb, usage_service_client::UsageServiceClient},
};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Server},
};

/// Signs tokens, and tells their public key as the keys service does.
pub(crate) struct Keys {
    signer: Signer,
    pub(crate) url: String,
}

struct Sessions(keys::SigningKey);

impl Keys {
    pub(crate) async fn start() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let public_key = pair.public_key().as_ref().to_vec();
        let sessions = Sessions(keys::SigningKey { kid: "test".into(), public_key });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder().add_service(SessionsServiceServer::new(sessions));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { signer: Signer::new("test", pkcs8.as_ref()).unwrap(), url }
    }

    /// A request with a token for the workspace.
    pub(crate) fn request<T>(&self, workspace_id: WorkspaceId, message: T) -> Request<T> {
        let now = OffsetDateTime::now_utc();
        let claims = Claims {
            subject: Subject::Service(ServiceTokenId::generate()),
            workspace_id,
            role: Role::Service,
            scopes: vec![],
            authenticated: None,
            expires: now + LIFETIME,
        };
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", self.signer.sign(&claims, now));
        request.metadata_mut().insert("authorization", bearer.parse().unwrap());
        request
    }
}

/// Everything that a call needs.
pub(crate) struct Stack {
    pub(crate) clickhouse: parts::ClickHouse,
    pub(crate) keys: Keys,
    pub(crate) client: UsageServiceClient<Channel>,
}

impl Stack {
    /// With the schema, and ready.
    pub(crate) async fn start() -> Self {
        let clickhouse = parts::ClickHouse::start().await;
        clickhouse.create_tables().await;
        let keys = Keys::start().await;
        let client = serve(&["--clickhouse-url", &clickhouse.url(), "--keys-url", &keys.url]).await;
        let stack = Self { clickhouse, keys, client };
        let workspace_id = WorkspaceId::generate();
        parts::eventually("the service answers", async || {
            stack.summary(workspace_id, filter(0, 1)).await.is_ok()
        })
        .await;
        stack
    }

    pub(crate) async fn summary(
        &self,
        workspace_id: WorkspaceId,
        filter: pb::UsageFilter,
    ) -> Result<pb::Summary, Status> {
        let request = pb::GetSummaryRequest {
            parent: resource::workspace_name(workspace_id),
            filter: Some(filter),
            ..Default::default()
        };
        let request = self.keys.request(workspace_id, request);
        self.client.clone().get_summary(request).await.map(Response::into_inner)
    }

    pub(crate) async fn breakdown(
        &self,
        workspace_id: WorkspaceId,
        filter: pb::UsageFilter,
        dimension: pb::Dimension,
        limit: i32,
    ) -> Result<pb::Breakdown, Status> {
        let request = pb::GetBreakdownRequest {
            parent: resource::workspace_name(workspace_id),
            filter: Some(filter),
            dimension: dimension.into(),
            limit,
            ..Default::default()
        };
        let request = self.keys.request(workspace_id, request);
        self.client.clone().get_breakdown(request).await.map(Response::into_inner)
    }

    pub(crate) async fn series(
        &self,
        workspace_id: WorkspaceId,
        filter: pb::UsageFilter,
        granularity: pb::Granularity,
        time_zone: &str,
    ) -> Result<pb::TimeSeries, Status> {
        let request = pb::GetTimeSeriesRequest {
            parent: resource::workspace_name(workspace_id),
            filter: Some(filter),
            granularity: granularity.into(),
            time_zone: time_zone.to_owned(),
        };
        let request = self.keys.request(workspace_id, request);
        self.client.clone().get_time_series(request).await.map(Response::into_inner)
    }

    pub(crate) async fn overview(
        &self,
        workspace_id: WorkspaceId,
        filter: pb::UsageFilter,
        (granularity, time_zone): (pb::Granularity, &str),
        limit: i32,
    ) -> Result<pb::Overview, Status> {
        let request = pb::GetOverviewRequest {
            parent: resource::workspace_name(workspace_id),
            filter: Some(filter),
            with_previous: true,
            granularity: granularity.into(),
            time_zone: time_zone.to_owned(),
            limit,
        };
        let request = self.keys.request(workspace_id, request);
        self.client.clone().get_overview(request).await.map(Response::into_inner)
    }

    pub(crate) async fn pairs(
        &self,
        workspace_id: WorkspaceId,
        filter: pb::UsageFilter,
        dimensions: (pb::Dimension, pb::Dimension),
        limit: i32,
    ) -> Result<pb::Breakdown, Status> {
        let request = pb::GetBreakdownRequest {
            parent: resource::workspace_name(workspace_id),
            filter: Some(filter),
            dimension: dimensions.0.into(),
            second_dimension: dimensions.1.into(),
            limit,
            with_p95: dimensions.1 == pb::Dimension::Unspecified,
        };
        let request = self.keys.request(workspace_id, request);
        self.client.clone().get_breakdown(request).await.map(Response::into_inner)
    }

    pub(crate) async fn latency(
        &self,
        workspace_id: WorkspaceId,
        filter: pb::UsageFilter,
    ) -> Result<pb::Latency, Status> {
        let request =
            pb::GetLatencyRequest { parent: resource::workspace_name(workspace_id), filter: Some(filter) };
        let request = self.keys.request(workspace_id, request);
        self.client.clone().get_latency(request).await.map(Response::into_inner)
    }

    pub(crate) async fn callers(
        &self,
        workspace_id: WorkspaceId,
        filter: pb::UsageFilter,
    ) -> Result<pb::Callers, Status> {
        let request =
            pb::GetCallersRequest { parent: resource::workspace_name(workspace_id), filter: Some(filter) };
        let request = self.keys.request(workspace_id, request);
        self.client.clone().get_callers(request).await.map(Response::into_inner)
    }

    pub(crate) async fn key_usage(
        &self,
        workspace_id: WorkspaceId,
        filter: pb::UsageFilter,
        granularity: i32,
        limit: i32,
    ) -> Result<pb::ListKeyUsageResponse, Status> {
        let request = pb::ListKeyUsageRequest {
            parent: resource::workspace_name(workspace_id),
            filter: Some(filter),
            granularity,
            time_zone: String::new(),
            limit,
        };
        let request = self.keys.request(workspace_id, request);
        self.client.clone().list_key_usage(request).await.map(Response::into_inner)
    }

    pub(crate) async fn export_pieces(
        &self,
        workspace_id: WorkspaceId,
        request: pb::ExportRequestsRequest,
    ) -> Result<Vec<pb::ExportRequestsResponse>, Status> {
        let request = self.keys.request(workspace_id, request);
        let mut stream = self.client.clone().export_requests(request).await?.into_inner();
        let mut pieces = Vec::new();
        while let Some(piece) = stream.message().await? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// A whole file, and how many calls it says it has.
    pub(crate) async fn export(
        &self,
        workspace_id: WorkspaceId,
        filter: pb::UsageFilter,
        format: pb::ExportFormat,
    ) -> (Vec<u8>, u64) {
        let request = pb::ExportRequestsRequest {
            parent: resource::workspace_name(workspace_id),
            filter: Some(filter),
            format: format.into(),
            resume_token: String::new(),
        };
        let pieces = self.export_pieces(workspace_id, request).await.unwrap();
        let row_count = pieces.last().unwrap().row_count;
        (pieces.into_iter().flat_map(|piece| piece.data).collect(), row_count)
    }

    /// Waits until the service knows of the archive.
    pub(crate) async fn horizon_is(&self, calls_from_ms: i64) {
        let workspace_id = WorkspaceId::generate();
        let old = filter(calls_from_ms - 1, calls_from_ms);
        parts::eventually("the archive is known", async || {
            let summary = self.summary(workspace_id, old.clone()).await.unwrap();
            summary.freshness.unwrap().calls_from == Some(timestamp(calls_from_ms))
        })
        .await;
    }

    pub(crate) async fn page(
        &self,
        workspace_id: WorkspaceId,
        filter: pb::UsageFilter,
        page_size: i32,
        page_token: &str,
    ) -> Result<pb::ListRequestsResponse, Status> {
        let request = pb::ListRequestsRequest {
            parent: resource::workspace_name(workspace_id),
            filter: Some(filter),
            page_size,
            page_token: page_token.to_owned(),
            ..Default::default()
        };
        let request = self.keys.request(workspace_id, request);
        self.client.clone().list_requests(request).await.map(Response::into_inner)
    }

    /// All pages.
    pub(crate) async fn log(
        &self,
        workspace_id: WorkspaceId,
        filter: &pb::UsageFilter,
        page_size: i32,
    ) -> Vec<pb::Request> {
        let (mut requests, mut token) = (Vec::new(), String::new());
        loop {
            let page = self.page(workspace_id, filter.clone(), page_size, &token).await.unwrap();
            requests.extend(page.requests);
            token = page.next_page_token;
            if token.is_empty() {
                return requests;
            }
        }
    }

    pub(crate) async fn call(&self, workspace_id: WorkspaceId, name: &str) -> Result<pb::Request, Status> {
        let request = self.keys.request(workspace_id, pb::GetRequestRequest { name: name.to_owned() });
        self.client.clone().get_request(request).await.map(Response::into_inner)
    }
}

/// Runs the service with these flags, until the test ends.
pub(crate) async fn serve(flags: &[&str]) -> UsageServiceClient<Channel> {
    let config = query::Config::parse_from(["query"].iter().chain(flags));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(query::run(config, listener, Health::default(), CancellationToken::new()));
    connect(&url).await
}

/// A client, as soon as something listens.
pub(crate) async fn connect(url: &str) -> UsageServiceClient<Channel> {
    parts::eventually("the gRPC port is open", async || {
        UsageServiceClient::connect(url.to_owned()).await.ok()
    })
    .await
}

/// All calls of a range in milliseconds since 1970.
pub(crate) fn filter(from_ms: i64, to_ms: i64) -> pb::UsageFilter {
    pb::UsageFilter { from: Some(timestamp(from_ms)), to: Some(timestamp(to_ms)), ..Default::default() }
}

/// A question that is cheap to answer.
pub(crate) fn question(workspace_id: WorkspaceId) -> pb::GetSummaryRequest {
    let at = some_days_ago();
    pb::GetSummaryRequest {
        parent: resource::workspace_name(workspace_id),
        filter: Some(filter(at, at + 3_600_000)),
        ..Default::default()
    }
}

pub(crate) fn timestamp(ms: i64) -> prost_types::Timestamp {
    let nanos = i32::try_from(ms.rem_euclid(1000)).unwrap() * 1_000_000;
    prost_types::Timestamp { seconds: ms.div_euclid(1000), nanos }
}

/// A midnight some days ago, in milliseconds since 1970: rows of that age are kept.
pub(crate) fn some_days_ago() -> i64 {
    (OffsetDateTime::now_utc().unix_timestamp() / 86_400 - 10) * 86_400_000
}

pub(crate) fn total(counts: Option<pb::Counts>) -> u64 {
    counts.expect("counts are always set").total_count
}

#[track_caller]
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.expect_err("an error").code()
}

#[tonic::async_trait]
impl SessionsService for Sessions {
    async fn list_signing_keys(
        &self,
        _: Request<keys::ListSigningKeysRequest>,
    ) -> Result<Response<keys::ListSigningKeysResponse>, Status> {
        Ok(Response::new(keys::ListSigningKeysResponse { keys: vec![self.0.clone()] }))
    }

    async fn sign_in(
        &self,
        _: Request<keys::SignInRequest>,
    ) -> Result<Response<keys::SignInResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn refresh(
        &self,
        _: Request<keys::RefreshRequest>,
    ) -> Result<Response<keys::RefreshResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn sign_out(
        &self,
        _: Request<keys::SignOutRequest>,
    ) -> Result<Response<keys::SignOutResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn reauthenticate(
        &self,
        _: Request<keys::ReauthenticateRequest>,
    ) -> Result<Response<keys::ReauthenticateResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn get_invitation(
        &self,
        _: Request<keys::GetInvitationRequest>,
    ) -> Result<Response<keys::GetInvitationResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn accept_invitation(
        &self,
        _: Request<keys::AcceptInvitationRequest>,
    ) -> Result<Response<keys::AcceptInvitationResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn exchange_token(
        &self,
        _: Request<keys::ExchangeTokenRequest>,
    ) -> Result<Response<keys::ExchangeTokenResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn get_provider(
        &self,
        _: Request<keys::GetProviderRequest>,
    ) -> Result<Response<keys::GetProviderResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn begin_provider_sign_in(
        &self,
        _: Request<keys::BeginProviderSignInRequest>,
    ) -> Result<Response<keys::BeginProviderSignInResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn finish_provider_sign_in(
        &self,
        _: Request<keys::FinishProviderSignInRequest>,
    ) -> Result<Response<keys::FinishProviderSignInResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn reauthenticate_by_provider(
        &self,
        _: Request<keys::ReauthenticateByProviderRequest>,
    ) -> Result<Response<keys::ReauthenticateByProviderResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}
