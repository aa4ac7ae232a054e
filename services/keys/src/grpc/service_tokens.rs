//! `keymeter.keys.v1.ServiceTokensService`.

use access::Scope;
use proto::{
    keys as pb,
    keys::service_tokens_service_server::ServiceTokensService,
    resource::{parse_service_token_name, service_token_name},
    timestamp::to_proto,
};
use secrecy::ExposeSecret as _;
use tonic::{Request, Response, Status};

use super::{answer, identify, now, required};
use crate::{
    error::Error,
    fields,
    page::{self, Place},
    service_tokens::{NewServiceToken, ServiceTokens},
    store::service_tokens::ServiceToken,
};

/// The service.
pub(super) struct Rpc {
    pub(super) service_tokens: ServiceTokens,
}

#[tonic::async_trait]
impl ServiceTokensService for Rpc {
    async fn create_service_token(
        &self,
        request: Request<pb::CreateServiceTokenRequest>,
    ) -> Result<Response<pb::CreateServiceTokenResponse>, Status> {
        let (claims, caller) = identify(&request)?;
        let request = request.into_inner();
        let workspace_id = claims.workspace(&request.parent)?;
        answer(async {
            let asked = required("service_token", request.service_token)?;
            let new = NewServiceToken {
                display_name: fields::display_name("service_token.display_name", &asked.display_name)?,
                scopes: scopes(&asked.scopes)?,
                expire_time: fields::time("service_token.expire_time", asked.expire_time.as_ref())?,
            };
            let (made, token) = self.service_tokens.create(workspace_id, new, &caller, now()).await?;
            let token = token.expose_secret().to_owned();
            Ok(pb::CreateServiceTokenResponse { service_token: Some(to_wire(made)), token })
        })
        .await
    }

    async fn list_service_tokens(
        &self,
        request: Request<pb::ListServiceTokensRequest>,
    ) -> Result<Response<pb::ListServiceTokensResponse>, Status> {
        let (claims, _) = identify(&request)?;
        let request = request.into_inner();
        let workspace_id = claims.workspace(&request.parent)?;
        answer(async {
            let size = page::size(request.page_size)?;
            let list = format!("service tokens of {workspace_id}");
            let after = page::position::<Place>(&list, &request.page_token)?;
            let after = after.map(page::read_place).transpose()?;
            let (found, last) = self.service_tokens.list(workspace_id, after, size).await?;
            Ok(pb::ListServiceTokensResponse {
                service_tokens: found.into_iter().map(to_wire).collect(),
                next_page_token: last.map(|last| page::token(&list, &page::place(last))).unwrap_or_default(),
            })
        })
        .await
    }

    async fn revoke_service_token(
        &self,
        request: Request<pb::RevokeServiceTokenRequest>,
    ) -> Result<Response<pb::ServiceToken>, Status> {
        let (claims, caller) = identify(&request)?;
        let name = &request.get_ref().name;
        let name = claims.own("name", "service token", name, parse_service_token_name)?;
        answer(async { Ok(to_wire(self.service_tokens.revoke(name, &caller, now()).await?)) }).await
    }
}

/// Each scope once, in the order of the table.
fn scopes(names: &[String]) -> Result<Vec<Scope>, Error> {
    if let Some(unknown) = names.iter().find(|name| name.parse::<Scope>().is_err()) {
        let known = Scope::ALL.map(Scope::as_str).join(", ");
        let unknown = unknown.chars().take(32).collect::<String>();
        return Err(Error::invalid(
            "service_token.scopes",
            format!("{} is no scope; there are {known}", unknown.escape_debug()),
        ));
    }
    Ok(Scope::ALL.into_iter().filter(|scope| names.iter().any(|name| name == scope.as_str())).collect())
}

fn to_wire(token: ServiceToken) -> pb::ServiceToken {
    pb::ServiceToken {
        name: service_token_name(token.workspace_id, token.service_token_id),
        display_name: token.display_name,
        scopes: token.scopes,
        start: token.start,
        create_time: Some(to_proto(token.create_time)),
        expire_time: token.expire_time.map(to_proto),
        revoke_time: token.revoke_time.map(to_proto),
        last_used_day: token.last_used_day.map(|day| to_proto(day.midnight().assume_utc())),
    }
}
