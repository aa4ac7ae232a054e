//! Requests that make a secret may be sent again: the answer is the same for a day.

use domain::{KeyId, Secret, WorkspaceId};
use proto::resource::key_name;
use time::{Duration, OffsetDateTime};

use super::{hold, open_copy};
use crate::{
    caller::Caller,
    error::Error,
    seal::DataKey,
    store::{Tx, idempotency::Creation, keys::Shown},
    token::sha256,
};

/// How long a request can be sent again.
pub const REPEATABLE_FOR: Duration = Duration::hours(24);

/// Which version of which key the same request made before; `None` if it is the first, which is then noted to
/// make `making`.
pub(super) async fn made_before(
    tx: &mut Tx,
    workspace_id: WorkspaceId,
    idempotency_key: Option<&str>,
    asked: &impl serde::Serialize,
    making: (KeyId, i64),
    (caller, now): (&Caller, OffsetDateTime),
) -> Result<Option<(KeyId, i64)>, Error> {
    let Some(idempotency_key) = idempotency_key else { return Ok(None) };
    let request_hash = hash(asked);
    let (key_id, key_version) = making;
    let (actor, request_hash_of) = (caller.actor.as_str(), request_hash.as_slice());
    let creation =
        Creation { workspace_id, actor, idempotency_key, request_hash: request_hash_of, key_id, key_version };
    match tx.claim(&creation, now - REPEATABLE_FOR, now).await? {
        None => Ok(None),
        Some((hash, key_id, version)) if hash == request_hash => Ok(Some((key_id, version))),
        Some(_) => Err(Error::IdempotencyKeyReused),
    }
}

/// The key of a request that was sent again, and its secret once more if there is a copy. Leaves an audit entry.
pub(super) async fn show_again(
    tx: &mut Tx,
    workspace_id: WorkspaceId,
    (key_id, version): (KeyId, i64),
    action: &str,
    data_key: &DataKey,
    (caller, now): (&Caller, OffsetDateTime),
) -> Result<(Shown, Option<Secret>), Error> {
    let shown = hold(tx, (workspace_id, key_id), now).await?;
    let secret = open_copy(tx, &shown.key, version, data_key).await?;
    tx.audit(workspace_id, action, &key_name(workspace_id, key_id), caller, now).await?;
    Ok((shown, secret))
}

/// Stands for the request in the table of repeated ones.
pub(super) fn hash(asked: &impl serde::Serialize) -> Vec<u8> {
    sha256(&serde_json::to_vec(asked).expect("plain data is JSON"))
}
