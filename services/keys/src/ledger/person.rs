//! What a record needs besides Postgres: the key that signs heads, and the keys under which personal fields are
//! sealed. An erased person has no key: nothing more is sealed for them, and nothing opens.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use domain::{AccountId, WorkspaceId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Head, Sealed, SignedHead};
use crate::{
    seal::{Kek, KekError, Place, SealingKey, Unsealable, Wrapped},
    signing_pair::SigningPair,
};

/// Most keys of persons that are kept open; then all are forgotten and opened again when needed.
const OPEN_KEYS_MAX: usize = 10_000;

/// Signs heads and seals what is personal.
pub struct Ledger {
    signer: Arc<SigningPair>,
    kek: Kek,
    /// By what Postgres holds of them, so that a changed row is looked at anew.
    open: Mutex<HashMap<KeptPersonKey, Arc<SealingKey>>>,
}

/// A key of a person.
#[derive(Clone)]
pub struct PersonKey {
    id: Uuid,
    key: Arc<SealingKey>,
}

/// A person's key as Postgres keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeptPersonKey {
    /// Its id.
    pub person_key_id: Uuid,
    /// Whose it is.
    pub account_id: AccountId,
    /// The key.
    pub wrapped: Wrapped,
}

/// From where somebody asked, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// It was not over the network, or the person was erased before.
    None,
    /// From there.
    Known(String),
    /// The person was erased since.
    Erased,
    /// The key-encryption key is lost, or the row was changed.
    Unreadable,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Personal {
    from_address: String,
}

impl Ledger {
    /// Signs with `signer`, and seals under keys wrapped by `kek`.
    #[must_use]
    pub fn new(signer: Arc<SigningPair>, kek: Kek) -> Self {
        Self { signer, kek, open: Mutex::default() }
    }

    /// The head, vouched for.
    #[must_use]
    pub fn sign(&self, head: Head) -> SignedHead {
        SignedHead::new(head, &self.signer)
    }

    /// The first of a person's keys that opens; `None` if none does.
    ///
    /// # Errors
    /// If the keeper of the key-encryption key does not answer.
    pub async fn usable(&self, kept: &[KeptPersonKey]) -> Result<Option<PersonKey>, KekError> {
        for key in kept {
            match self.person_key(key).await {
                Ok(key) => return Ok(Some(key)),
                Err(KekError::Away(source)) => return Err(KekError::Away(source)),
                Err(error @ KekError::Unknown) => {
                    tracing::debug!(account.id = %key.account_id, %error, "a person's key is lost");
                }
                Err(error @ KekError::Unsealable(_)) => {
                    tracing::error!(account.id = %key.account_id, %error, "a person's key was changed");
                }
            }
        }
        Ok(None)
    }

    /// A new key for a person.
    ///
    /// # Errors
    /// If the keeper of the key-encryption key does not answer.
    pub async fn new_person_key(
        &self,
        account_id: AccountId,
    ) -> Result<(PersonKey, KeptPersonKey), KekError> {
        let person_key_id = Uuid::now_v7();
        let (key, wrapped) = self.kek.generate(&Place::PersonKey(person_key_id, account_id)).await?;
        let kept = KeptPersonKey { person_key_id, account_id, wrapped };
        Ok((self.keep(&kept, key), kept))
    }

    /// From where somebody asked; `kept` is the key that it is sealed under, if it is still there.
    ///
    /// # Errors
    /// If the keeper of the key-encryption key does not answer.
    pub async fn address(
        &self,
        place: (WorkspaceId, i64),
        sealed: &Sealed,
        kept: Option<&KeptPersonKey>,
    ) -> Result<Address, KekError> {
        let Some(kept) = kept else { return Ok(Address::Erased) };
        match self.person_key(kept).await {
            Ok(key) => Ok(key.open(place, &sealed.bytes).map_or(Address::Unreadable, Address::Known)),
            Err(KekError::Away(source)) => Err(KekError::Away(source)),
            Err(KekError::Unknown | KekError::Unsealable(_)) => Ok(Address::Unreadable),
        }
    }

    async fn person_key(&self, kept: &KeptPersonKey) -> Result<PersonKey, KekError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(kept).cloned();
        if let Some(key) = open {
            return Ok(PersonKey { id: kept.person_key_id, key });
        }
        let place = Place::PersonKey(kept.person_key_id, kept.account_id);
        Ok(self.keep(kept, self.kek.open(&place, &kept.wrapped).await?))
    }

    fn keep(&self, kept: &KeptPersonKey, key: SealingKey) -> PersonKey {
        let key = Arc::new(key);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_KEYS_MAX {
            open.clear();
        }
        open.insert(kept.clone(), Arc::clone(&key));
        PersonKey { id: kept.person_key_id, key }
    }
}

impl PersonKey {
    /// Seals an address for one place in a chain.
    #[must_use]
    pub fn seal(&self, place: (WorkspaceId, i64), address: IpAddr) -> Sealed {
        let personal = Personal { from_address: address.to_string() };
        let text = serde_json::to_vec(&personal).expect("plain data is JSON");
        Sealed { person_key_id: self.id, bytes: self.key.seal(&text, &self.aad(place)) }
    }

    fn open(&self, place: (WorkspaceId, i64), sealed: &[u8]) -> Result<String, Unsealable> {
        let text = self.key.open(sealed, &self.aad(place))?;
        let personal: Personal = serde_json::from_slice(&text).map_err(|_| Unsealable)?;
        Ok(personal.from_address)
    }

    /// workspace ‖ sequence ‖ key, each of fixed length.
    fn aad(&self, (workspace_id, sequence): (WorkspaceId, i64)) -> Vec<u8> {
        [&b"personal"[..], workspace_id.as_bytes(), &sequence.to_be_bytes(), self.id.as_bytes()].concat()
    }
}
