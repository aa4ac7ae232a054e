//! What is done with service tokens: make, show, revoke. The token is shown once and kept as a hash.

use access::Scope;
use domain::{ServiceTokenId, WorkspaceId};
use proto::resource::{service_token_name, workspace_name};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use time::OffsetDateTime;

use crate::{
    caller::Caller,
    error::Error,
    fields, page,
    store::{Store, audit::Change, service_tokens::ServiceToken},
    token,
};

/// The service tokens of all workspaces. Clones share everything.
#[derive(Clone)]
pub struct ServiceTokens {
    store: Store,
}

/// What a new service token is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewServiceToken {
    /// Which service it is for.
    pub display_name: String,
    /// What it may do; empty is all.
    pub scopes: Vec<Scope>,
    /// `None` is never.
    pub expire_time: Option<OffsetDateTime>,
}

/// Where a list goes on: after the token made then with this id.
pub type ListPosition = (OffsetDateTime, ServiceTokenId);

impl ServiceTokens {
    /// The service tokens in `store`.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// Makes a service token.
    ///
    /// # Errors
    /// An expiry in the past; Postgres.
    pub async fn create(
        &self,
        workspace_id: WorkspaceId,
        new: NewServiceToken,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<(ServiceToken, SecretString), Error> {
        fields::ahead("service_token.expire_time", new.expire_time, now)?;
        let service_token = token::generate(token::SERVICE);
        let made = ServiceToken {
            service_token_id: ServiceTokenId::generate(),
            workspace_id,
            display_name: new.display_name,
            scopes: new.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            start: token::start(&service_token),
            create_time: now,
            expire_time: new.expire_time,
            revoke_time: None,
            last_used_day: None,
        };
        let mut tx = self.store.begin().await?;
        if tx.hold_workspace(workspace_id).await?.is_none() {
            return Err(Error::NotFound { what: "workspace", name: workspace_name(workspace_id) });
        }
        tx.add_service_token(&made, &token::hash(service_token.expose_secret())).await?;
        let change = Change::made(json!({ "display_name": made.display_name, "scopes": made.scopes }));
        let name = service_token_name(workspace_id, made.service_token_id);
        tx.audit_change(workspace_id, "create_service_token", &name, change, caller, now).await?;
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace_id, actor = caller.actor, "service token created");
        Ok((made, service_token))
    }

    /// A page of a workspace's service tokens, newest first, and where the next one starts.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list(
        &self,
        workspace_id: WorkspaceId,
        after: Option<ListPosition>,
        size: usize,
    ) -> Result<(Vec<ServiceToken>, Option<ListPosition>), Error> {
        let found = self.store.service_tokens_of(workspace_id, after, size + 1).await?;
        Ok(page::cut(found, size, |last| (last.create_time, last.service_token_id)))
    }

    /// Ends a service token. A revoked one stays as it is.
    ///
    /// # Errors
    /// Not found; Postgres.
    pub async fn revoke(
        &self,
        (workspace_id, id): (WorkspaceId, ServiceTokenId),
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<ServiceToken, Error> {
        let name = service_token_name(workspace_id, id);
        let mut tx = self.store.begin().await?;
        let Some(held) = tx.hold_service_token(workspace_id, id).await? else {
            return Err(Error::NotFound { what: "service token", name });
        };
        if held.revoke_time.is_some() {
            return Ok(held);
        }
        tx.revoke_service_token(id, now).await?;
        tx.audit(workspace_id, "revoke_service_token", &name, caller, now).await?;
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace_id, actor = caller.actor, "service token revoked");
        Ok(ServiceToken { revoke_time: Some(now), ..held })
    }
}
