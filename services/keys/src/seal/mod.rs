//! Seals what Postgres keeps of secrets and of people: private signing keys, data keys and person keys under a
//! key-encryption key, copies of secrets under their workspace's data key, personal fields under a person's key.
//! Each seal is bound to its place, so that no two rows can be swapped. Never prints a key.

use domain::{KeyId, Secret, WorkspaceId};

mod aead;
mod kek;
mod keyring;
mod provider;

pub(crate) use aead::SealingKey;
pub use kek::{Kek, Place};
pub use keyring::Keyring;
pub use provider::{KekError, KekProvider, Wrapped};

/// What was sealed does not open: another key, another place, or a changed byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what is sealed does not open: another key, another place, or a changed byte")]
pub struct Unsealable;

/// What a workspace's copies are sealed under, if it keeps any.
pub struct DataKey(Option<SealingKey>);

/// Which secret a copy is of; bound into its seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyPlace {
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// The key.
    pub key_id: KeyId,
    /// The key's version that made the secret.
    pub key_version: i64,
}

impl DataKey {
    /// How Postgres keeps a copy of a secret; `None` where no copies are kept, or none could be opened again.
    #[must_use]
    pub fn seal_copy(&self, place: CopyPlace, secret: &Secret) -> Option<Vec<u8>> {
        self.0.as_ref().map(|key| key.seal(secret.reveal().as_bytes(), &place.aad()))
    }

    /// A secret from its copy; `None` if the key that it is sealed under is gone.
    ///
    /// # Errors
    /// If the copy does not open.
    pub fn open_copy(&self, place: CopyPlace, sealed: &[u8]) -> Result<Option<Secret>, Unsealable> {
        let Some(key) = &self.0 else { return Ok(None) };
        let text = key.open(sealed, &place.aad())?;
        let secret = std::str::from_utf8(&text).ok().and_then(|text| Secret::parse(text).ok());
        secret.map(Some).ok_or(Unsealable)
    }
}

impl CopyPlace {
    /// workspace ‖ key ‖ version, each of fixed length.
    fn aad(&self) -> Vec<u8> {
        [
            &b"secret"[..],
            self.workspace_id.as_bytes(),
            self.key_id.as_bytes(),
            &self.key_version.to_be_bytes(),
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use domain::Environment;

    use super::*;

    fn place() -> CopyPlace {
        CopyPlace { workspace_id: WorkspaceId::generate(), key_id: KeyId::generate(), key_version: 1 }
    }

    #[tokio::test]
    async fn a_copy_opens_in_its_own_place_only() {
        let kek = Kek::new(Keyring::of(&[7; 32]));
        let place = place();
        let (data_key, wrapped) = kek.new_data_key(place.workspace_id).await.unwrap();
        let secret = Secret::generate(Environment::Live);
        let sealed = data_key.seal_copy(place, &secret).unwrap();
        let data_key = kek.data_key(place.workspace_id, Some(&wrapped)).await.unwrap();
        assert_eq!(data_key.open_copy(place, &sealed), Ok(Some(secret)));

        for other in [
            CopyPlace { workspace_id: WorkspaceId::generate(), ..place },
            CopyPlace { key_id: KeyId::generate(), ..place },
            CopyPlace { key_version: 2, ..place },
        ] {
            assert_eq!(data_key.open_copy(other, &sealed), Err(Unsealable));
        }
        let moved = kek.data_key(WorkspaceId::generate(), Some(&wrapped)).await;
        assert!(matches!(moved, Err(KekError::Unsealable(_))));
        let (other_key, _) = kek.new_data_key(place.workspace_id).await.unwrap();
        assert_eq!(other_key.open_copy(place, &sealed), Err(Unsealable));
    }

    #[tokio::test]
    async fn without_a_data_key_nothing_is_sealed_and_nothing_opens() {
        let (place, secret) = (place(), Secret::generate(Environment::Live));
        let kek = Kek::new(Keyring::of(&[7; 32]));
        let (data_key, wrapped) = kek.new_data_key(place.workspace_id).await.unwrap();
        let sealed = data_key.seal_copy(place, &secret).unwrap();
        let other_kek = Kek::new(Keyring::of(&[8; 32]));
        for none in [
            kek.data_key(place.workspace_id, None).await.unwrap(),
            other_kek.data_key(place.workspace_id, Some(&wrapped)).await.unwrap(),
        ] {
            assert_eq!(none.seal_copy(place, &secret), None);
            assert_eq!(none.open_copy(place, &sealed), Ok(None));
        }
    }

    #[tokio::test]
    async fn every_flipped_bit_is_noticed() {
        let kek = Kek::new(Keyring::of(&[7; 32]));
        let place = place();
        let (data_key, wrapped) = kek.new_data_key(place.workspace_id).await.unwrap();
        let sealed = data_key.seal_copy(place, &Secret::generate(Environment::Test)).unwrap();
        let flips = |sealed: &[u8]| {
            let sealed = sealed.to_vec();
            (0..sealed.len() * 8).map(move |bit| {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                flipped
            })
        };
        assert!(flips(&sealed).all(|flipped| data_key.open_copy(place, &flipped) == Err(Unsealable)));
        for bytes in flips(&wrapped.bytes) {
            let flipped = Wrapped { bytes, ..wrapped.clone() };
            assert!(kek.data_key(place.workspace_id, Some(&flipped)).await.is_err());
        }
        let cut = (0..sealed.len()).all(|end| data_key.open_copy(place, &sealed[..end]) == Err(Unsealable));
        assert!(cut, "a cut copy opens");
    }

    #[tokio::test]
    async fn equal_secrets_are_sealed_differently() {
        let kek = Kek::new(Keyring::of(&[7; 32]));
        let (data_key, _) = kek.new_data_key(WorkspaceId::generate()).await.unwrap();
        let (place, secret) = (place(), Secret::generate(Environment::Test));
        assert_ne!(data_key.seal_copy(place, &secret), data_key.seal_copy(place, &secret));
        assert_eq!(format!("{kek:?}"), "Kek");
    }
}
