//! `keymeter.keys.v1.KeysService`.

use access::Claims;
use domain::{KeyId, WorkspaceId};
use proto::{
    keys::{
        AckFeedRequest, AckFeedResponse, CreateKeyRequest, CreateKeyResponse, DeleteKeyRequest,
        DeleteKeyResponse, DisableKeyRequest, DisableKeyResponse, EnableKeyRequest, EnableKeyResponse,
        GetKeyRequest, Key, ListKeysRequest, ListKeysResponse, RetireSecretRequest, RetireSecretResponse,
        RevealKeyRequest, RevealKeyResponse, RotateKeyRequest, RotateKeyResponse, UpdateKeyRequest,
        VerifyKeyRequest, VerifyKeyResponse, WatchKeysRequest, WatchKeysResponse,
        keys_service_server::KeysService,
    },
    resource::secret_name,
};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use super::{Messages, answer, identify, keys_wire as read, now, status, wire};
use crate::{
    acks::Acks,
    caller::Caller,
    error::Error,
    feed::watches::{Asked as AskedFeed, Watches},
    fields,
    lifecycle::{Asked, Keys, OVERLAP_MAX},
    metrics::{Change, Metrics},
    page,
    receipts::{self, Receipts},
};

/// What tells one watch of the feed from all others.
const WATCH_BYTES: usize = 16;

/// The service.
pub(super) struct Rpc {
    pub(super) keys: Keys,
    pub(super) receipts: Receipts,
    pub(super) watches: Watches,
    pub(super) acks: Acks,
    pub(super) metrics: Metrics,
}

fn asked<'a>(
    (workspace_id, key_id): (WorkspaceId, KeyId),
    etag: &'a str,
    (claims, caller): &'a (Claims, Caller),
    now: OffsetDateTime,
) -> Asked<'a> {
    Asked { workspace_id, key_id, etag, claims, caller, now }
}

#[tonic::async_trait]
impl KeysService for Rpc {
    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        let (claims, caller) = identify(&request)?;
        let request = request.into_inner();
        let workspace_id = claims.workspace(&request.parent)?;
        answer(async {
            let now = now();
            let new = read::new_key(request)?;
            let (shown, secret) = self.keys.create(workspace_id, new, (&claims, &caller), now).await?;
            self.metrics.changed(Change::Created);
            Ok(CreateKeyResponse { key: Some(wire::key(shown, now)), secret: wire::secret(secret) })
        })
        .await
    }

    async fn get_key(&self, request: Request<GetKeyRequest>) -> Result<Response<Key>, Status> {
        let (claims, _) = identify(&request)?;
        let (workspace_id, key_id) = wire::own_key("name", &request.get_ref().name, &claims)?;
        answer(async {
            let now = now();
            Ok(wire::key(self.keys.get(workspace_id, key_id, now).await?, now))
        })
        .await
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        let (claims, _) = identify(&request)?;
        let request = request.into_inner();
        let workspace_id = claims.workspace(&request.parent)?;
        answer(async {
            let now = now();
            let size = page::size(request.page_size)?;
            let filter = read::filter(&request)?;
            let list = format!("keys of {workspace_id} {filter:?}");
            let after = read::position(filter.order, &list, &request.page_token)?;
            let (keys, last) = self.keys.list(workspace_id, &filter, after, size, now).await?;
            let next_page_token = last.map(|last| page::token(&list, &last.write())).unwrap_or_default();
            let keys = keys.into_iter().map(|shown| wire::key(shown, now)).collect();
            Ok(ListKeysResponse { keys, next_page_token })
        })
        .await
    }

    async fn update_key(&self, request: Request<UpdateKeyRequest>) -> Result<Response<Key>, Status> {
        let who = identify(&request)?;
        let UpdateKeyRequest { key, update_mask } = request.into_inner();
        let key = key.unwrap_or_default();
        let name = wire::own_key("key.name", &key.name, &who.0)?;
        answer(async {
            let now = now();
            let changes = fields::changes(&key, update_mask.as_ref())?;
            let shown = self.keys.update(asked(name, &key.etag, &who, now), changes).await?;
            self.metrics.changed(Change::Updated);
            Ok(wire::key(shown, now))
        })
        .await
    }

    async fn disable_key(
        &self,
        request: Request<DisableKeyRequest>,
    ) -> Result<Response<DisableKeyResponse>, Status> {
        let who = identify(&request)?;
        let request = request.into_inner();
        let name = wire::own_key("name", &request.name, &who.0)?;
        answer(async {
            let now = now();
            let within = receipts::within(request.receipt_timeout)?;
            let shown = self.keys.disable(asked(name, &request.etag, &who, now)).await?;
            self.metrics.changed(Change::Disabled);
            let receipt = self.receipts.give(name, within, &who.1).await.map(wire::receipt)?;
            let version = shown.key.version.unsigned_abs();
            Ok(DisableKeyResponse { key: Some(wire::key(shown, now)), version, receipt: Some(receipt) })
        })
        .await
    }

    async fn enable_key(
        &self,
        request: Request<EnableKeyRequest>,
    ) -> Result<Response<EnableKeyResponse>, Status> {
        let who = identify(&request)?;
        let request = request.into_inner();
        let name = wire::own_key("name", &request.name, &who.0)?;
        answer(async {
            let now = now();
            let shown = self.keys.enable(asked(name, &request.etag, &who, now)).await?;
            self.metrics.changed(Change::Enabled);
            let version = shown.key.version.unsigned_abs();
            Ok(EnableKeyResponse { key: Some(wire::key(shown, now)), version })
        })
        .await
    }

    async fn rotate_key(
        &self,
        request: Request<RotateKeyRequest>,
    ) -> Result<Response<RotateKeyResponse>, Status> {
        let who = identify(&request)?;
        let request = request.into_inner();
        let name = wire::own_key("name", &request.name, &who.0)?;
        answer(async {
            let now = now();
            let overlap = fields::duration("overlap", request.overlap.as_ref(), OVERLAP_MAX)?;
            let overlap =
                overlap.ok_or_else(|| Error::invalid("overlap", "must be given; 0 s is at once"))?;
            let idempotency_key = fields::idempotency_key(&request.idempotency_key)?;
            let asked = asked(name, &request.etag, &who, now);
            let rotation = self.keys.rotate(asked, overlap, idempotency_key.as_deref()).await?;
            self.metrics.changed(Change::Rotated);
            let retired = rotation.retired.into_iter().map(|id| secret_name(name.0, name.1, id));
            Ok(RotateKeyResponse {
                version: rotation.shown.key.version.unsigned_abs(),
                key: Some(wire::key(rotation.shown, now)),
                secret: wire::secret(rotation.secret),
                retired_secrets: retired.collect(),
            })
        })
        .await
    }

    async fn retire_secret(
        &self,
        request: Request<RetireSecretRequest>,
    ) -> Result<Response<RetireSecretResponse>, Status> {
        let who = identify(&request)?;
        let request = request.into_inner();
        let (workspace_id, key_id, secret_id) = wire::own_secret("name", &request.name, &who.0)?;
        answer(async {
            let now = now();
            let within = receipts::within(request.receipt_timeout)?;
            let asked = asked((workspace_id, key_id), &request.etag, &who, now);
            let retired = self.keys.retire_secret(asked, secret_id).await;
            // Without its key a secret is not found either.
            let shown = retired.map_err(|error| match error {
                Error::NotFound { .. } => Error::NotFound { what: "secret", name: request.name.clone() },
                other => other,
            })?;
            self.metrics.changed(Change::SecretRetired);
            let receipt = self.receipts.give((workspace_id, key_id), within, &who.1).await;
            let receipt = receipt.map(wire::receipt)?;
            let version = shown.key.version.unsigned_abs();
            Ok(RetireSecretResponse { key: Some(wire::key(shown, now)), version, receipt: Some(receipt) })
        })
        .await
    }

    async fn reveal_key(
        &self,
        request: Request<RevealKeyRequest>,
    ) -> Result<Response<RevealKeyResponse>, Status> {
        let who = identify(&request)?;
        let name = wire::own_key("name", &request.get_ref().name, &who.0)?;
        answer(async {
            let secret = self.keys.reveal(asked(name, "", &who, now())).await?;
            self.metrics.changed(Change::Revealed);
            Ok(RevealKeyResponse { secret: wire::secret(Some(secret)) })
        })
        .await
    }

    async fn delete_key(
        &self,
        request: Request<DeleteKeyRequest>,
    ) -> Result<Response<DeleteKeyResponse>, Status> {
        let who = identify(&request)?;
        let request = request.into_inner();
        let name = wire::own_key("name", &request.name, &who.0)?;
        answer(async {
            let now = now();
            let within = receipts::within(request.receipt_timeout)?;
            let shown = self.keys.delete(asked(name, &request.etag, &who, now)).await?;
            self.metrics.changed(Change::Deleted);
            let receipt = self.receipts.give(name, within, &who.1).await.map(wire::receipt)?;
            let version = shown.key.version.unsigned_abs();
            Ok(DeleteKeyResponse { key: Some(wire::key(shown, now)), version, receipt: Some(receipt) })
        })
        .await
    }

    async fn verify_key(
        &self,
        request: Request<VerifyKeyRequest>,
    ) -> Result<Response<VerifyKeyResponse>, Status> {
        let (claims, _) = identify(&request)?;
        let request = request.into_inner();
        let workspace_id = claims.workspace(&request.parent)?;
        answer(async {
            let now = now();
            let verdict = self.keys.verify(workspace_id, &request.secret, now).await?;
            let response = wire::verification(verdict, now);
            self.metrics.verified(response.code());
            Ok(response)
        })
        .await
    }

    type WatchKeysStream = Messages<WatchKeysResponse>;

    async fn watch_keys(
        &self,
        request: Request<WatchKeysRequest>,
    ) -> Result<Response<Messages<WatchKeysResponse>>, Status> {
        let WatchKeysRequest { after_version: after, watch } = request.into_inner();
        if watch.len() != WATCH_BYTES {
            return Err(status::status(Error::invalid("watch", "must be 16 random bytes")));
        }
        let batches = self.watches.watch(AskedFeed { after, watch })?;
        let next = async |mut batches: tokio::sync::mpsc::Receiver<_>| {
            batches.recv().await.map(|batch| (batch, batches))
        };
        Ok(Response::new(Box::pin(futures_util::stream::unfold(batches, next))))
    }

    async fn ack_feed(&self, request: Request<AckFeedRequest>) -> Result<Response<AckFeedResponse>, Status> {
        self.acks.take(request.get_ref()).map_err(status::status)?;
        Ok(Response::new(AckFeedResponse {}))
    }
}
