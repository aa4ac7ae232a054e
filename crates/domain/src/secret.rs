//! What a caller sends, and the only form in which it is looked up.
//!
//! A secret is `km_live_` or `km_test_`, 30 base62 characters of randomness (178 bits) and 6 base62
//! characters of the CRC-32 of all that stands before them, so a scanner can tell a secret from a
//! lookalike with no network. Never printed: `Debug` names the type only.

use std::fmt;

use aws_lc_rs::{digest, rand};
use zeroize::Zeroizing;

use crate::Environment;

const RANDOM_CHARS: usize = 30;
const CHECKSUM_CHARS: usize = 6;
const PREFIX_CHARS: usize = "km_live_".len();
/// Length of every secret, in bytes.
pub const SECRET_BYTES: usize = PREFIX_CHARS + RANDOM_CHARS + CHECKSUM_CHARS;
/// How many first characters of a secret lists may show: the prefix and four more.
pub(crate) const START_CHARS: usize = PREFIX_CHARS + 4;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A well-formed secret, wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: Zeroizing<String>,
    environment: Environment,
}

/// Why a text is no secret of ours. Says nothing about whether the key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Neither `km_live_` nor `km_test_` at its start.
    #[error("a secret starts with km_live_ or km_test_")]
    Prefix,
    /// Not 44 bytes long.
    #[error("a secret is {SECRET_BYTES} characters long")]
    Length,
    /// A character outside 0-9, A-Z, a-z after the prefix.
    #[error("after its prefix a secret has only letters and digits")]
    Alphabet,
    /// The last six characters do not fit the rest: mistyped, cut or made up.
    #[error("the checksum does not fit: the secret was mistyped or cut")]
    Checksum,
}

impl Secret {
    /// A new secret from the operating system's randomness.
    ///
    /// # Panics
    /// If the operating system has no randomness to give.
    #[must_use]
    pub fn generate(environment: Environment) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES));
        text.push_str(environment.prefix());
        let mut block = Zeroizing::new([0u8; 64]);
        while text.len() < PREFIX_CHARS + RANDOM_CHARS {
            rand::fill(block.as_mut_slice()).expect("the operating system gives randomness");
            // 248 = 4 × 62: bytes above it would favour the first characters.
            let fair = block
                .iter()
                .filter(|byte| **byte < 248)
                .map(|byte| char::from(BASE62[usize::from(byte % 62)]));
            let missing = PREFIX_CHARS + RANDOM_CHARS - text.len();
            text.extend(fair.take(missing));
        }
        let checksum = checksum(text.as_bytes());
        text.extend(checksum.map(char::from));
        Self { text, environment }
    }

    /// The secret in `text`, checked by format and checksum alone.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let environment = check(text.as_bytes())?;
        Ok(Self { text: Zeroizing::new(text.to_owned()), environment })
    }

    /// Its SHA-256, for a lookup.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.text)
    }

    /// The environment that its prefix names.
    #[must_use]
    pub const fn environment(&self) -> Environment {
        self.environment
    }

    /// The first characters, which lists may show: the prefix and four more.
    #[must_use]
    pub fn start(&self) -> &str {
        &self.text[..START_CHARS]
    }

    /// The whole secret: to be sent to its owner or sealed, nothing else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Checks format and checksum without a copy; says which environment the prefix names.
///
/// # Errors
/// What is wrong with it.
pub fn check(text: &[u8]) -> Result<Environment, SecretError> {
    let environment = [Environment::Live, Environment::Test]
        .into_iter()
        .find(|environment| text.starts_with(environment.prefix().as_bytes()))
        .ok_or(SecretError::Prefix)?;
    if text.len() != SECRET_BYTES {
        return Err(SecretError::Length);
    }
    if !text[PREFIX_CHARS..].iter().all(u8::is_ascii_alphanumeric) {
        return Err(SecretError::Alphabet);
    }
    let (body, sum) = text.split_at(SECRET_BYTES - CHECKSUM_CHARS);
    if checksum(body) == sum { Ok(environment) } else { Err(SecretError::Checksum) }
}

/// CRC-32 of `body` in base62, most significant digit first.
fn checksum(body: &[u8]) -> [u8; CHECKSUM_CHARS] {
    let mut rest = crc32fast::hash(body);
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// SHA-256 of a secret; the only form that is stored in the clear and looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of a secret's text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        Self(digest.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
    }

    /// The hash that a store holds; `None` unless it has 32 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The hash of 64 hexadecimal characters, as the feed names it.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| Self::from_slice(&bytes))
    }

    /// What a store holds.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", data_encoding::HEXLOWER.encode_display(&self.0))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// Its checksum is zlib's CRC-32, computed outside this program: a format that changes breaks every secret in use.
    const GOLDEN: &str = "km_test_0123456789ABCDEFGHIJKLMNOPQRST3Hvnqc";

    #[test]
    fn a_new_secret_parses_and_hides() {
        for environment in [Environment::Live, Environment::Test] {
            let secret = Secret::generate(environment);
            assert_eq!(Secret::parse(secret.reveal()), Ok(secret.clone()));
            assert!(secret.reveal().starts_with(secret.start()));
            assert_eq!(secret.start().len(), 12);
            assert_eq!(format!("{secret:?} {:?}", secret.hash()), "Secret SecretHash");
            assert_ne!(secret, Secret::generate(environment));
        }
    }

    #[rstest]
    #[case::empty("", SecretError::Prefix)]
    #[case::other_prefix("sk_live_0123456789ABCDEFGHIJKLMNOPQRST000000", SecretError::Prefix)]
    #[case::upper_prefix("KM_LIVE_0123456789ABCDEFGHIJKLMNOPQRST000000", SecretError::Prefix)]
    #[case::bare_prefix("km_live_", SecretError::Length)]
    #[case::trailing_newline("km_live_0123456789ABCDEFGHIJKLMNOPQRST000000\n", SecretError::Length)]
    #[case::not_ascii("km_live_0123456789ABCDEFGHIJKLMNOPQR0000000é", SecretError::Length)]
    #[case::symbol("km_live_0123456789ABCDEFGHIJKLMNOPQR-T000000", SecretError::Alphabet)]
    #[case::checksum("km_live_0123456789ABCDEFGHIJKLMNOPQRST000000", SecretError::Checksum)]
    fn refuses(#[case] text: &str, #[case] error: SecretError) {
        assert_eq!(Secret::parse(text), Err(error));
    }

    #[test]
    fn the_format_is_fixed() {
        assert_eq!(check(GOLDEN.as_bytes()), Ok(Environment::Test));
        assert_eq!(
            SecretHash::of("abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    proptest! {
        #[test]
        fn one_wrong_character_is_noticed(at in PREFIX_CHARS..SECRET_BYTES, to in 0usize..62) {
            let mut bytes = Secret::generate(Environment::Live).reveal().as_bytes().to_vec();
            prop_assume!(bytes[at] != BASE62[to]);
            bytes[at] = BASE62[to];
            prop_assert_eq!(check(&bytes), Err(SecretError::Checksum));
        }

        #[test]
        fn anything_may_be_sent(bytes: Vec<u8>) {
            let _ = check(&bytes);
        }
    }
}
