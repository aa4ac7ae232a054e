//! Changing, disabling, enabling and deleting keys, and retiring their secrets.

use domain::{KeyId, SecretId, WorkspaceId};
use proto::resource::secret_name;
use time::OffsetDateTime;

use super::{Asked, Keys, create::check_owner, hold, tell};
use crate::{
    caller::Caller,
    error::Error,
    fields,
    key::{Changes, Expiry, KeyEvent, SecretRetired, Standing},
    store::keys::Shown,
};

impl Keys {
    /// Changes a key. What is the same already is no change.
    ///
    /// # Errors
    /// Not found; not the caller's to change; deleted; the etag is not current; an expiry in the past; an owner
    /// who is not of the workspace; Postgres.
    pub async fn update(&self, asked: Asked<'_>, changes: Changes) -> Result<Shown, Error> {
        let mut tx = self.store.begin().await?;
        let shown = asked.hold(&mut tx).await?;
        asked.check_not_deleted(&shown.key)?;
        asked.check_etag(&shown.key)?;
        let changes = changes.without_same(&shown.key);
        if changes.is_empty() {
            return Ok(shown);
        }
        fields::ahead("key.expire_time", changes.expire_time.and_then(Expiry::time), asked.now)?;
        check_owner(&mut tx, asked.workspace_id, changes.owner, asked.claims).await?;
        let key = asked.change(&mut tx, shown.key, &KeyEvent::Updated(changes)).await?;
        // So that nobody gives away what they could not take back.
        asked.check_may_change(&key)?;
        tx.feed(asked.key_id).await?;
        tx.commit().await?;
        tell("updated", &key, asked.caller);
        Ok(Shown { key, ..shown })
    }

    /// Switches a key off. A disabled key stays as it is, whatever the etag.
    ///
    /// # Errors
    /// Not found; not the caller's to change; deleted; the etag is not current; Postgres.
    pub async fn disable(&self, asked: Asked<'_>) -> Result<Shown, Error> {
        let is_done = |shown: &Shown| shown.key.disable_time.is_some();
        self.switch(asked, is_done, &KeyEvent::Disabled {}, "disabled").await
    }

    /// Switches a key on again. A key that is not disabled stays as it is, whatever the etag.
    ///
    /// # Errors
    /// Not found; not the caller's to change; deleted; the etag is not current; Postgres.
    pub async fn enable(&self, asked: Asked<'_>) -> Result<Shown, Error> {
        let is_done = |shown: &Shown| shown.key.disable_time.is_none();
        self.switch(asked, is_done, &KeyEvent::Enabled {}, "enabled").await
    }

    async fn switch(
        &self,
        asked: Asked<'_>,
        is_done: impl Fn(&Shown) -> bool,
        event: &KeyEvent,
        what: &'static str,
    ) -> Result<Shown, Error> {
        let mut tx = self.store.begin().await?;
        let shown = asked.hold(&mut tx).await?;
        asked.check_not_deleted(&shown.key)?;
        if is_done(&shown) {
            return Ok(shown);
        }
        asked.check_etag(&shown.key)?;
        let key = asked.change(&mut tx, shown.key, event).await?;
        tx.feed(asked.key_id).await?;
        tx.commit().await?;
        tell(what, &key, asked.caller);
        Ok(Shown { key, ..shown })
    }

    /// Retires one of a key's secrets at once, and destroys its copy. A retired one stays as it is, whatever the
    /// etag.
    ///
    /// # Errors
    /// Neither key nor secret found; not the caller's to change; deleted; the current secret; the etag is not
    /// current; Postgres.
    pub async fn retire_secret(&self, asked: Asked<'_>, secret_id: SecretId) -> Result<Shown, Error> {
        let mut tx = self.store.begin().await?;
        let shown = asked.hold(&mut tx).await?;
        asked.check_not_deleted(&shown.key)?;
        let secret = shown.key.secret(secret_id).ok_or_else(|| Error::NotFound {
            what: "secret",
            name: secret_name(asked.workspace_id, asked.key_id, secret_id),
        })?;
        if !secret.works(asked.now) {
            return Ok(shown);
        }
        asked.check_etag(&shown.key)?;
        if secret.retire_time.is_none() {
            return Err(Error::CurrentSecret);
        }
        let event = KeyEvent::SecretRetired(SecretRetired { secret_id: secret_id.to_string() });
        let key = asked.change(&mut tx, shown.key, &event).await?;
        tx.feed(asked.key_id).await?;
        tx.commit().await?;
        tell("rid of a secret", &key, asked.caller);
        Ok(Shown { key, ..shown })
    }

    /// Deletes a key for good, with the copies of its secrets. A deleted key stays as it is, whatever the etag.
    ///
    /// # Errors
    /// Not found; not the caller's to change; the etag is not current; Postgres.
    pub async fn delete(&self, asked: Asked<'_>) -> Result<Shown, Error> {
        let mut tx = self.store.begin().await?;
        let shown = asked.hold(&mut tx).await?;
        if shown.key.standing(asked.now) == Standing::Deleted {
            return Ok(shown);
        }
        asked.check_etag(&shown.key)?;
        let key = asked.change(&mut tx, shown.key, &KeyEvent::Deleted {}).await?;
        tx.feed(asked.key_id).await?;
        tx.commit().await?;
        tell("deleted", &key, asked.caller);
        Ok(Shown { key, ..shown })
    }

    /// Deletes a key that was deleted before, which Postgres forgot when it was restored from a copy. Who had deleted
    /// it is not known any more.
    ///
    /// # Errors
    /// Not found; Postgres.
    pub async fn delete_again(
        &self,
        workspace_id: WorkspaceId,
        key_id: KeyId,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let mut tx = self.store.begin().await?;
        let key = hold(&mut tx, (workspace_id, key_id), now).await?.key;
        if key.standing(now) == Standing::Deleted {
            return Ok(());
        }
        let (key, caller) =
            (key.after(&KeyEvent::Deleted {}, now), Caller { actor: "restore".into(), address: None });
        tx.record(&key, &KeyEvent::Deleted {}, &caller).await?;
        tx.feed(key_id).await?;
        tx.commit().await?;
        tell("deleted again", &key, &caller);
        Ok(())
    }
}
