//! What a report of a leaked secret does to its key.

use domain::Secret;
use time::OffsetDateTime;

use super::{Keys, hold, tell};
use crate::{
    caller::Caller,
    error::Error,
    key::{Exposed, KeyEvent, Standing},
};

/// What came of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// No key has the secret.
    Unknown,
    /// It was reported before, or its key is deleted: nothing changed.
    Known,
    /// Its key is marked, and disabled if its workspace wants that.
    Marked,
}

impl Keys {
    /// Marks the key of a secret that was found somewhere; each secret once. Switches the key off in the same
    /// transaction if its workspace chose so.
    ///
    /// # Errors
    /// Postgres.
    pub async fn expose(
        &self,
        secret: &Secret,
        source: String,
        url: String,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<Exposure, Error> {
        let owner = self.store.secret_owner(secret.hash()).await?;
        let Some((workspace_id, key_id, secret_id)) = owner else { return Ok(Exposure::Unknown) };
        let mut tx = self.store.begin().await?;
        let mut key = hold(&mut tx, (workspace_id, key_id), now).await?.key;
        // A secret that is not known any more retired long ago.
        let reported = key.secret(secret_id).is_none_or(|secret| secret.expose_time.is_some());
        if reported || key.standing(now) == Standing::Deleted {
            return Ok(Exposure::Known);
        }
        let exposed = KeyEvent::Exposed(Exposed { secret_id: secret_id.to_string(), source, url });
        let disables = key.disable_time.is_none() && tx.disables_exposed_keys(workspace_id).await?;
        for event in [Some(exposed), disables.then_some(KeyEvent::Disabled {})].into_iter().flatten() {
            key = key.after(&event, now);
            tx.record(&key, &event, caller).await?;
        }
        tx.feed(key_id).await?;
        tx.commit().await?;
        tell(if disables { "exposed and disabled" } else { "exposed" }, &key, caller);
        Ok(Exposure::Marked)
    }
}
