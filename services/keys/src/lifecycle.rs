//! What is done with keys. Each change is an event, its projection and its outbox rows in one transaction; what
//! is returned is known after its commit.

use std::sync::Arc;

use access::Claims;
use domain::{KeyId, Secret, SecretId, WorkspaceId};
use proto::resource::key_name;
use time::{Duration, OffsetDateTime};

use crate::{
    caller::Caller,
    error::Error,
    key::{Key, KeyEvent, Standing},
    listing::{Filter, Position},
    ownership::may_change,
    page,
    seal::{CopyPlace, DataKey, Kek},
    store::{Store, StoreError, Tx, keys::Shown},
};

mod change;
mod create;
mod expose;
mod repeat;
mod reveal;
mod rotate;

pub use create::NewKey;
pub use expose::Exposure;
pub use repeat::REPEATABLE_FOR;
pub use rotate::{OVERLAP_MAX, Rotation};

/// How long a retired secret is shown.
const RETIRED_SHOWN_FOR: Duration = Duration::days(30);

/// The keys of all workspaces. Clones share everything.
#[derive(Clone)]
pub struct Keys {
    store: Store,
    kek: Arc<Kek>,
}

/// Whether a secret is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not of our format.
    Malformed,
    /// No key of the workspace has it.
    NotFound,
    /// The key that has it, which may be refused, and which of its secrets this is.
    Known(Box<Shown>, SecretId),
}

/// Which key somebody asks to change.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its tenant.
    pub workspace_id: WorkspaceId,
    /// The key.
    pub key_id: KeyId,
    /// If not empty, must be current.
    pub etag: &'a str,
    /// What the caller may do.
    pub claims: &'a Claims,
    /// Who asks, for the record.
    pub caller: &'a Caller,
    /// When.
    pub now: OffsetDateTime,
}

impl Asked<'_> {
    /// The key, held against changes until the end of the transaction.
    async fn hold(&self, tx: &mut Tx) -> Result<Shown, Error> {
        let shown = hold(tx, (self.workspace_id, self.key_id), self.now).await?;
        self.check_may_change(&shown.key)?;
        Ok(shown)
    }

    fn check_may_change(&self, key: &Key) -> Result<(), Error> {
        if may_change(self.claims, key) { Ok(()) } else { Err(Error::NotOwner) }
    }

    fn check_etag(&self, key: &Key) -> Result<(), Error> {
        let good = self.etag.is_empty() || self.etag == key.etag(self.now);
        if good { Ok(()) } else { Err(Error::StaleEtag) }
    }

    fn check_not_deleted(&self, key: &Key) -> Result<(), Error> {
        if key.standing(self.now) == Standing::Deleted { Err(Error::KeyDeleted) } else { Ok(()) }
    }

    /// Writes what an event makes of the key.
    async fn change(&self, tx: &mut Tx, key: Key, event: &KeyEvent) -> Result<Key, StoreError> {
        let key = key.after(event, self.now);
        tx.record(&key, event, self.caller).await?;
        Ok(key)
    }
}

impl Keys {
    /// The keys in `store`.
    #[must_use]
    pub const fn new(store: Store, kek: Arc<Kek>) -> Self {
        Self { store, kek }
    }

    /// One key, deleted or not.
    ///
    /// # Errors
    /// Not found; Postgres.
    pub async fn get(
        &self,
        workspace_id: WorkspaceId,
        key_id: KeyId,
        now: OffsetDateTime,
    ) -> Result<Shown, Error> {
        let shown = self.store.key(workspace_id, key_id, now - RETIRED_SHOWN_FOR).await?;
        shown.ok_or_else(|| not_found(workspace_id, key_id))
    }

    /// A page of a workspace's keys, and where the next one starts.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list(
        &self,
        workspace_id: WorkspaceId,
        filter: &Filter,
        after: Option<Position>,
        size: usize,
        now: OffsetDateTime,
    ) -> Result<(Vec<Shown>, Option<Position>), Error> {
        let times = (now, now - RETIRED_SHOWN_FOR);
        let keys = self.store.keys_of(workspace_id, filter, after.as_ref(), size + 1, times).await?;
        Ok(page::cut(keys, size, |shown| Position::of(filter.order, shown)))
    }

    /// Whether a secret is one of a workspace's. One look-up, whether it is another workspace's or nobody's.
    ///
    /// # Errors
    /// Postgres.
    pub async fn verify(
        &self,
        workspace_id: WorkspaceId,
        secret: &str,
        now: OffsetDateTime,
    ) -> Result<Verdict, Error> {
        let Ok(secret) = Secret::parse(secret) else { return Ok(Verdict::Malformed) };
        let from = now - RETIRED_SHOWN_FOR;
        let known = self.store.key_by_hash(workspace_id, secret.hash(), from).await?;
        Ok(known.map_or(Verdict::NotFound, |(shown, secret_id)| Verdict::Known(Box::new(shown), secret_id)))
    }

    async fn data_key(&self, workspace_id: WorkspaceId) -> Result<DataKey, Error> {
        let kept = self.store.wrapped_data_key(workspace_id).await?.ok_or_else(|| Error::NotFound {
            what: "workspace",
            name: proto::resource::workspace_name(workspace_id),
        })?;
        Ok(self.kek.data_key(workspace_id, kept.as_ref()).await?)
    }
}

/// A key, held against changes until the end of the transaction.
async fn hold(
    tx: &mut Tx,
    (workspace_id, key_id): (WorkspaceId, KeyId),
    now: OffsetDateTime,
) -> Result<Shown, Error> {
    let shown = tx.hold_key(workspace_id, key_id, now - RETIRED_SHOWN_FOR).await?;
    shown.ok_or_else(|| not_found(workspace_id, key_id))
}

/// The secret that a key's version made, from its copy; `None` if there is none.
async fn open_copy(
    tx: &mut Tx,
    key: &Key,
    key_version: i64,
    data_key: &DataKey,
) -> Result<Option<Secret>, Error> {
    let Some(sealed) = tx.copy(key.key_id, key_version).await? else { return Ok(None) };
    let place = CopyPlace { workspace_id: key.workspace_id, key_id: key.key_id, key_version };
    Ok(data_key.open_copy(place, &sealed)?)
}

fn not_found(workspace_id: WorkspaceId, key_id: KeyId) -> Error {
    Error::NotFound { what: "key", name: key_name(workspace_id, key_id) }
}

/// Says that a change was committed.
fn tell(what: &'static str, key: &Key, caller: &Caller) {
    tracing::info!(
        workspace.id = %key.workspace_id, key.id = %key.key_id, actor = caller.actor, "key {what}"
    );
}
