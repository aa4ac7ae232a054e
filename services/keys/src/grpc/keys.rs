//! `keymeter.keys.v1.KeysService`.

use proto::keys::{
    CreateKeyRequest, CreateKeyResponse, DeleteKeyRequest, DeleteKeyResponse, GetKeyRequest, Key,
    ListKeysRequest, ListKeysResponse, RevealKeyRequest, RevealKeyResponse, UpdateKeyRequest,
    VerificationCode, VerifyKeyRequest, VerifyKeyResponse, keys_service_server::KeysService,
};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use super::{answer, identify, now, required, wire};
use crate::{
    error::Error,
    fields,
    key::Standing,
    lifecycle::{Keys, ListPosition, NewKey, Verdict},
    metrics::{Change, Metrics},
    page,
    receipts::{self, Receipts},
};

/// The service.
pub(super) struct Rpc {
    pub(super) keys: Keys,
    pub(super) receipts: Receipts,
    pub(super) metrics: Metrics,
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
            let new = new_key(request)?;
            let (shown, secret) = self.keys.create(workspace_id, new, &caller, now).await?;
            self.metrics.changed(Change::Created);
            let secret = secret.map(|secret| secret.reveal().to_owned()).unwrap_or_default();
            Ok(CreateKeyResponse { key: Some(wire::key(shown, now)), secret })
        })
        .await
    }

    async fn get_key(&self, request: Request<GetKeyRequest>) -> Result<Response<Key>, Status> {
        let (claims, _) = identify(&request)?;
        let (workspace_id, key_id) = wire::own_key("name", &request.get_ref().name, &claims)?;
        answer(async { Ok(wire::key(self.keys.get(workspace_id, key_id).await?, now())) }).await
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
            let list = format!("keys of {workspace_id} deleted {}", request.show_deleted);
            let after: Option<ListPosition> = page::position::<(i64, String)>(&list, &request.page_token)?
                .map(read_position)
                .transpose()?;
            let (keys, last) = self.keys.list(workspace_id, request.show_deleted, after, size).await?;
            let next_page_token =
                last.map(|last| page::token(&list, &write_position(last))).unwrap_or_default();
            let keys = keys.into_iter().map(|shown| wire::key(shown, now)).collect();
            Ok(ListKeysResponse { keys, next_page_token })
        })
        .await
    }

    async fn update_key(&self, request: Request<UpdateKeyRequest>) -> Result<Response<Key>, Status> {
        let (claims, caller) = identify(&request)?;
        let UpdateKeyRequest { key, update_mask } = request.into_inner();
        let key = key.unwrap_or_default();
        let name = wire::own_key("key.name", &key.name, &claims)?;
        answer(async {
            let now = now();
            let changes = fields::changes(&key, update_mask.as_ref())?;
            let shown = self.keys.update(name, changes, &key.etag, &caller, now).await?;
            self.metrics.changed(Change::Updated);
            Ok(wire::key(shown, now))
        })
        .await
    }

    async fn reveal_key(
        &self,
        request: Request<RevealKeyRequest>,
    ) -> Result<Response<RevealKeyResponse>, Status> {
        let (claims, caller) = identify(&request)?;
        let (workspace_id, key_id) = wire::own_key("name", &request.get_ref().name, &claims)?;
        answer(async {
            let secret = self.keys.reveal(workspace_id, key_id, &caller, now()).await?;
            self.metrics.changed(Change::Revealed);
            Ok(RevealKeyResponse { secret: secret.reveal().to_owned() })
        })
        .await
    }

    async fn delete_key(
        &self,
        request: Request<DeleteKeyRequest>,
    ) -> Result<Response<DeleteKeyResponse>, Status> {
        let (claims, caller) = identify(&request)?;
        let request = request.into_inner();
        let name = wire::own_key("name", &request.name, &claims)?;
        answer(async {
            let now = now();
            let within = receipts::within(request.receipt_timeout)?;
            let shown = self.keys.delete(name, &request.etag, &caller, now).await?;
            let receipt = self.receipts.give(name, within, &caller).await.map(wire::receipt)?;
            self.metrics.changed(Change::Deleted);
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
            let verdict = self.keys.verify(workspace_id, &request.secret).await?;
            let response = verification(verdict, now());
            self.metrics.verified(response.code());
            Ok(response)
        })
        .await
    }
}

fn new_key(request: CreateKeyRequest) -> Result<NewKey, Error> {
    let key = required("key", request.key)?;
    Ok(NewKey {
        display_name: fields::display_name("key.display_name", &key.display_name)?,
        description: fields::description("key.description", &key.description)?,
        environment: wire::environment("key.environment", key.environment)?,
        expire_time: fields::time("key.expire_time", key.expire_time.as_ref())?,
        idempotency_key: fields::idempotency_key(&request.idempotency_key)?,
    })
}

fn verification(verdict: Verdict, now: OffsetDateTime) -> VerifyKeyResponse {
    let (code, key) = match verdict {
        Verdict::Malformed => (VerificationCode::Malformed, None),
        Verdict::NotFound => (VerificationCode::NotFound, None),
        Verdict::Known(shown) => {
            let code = match shown.key.standing(now) {
                Standing::Active => VerificationCode::Valid,
                Standing::Expired => VerificationCode::Expired,
                Standing::Deleted => VerificationCode::Deleted,
            };
            (code, Some(wire::key(*shown, now)))
        }
    };
    VerifyKeyResponse { valid: code == VerificationCode::Valid, code: code.into(), key }
}

/// A position as a page token holds it: microseconds and the id.
fn write_position((time, key_id): ListPosition) -> (i64, String) {
    (i64::try_from(time.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX), key_id.to_string())
}

fn read_position((micros, key_id): (i64, String)) -> Result<ListPosition, Error> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).ok();
    time.zip(key_id.parse().ok())
        .ok_or_else(|| Error::invalid("page_token", "is damaged; start again without it"))
}
