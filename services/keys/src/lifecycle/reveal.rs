//! Showing a key's secret again, from its sealed copy: seldom, and never without an audit entry.

use domain::Secret;
use proto::resource::key_name;
use time::{Duration, OffsetDateTime};

use super::{Asked, Keys, open_copy};
use crate::error::Error;

/// How many reveals one person has in one workspace in a [`WINDOW`].
const REVEALS_MAX: usize = 10;
/// How long a reveal counts.
const WINDOW: Duration = Duration::minutes(10);
const ACTION: &str = "reveal_key";

impl Keys {
    /// The key's current secret from its copy, and an audit entry. The etag does not count.
    ///
    /// # Errors
    /// Not found; not the caller's; deleted; no copy, or one that does not open; too many reveals; Postgres.
    pub async fn reveal(&self, asked: Asked<'_>) -> Result<Secret, Error> {
        let Asked { workspace_id, key_id, caller, now, .. } = asked;
        let data_key = self.data_key(workspace_id).await?;
        let mut tx = self.store.begin().await?;
        let shown = asked.hold(&mut tx).await?;
        asked.check_not_deleted(&shown.key)?;
        // Many at once are counted one after the other.
        tx.lock(&format!("reveals {workspace_id} {}", caller.actor)).await?;
        let reveals = tx.audited(workspace_id, ACTION, &caller.actor, now - WINDOW).await?;
        if let Some(retry_after) = retry_after(&reveals, now) {
            return Err(Error::TooManyReveals { retry_after: retry_after.unsigned_abs() });
        }
        let current = shown.key.secrets.first().ok_or(Error::NoCopy)?;
        let secret = open_copy(&mut tx, &shown.key, current.key_version, &data_key).await?;
        let secret = secret.ok_or(Error::NoCopy)?;
        tx.audit(workspace_id, ACTION, &key_name(workspace_id, key_id), caller, now).await?;
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace_id, key.id = %key_id, actor = caller.actor, "key revealed");
        Ok(secret)
    }
}

/// How long until another reveal; `None` is now. `reveals` are those of the last [`WINDOW`], oldest first.
fn retry_after(reveals: &[OffsetDateTime], now: OffsetDateTime) -> Option<Duration> {
    let leaves_room = reveals.len().checked_sub(REVEALS_MAX)?;
    Some((reveals[leaves_room] + WINDOW - now).max(Duration::SECOND))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_eleventh_waits_until_the_first_is_old() {
        let now = datetime!(2026-11-22 06:00 UTC);
        let reveals: Vec<_> = (1..=9).map(|minute| now - Duration::minutes(10 - minute)).collect();
        assert_eq!(retry_after(&reveals, now), None);
        let ten = [&reveals[..], &[now]].concat();
        assert_eq!(retry_after(&ten, now), Some(Duration::minutes(1)));
        assert_eq!(retry_after(&[], now), None);
    }
}
