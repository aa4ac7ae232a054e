//! Where key-encryption keys are kept: what wraps and unwraps 32-byte keys and private signing keys. Knows nothing
//! of what they are for.

use futures_util::future::BoxFuture;
use zeroize::Zeroizing;

use super::Unsealable;

/// Something wrapped under a key-encryption key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wrapped {
    /// Which key wrapped it; empty if that was not noted, long ago.
    pub kek_id: String,
    /// As the keeper gave it.
    pub bytes: Vec<u8>,
}

/// Keeps key-encryption keys. At most 4 KiB are wrapped at once, and never anything but keys.
///
/// The two calls are those of AWS KMS and of Vault's transit engine, so that an implementation is a call each:
/// `kek_id` is KMS's key ARN or Vault's key name, `place` is KMS's encryption context (in hexadecimal, as one entry)
/// or Vault's `associated_data`, and the bytes are KMS's `CiphertextBlob` or Vault's `vault:v1:…`. It is asked for
/// each creation and reveal in a workspace that keeps copies, and once for each person whose address is recorded.
pub trait KekProvider: Send + Sync {
    /// The id of the key that wraps now; others only unwrap.
    fn current(&self) -> &str;

    /// Whether it can unwrap what that key wrapped.
    fn knows(&self, kek_id: &str) -> bool;

    /// Wraps under the current key, bound to `place`.
    fn wrap<'a>(&'a self, plain: &'a [u8], place: &'a [u8]) -> BoxFuture<'a, Result<Wrapped, KekError>>;

    /// Unwraps what was wrapped for the same `place`.
    fn unwrap<'a>(
        &'a self,
        wrapped: &'a Wrapped,
        place: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<Vec<u8>>, KekError>>;
}

/// Why something was not wrapped or unwrapped.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// It was wrapped under a key that is not there.
    #[error("it is sealed under a key-encryption key that is not known")]
    Unknown,
    /// It was changed or moved.
    #[error(transparent)]
    Unsealable(#[from] Unsealable),
    /// The keeper does not answer.
    #[error("the keeper of the key-encryption key does not answer")]
    Away(#[source] anyhow::Error),
}
