//! Opaque tokens: sessions of people, tokens of services, invitations. Random, so a plain SHA-256 is enough to store.

use aws_lc_rs::{digest, rand};
use data_encoding::BASE64URL_NOPAD;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

/// Lead of a session token.
pub const SESSION: &str = "kmses_";
/// Lead of a service token.
pub const SERVICE: &str = "kmsvc_";
/// Lead of an invitation's token.
pub const INVITATION: &str = "kminv_";
/// How many characters lists show.
const START_CHARS: usize = 12;
/// Longest text that is looked up as a token, in bytes.
pub const BYTES_MAX: usize = 128;

const RANDOM_BYTES: usize = 32;

/// A new token: the lead and 43 characters of randomness.
///
/// # Panics
/// If the operating system has no randomness to give.
#[must_use]
pub fn generate(lead: &str) -> SecretString {
    let mut bytes = Zeroizing::new([0; RANDOM_BYTES]);
    rand::fill(bytes.as_mut_slice()).expect("the operating system gives randomness");
    let digits = Zeroizing::new(BASE64URL_NOPAD.encode(bytes.as_slice()));
    format!("{lead}{}", digits.as_str()).into()
}

/// Whether a text has the form of a token with this lead.
#[must_use]
pub fn is_well_formed(lead: &str, text: &str) -> bool {
    text.strip_prefix(lead)
        .and_then(|digits| BASE64URL_NOPAD.decode(digits.as_bytes()).map(Zeroizing::new).ok())
        .is_some_and(|bytes| bytes.len() == RANDOM_BYTES)
}

/// The first characters of a token, to recognise it by in lists.
#[must_use]
pub fn start(token: &SecretString) -> String {
    token.expose_secret().chars().take(START_CHARS).collect()
}

/// What Postgres keeps of a token.
#[must_use]
pub fn hash(text: &str) -> Vec<u8> {
    sha256(text.as_bytes())
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_recognised_and_never_printed() {
        let token = generate(SERVICE);
        let text = token.expose_secret();
        assert!(is_well_formed(SERVICE, text) && text.len() <= BYTES_MAX);
        assert!(!is_well_formed(SESSION, text));
        assert!(text.starts_with(&start(&token)) && start(&token).len() == START_CHARS);
        assert!(!is_well_formed(SERVICE, &text[..text.len() - 1]));
        assert!(!is_well_formed(SERVICE, SERVICE));
        assert!(!format!("{token:?}").contains(&text[SERVICE.len()..]));
        assert_ne!(hash(text), hash(generate(SERVICE).expose_secret()));
    }
}
