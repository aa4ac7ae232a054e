//! Key-encryption keys in a file or in the environment. Never prints a key.

use std::{fs, path::Path};

use anyhow::{Context as _, bail, ensure};
use futures_util::future::BoxFuture;
use zeroize::Zeroizing;

use super::{
    aead::{KEY_BYTES, SealingKey},
    provider::{KekError, KekProvider, Wrapped},
};
use crate::token::sha256;

/// Longest id of a key.
const ID_CHARS_MAX: usize = 64;
const REMEDY: &str =
    "make one with `openssl rand -hex 32`, mode 600, and keep it apart from backups of Postgres";

/// Several keys; the first one wraps.
pub struct Keyring {
    keys: Vec<(String, SealingKey)>,
}

impl Keyring {
    /// Reads the keys from a file: see [`Self::parse`].
    ///
    /// # Errors
    /// If there is no such file, or something else is in it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = fs::read_to_string(path)
            .map(Zeroizing::new)
            .with_context(|| format!("the key-encryption key cannot be read from {shown}; {REMEDY}"))?;
        Self::parse(&text, &shown.to_string())
    }

    /// One key a line, the current one first: 64 hexadecimal characters, or an id, a colon and these. A key without
    /// an id is called by the start of its SHA-256.
    ///
    /// # Errors
    /// If a line is something else, an id comes twice, or there is no line.
    pub fn parse(text: &str, source: &str) -> anyhow::Result<Self> {
        let mut keys: Vec<(String, SealingKey)> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (id, hex) = line.rsplit_once(':').map_or((None, line), |(id, hex)| (Some(id), hex));
            let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map(Zeroizing::new);
            let Some(Ok(bytes)) = bytes.ok().as_deref().map(|bytes| <[u8; KEY_BYTES]>::try_from(&bytes[..]))
            else {
                bail!("{source} must hold 64 hexadecimal characters a line, a key-encryption key; {REMEDY}");
            };
            let bytes = Zeroizing::new(bytes);
            let id = id.map_or_else(|| fingerprint(&bytes), str::to_owned);
            let good = (1..=ID_CHARS_MAX).contains(&id.len()) && id.bytes().all(|c| c.is_ascii_graphic());
            ensure!(good, "{source}: the id of a key must be 1 to 64 visible ASCII characters");
            ensure!(keys.iter().all(|(known, _)| *known != id), "{source} has two keys with the id {id}");
            keys.push((id, SealingKey::new(&bytes)));
        }
        ensure!(
            !keys.is_empty(),
            "{source} must hold 64 hexadecimal characters, a key-encryption key; {REMEDY}"
        );
        Ok(Self { keys })
    }

    /// The one key with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8; KEY_BYTES]) -> Self {
        Self { keys: vec![(fingerprint(bytes), SealingKey::new(bytes))] }
    }

    fn open(&self, wrapped: &Wrapped, place: &[u8]) -> Result<Zeroizing<Vec<u8>>, KekError> {
        if wrapped.kek_id.is_empty() {
            let mut opened = self.keys.iter().filter_map(|(_, key)| key.open(&wrapped.bytes, place).ok());
            return opened.next().ok_or(KekError::Unknown);
        }
        let (_, key) = self.keys.iter().find(|(id, _)| *id == wrapped.kek_id).ok_or(KekError::Unknown)?;
        Ok(key.open(&wrapped.bytes, place)?)
    }
}

impl KekProvider for Keyring {
    fn current(&self) -> &str {
        &self.keys[0].0
    }

    fn knows(&self, kek_id: &str) -> bool {
        self.keys.iter().any(|(id, _)| id == kek_id)
    }

    fn wrap<'a>(&'a self, plain: &'a [u8], place: &'a [u8]) -> BoxFuture<'a, Result<Wrapped, KekError>> {
        let (id, key) = &self.keys[0];
        Box::pin(async move { Ok(Wrapped { kek_id: id.clone(), bytes: key.seal(plain, place) }) })
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a Wrapped,
        place: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<Vec<u8>>, KekError>> {
        Box::pin(async move { self.open(wrapped, place) })
    }
}

/// A name that tells nothing of the key, which has 256 random bits.
fn fingerprint(bytes: &[u8; KEY_BYTES]) -> String {
    let hash = sha256(&[&b"keymeter key-encryption key"[..], &bytes[..]].concat());
    data_encoding::HEXLOWER.encode(&hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_key_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kek");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            Keyring::read(&path).map(|ring| ring.keys.len()).map_err(|error| error.to_string())
        };
        assert!(Keyring::read(&path).err().unwrap().to_string().contains("openssl rand -hex 32"));
        let (one, two) = ("aB".repeat(32), "01".repeat(32));
        assert_eq!(read(&format!("{one}\n")), Ok(1));
        assert_eq!(read(&format!("2026:{one}\n\n 2025:{two}\n{two}")), Ok(3));
        for bad in ["", "xyz", &"ab".repeat(31), &"ab".repeat(33), &"zz".repeat(32), &format!("{one}:")] {
            let said = read(bad).unwrap_err();
            assert!(said.contains("64 hexadecimal characters"), "{bad}");
            assert!(bad.is_empty() || !said.contains(bad), "it prints what it read");
        }
        for bad in [format!("a:{one}\na:{two}"), format!(":{one}"), format!("{one}\n{one}")] {
            assert!(read(&bad).unwrap_err().contains("id"), "{bad}");
        }
    }

    #[tokio::test]
    async fn the_first_key_wraps_and_all_of_them_unwrap() {
        let (one, two) = ("aa".repeat(32), "bb".repeat(32));
        let old = Keyring::parse(&format!("old:{one}"), "test").unwrap();
        let both = Keyring::parse(&format!("new:{two}\nold:{one}"), "test").unwrap();
        let new = Keyring::parse(&format!("new:{two}"), "test").unwrap();
        let wrapped = old.wrap(b"data key", b"place").await.unwrap();
        assert_eq!((old.current(), wrapped.kek_id.as_str()), ("old", "old"));
        assert_eq!(both.unwrap(&wrapped, b"place").await.unwrap().as_slice(), b"data key");
        assert!(matches!(new.unwrap(&wrapped, b"place").await, Err(KekError::Unknown)));
        assert!(matches!(both.unwrap(&wrapped, b"elsewhere").await, Err(KekError::Unsealable(_))));
        assert_eq!(both.wrap(b"x", b"").await.unwrap().kek_id, "new");
        // As rows from before there could be several.
        let unnamed = Wrapped { kek_id: String::new(), ..wrapped };
        assert_eq!(both.unwrap(&unnamed, b"place").await.unwrap().as_slice(), b"data key");
        assert!(matches!(new.unwrap(&unnamed, b"place").await, Err(KekError::Unknown)));
    }
}
