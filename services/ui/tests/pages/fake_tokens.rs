//! Service tokens, as far as pages ask about them.

use domain::ServiceTokenId;
use proto::{keys as k, resource};
use time::Duration;
use tonic::{Request, Response, Status};

use crate::{
    fake_team::cut,
    fakes::{Fakes, ago},
};

/// Every token.
pub(crate) const SERVICE_TOKEN: &str = "kmsvc_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg";

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl k::service_tokens_service_server::ServiceTokensService for Fakes {
    async fn create_service_token(
        &self,
        request: Request<k::CreateServiceTokenRequest>,
    ) -> Answer<k::CreateServiceTokenResponse> {
        self.admit("CreateServiceToken", &request, &request.get_ref().parent)?;
        let asked = request.into_inner().service_token.unwrap_or_default();
        if asked.display_name.is_empty() {
            return Err(proto::status::invalid("service_token.display_name", "must not be empty"));
        }
        let made = self.change(|state| {
            let made = k::ServiceToken {
                name: resource::service_token_name(state.workspace_id, ServiceTokenId::generate()),
                start: SERVICE_TOKEN[..12].to_owned(),
                create_time: Some(ago(Duration::ZERO)),
                ..asked
            };
            state.team.service_tokens.insert(0, made.clone());
            made
        });
        let token = SERVICE_TOKEN.to_owned();
        Ok(Response::new(k::CreateServiceTokenResponse { service_token: Some(made), token }))
    }

    async fn list_service_tokens(
        &self,
        request: Request<k::ListServiceTokensRequest>,
    ) -> Answer<k::ListServiceTokensResponse> {
        self.admit("ListServiceTokens", &request, &request.get_ref().parent)?;
        let request = request.into_inner();
        let all = self.change(|state| state.team.service_tokens.clone());
        let (service_tokens, next_page_token) = cut(&all, request.page_size, &request.page_token)?;
        Ok(Response::new(k::ListServiceTokensResponse { service_tokens, next_page_token }))
    }

    async fn revoke_service_token(
        &self,
        request: Request<k::RevokeServiceTokenRequest>,
    ) -> Answer<k::ServiceToken> {
        let name = request.get_ref().name.clone();
        self.admit("RevokeServiceToken", &request, &name)?;
        let revoked = self.change(|state| {
            let token = state.team.service_tokens.iter_mut().find(|token| token.name == name)?;
            token.revoke_time = Some(ago(Duration::ZERO));
            Some(token.clone())
        });
        Ok(Response::new(revoked.ok_or_else(|| proto::status::not_found("service token", &name))?))
    }
}
