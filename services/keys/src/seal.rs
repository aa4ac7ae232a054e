//! Seals what Postgres keeps of secrets: private signing keys and data keys under the key-encryption key,
//! copies of secrets under their workspace's data key. Each seal is bound to its place, so that no two rows
//! can be swapped. Never prints a key.

use std::{fmt, fs, path::Path};

use anyhow::Context as _;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use domain::{KeyId, Secret, WorkspaceId};
use zeroize::Zeroizing;

/// First byte of everything sealed: AES-256-GCM, then 12 bytes of nonce, ciphertext, 16 bytes of tag.
const FORMAT: u8 = 1;
const KEY_BYTES: usize = 32;

/// What was sealed does not open: another key, another place, or a changed byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what is sealed does not open: another key, another place, or a changed byte")]
pub struct Unsealable;

/// The key-encryption key; kept outside Postgres.
pub struct Kek(SealingKey);

impl Kek {
    /// Reads the key from a file with 64 hexadecimal characters.
    ///
    /// # Errors
    /// If there is no such file, or something else is in it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let remedy =
            "make one with `openssl rand -hex 32`, mode 600, and keep it apart from backups of Postgres";
        let text = fs::read_to_string(path)
            .map(Zeroizing::new)
            .with_context(|| format!("the key-encryption key cannot be read from {shown}; {remedy}"))?;
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).map(Zeroizing::new);
        match bytes.as_deref().map(Vec::as_slice).map(<[u8; KEY_BYTES]>::try_from) {
            Ok(Ok(bytes)) => Ok(Self::new(&Zeroizing::new(bytes))),
            _ => anyhow::bail!("{shown} must hold 64 hexadecimal characters, a key-encryption key; {remedy}"),
        }
    }

    /// The key with these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(SealingKey::new(bytes))
    }

    /// A new data key for a workspace, and how Postgres keeps it.
    ///
    /// # Panics
    /// If the operating system has no randomness to give.
    #[must_use]
    pub fn new_data_key(&self, workspace_id: WorkspaceId) -> (DataKey, Vec<u8>) {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(bytes.as_mut_slice()).expect("the operating system gives randomness");
        let wrapped = self.0.seal(bytes.as_slice(), &data_key_place(workspace_id));
        (DataKey(SealingKey::new(&bytes)), wrapped)
    }

    /// A workspace's data key from how Postgres keeps it.
    ///
    /// # Errors
    /// If it does not open.
    pub fn open_data_key(&self, workspace_id: WorkspaceId, wrapped: &[u8]) -> Result<DataKey, Unsealable> {
        let bytes = self.0.open(wrapped, &data_key_place(workspace_id))?;
        let bytes: &[u8; KEY_BYTES] = bytes.as_slice().try_into().map_err(|_| Unsealable)?;
        Ok(DataKey(SealingKey::new(bytes)))
    }

    /// How Postgres keeps a private signing key.
    #[must_use]
    pub fn seal_signing_key(&self, kid: &str, pkcs8: &[u8]) -> Vec<u8> {
        self.0.seal(pkcs8, &signing_key_place(kid))
    }

    /// A private signing key from how Postgres keeps it.
    ///
    /// # Errors
    /// If it does not open.
    pub fn open_signing_key(&self, kid: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        self.0.open(sealed, &signing_key_place(kid))
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kek")
    }
}

/// A workspace's data key; never stored but wrapped.
pub struct DataKey(SealingKey);

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
    /// How Postgres keeps a copy of a secret.
    #[must_use]
    pub fn seal_copy(&self, place: CopyPlace, secret: &Secret) -> Vec<u8> {
        self.0.seal(secret.reveal().as_bytes(), &place.aad())
    }

    /// A secret from its copy.
    ///
    /// # Errors
    /// If the copy does not open.
    pub fn open_copy(&self, place: CopyPlace, sealed: &[u8]) -> Result<Secret, Unsealable> {
        let text = self.0.open(sealed, &place.aad())?;
        std::str::from_utf8(&text).ok().and_then(|text| Secret::parse(text).ok()).ok_or(Unsealable)
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

fn data_key_place(workspace_id: WorkspaceId) -> Vec<u8> {
    [&b"data_key"[..], workspace_id.as_bytes()].concat()
}

fn signing_key_place(kid: &str) -> Vec<u8> {
    [&b"signing_key"[..], kid.as_bytes()].concat()
}

struct SealingKey(RandomizedNonceKey);

impl SealingKey {
    fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(RandomizedNonceKey::new(&AES_256_GCM, bytes).expect("an AES-256 key has 32 bytes"))
    }

    fn seal(&self, plain: &[u8], place: &[u8]) -> Vec<u8> {
        let mut text = plain.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(place), &mut text)
            .expect("AES-GCM seals what is shorter than 64 GiB");
        [&[FORMAT][..], nonce.as_ref(), &text].concat()
    }

    fn open(&self, sealed: &[u8], place: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
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

#[cfg(test)]
mod tests {
    use domain::Environment;

    use super::*;

    fn place() -> CopyPlace {
        CopyPlace { workspace_id: WorkspaceId::generate(), key_id: KeyId::generate(), key_version: 1 }
    }

    #[test]
    fn a_copy_opens_in_its_own_place_only() {
        let kek = Kek::new(&[7; 32]);
        let place = place();
        let (data_key, wrapped) = kek.new_data_key(place.workspace_id);
        let secret = Secret::generate(Environment::Live);
        let sealed = data_key.seal_copy(place, &secret);
        let data_key = kek.open_data_key(place.workspace_id, &wrapped).unwrap();
        assert_eq!(data_key.open_copy(place, &sealed), Ok(secret));

        for other in [
            CopyPlace { workspace_id: WorkspaceId::generate(), ..place },
            CopyPlace { key_id: KeyId::generate(), ..place },
            CopyPlace { key_version: 2, ..place },
        ] {
            assert_eq!(data_key.open_copy(other, &sealed), Err(Unsealable));
        }
        assert!(kek.open_data_key(WorkspaceId::generate(), &wrapped).is_err());
        assert!(Kek::new(&[8; 32]).open_data_key(place.workspace_id, &wrapped).is_err());
        let (other_key, _) = kek.new_data_key(place.workspace_id);
        assert_eq!(other_key.open_copy(place, &sealed), Err(Unsealable));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let kek = Kek::new(&[7; 32]);
        let place = place();
        let (data_key, wrapped) = kek.new_data_key(place.workspace_id);
        let sealed = data_key.seal_copy(place, &Secret::generate(Environment::Test));
        let flips = |sealed: &[u8]| {
            let sealed = sealed.to_vec();
            (0..sealed.len() * 8).map(move |bit| {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                flipped
            })
        };
        assert!(flips(&sealed).all(|flipped| data_key.open_copy(place, &flipped) == Err(Unsealable)));
        assert!(flips(&wrapped).all(|flipped| kek.open_data_key(place.workspace_id, &flipped).is_err()));
        let cut = (0..sealed.len()).all(|end| data_key.open_copy(place, &sealed[..end]) == Err(Unsealable));
        assert!(cut, "a cut copy opens");
    }

    #[test]
    fn equal_secrets_are_sealed_differently() {
        let (data_key, _) = Kek::new(&[7; 32]).new_data_key(WorkspaceId::generate());
        let (place, secret) = (place(), Secret::generate(Environment::Test));
        assert_ne!(data_key.seal_copy(place, &secret), data_key.seal_copy(place, &secret));
    }

    #[test]
    fn a_file_without_a_key_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            Kek::read(&path).map(|_| ()).map_err(|error| error.to_string())
        };
        assert!(Kek::read(&path).unwrap_err().to_string().contains("openssl rand -hex 32"));
        assert_eq!(read(&format!("{}\n", "aB".repeat(32))), Ok(()));
        for bad in ["", "xyz", &"ab".repeat(31), &"ab".repeat(33), &"zz".repeat(32)] {
            assert!(read(bad).unwrap_err().contains("64 hexadecimal characters"), "{bad}");
        }
        assert_eq!(format!("{:?}", Kek::new(&[1; 32])), "Kek");
    }
}
