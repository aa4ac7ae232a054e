//! In-memory keys and query behind real gRPC servers: enough to answer what pages ask, and to fail on demand.
//! Usage is computed from a list of calls under the real filter, so that a page's numbers can be wrong.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use domain::{KeyId, RequestId, WorkspaceId};
use prost_types::Timestamp;
use proto::{
    keys::{
        self as k, audit_service_server::AuditServiceServer, keys_service_server::KeysServiceServer,
        members_service_server::MembersServiceServer,
        service_tokens_service_server::ServiceTokensServiceServer,
        sessions_service_server::SessionsServiceServer, workspaces_service_server::WorkspacesServiceServer,
    },
    resource,
    usage::{self as u, usage_service_server::UsageServiceServer},
};
use time::{Duration, OffsetDateTime};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::{fake_keys::secret, fake_provider::Provider, fake_team::Team};

pub(crate) const EMAIL: &str = "admin@example.com";
pub(crate) const PASSWORD: &str = "correct horse";
pub(crate) const SECRET: &str = "km_test_0123456789ABCDEFGHIJKLMNOPQRST3J9H8X";

/// What the fakes know; tests change it at will.
pub(crate) struct State {
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) keys: Vec<k::Key>,
    pub(crate) requests: Vec<u::Request>,
    pub(crate) freshness: u::Freshness,
    pub(crate) previous_counts: Option<u::Counts>,
    /// Open sessions.
    pub(crate) sessions: Vec<String>,
    /// Requests as they came.
    pub(crate) updates: Vec<k::UpdateKeyRequest>,
    pub(crate) rotations: Vec<k::RotateKeyRequest>,
    /// A rotation answers as to a form that was sent before, without a copy of the secret.
    pub(crate) rotated_before: bool,
    /// RPC → what it answers instead.
    pub(crate) failures: HashMap<&'static str, Status>,
    /// Names of RPCs in the order of their calls.
    pub(crate) calls: Vec<&'static str>,
    /// Lifetime of access tokens.
    pub(crate) access_life: Duration,
    /// People, service tokens, the audit log and workspaces.
    pub(crate) team: Team,
    /// The OpenID Connect provider.
    pub(crate) provider: Provider,
}

#[derive(Clone)]
pub(crate) struct Fakes(pub(crate) Arc<Mutex<State>>);

impl Fakes {
    pub(crate) fn new() -> Self {
        let workspace_id = WorkspaceId::generate();
        Self(Arc::new(Mutex::new(State {
            workspace_id,
            keys: Vec::new(),
            requests: Vec::new(),
            freshness: u::Freshness::default(),
            previous_counts: None,
            sessions: Vec::new(),
            updates: Vec::new(),
            rotations: Vec::new(),
            rotated_before: false,
            failures: HashMap::new(),
            calls: Vec::new(),
            access_life: Duration::minutes(5),
            team: Team::new(workspace_id),
            provider: Provider::default(),
        })))
    }

    /// Serves both services on one free port.
    pub(crate) async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        self.serve_on(listener);
        addr
    }

    pub(crate) fn serve_on(&self, listener: TcpListener) {
        let (_, health) = tonic_health::server::health_reporter();
        let server = Server::builder()
            .add_service(health)
            .add_service(KeysServiceServer::new(self.clone()))
            .add_service(SessionsServiceServer::new(self.clone()))
            .add_service(WorkspacesServiceServer::new(self.clone()))
            .add_service(MembersServiceServer::new(self.clone()))
            .add_service(ServiceTokensServiceServer::new(self.clone()))
            .add_service(AuditServiceServer::new(self.clone()))
            .add_service(UsageServiceServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    pub(crate) fn fail(&self, rpc: &'static str, status: Status) {
        self.change(|state| state.failures.insert(rpc, status));
    }

    /// A key made an hour ago, never used.
    pub(crate) fn add_key(&self, display_name: &str, change: impl FnOnce(&mut k::Key)) -> KeyId {
        let id = KeyId::generate();
        self.change(|state| {
            let mut key = k::Key {
                name: resource::key_name(state.workspace_id, id),
                display_name: display_name.to_owned(),
                environment: k::Environment::Test.into(),
                state: k::KeyState::Active.into(),
                start: SECRET[..12].to_owned(),
                create_time: Some(ago(Duration::HOUR)),
                etag: "1".to_owned(),
                ..k::Key::default()
            };
            key.secrets.push(secret(&key.name, &key.start));
            change(&mut key);
            state.keys.insert(0, key);
        });
        id
    }

    /// A call a minute ago.
    pub(crate) fn add_call(&self, key_id: KeyId, method: &str, route: &str, status_code: u32) -> RequestId {
        self.add(key_id, |request| {
            method.clone_into(&mut request.method);
            route.clone_into(&mut request.route);
            request.path = route.replace("{id}", "17");
            request.status_code = status_code;
        })
    }

    pub(crate) fn add(&self, key_id: KeyId, change: impl FnOnce(&mut u::Request)) -> RequestId {
        let id = RequestId::generate();
        self.change(|state| {
            let mut request = u::Request {
                name: resource::request_name(state.workspace_id, id),
                key_id: key_id.to_string(),
                occurred_at: Some(ago(Duration::MINUTE)),
                method: "GET".to_owned(),
                route: "/v1/orders".to_owned(),
                path: "/v1/orders".to_owned(),
                status_code: 200,
                origin: "upstream".to_owned(),
                latency_us: 12_345,
                response_bytes: 1_540,
                client_ip: "192.0.2.7".to_owned(),
                user_agent: "curl/8".to_owned(),
                ..u::Request::default()
            };
            change(&mut request);
            request.outcome = outcome(request.status_code).into();
            state.requests.insert(0, request);
        });
        id
    }

    pub(crate) fn enter(&self, rpc: &'static str) -> Result<(), Status> {
        self.change(|state| {
            state.calls.push(rpc);
            state.failures.get(rpc).map_or(Ok(()), |status| Err(status.clone()))
        })
    }

    /// As `enter`, for RPCs that want an access token of the parent's workspace.
    pub(crate) fn admit<T>(&self, rpc: &'static str, request: &Request<T>, name: &str) -> Result<(), Status> {
        self.enter(rpc)?;
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let workspace = token.and_then(|token| token.strip_prefix("Bearer access-")?.split_once('@'));
        let Some((_, workspace)) = workspace else {
            return Err(Status::unauthenticated("no access token"));
        };
        if name.starts_with(workspace) { Ok(()) } else { Err(Status::not_found("other workspace")) }
    }

    /// An access token of that workspace.
    pub(crate) fn access_of(&self, workspace: &str) -> (Option<k::AccessToken>, String) {
        self.change(|state| {
            let expires = OffsetDateTime::now_utc() + state.access_life;
            let expire_time = Some(proto::timestamp::to_proto(expires));
            let token = format!("access-{}@{workspace}", state.calls.len());
            (Some(k::AccessToken { token, expire_time }), workspace.to_owned())
        })
    }

    fn access(&self) -> (Option<k::AccessToken>, String) {
        self.access_of(&self.change(|state| resource::workspace_name(state.workspace_id)))
    }

    pub(crate) fn key(&self, name: &str) -> Result<k::Key, Status> {
        let found = self.change(|state| state.keys.iter().find(|key| key.name == name).cloned());
        found.ok_or_else(|| proto::status::not_found("key", name))
    }

    pub(crate) fn matching(&self, filter: Option<u::UsageFilter>) -> Result<Vec<u::Request>, Status> {
        let filter = filter.ok_or_else(|| proto::status::invalid("filter", "required"))?;
        let at = |time: &Option<Timestamp>| time.as_ref().map(|time| (time.seconds, time.nanos));
        let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|wanted| wanted == value);
        Ok(self.change(|state| {
            let calls = state.requests.iter().filter(|call| {
                at(&filter.from) <= at(&call.occurred_at)
                    && at(&call.occurred_at) < at(&filter.to)
                    && any(&filter.key_ids, &call.key_id)
                    && any(&filter.methods, &call.method)
                    && any(&filter.routes, &call.route)
                    && any(&filter.resource_ids, &call.resource_id)
                    && any(&filter.denials, &call.denial)
                    && any(&filter.secret_ids, &call.secret_id)
                    && (filter.outcomes.is_empty() || filter.outcomes.contains(&call.outcome))
                    && (filter.status_codes.is_empty() || filter.status_codes.contains(&call.status_code))
            });
            calls.cloned().collect()
        }))
    }
}

pub(crate) fn ago(length: Duration) -> Timestamp {
    proto::timestamp::to_proto(OffsetDateTime::now_utc() - length)
}

fn outcome(status_code: u32) -> u::Outcome {
    match domain::Outcome::of(u16::try_from(status_code).unwrap()) {
        domain::Outcome::Completed => u::Outcome::Completed,
        domain::Outcome::Failed => u::Outcome::Failed,
        domain::Outcome::RateLimited => u::Outcome::RateLimited,
    }
}

pub(crate) fn counts<'a>(calls: impl Iterator<Item = &'a u::Request>) -> u::Counts {
    let mut counts = u::Counts::default();
    for call in calls {
        counts.total_count += 1;
        match call.outcome() {
            u::Outcome::Completed => counts.completed_count += 1,
            u::Outcome::Failed => counts.failed_count += 1,
            u::Outcome::RateLimited => counts.rate_limited_count += 1,
            u::Outcome::Unspecified => {}
        }
    }
    counts
}

#[tonic::async_trait]
impl k::sessions_service_server::SessionsService for Fakes {
    async fn sign_in(
        &self,
        request: Request<k::SignInRequest>,
    ) -> Result<Response<k::SignInResponse>, Status> {
        self.enter("SignIn")?;
        let request = request.into_inner();
        if (request.email.as_str(), request.password.as_str()) != (EMAIL, PASSWORD) {
            return Err(Status::unauthenticated("wrong"));
        }
        let session_token = self.change(|state| {
            state.sessions.push(format!("session-{}", state.calls.len()));
            state.sessions.last().unwrap().clone()
        });
        let (access_token, workspace) = self.access();
        Ok(Response::new(k::SignInResponse { session_token, access_token, workspace }))
    }

    async fn refresh(
        &self,
        request: Request<k::RefreshRequest>,
    ) -> Result<Response<k::RefreshResponse>, Status> {
        self.enter("Refresh")?;
        let k::RefreshRequest { session_token, workspace } = request.into_inner();
        if !self.change(|state| state.sessions.contains(&session_token)) {
            return Err(Status::unauthenticated("the session has ended"));
        }
        let workspace = self.change(|state| state.team.workspace(&workspace))?;
        let (access_token, workspace) = self.access_of(&workspace);
        let role = self.change(|state| state.team.role).into();
        let (email, sign_in_method) = (EMAIL.to_owned(), self.method().into());
        Ok(Response::new(k::RefreshResponse { access_token, workspace, email, role, sign_in_method }))
    }

    async fn reauthenticate(
        &self,
        request: Request<k::ReauthenticateRequest>,
    ) -> Result<Response<k::ReauthenticateResponse>, Status> {
        self.enter("Reauthenticate")?;
        let request = request.into_inner();
        let known = self.change(|state| state.sessions.contains(&request.session_token));
        if !known || request.password != PASSWORD {
            return Err(Status::unauthenticated("wrong"));
        }
        let (access_token, workspace) = self.access();
        self.change(|state| state.failures.remove("RevealKey"));
        Ok(Response::new(k::ReauthenticateResponse { access_token, workspace }))
    }

    async fn get_invitation(
        &self,
        request: Request<k::GetInvitationRequest>,
    ) -> Result<Response<k::GetInvitationResponse>, Status> {
        self.invitation(&request.get_ref().token)
    }

    async fn accept_invitation(
        &self,
        request: Request<k::AcceptInvitationRequest>,
    ) -> Result<Response<k::AcceptInvitationResponse>, Status> {
        self.accept(request.get_ref())
    }

    async fn sign_out(
        &self,
        request: Request<k::SignOutRequest>,
    ) -> Result<Response<k::SignOutResponse>, Status> {
        self.enter("SignOut")?;
        let token = request.into_inner().session_token;
        self.change(|state| state.sessions.retain(|session| *session != token));
        Ok(Response::new(k::SignOutResponse {}))
    }

    async fn get_provider(
        &self,
        _: Request<k::GetProviderRequest>,
    ) -> Result<Response<k::GetProviderResponse>, Status> {
        Ok(Response::new(self.provider_name()))
    }

    async fn begin_provider_sign_in(
        &self,
        request: Request<k::BeginProviderSignInRequest>,
    ) -> Result<Response<k::BeginProviderSignInResponse>, Status> {
        self.begin(request.into_inner())
    }

    async fn finish_provider_sign_in(
        &self,
        request: Request<k::FinishProviderSignInRequest>,
    ) -> Result<Response<k::FinishProviderSignInResponse>, Status> {
        self.finish(request.into_inner())
    }

    async fn reauthenticate_by_provider(
        &self,
        request: Request<k::ReauthenticateByProviderRequest>,
    ) -> Result<Response<k::ReauthenticateByProviderResponse>, Status> {
        self.prove_again(request.into_inner())
    }

    async fn exchange_token(
        &self,
        _: Request<k::ExchangeTokenRequest>,
    ) -> Result<Response<k::ExchangeTokenResponse>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn list_signing_keys(
        &self,
        _: Request<k::ListSigningKeysRequest>,
    ) -> Result<Response<k::ListSigningKeysResponse>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }
}
