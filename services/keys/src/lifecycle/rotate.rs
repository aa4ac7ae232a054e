//! Giving a key a new secret, beside those that still work for a while.

use domain::{Secret, SecretId};
use time::Duration;

use super::{Asked, Keys, repeat, tell};
use crate::{
    error::Error,
    key::{KeyEvent, Rotated},
    seal::CopyPlace,
    store::keys::Shown,
};

/// How long old secrets may go on.
pub const OVERLAP_MAX: Duration = Duration::days(30);

/// A key with a new secret.
pub struct Rotation {
    /// The key.
    pub shown: Shown,
    /// The secret; `None` if a repeated request finds no copy.
    pub secret: Option<Secret>,
    /// Which secrets the rotation told to retire.
    pub retired: Vec<SecretId>,
}

impl Keys {
    /// Gives a key a new secret; those that work end after `overlap`, or earlier if they were told so before.
    /// Finds the rotation that the same request made before, whatever the etag.
    ///
    /// # Errors
    /// Not found; not the caller's to change; deleted; the etag is not current; too many secrets would work; an
    /// idempotency key used for another request; Postgres.
    pub async fn rotate(
        &self,
        asked: Asked<'_>,
        overlap: Duration,
        idempotency_key: Option<&str>,
    ) -> Result<Rotation, Error> {
        let Asked { workspace_id, key_id, caller, now, .. } = asked;
        let data_key = self.data_key(workspace_id).await?;
        let mut tx = self.store.begin().await?;
        let shown = asked.hold(&mut tx).await?;
        let version = shown.key.version + 1;
        let request = ("rotate", key_id.to_string(), overlap.whole_microseconds());
        let again = repeat::made_before(
            &mut tx,
            workspace_id,
            idempotency_key,
            &request,
            (key_id, version),
            (caller, now),
        );
        if let Some(made) = again.await? {
            let action = "repeat_rotate_key";
            let (shown, secret) =
                repeat::show_again(&mut tx, workspace_id, made, action, &data_key, (caller, now)).await?;
            let KeyEvent::Rotated(rotated) = tx.event(made.0, made.1).await? else {
                return Err(Error::IdempotencyKeyReused);
            };
            tx.commit().await?;
            let retired = rotated.retired.iter().filter_map(|id| id.parse().ok()).collect();
            return Ok(Rotation { shown, secret, retired });
        }
        asked.check_not_deleted(&shown.key)?;
        asked.check_etag(&shown.key)?;
        let retired = shown.key.retired_by_rotation(overlap, now).ok_or(Error::TooManySecrets)?;
        let secret = Secret::generate(shown.key.environment);
        let rotated = Rotated {
            start: secret.start().to_owned(),
            secret_id: SecretId::generate().to_string(),
            secret_hash: secret.hash().to_string(),
            retired: retired.iter().map(SecretId::to_string).collect(),
            retire_time: now + overlap,
        };
        let key = asked.change(&mut tx, shown.key, &KeyEvent::Rotated(rotated)).await?;
        let place = CopyPlace { workspace_id, key_id, key_version: key.version };
        tx.add_secret(key_id, &key.secrets[0], data_key.seal_copy(place, &secret).as_deref()).await?;
        tx.feed(key_id).await?;
        tx.commit().await?;
        tell("rotated", &key, caller);
        Ok(Rotation { shown: Shown { key, ..shown }, secret: Some(secret), retired })
    }
}
