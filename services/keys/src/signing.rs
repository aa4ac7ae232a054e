//! The key that access tokens and the key feed are signed with: made at the first start, kept sealed in Postgres.

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use access::{Claims, Signer, Verifier};
use anyhow::Context as _;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use proto::{keys as pb, nats::signed_bytes};
use time::OffsetDateTime;

use crate::{
    config::{Config, EdgeToken},
    error::Error,
    ledger::Ledger,
    seal::{Kek, KekError},
    signing_pair::{Signature, SigningPair},
    store::{Store, StoreError, signing_keys::SigningKey},
    token::sha256,
};

/// What access tokens are signed and checked with, once Postgres gave it.
pub struct Signing {
    signer: Signer,
    pair: Arc<SigningPair>,
    public: Vec<pb::SigningKey>,
}

/// An access token and when it ends.
pub struct Issued {
    /// The JWT.
    pub token: String,
    /// When it ends.
    pub expire_time: OffsetDateTime,
}

impl Signing {
    /// Opens the signing keys, after making the first one where there is none, and with them the ledger of `store`.
    ///
    /// # Errors
    /// If Postgres is away ([`StoreError`]), or the key-encryption key is not the one that sealed what it holds.
    pub async fn open(store: &Store, kek: &Kek) -> anyhow::Result<Self> {
        make_first(store, kek).await?;
        let wrong = "the key-encryption key does not open what Postgres holds: it is not the key that this database \
                     was started with; give that one with --kek-file (KEYMETER_KEYS_KEK_FILE), or, if it is lost, \
                     read about `keys reset-signing-key`";
        let keys = store.signing_keys().await?;
        let newest = keys.first().context("the signing key that was just made is gone")?;
        let pkcs8 = kek.signing_key(&newest.kid, &newest.private_key).await.context(wrong)?;
        for (kek_id, workspaces) in store.data_keys_by_kek().await? {
            if !kek_id.is_empty() && !kek.knows(&kek_id) {
                tracing::warn!(
                    kek.id = kek_id,
                    workspaces,
                    "copies of secrets can not be opened: their key is lost"
                );
            }
        }
        let pair = Arc::new(SigningPair::new(&newest.kid, &pkcs8)?);
        store.open_ledger(Ledger::new(pair.clone(), kek.clone()));
        let signer = Signer::new(&newest.kid, &pkcs8)?;
        let public =
            keys.into_iter().map(|key| pb::SigningKey { kid: key.kid, public_key: key.public_key }).collect();
        Ok(Self { signer, pair, public })
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

    /// What edges check the key feed with: the public keys as lines of `kid base64`, newest first.
    #[must_use]
    pub fn feed_keys(&self) -> String {
        let line =
            |key: &pb::SigningKey| format!("{} {}\n", key.kid, data_encoding::BASE64.encode(&key.public_key));
        self.public.iter().map(line).collect()
    }

    /// A line with a token that is good for edges alone, for so many days.
    #[must_use]
    pub fn edge_token(&self, days: u16) -> String {
        let now = OffsetDateTime::now_utc();
        format!("{}\n", self.signer.sign_edge_token(now + time::Duration::days(days.into()), now))
    }

    /// A token that says `claims`.
    #[must_use]
    pub fn issue(&self, claims: &Claims, now: OffsetDateTime) -> Issued {
        // A token's end is a whole second.
        let expire_time = claims.expires.truncate_to_second();
        Issued { token: self.signer.sign(claims, now), expire_time }
    }
}

/// Runs `keys feed-keys`: prints the public keys that edges check the feed with, one `kid base64` a line, newest
/// first.
///
/// # Errors
/// If Postgres is away, or the key-encryption key is not the one that sealed what it holds.
pub async fn print_feed_keys(config: &Config) -> anyhow::Result<()> {
    let store = config.store()?;
    let signing = Signing::open(&store, &config.kek()?).await?;
    store.close().await;
    Ok(write!(io::stdout(), "{}", signing.feed_keys())?)
}

/// Runs `keys edge-token`: prints a token that is good for edges alone.
///
/// # Errors
/// If Postgres is away, or the key-encryption key is not the one that sealed what it holds.
pub async fn print_edge_token(config: &Config, asked: &EdgeToken) -> anyhow::Result<()> {
    let store = config.store()?;
    let signing = Signing::open(&store, &config.kek()?).await?;
    store.close().await;
    Ok(write!(io::stdout(), "{}", signing.edge_token(asked.days))?)
}

/// Runs `keys reset-signing-key`: makes a signing key that is used from the next start on, whatever has become of
/// the ones before. What was signed with them can still be checked.
///
/// # Errors
/// If Postgres or the keeper of the key-encryption key does not answer.
pub async fn reset(config: &Config) -> anyhow::Result<()> {
    let store = config.store()?;
    store.check_version().await?;
    let key = new_key(&config.kek()?).await?;
    let mut tx = store.begin().await?;
    tx.add_signing_key(&key, OffsetDateTime::now_utc()).await?;
    tx.commit().await?;
    store.close().await;
    Ok(writeln!(io::stdout(), "the signing key is now {}; restart the service", key.kid)?)
}

impl Signing {
    /// Signs a message that is no access token, for one purpose only (see [`signed_bytes`]).
    #[must_use]
    pub fn sign(&self, purpose: &str, message: &[u8]) -> Signature {
        self.pair.sign(purpose, message)
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
        tx.add_signing_key(&new_key(kek).await?, OffsetDateTime::now_utc()).await?;
        tracing::info!("first signing key made");
    }
    tx.commit().await
}

async fn new_key(kek: &Kek) -> Result<SigningKey, KekError> {
    let pkcs8 =
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("the operating system gives randomness");
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key that was just made");
    let public_key = pair.public_key().as_ref().to_vec();
    let kid = data_encoding::HEXLOWER.encode(&sha256(&public_key)[..8]);
    Ok(SigningKey { private_key: kek.wrap_signing_key(&kid, pkcs8.as_ref()).await?, kid, public_key })
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
