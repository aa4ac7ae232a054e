//! `keymeter.keys.v1.SessionsService`.

use std::sync::Arc;

use domain::WorkspaceId;
use proto::{
    keys::{
        AcceptInvitationRequest, AcceptInvitationResponse, BeginProviderSignInRequest,
        BeginProviderSignInResponse, ExchangeTokenRequest, ExchangeTokenResponse,
        FinishProviderSignInRequest, FinishProviderSignInResponse, GetInvitationRequest,
        GetInvitationResponse, GetProviderRequest, GetProviderResponse, ListSigningKeysRequest,
        ListSigningKeysResponse, ReauthenticateByProviderRequest, ReauthenticateByProviderResponse,
        ReauthenticateRequest, ReauthenticateResponse, RefreshRequest, RefreshResponse, SignInMethod,
        SignInRequest, SignInResponse, SignOutRequest, SignOutResponse,
        sessions_service_server::SessionsService,
    },
    resource::{parse_workspace_name, workspace_name},
};
use secrecy::{ExposeSecret as _, SecretString};
use tonic::{Request, Response, Status};

use super::{answer, now, provider, wire};
use crate::{
    error::Error,
    fields,
    metrics::{Metrics, SignIn},
    oidc::Refusal,
    password::PASSWORD_BYTES_MAX,
    sessions::Sessions,
    signing::{self, SigningCell},
};

/// The service.
pub(super) struct Rpc {
    pub(super) sessions: Sessions,
    pub(super) signing: Arc<SigningCell>,
    pub(super) metrics: Metrics,
}

#[tonic::async_trait]
impl SessionsService for Rpc {
    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        let address = request.remote_addr().map(|address| address.ip());
        let request = request.into_inner();
        answer(async {
            let email = fields::email("email", &request.email)?;
            let password = password(request.password)?;
            let signed_in = self.counted(self.sessions.sign_in(&email, password, address, now()).await)?;
            Ok(SignInResponse {
                session_token: signed_in.session_token.expose_secret().to_owned(),
                access_token: Some(wire::access_token(signed_in.access)),
                workspace: workspace_name(signed_in.workspace_id),
            })
        })
        .await
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        let request = request.into_inner();
        answer(async {
            given("session_token", &request.session_token)?;
            let workspace_id = workspace(&request.workspace)?;
            let refreshed = self.sessions.refresh(&request.session_token, workspace_id, now()).await?;
            Ok(RefreshResponse {
                access_token: Some(wire::access_token(refreshed.access)),
                workspace: workspace_name(refreshed.workspace_id),
                email: refreshed.email,
                role: wire::role(refreshed.role).into(),
                sign_in_method: method(refreshed.by_provider).into(),
            })
        })
        .await
    }

    async fn reauthenticate(
        &self,
        request: Request<ReauthenticateRequest>,
    ) -> Result<Response<ReauthenticateResponse>, Status> {
        let address = request.remote_addr().map(|address| address.ip());
        let request = request.into_inner();
        answer(async {
            given("session_token", &request.session_token)?;
            let password = password(request.password)?;
            let workspace_id = workspace(&request.workspace)?;
            let again =
                self.sessions.reauthenticate(&request.session_token, password, workspace_id, address, now());
            let refreshed = self.counted(again.await)?;
            Ok(ReauthenticateResponse {
                access_token: Some(wire::access_token(refreshed.access)),
                workspace: workspace_name(refreshed.workspace_id),
            })
        })
        .await
    }

    async fn get_invitation(
        &self,
        request: Request<GetInvitationRequest>,
    ) -> Result<Response<GetInvitationResponse>, Status> {
        let token = request.into_inner().token;
        answer(async {
            given("token", &token)?;
            let (invitation, workspace) = self.sessions.invitation(&token, now()).await?;
            let invitation = Some(wire::invitation(invitation));
            Ok(GetInvitationResponse { invitation, workspace_display_name: workspace.display_name })
        })
        .await
    }

    async fn accept_invitation(
        &self,
        request: Request<AcceptInvitationRequest>,
    ) -> Result<Response<AcceptInvitationResponse>, Status> {
        let address = request.remote_addr().map(|address| address.ip());
        let request = request.into_inner();
        answer(async {
            given("token", &request.token)?;
            let password = password(request.password)?;
            let accepted =
                self.counted(self.sessions.accept(&request.token, password, address, now()).await)?;
            Ok(AcceptInvitationResponse {
                session_token: accepted.session_token.expose_secret().to_owned(),
                access_token: Some(wire::access_token(accepted.access)),
                workspace: workspace_name(accepted.workspace_id),
            })
        })
        .await
    }

    async fn sign_out(&self, request: Request<SignOutRequest>) -> Result<Response<SignOutResponse>, Status> {
        let request = request.into_inner();
        answer(async {
            given("session_token", &request.session_token)?;
            self.sessions.sign_out(&request.session_token).await?;
            Ok(SignOutResponse {})
        })
        .await
    }

    async fn get_provider(
        &self,
        _request: Request<GetProviderRequest>,
    ) -> Result<Response<GetProviderResponse>, Status> {
        let display_name = self.sessions.provider_name().unwrap_or_default().to_owned();
        Ok(Response::new(GetProviderResponse { display_name }))
    }

    async fn begin_provider_sign_in(
        &self,
        request: Request<BeginProviderSignInRequest>,
    ) -> Result<Response<BeginProviderSignInResponse>, Status> {
        let request = request.into_inner();
        answer(async {
            provider::redirect_uri("redirect_uri", &request.redirect_uri)?;
            let begun = self.sessions.begin(&request.redirect_uri, request.reauthenticate, now()).await?;
            let flow = begun.flow.expose_secret().to_owned();
            Ok(BeginProviderSignInResponse { authorization_url: begun.authorization_url, flow })
        })
        .await
    }

    async fn finish_provider_sign_in(
        &self,
        request: Request<FinishProviderSignInRequest>,
    ) -> Result<Response<FinishProviderSignInResponse>, Status> {
        let address = request.remote_addr().map(|address| address.ip());
        let request = request.into_inner();
        answer(async {
            let (told, invitation) = (provider::answer(request.answer)?, request.invitation_token);
            let came = match invitation.as_str() {
                "" => self.sessions.sign_in_by_provider(&told, address, now()).await,
                token => self.sessions.accept_by_provider(token, &told, address, now()).await,
            };
            let signed_in = self.counted(came)?;
            Ok(FinishProviderSignInResponse {
                session_token: signed_in.session_token.expose_secret().to_owned(),
                access_token: Some(wire::access_token(signed_in.access)),
                workspace: workspace_name(signed_in.workspace_id),
            })
        })
        .await
    }

    async fn reauthenticate_by_provider(
        &self,
        request: Request<ReauthenticateByProviderRequest>,
    ) -> Result<Response<ReauthenticateByProviderResponse>, Status> {
        let request = request.into_inner();
        answer(async {
            given("session_token", &request.session_token)?;
            let (told, workspace_id) = (provider::answer(request.answer)?, workspace(&request.workspace)?);
            let session = &request.session_token;
            let again = self.sessions.reauthenticate_by_provider(session, &told, workspace_id, now());
            let refreshed = self.counted(again.await)?;
            Ok(ReauthenticateByProviderResponse {
                access_token: Some(wire::access_token(refreshed.access)),
                workspace: workspace_name(refreshed.workspace_id),
            })
        })
        .await
    }

    async fn exchange_token(
        &self,
        request: Request<ExchangeTokenRequest>,
    ) -> Result<Response<ExchangeTokenResponse>, Status> {
        let request = request.into_inner();
        answer(async {
            given("service_token", &request.service_token)?;
            let (access, workspace_id) = self.sessions.exchange(&request.service_token, now()).await?;
            Ok(ExchangeTokenResponse {
                access_token: Some(wire::access_token(access)),
                workspace: workspace_name(workspace_id),
            })
        })
        .await
    }

    async fn list_signing_keys(
        &self,
        _request: Request<ListSigningKeysRequest>,
    ) -> Result<Response<ListSigningKeysResponse>, Status> {
        answer(async {
            Ok(ListSigningKeysResponse { keys: signing::ready(&self.signing)?.public().to_vec() })
        })
        .await
    }
}

impl Rpc {
    /// Counts what came of a password, or of the provider's word.
    fn counted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        match &result {
            Ok(_) => self.metrics.signed_in(SignIn::Good),
            Err(Error::Provider(Refusal::Away(_))) => self.metrics.signed_in(SignIn::ProviderAway),
            Err(Error::Unauthenticated(_) | Error::Provider(_)) => self.metrics.signed_in(SignIn::Wrong),
            Err(Error::Throttled { .. }) => self.metrics.signed_in(SignIn::Throttled),
            Err(_) => {}
        }
        result
    }
}

fn password(text: String) -> Result<SecretString, Error> {
    if text.is_empty() || text.len() > PASSWORD_BYTES_MAX {
        return Err(Error::invalid("password", "must have 1 to 1,024 bytes"));
    }
    Ok(text.into())
}

/// The workspace that a request names, if it names one.
fn workspace(name: &str) -> Result<Option<WorkspaceId>, Error> {
    Some(name)
        .filter(|name| !name.is_empty())
        .map(parse_workspace_name)
        .transpose()
        .map_err(|error| Error::invalid("workspace", error.to_string()))
}

fn method(by_provider: bool) -> SignInMethod {
    if by_provider { SignInMethod::Provider } else { SignInMethod::Password }
}

pub(super) fn given(field: &'static str, text: &str) -> Result<(), Error> {
    if text.is_empty() { Err(Error::invalid(field, "must be given")) } else { Ok(()) }
}
