//! What is done with keys: create, show, list, change, reveal, delete, verify. Each change is an event, its
//! projection and its outbox rows in one transaction.

use std::sync::Arc;

use domain::{Environment, KeyId, Secret, SecretId, WorkspaceId};
use proto::resource::key_name;
use time::{Duration, OffsetDateTime};

use crate::{
    caller::Caller,
    error::Error,
    fields,
    key::{Changes, Created, Key, KeyEvent, Standing},
    seal::{CopyPlace, DataKey, Kek},
    store::{Store, StoreError, Tx, idempotency::Creation, keys::Shown, secrets::NewSecret},
    token::sha256,
};

/// How long a creation can be asked for again.
pub const REPEATABLE_FOR: Duration = Duration::hours(24);

/// The keys of all workspaces. Clones share everything.
#[derive(Clone)]
pub struct Keys {
    store: Store,
    kek: Arc<Kek>,
}

/// What a new key is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// What it is for.
    pub display_name: String,
    /// Anything worth knowing.
    pub description: String,
    /// Where it may be used.
    pub environment: Environment,
    /// `None` is never.
    pub expire_time: Option<OffsetDateTime>,
    /// Makes a repeated request return the same key.
    pub idempotency_key: Option<String>,
}

/// Whether a secret is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not of our format.
    Malformed,
    /// No key of the workspace has it.
    NotFound,
    /// The key that has it, which may be expired or deleted.
    Known(Box<Shown>),
}

/// Where a list goes on: after the key made then with this id.
pub type ListPosition = (OffsetDateTime, KeyId);

impl Keys {
    /// The keys in `store`.
    #[must_use]
    pub const fn new(store: Store, kek: Arc<Kek>) -> Self {
        Self { store, kek }
    }

    /// Makes a key, or finds the one that the same request made before. The secret is `None` if a repeated
    /// request finds no copy.
    ///
    /// # Errors
    /// An expiry in the past; an idempotency key used for another request; Postgres.
    pub async fn create(
        &self,
        workspace_id: WorkspaceId,
        new: NewKey,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<(Shown, Option<Secret>), Error> {
        let data_key = self.data_key(workspace_id).await?;
        let mut tx = self.store.begin().await?;
        let key_id = KeyId::generate();
        if let Some(made) = repeated(&mut tx, workspace_id, key_id, &new, caller, now).await? {
            return repeat(tx, workspace_id, made, &data_key, caller, now).await;
        }
        fields::ahead("key.expire_time", new.expire_time, now)?;
        let secret = Secret::generate(new.environment);
        let secret_id = SecretId::generate();
        let created = Created {
            display_name: new.display_name,
            description: new.description,
            environment: new.environment,
            expire_time: new.expire_time,
            start: secret.start().to_owned(),
            secret_id: secret_id.to_string(),
            secret_hash: secret.hash().to_string(),
        };
        let key = Key::created(workspace_id, key_id, &created, now);
        let place = CopyPlace { workspace_id, key_id, key_version: key.version };
        tx.record(&key, &KeyEvent::Created(created), caller).await?;
        let sealed = data_key.seal_copy(place, &secret);
        let new = NewSecret {
            secret_id,
            key_id,
            key_version: key.version,
            hash: secret.hash(),
            start: secret.start().to_owned(),
            create_time: now,
            sealed,
        };
        tx.add_secret(&new).await?;
        tx.feed(key_id).await?;
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace_id, key.id = %key_id, actor = caller.actor, "key created");
        Ok((Shown { key, last_used_time: None }, Some(secret)))
    }

    /// One key, deleted or not.
    ///
    /// # Errors
    /// Not found; Postgres.
    pub async fn get(&self, workspace_id: WorkspaceId, key_id: KeyId) -> Result<Shown, Error> {
        let shown = self.store.key(workspace_id, key_id).await?;
        shown.ok_or_else(|| not_found(workspace_id, key_id))
    }

    /// A page of a workspace's keys, newest first, and where the next one starts.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list(
        &self,
        workspace_id: WorkspaceId,
        show_deleted: bool,
        after: Option<ListPosition>,
        size: usize,
    ) -> Result<(Vec<Shown>, Option<ListPosition>), Error> {
        let mut keys = self.store.keys_of(workspace_id, show_deleted, after, size + 1).await?;
        let more = keys.len() > size;
        keys.truncate(size);
        let last = keys.last().filter(|_| more).map(|shown| (shown.key.create_time, shown.key.key_id));
        Ok((keys, last))
    }

    /// Changes a key. What is the same already is no change.
    ///
    /// # Errors
    /// Not found; deleted; the etag, if not empty, is not current; an expiry in the past; Postgres.
    pub async fn update(
        &self,
        (workspace_id, key_id): (WorkspaceId, KeyId),
        changes: Changes,
        etag: &str,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<Shown, Error> {
        let mut tx = self.store.begin().await?;
        let shown = hold(&mut tx, workspace_id, key_id).await?;
        if shown.key.standing(now) == Standing::Deleted {
            return Err(Error::KeyDeleted);
        }
        check_etag(&shown.key, etag, now)?;
        let changes = changes.without_same(&shown.key);
        if changes.is_empty() {
            return Ok(shown);
        }
        fields::ahead("key.expire_time", changes.expire_time.and_then(crate::key::Expiry::time), now)?;
        let key = change(&mut tx, shown.key, &KeyEvent::Updated(changes), caller, now).await?;
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace_id, key.id = %key_id, actor = caller.actor, "key updated");
        Ok(Shown { key, ..shown })
    }

    /// Deletes a key for good, with the copies of its secrets. A deleted key stays as it is, whatever the etag.
    ///
    /// # Errors
    /// Not found; the etag, if not empty, is not current; Postgres.
    pub async fn delete(
        &self,
        (workspace_id, key_id): (WorkspaceId, KeyId),
        etag: &str,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<Shown, Error> {
        let mut tx = self.store.begin().await?;
        let shown = hold(&mut tx, workspace_id, key_id).await?;
        if shown.key.standing(now) == Standing::Deleted {
            return Ok(shown);
        }
        check_etag(&shown.key, etag, now)?;
        let key = change(&mut tx, shown.key, &KeyEvent::Deleted {}, caller, now).await?;
        tx.destroy_copies(key_id).await?;
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace_id, key.id = %key_id, actor = caller.actor, "key deleted");
        Ok(Shown { key, ..shown })
    }

    /// The key's secret from its copy, and an audit entry.
    ///
    /// # Errors
    /// Not found; deleted; no copy, or one that does not open; Postgres.
    pub async fn reveal(
        &self,
        workspace_id: WorkspaceId,
        key_id: KeyId,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<Secret, Error> {
        let data_key = self.data_key(workspace_id).await?;
        let mut tx = self.store.begin().await?;
        let shown = hold(&mut tx, workspace_id, key_id).await?;
        if shown.key.standing(now) == Standing::Deleted {
            return Err(Error::KeyDeleted);
        }
        let secret = open_copy(&mut tx, &shown.key, &data_key).await?.ok_or(Error::NoCopy)?;
        tx.audit(workspace_id, "reveal_key", &key_name(workspace_id, key_id), caller, now).await?;
        tx.commit().await?;
        tracing::info!(workspace.id = %workspace_id, key.id = %key_id, actor = caller.actor, "key revealed");
        Ok(secret)
    }

    /// Whether a secret is one of a workspace's. One look-up, whether it is another workspace's or nobody's.
    ///
    /// # Errors
    /// Postgres.
    pub async fn verify(&self, workspace_id: WorkspaceId, secret: &str) -> Result<Verdict, Error> {
        let Ok(secret) = Secret::parse(secret) else { return Ok(Verdict::Malformed) };
        let known = self.store.key_by_hash(workspace_id, secret.hash()).await?;
        Ok(known.map_or(Verdict::NotFound, |shown| Verdict::Known(Box::new(shown))))
    }

    async fn data_key(&self, workspace_id: WorkspaceId) -> Result<DataKey, Error> {
        let kept = self.store.wrapped_data_key(workspace_id).await?.ok_or_else(|| Error::NotFound {
            what: "workspace",
            name: proto::resource::workspace_name(workspace_id),
        })?;
        Ok(self.kek.data_key(workspace_id, kept.as_ref()).await?)
    }
}

/// The key that the same request made before.
async fn repeated(
    tx: &mut Tx,
    workspace_id: WorkspaceId,
    key_id: KeyId,
    new: &NewKey,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<Option<KeyId>, Error> {
    let Some(idempotency_key) = &new.idempotency_key else { return Ok(None) };
    let request_hash = new.hash();
    let creation =
        Creation { workspace_id, actor: &caller.actor, idempotency_key, request_hash: &request_hash, key_id };
    match tx.claim(&creation, now - REPEATABLE_FOR, now).await? {
        None => Ok(None),
        Some((hash, made)) if hash == request_hash => Ok(Some(made)),
        Some(_) => Err(Error::IdempotencyKeyReused),
    }
}

/// Answers a repeated request, which shows the secret once more.
async fn repeat(
    mut tx: Tx,
    workspace_id: WorkspaceId,
    key_id: KeyId,
    data_key: &DataKey,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<(Shown, Option<Secret>), Error> {
    let shown = hold(&mut tx, workspace_id, key_id).await?;
    let secret = open_copy(&mut tx, &shown.key, data_key).await?;
    tx.audit(workspace_id, "repeat_create_key", &key_name(workspace_id, key_id), caller, now).await?;
    tx.commit().await?;
    Ok((shown, secret))
}

async fn open_copy(tx: &mut Tx, key: &Key, data_key: &DataKey) -> Result<Option<Secret>, Error> {
    let Some((key_version, sealed)) = tx.copy(key.key_id).await? else { return Ok(None) };
    let place = CopyPlace { workspace_id: key.workspace_id, key_id: key.key_id, key_version };
    Ok(data_key.open_copy(place, &sealed)?)
}

async fn hold(tx: &mut Tx, workspace_id: WorkspaceId, key_id: KeyId) -> Result<Shown, Error> {
    tx.hold_key(workspace_id, key_id).await?.ok_or_else(|| not_found(workspace_id, key_id))
}

async fn change(
    tx: &mut Tx,
    key: Key,
    event: &KeyEvent,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<Key, StoreError> {
    let key = key.after(event, now);
    tx.record(&key, event, caller).await?;
    tx.feed(key.key_id).await?;
    Ok(key)
}

fn check_etag(key: &Key, etag: &str, now: OffsetDateTime) -> Result<(), Error> {
    if etag.is_empty() || etag == key.etag(now) { Ok(()) } else { Err(Error::StaleEtag) }
}

fn not_found(workspace_id: WorkspaceId, key_id: KeyId) -> Error {
    Error::NotFound { what: "key", name: key_name(workspace_id, key_id) }
}

impl NewKey {
    /// Stands for the request in the table of repeated ones.
    fn hash(&self) -> Vec<u8> {
        let asked = (
            &self.display_name,
            &self.description,
            self.environment.as_str(),
            self.expire_time.map(OffsetDateTime::unix_timestamp_nanos),
        );
        sha256(&serde_json::to_vec(&asked).expect("plain data is JSON"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_differ_have_other_hashes() {
        let new = NewKey {
            display_name: "a".into(),
            description: "b".into(),
            environment: Environment::Live,
            expire_time: None,
            idempotency_key: Some("x".into()),
        };
        assert_eq!(new.hash(), NewKey { idempotency_key: None, ..new.clone() }.hash());
        for other in [
            NewKey { display_name: "b".into(), ..new.clone() },
            NewKey { description: String::new(), ..new.clone() },
            NewKey { environment: Environment::Test, ..new.clone() },
            NewKey { expire_time: Some(OffsetDateTime::UNIX_EPOCH), ..new.clone() },
        ] {
            assert_ne!(new.hash(), other.hash());
        }
    }
}
