//! AES-256-GCM with a random nonce, bound to a place. Never prints a key.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use zeroize::Zeroizing;

use super::Unsealable;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;
/// First byte of everything sealed: AES-256-GCM, then 12 bytes of nonce, ciphertext, 16 bytes of tag.
const FORMAT: u8 = 1;

/// A key that seals.
pub(crate) struct SealingKey(RandomizedNonceKey);

impl SealingKey {
    pub(crate) fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(RandomizedNonceKey::new(&AES_256_GCM, bytes).expect("an AES-256 key has 32 bytes"))
    }

    /// The key in these bytes, if they can be one.
    pub(crate) fn from_slice(bytes: &[u8]) -> Result<Self, Unsealable> {
        bytes.try_into().map(Self::new).map_err(|_| Unsealable)
    }

    /// A new key, and its bytes.
    pub(crate) fn generate() -> (Self, Zeroizing<[u8; KEY_BYTES]>) {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(bytes.as_mut_slice()).expect("the operating system gives randomness");
        (Self::new(&bytes), bytes)
    }

    /// What opens with this key in this place only.
    pub(crate) fn seal(&self, plain: &[u8], place: &[u8]) -> Vec<u8> {
        let mut text = plain.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(place), &mut text)
            .expect("AES-GCM seals what is shorter than 64 GiB");
        [&[FORMAT][..], nonce.as_ref(), &text].concat()
    }

    /// What was sealed.
    pub(crate) fn open(&self, sealed: &[u8], place: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let (format, rest) = sealed.split_first().ok_or(Unsealable)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(Unsealable)?;
        if *format != FORMAT {
            return Err(Unsealable);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unsealable)?;
        let mut text = Zeroizing::new(text.to_vec());
        let plain = self.0.open_in_place(nonce, Aad::from(place), &mut text).map_err(|_| Unsealable)?.len();
        text.truncate(plain);
        Ok(text)
    }
}
