//! Signs access tokens with an Ed25519 key. Never prints the key.

use std::fmt;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use time::OffsetDateTime;

use crate::{Claims, claims::Wire};

/// A private key and its name.
pub struct Signer {
    kid: String,
    key: EncodingKey,
}

/// The private key is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signing key is no Ed25519 key in PKCS#8")]
pub struct SigningKeyError;

impl Signer {
    /// Signs under the name `kid` with the Ed25519 key in `pkcs8` (DER).
    ///
    /// # Errors
    /// If the key is none.
    pub fn new(kid: impl Into<String>, pkcs8: &[u8]) -> Result<Self, SigningKeyError> {
        let key = EncodingKey::from_ed_der(pkcs8);
        // The key is read at each signature only: try it now rather than at the first sign-in.
        jsonwebtoken::crypto::sign(b"", &key, Algorithm::EdDSA).map_err(|_| SigningKeyError)?;
        Ok(Self { kid: kid.into(), key })
    }

    /// The token that says `claims`, issued at `now`.
    ///
    /// # Panics
    /// Never: the key was tried when it was taken.
    #[must_use]
    pub fn sign(&self, claims: &Claims, now: OffsetDateTime) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &Wire::new(claims, now), &self.key)
            .expect("claims are JSON and the key was tried")
    }

    /// The key's name.
    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    pub(crate) const fn key(&self) -> &EncodingKey {
        &self.key
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("kid", &self.kid).finish_non_exhaustive()
    }
}
