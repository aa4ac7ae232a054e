//! One Ed25519 key that vouches for messages, each for one purpose only. Never prints itself.

use anyhow::Context as _;
use aws_lc_rs::signature::Ed25519KeyPair;
use proto::nats::signed_bytes;

/// A signing key and its name.
pub struct SigningPair {
    kid: String,
    pair: Ed25519KeyPair,
}

/// A signature and the name of the key that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// As in `ListSigningKeys`.
    pub kid: String,
    /// Ed25519, 64 bytes.
    pub bytes: Vec<u8>,
}

impl SigningPair {
    /// Signs under the name `kid` with the Ed25519 key in `pkcs8` (DER).
    ///
    /// # Errors
    /// If the key is none.
    pub fn new(kid: &str, pkcs8: &[u8]) -> anyhow::Result<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok();
        let pair = pair.context("the signing key is no Ed25519 key in PKCS#8")?;
        Ok(Self { kid: kid.to_owned(), pair })
    }

    /// Signs a message for a purpose (see [`signed_bytes`]).
    #[must_use]
    pub fn sign(&self, purpose: &str, message: &[u8]) -> Signature {
        let bytes = self.pair.sign(&signed_bytes(purpose, message)).as_ref().to_vec();
        Signature { kid: self.kid.clone(), bytes }
    }
}
