//! A keys service that knows one signing key, and tokens signed by it; every session is an owner's of the workspace that
//! is shown. Stores nothing else.

use std::sync::{Arc, Mutex, PoisonError};

use access::{Claims, LIFETIME, Role, Signer, Subject};
use anyhow::anyhow;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use domain::{AccountId, ServiceTokenId, WorkspaceId};
use proto::{
    keys::{
        self as pb,
        sessions_service_server::{SessionsService, SessionsServiceServer},
    },
    resource::workspace_name,
};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// Signs tokens, and tells their public key as the keys service does.
pub(crate) struct Keys {
    signer: Arc<Signer>,
    shown: Shown,
    pub(crate) url: String,
}

type Shown = Arc<Mutex<Option<WorkspaceId>>>;

struct Sessions {
    key: pb::SigningKey,
    signer: Arc<Signer>,
    shown: Shown,
}

impl Keys {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let pkcs8 =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|error| anyhow!("{error}"))?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|error| anyhow!("{error}"))?;
        let public_key = pair.public_key().as_ref().to_vec();
        let signer = Signer::new("bench", pkcs8.as_ref()).map_err(|error| anyhow!("{error:?}"))?;
        let (signer, shown) = (Arc::new(signer), Shown::default());
        let key = pb::SigningKey { kid: "bench".into(), public_key };
        let sessions = Sessions { key, signer: Arc::clone(&signer), shown: Arc::clone(&shown) };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let server = Server::builder().add_service(SessionsServiceServer::new(sessions));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(Self { signer, shown, url })
    }

    /// Whoever signs in sees this workspace from now on.
    pub(crate) fn show(&self, workspace_id: WorkspaceId) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(workspace_id);
    }

    /// A request with a token for the workspace.
    pub(crate) fn request<T>(&self, workspace_id: WorkspaceId, message: T) -> Result<Request<T>, Status> {
        let claims = claims(workspace_id, Subject::Service(ServiceTokenId::generate()), Role::Service);
        let bearer = format!("Bearer {}", self.signer.sign(&claims, OffsetDateTime::now_utc()));
        let bearer = bearer.parse().map_err(|_| Status::internal("a token is no header"))?;
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", bearer);
        Ok(request)
    }
}

fn claims(workspace_id: WorkspaceId, subject: Subject, role: Role) -> Claims {
    let expires = OffsetDateTime::now_utc() + LIFETIME;
    Claims { subject, workspace_id, role, scopes: vec![], authenticated: None, expires }
}

fn never<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not asked for here"))
}

#[tonic::async_trait]
impl SessionsService for Sessions {
    async fn list_signing_keys(
        &self,
        _: Request<pb::ListSigningKeysRequest>,
    ) -> Result<Response<pb::ListSigningKeysResponse>, Status> {
        Ok(Response::new(pb::ListSigningKeysResponse { keys: vec![self.key.clone()] }))
    }

    async fn sign_in(&self, _: Request<pb::SignInRequest>) -> Result<Response<pb::SignInResponse>, Status> {
        never()
    }

    async fn refresh(&self, _: Request<pb::RefreshRequest>) -> Result<Response<pb::RefreshResponse>, Status> {
        let shown = *self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let workspace_id = shown.ok_or_else(|| Status::unauthenticated("no workspace is shown"))?;
        let claims = claims(workspace_id, Subject::Account(AccountId::generate()), Role::Owner);
        let token = self.signer.sign(&claims, OffsetDateTime::now_utc());
        let expire_time = Some(prost_types::Timestamp { seconds: claims.expires.unix_timestamp(), nanos: 0 });
        Ok(Response::new(pb::RefreshResponse {
            access_token: Some(pb::AccessToken { token, expire_time }),
            workspace: workspace_name(workspace_id),
            email: "bench@example.com".into(),
            role: pb::Role::Owner.into(),
            ..Default::default()
        }))
    }

    async fn sign_out(
        &self,
        _: Request<pb::SignOutRequest>,
    ) -> Result<Response<pb::SignOutResponse>, Status> {
        never()
    }

    async fn reauthenticate(
        &self,
        _: Request<pb::ReauthenticateRequest>,
    ) -> Result<Response<pb::ReauthenticateResponse>, Status> {
        never()
    }

    async fn get_invitation(
        &self,
        _: Request<pb::GetInvitationRequest>,
    ) -> Result<Response<pb::GetInvitationResponse>, Status> {
        never()
    }

    async fn accept_invitation(
        &self,
        _: Request<pb::AcceptInvitationRequest>,
    ) -> Result<Response<pb::AcceptInvitationResponse>, Status> {
        never()
    }

    async fn exchange_token(
        &self,
        _: Request<pb::ExchangeTokenRequest>,
    ) -> Result<Response<pb::ExchangeTokenResponse>, Status> {
        never()
    }

    async fn get_provider(
        &self,
        _: Request<pb::GetProviderRequest>,
    ) -> Result<Response<pb::GetProviderResponse>, Status> {
        never()
    }

    async fn begin_provider_sign_in(
        &self,
        _: Request<pb::BeginProviderSignInRequest>,
    ) -> Result<Response<pb::BeginProviderSignInResponse>, Status> {
        never()
    }

    async fn finish_provider_sign_in(
        &self,
        _: Request<pb::FinishProviderSignInRequest>,
    ) -> Result<Response<pb::FinishProviderSignInResponse>, Status> {
        never()
    }

    async fn reauthenticate_by_provider(
        &self,
        _: Request<pb::ReauthenticateByProviderRequest>,
    ) -> Result<Response<pb::ReauthenticateByProviderResponse>, Status> {
        never()
    }
}
