//! The key that access tokens and the key feed are signed with: made at the first start, kept sealed in Postgres.

use access::{Claims, Signer, Verifier};
use anyhow::Context as _;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use proto::{keys as pb, nats::signed_bytes};
use time::OffsetDateTime;

use crate::{
    error::Error,
    seal::Kek,
    store::{Store, StoreError, signing_keys::SigningKey},
    token::sha256,
};

/// What access tokens are signed and checked with, once Postgres gave it.
pub struct Signing {
    signer: Signer,
    kid: String,
    pair: Ed25519KeyPair,
    public: Vec<pb::SigningKey>,
}

/// A signature and the name of the key that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// As in [`Signing::public`].
    pub kid: String,
    /// Ed25519, 64 bytes.
    pub bytes: Vec<u8>,
}

/// An access token and when it ends.
pub struct Issued {
    /// The JWT.
    pub token: String,
    /// When it ends.
    pub expire_time: OffsetDateTime,
}

impl Signing {
    /// Opens the signing keys, after making the first one where there is none.
    ///
    /// # Errors
    /// If Postgres is away ([`StoreError`]), or the key-encryption key is not the one that sealed what it holds.
    pub async fn open(store: &Store, kek: &Kek) -> anyhow::Result<Self> {
        make_first(store, kek).await?;
        let wrong = "the key-encryption key does not open what Postgres holds: it is not the key that this database \
                     was started with; give that one with --kek-file (KEYMETER_KEYS_KEK_FILE)";
        let keys = store.signing_keys().await?;
        let newest = keys.first().context("the signing key that was just made is gone")?;
        let pkcs8 = kek.open_signing_key(&newest.kid, &newest.sealed_private_key).context(wrong)?;
        if let Some((workspace_id, wrapped)) = store.any_wrapped_data_key().await? {
            kek.open_data_key(workspace_id, &wrapped).context(wrong)?;
        }
        let signer = Signer::new(&newest.kid, &pkcs8)?;
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).context("the signing key is none")?;
        let kid = newest.kid.clone();
        let public =
            keys.into_iter().map(|key| pb::SigningKey { kid: key.kid, public_key: key.public_key }).collect();
        Ok(Self { signer, kid, pair, public })
    }

    /// The public keys, newest first.
    #[must_use]
    pub fn public(&self) -> &[pb::SigningKey] {
        &self.public
    }

    /// Lets a verifier check what this signs.
    pub fn teach(&self, verifier: &Verifier) {
        verifier.replace(&self.public);
    }

    /// A token that says `claims`.
    #[must_use]
    pub fn issue(&self, claims: &Claims, now: OffsetDateTime) -> Issued {
        // A token's end is a whole second.
        let expire_time = claims.expires.truncate_to_second();
        Issued { token: self.signer.sign(claims, now), expire_time }
    }
}

impl Signing {
    /// Signs a message that is no access token, for one purpose only (see [`signed_bytes`]).
    #[must_use]
    pub fn sign(&self, purpose: &str, message: &[u8]) -> Signature {
        let bytes = self.pair.sign(&signed_bytes(purpose, message)).as_ref().to_vec();
        Signature { kid: self.kid.clone(), bytes }
    }

    /// Whether one of our keys signed that message for that purpose.
    #[must_use]
    pub fn verifies(&self, purpose: &str, message: &[u8], kid: &str, signature: &[u8]) -> bool {
        self.public.iter().filter(|key| key.kid == kid).any(|key| {
            let key = UnparsedPublicKey::new(&ED25519, &key.public_key);
            key.verify(&signed_bytes(purpose, message), signature).is_ok()
        })
    }
}

async fn make_first(store: &Store, kek: &Kek) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    tx.lock("first signing key").await?;
    if !tx.has_signing_key().await? {
        tx.add_signing_key(&new_key(kek), OffsetDateTime::now_utc()).await?;
        tracing::info!("first signing key made");
    }
    tx.commit().await
}

fn new_key(kek: &Kek) -> SigningKey {
    let pkcs8 =
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("the operating system gives randomness");
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key that was just made");
    let public_key = pair.public_key().as_ref().to_vec();
    let kid = data_encoding::HEXLOWER.encode(&sha256(&public_key)[..8]);
    SigningKey { sealed_private_key: kek.seal_signing_key(&kid, pkcs8.as_ref()), kid, public_key }
}

/// Filled when the service has prepared itself.
pub type SigningCell = std::sync::OnceLock<Signing>;

/// The signing keys, or that the service has not prepared itself yet.
///
/// # Errors
/// Not started.
pub fn ready(cell: &SigningCell) -> Result<&Signing, Error> {
    cell.get().ok_or(Error::NotStarted)
}
