//! What is wrapped under the key-encryption key, each thing bound to its place. Never prints a key.

use std::{fmt, path::Path, sync::Arc};

use domain::{AccountId, WorkspaceId};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    DataKey, SealingKey,
    keyring::Keyring,
    provider::{KekError, KekProvider, Wrapped},
};

/// The key-encryption keys; kept outside Postgres. Clones share them.
#[derive(Clone)]
pub struct Kek(Arc<dyn KekProvider>);

/// What is wrapped; bound into its seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The data key of a workspace.
    DataKey(WorkspaceId),
    /// The private signing key of this name.
    SigningKey(String),
    /// A key of a person.
    PersonKey(Uuid, AccountId),
}

impl Place {
    fn aad(&self) -> Vec<u8> {
        match self {
            Self::DataKey(workspace_id) => [&b"data_key"[..], workspace_id.as_bytes()].concat(),
            Self::SigningKey(kid) => [&b"signing_key"[..], kid.as_bytes()].concat(),
            Self::PersonKey(id, account_id) => {
                [&b"person_key"[..], id.as_bytes(), account_id.as_bytes()].concat()
            }
        }
    }
}

impl Kek {
    /// The keys of a keeper.
    #[must_use]
    pub fn new(provider: impl KekProvider + 'static) -> Self {
        Self(Arc::new(provider))
    }

    /// The keys of a file.
    ///
    /// # Errors
    /// If there is no such file, or something else is in it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        Ok(Self::new(Keyring::read(path)?))
    }

    /// The id of the key that wraps now.
    #[must_use]
    pub fn current(&self) -> &str {
        self.0.current()
    }

    /// Whether what that key wrapped can be unwrapped.
    #[must_use]
    pub fn knows(&self, kek_id: &str) -> bool {
        self.0.knows(kek_id)
    }

    /// A new data key for a workspace, and how Postgres keeps it.
    ///
    /// # Errors
    /// If the keeper does not answer.
    pub async fn new_data_key(&self, workspace_id: WorkspaceId) -> Result<(DataKey, Wrapped), KekError> {
        let (key, wrapped) = self.generate(&Place::DataKey(workspace_id)).await?;
        Ok((DataKey(Some(key)), wrapped))
    }

    /// A workspace's data key from how Postgres keeps it. Where there is none, or its key-encryption key is lost,
    /// no copies are made and none are opened.
    ///
    /// # Errors
    /// If it was changed or moved, or the keeper does not answer.
    pub async fn data_key(
        &self,
        workspace_id: WorkspaceId,
        wrapped: Option<&Wrapped>,
    ) -> Result<DataKey, KekError> {
        let Some(wrapped) = wrapped else { return Ok(DataKey(None)) };
        match self.open(&Place::DataKey(workspace_id), wrapped).await {
            Ok(key) => Ok(DataKey(Some(key))),
            Err(KekError::Unknown) => Ok(DataKey(None)),
            Err(error) => Err(error),
        }
    }

    /// How Postgres keeps a private signing key.
    ///
    /// # Errors
    /// If the keeper does not answer.
    pub async fn wrap_signing_key(&self, kid: &str, pkcs8: &[u8]) -> Result<Wrapped, KekError> {
        self.0.wrap(pkcs8, &Place::SigningKey(kid.to_owned()).aad()).await
    }

    /// A private signing key from how Postgres keeps it.
    ///
    /// # Errors
    /// If it does not open, or the keeper does not answer.
    pub async fn signing_key(&self, kid: &str, wrapped: &Wrapped) -> Result<Zeroizing<Vec<u8>>, KekError> {
        self.0.unwrap(wrapped, &Place::SigningKey(kid.to_owned()).aad()).await
    }

    /// The same thing under the current key.
    ///
    /// # Errors
    /// If it does not open, or the keeper does not answer.
    pub async fn rewrap(&self, place: &Place, wrapped: &Wrapped) -> Result<Wrapped, KekError> {
        let plain = self.0.unwrap(wrapped, &place.aad()).await?;
        self.0.wrap(&plain, &place.aad()).await
    }

    /// A new key for a place, and how Postgres keeps it.
    pub(crate) async fn generate(&self, place: &Place) -> Result<(SealingKey, Wrapped), KekError> {
        let (key, bytes) = SealingKey::generate();
        let wrapped = self.0.wrap(bytes.as_slice(), &place.aad()).await?;
        Ok((key, wrapped))
    }

    /// The key of a place from how Postgres keeps it.
    pub(crate) async fn open(&self, place: &Place, wrapped: &Wrapped) -> Result<SealingKey, KekError> {
        Ok(SealingKey::from_slice(&self.0.unwrap(wrapped, &place.aad()).await?)?)
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kek")
    }
}
