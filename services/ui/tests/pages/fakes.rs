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
        self as k, keys_service_server::KeysServiceServer, sessions_service_server::SessionsServiceServer,
        workspaces_service_server::WorkspacesServiceServer,
    },
    resource,
    usage::{self as u, usage_service_server::UsageServiceServer},
};
use time::{Duration, OffsetDateTime};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

pub(crate) const EMAIL: &str = "admin@example.com";
pub(crate) const PASSWORD: &str = "correct horse";
pub(crate) const SECRET: &str = "km_test_0123456789ABCDEFGHIJKLMNOPQRST3J9H8X";

/// What the fakes know; tests change it at will.
pub(crate) struct State {
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) keys: Vec<k::Key>,
    pub(crate) requests: Vec<u::Request>,
    pub(crate) freshness: u::Freshness,
    /// Open sessions.
    pub(crate) sessions: Vec<String>,
    /// RPC → what it answers instead.
    pub(crate) failures: HashMap<&'static str, Status>,
    /// Names of RPCs in the order of their calls.
    pub(crate) calls: Vec<&'static str>,
    /// Lifetime of access tokens.
    pub(crate) access_life: Duration,
}

#[derive(Clone)]
pub(crate) struct Fakes(pub(crate) Arc<Mutex<State>>);

impl Fakes {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            workspace_id: WorkspaceId::generate(),
            keys: Vec::new(),
            requests: Vec::new(),
            freshness: u::Freshness::default(),
            sessions: Vec::new(),
            failures: HashMap::new(),
            calls: Vec::new(),
            access_life: Duration::minutes(5),
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
                ..k::Key::default()
            };
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

    fn enter(&self, rpc: &'static str) -> Result<(), Status> {
        self.change(|state| {
            state.calls.push(rpc);
            state.failures.get(rpc).map_or(Ok(()), |status| Err(status.clone()))
        })
    }

    /// As `enter`, for RPCs that want an access token of the parent's workspace.
    pub(crate) fn admit<T>(&self, rpc: &'static str, request: &Request<T>, name: &str) -> Result<(), Status> {
        self.enter(rpc)?;
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if !token.is_some_and(|token| token.starts_with("Bearer access-")) {
            return Err(Status::unauthenticated("no access token"));
        }
        let workspace = self.change(|state| resource::workspace_name(state.workspace_id));
        if name.starts_with(&workspace) { Ok(()) } else { Err(Status::not_found("other workspace")) }
    }

    fn access(&self) -> (Option<k::AccessToken>, String) {
        self.change(|state| {
            let expires = OffsetDateTime::now_utc() + state.access_life;
            let expire_time = Some(proto::timestamp::to_proto(expires));
            let token = format!("access-{}", state.calls.len());
            (Some(k::AccessToken { token, expire_time }), resource::workspace_name(state.workspace_id))
        })
    }

    fn key(&self, name: &str) -> Result<k::Key, Status> {
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
    async fn sign_in(&self, request: Request<k::SignInRequest>) -> Answer<k::SignInResponse> {
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

    async fn refresh(&self, request: Request<k::RefreshRequest>) -> Answer<k::RefreshResponse> {
        self.enter("Refresh")?;
        let token = request.into_inner().session_token;
        if !self.change(|state| state.sessions.contains(&token)) {
            return Err(Status::unauthenticated("the session has ended"));
        }
        let (access_token, workspace) = self.access();
        let role = k::Role::Owner.into();
        Ok(Response::new(k::RefreshResponse { access_token, workspace, email: EMAIL.to_owned(), role }))
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

    async fn accept_invitation(
        &self,
        _: Request<k::AcceptInvitationRequest>,
    ) -> Result<Response<k::AcceptInvitationResponse>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn sign_out(&self, request: Request<k::SignOutRequest>) -> Answer<k::SignOutResponse> {
        self.enter("SignOut")?;
        let token = request.into_inner().session_token;
        self.change(|state| state.sessions.retain(|session| *session != token));
        Ok(Response::new(k::SignOutResponse {}))
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

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl k::keys_service_server::KeysService for Fakes {
    type WatchKeysStream = tokio_stream::Pending<Result<k::WatchKeysResponse, Status>>;

    async fn watch_keys(&self, _: Request<k::WatchKeysRequest>) -> Answer<Self::WatchKeysStream> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn ack_feed(&self, _: Request<k::AckFeedRequest>) -> Result<Response<k::AckFeedResponse>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn create_key(&self, request: Request<k::CreateKeyRequest>) -> Answer<k::CreateKeyResponse> {
        let parent = request.get_ref().parent.clone();
        self.admit("CreateKey", &request, &parent)?;
        let asked = request.into_inner().key.unwrap_or_default();
        if asked.display_name.is_empty() {
            return Err(proto::status::invalid("key.display_name", "must not be empty"));
        }
        let id = self.add_key(&asked.display_name, |key| {
            key.environment = asked.environment;
            key.description.clone_from(&asked.description);
        });
        let key = self.change(|state| resource::key_name(state.workspace_id, id));
        Ok(Response::new(k::CreateKeyResponse { key: Some(self.key(&key)?), secret: SECRET.to_owned() }))
    }

    async fn get_key(&self, request: Request<k::GetKeyRequest>) -> Result<Response<k::Key>, Status> {
        self.admit("GetKey", &request, &request.get_ref().name)?;
        Ok(Response::new(self.key(&request.get_ref().name)?))
    }

    async fn list_keys(&self, request: Request<k::ListKeysRequest>) -> Answer<k::ListKeysResponse> {
        self.admit("ListKeys", &request, &request.get_ref().parent)?;
        let request = request.into_inner();
        let from: usize = match request.page_token.as_str() {
            "" => 0,
            token => token.parse().map_err(|_| proto::status::invalid("page_token", "not one of ours"))?,
        };
        let mut keys = self.change(|state| state.keys.clone());
        keys.retain(|key| request.show_deleted || key.state() != k::KeyState::Deleted);
        let size = usize::try_from(request.page_size).unwrap();
        let next_page_token =
            if from + size < keys.len() { (from + size).to_string() } else { String::new() };
        let keys = keys.into_iter().skip(from).take(size).collect();
        Ok(Response::new(k::ListKeysResponse { keys, next_page_token }))
    }

    async fn update_key(&self, _: Request<k::UpdateKeyRequest>) -> Result<Response<k::Key>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn reveal_key(&self, request: Request<k::RevealKeyRequest>) -> Answer<k::RevealKeyResponse> {
        self.admit("RevealKey", &request, &request.get_ref().name)?;
        self.key(&request.get_ref().name)?;
        Ok(Response::new(k::RevealKeyResponse { secret: SECRET.to_owned() }))
    }

    async fn delete_key(
        &self,
        request: Request<k::DeleteKeyRequest>,
    ) -> Result<Response<k::DeleteKeyResponse>, Status> {
        let name = request.get_ref().name.clone();
        self.admit("DeleteKey", &request, &name)?;
        self.key(&name)?;
        self.change(|state| {
            let key = state.keys.iter_mut().find(|key| key.name == name).unwrap();
            key.state = k::KeyState::Deleted.into();
            key.delete_time = Some(ago(Duration::ZERO));
        });
        let receipt = request.get_ref().receipt_timeout.as_ref().map(|_| k::Receipt {
            state: k::ReceiptState::Complete.into(),
            edges_refusing: 3,
            edges: 3,
            elapsed: Some(prost_types::Duration { seconds: 0, nanos: 84_000_000 }),
            silent_edges: vec![],
        });
        Ok(Response::new(k::DeleteKeyResponse { key: Some(self.key(&name)?), version: 2, receipt }))
    }

    async fn disable_key(
        &self,
        _: Request<k::DisableKeyRequest>,
    ) -> Result<Response<k::DisableKeyResponse>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn enable_key(
        &self,
        _: Request<k::EnableKeyRequest>,
    ) -> Result<Response<k::EnableKeyResponse>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn rotate_key(
        &self,
        _: Request<k::RotateKeyRequest>,
    ) -> Result<Response<k::RotateKeyResponse>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn retire_secret(
        &self,
        _: Request<k::RetireSecretRequest>,
    ) -> Result<Response<k::RetireSecretResponse>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn verify_key(
        &self,
        _: Request<k::VerifyKeyRequest>,
    ) -> Result<Response<k::VerifyKeyResponse>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }
}
