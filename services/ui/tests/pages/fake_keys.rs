//! The keys service in memory: keeps what it was told, and finds by the real filter.

use domain::SecretId;
use proto::{keys as k, resource, timestamp::to_proto};
use time::{Duration, OffsetDateTime};
use tonic::{Request, Response, Status};

use crate::fakes::{Fakes, SECRET, ago};

/// Another secret than the first.
pub(crate) const ROTATED: &str = "km_test_ROTATED89ABCDEFGHIJKLMNOPQRST3J9H8X";

type Answer<T> = Result<Response<T>, Status>;

fn receipt(timeout: Option<&prost_types::Duration>) -> Option<k::Receipt> {
    timeout.map(|_| k::Receipt {
        state: k::ReceiptState::Complete.into(),
        edges_refusing: 3,
        edges: 3,
        elapsed: Some(prost_types::Duration { seconds: 0, nanos: 84_000_000 }),
        silent_edges: vec![],
    })
}

/// Changes a key as the service does: only with a current etag, which is another one afterwards.
fn change(fakes: &Fakes, name: &str, etag: &str, change: impl FnOnce(&mut k::Key)) -> Result<k::Key, Status> {
    let key = fakes.key(name)?;
    if !etag.is_empty() && etag != key.etag {
        return Err(Status::aborted("the key was changed meanwhile"));
    }
    Ok(fakes.change(|state| {
        let key = state.keys.iter_mut().find(|key| key.name == name).unwrap();
        change(key);
        key.etag = format!("{}+", key.etag);
        key.clone()
    }))
}

fn is_listed(request: &k::ListKeysRequest, key: &k::Key) -> bool {
    let filter = request.filter.clone().unwrap_or_default();
    let in_state = if filter.states.is_empty() {
        request.show_deleted || key.state() != k::KeyState::Deleted
    } else {
        filter.states.contains(&key.state)
    };
    in_state
        && key.display_name.to_lowercase().contains(&filter.search.to_lowercase())
        && (filter.environment == 0 || filter.environment == key.environment)
        && filter.tags.iter().all(|(name, value)| key.tags.get(name) == Some(value))
        && filter.hygiene.iter().all(|hygiene| match k::KeyHygiene::try_from(*hygiene).unwrap() {
            k::KeyHygiene::NeverUsed => key.last_used_time.is_none(),
            k::KeyHygiene::Exposed => key.expose_time.is_some(),
            other => panic!("{other:?} is not asked for"),
        })
}

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
            let made = key.clone();
            *key = asked.clone();
            key.name = made.name;
            key.start = made.start;
            key.state = made.state;
            key.secrets = made.secrets;
            key.create_time = made.create_time;
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
        keys.retain(|key| is_listed(&request, key));
        if request.order_by() == k::KeyOrder::DisplayName {
            keys.sort_by_key(|key| key.display_name.to_lowercase());
        }
        let size = usize::try_from(request.page_size).unwrap();
        let next_page_token =
            if from + size < keys.len() { (from + size).to_string() } else { String::new() };
        let keys = keys.into_iter().skip(from).take(size).collect();
        Ok(Response::new(k::ListKeysResponse { keys, next_page_token }))
    }

    async fn update_key(&self, request: Request<k::UpdateKeyRequest>) -> Result<Response<k::Key>, Status> {
        let asked = request.get_ref().key.clone().unwrap_or_default();
        self.admit("UpdateKey", &request, &asked.name)?;
        self.change(|state| state.updates.push(request.get_ref().clone()));
        let mask = request.into_inner().update_mask.unwrap_or_default();
        let changed = change(self, &asked.name, &asked.etag, |key| {
            for path in &mask.paths {
                match path.as_str() {
                    "display_name" => key.display_name.clone_from(&asked.display_name),
                    "description" => key.description.clone_from(&asked.description),
                    "expire_time" => key.expire_time = asked.expire_time,
                    "tags" => key.tags.clone_from(&asked.tags),
                    "scopes" => key.scopes.clone_from(&asked.scopes),
                    "allowed_networks" => key.allowed_networks.clone_from(&asked.allowed_networks),
                    "rate_limits" => key.rate_limits.clone_from(&asked.rate_limits),
                    other => panic!("{other} can not be changed"),
                }
            }
        });
        Ok(Response::new(changed?))
    }

    async fn reveal_key(&self, request: Request<k::RevealKeyRequest>) -> Answer<k::RevealKeyResponse> {
        self.admit("RevealKey", &request, &request.get_ref().name)?;
        self.key(&request.get_ref().name)?;
        Ok(Response::new(k::RevealKeyResponse { secret: SECRET.to_owned() }))
    }

    async fn delete_key(&self, request: Request<k::DeleteKeyRequest>) -> Answer<k::DeleteKeyResponse> {
        let asked = request.get_ref().clone();
        self.admit("DeleteKey", &request, &asked.name)?;
        let key = change(self, &asked.name, &asked.etag, |key| {
            key.state = k::KeyState::Deleted.into();
            key.delete_time.get_or_insert_with(|| ago(Duration::ZERO));
        })?;
        let receipt = receipt(asked.receipt_timeout.as_ref());
        Ok(Response::new(k::DeleteKeyResponse { key: Some(key), version: 2, receipt }))
    }

    async fn disable_key(&self, request: Request<k::DisableKeyRequest>) -> Answer<k::DisableKeyResponse> {
        let asked = request.get_ref().clone();
        self.admit("DisableKey", &request, &asked.name)?;
        let key = change(self, &asked.name, &asked.etag, |key| key.state = k::KeyState::Disabled.into())?;
        let receipt = receipt(asked.receipt_timeout.as_ref());
        Ok(Response::new(k::DisableKeyResponse { key: Some(key), version: 2, receipt }))
    }

    async fn enable_key(&self, request: Request<k::EnableKeyRequest>) -> Answer<k::EnableKeyResponse> {
        let asked = request.get_ref().clone();
        self.admit("EnableKey", &request, &asked.name)?;
        let key = change(self, &asked.name, &asked.etag, |key| key.state = k::KeyState::Active.into())?;
        Ok(Response::new(k::EnableKeyResponse { key: Some(key), version: 2 }))
    }

    async fn rotate_key(&self, request: Request<k::RotateKeyRequest>) -> Answer<k::RotateKeyResponse> {
        let asked = request.get_ref().clone();
        self.admit("RotateKey", &request, &asked.name)?;
        self.change(|state| state.rotations.push(asked.clone()));
        let end = OffsetDateTime::now_utc() + Duration::seconds(asked.overlap.unwrap().seconds);
        let mut retired_secrets = Vec::new();
        let key = change(self, &asked.name, &asked.etag, |key| {
            for secret in key.secrets.iter_mut().filter(|secret| secret.retire_time.is_none()) {
                secret.retire_time = Some(to_proto(end));
                retired_secrets.push(secret.name.clone());
            }
            key.secrets.insert(0, secret(&key.name, &ROTATED[..12]));
            ROTATED[..12].clone_into(&mut key.start);
        })?;
        let before = self.change(|state| state.rotated_before);
        let secret = if before { String::new() } else { ROTATED.to_owned() };
        Ok(Response::new(k::RotateKeyResponse { key: Some(key), secret, retired_secrets, version: 2 }))
    }

    async fn retire_secret(
        &self,
        request: Request<k::RetireSecretRequest>,
    ) -> Result<Response<k::RetireSecretResponse>, Status> {
        let asked = request.get_ref().clone();
        self.admit("RetireSecret", &request, &asked.name)?;
        let name = asked.name.split("/secrets/").next().unwrap();
        let key = change(self, name, &asked.etag, |key| {
            let secret = key.secrets.iter_mut().find(|secret| secret.name == asked.name).unwrap();
            secret.retire_time = Some(ago(Duration::ZERO));
        })?;
        let receipt = receipt(asked.receipt_timeout.as_ref());
        Ok(Response::new(k::RetireSecretResponse { key: Some(key), version: 2, receipt }))
    }

    async fn verify_key(
        &self,
        _: Request<k::VerifyKeyRequest>,
    ) -> Result<Response<k::VerifyKeyResponse>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }
}

/// A secret of a key, made now.
pub(crate) fn secret(key_name: &str, start: &str) -> k::Secret {
    k::Secret {
        name: format!("{key_name}/secrets/{}", SecretId::generate()),
        start: start.to_owned(),
        create_time: Some(ago(Duration::ZERO)),
        ..k::Secret::default()
    }
}
