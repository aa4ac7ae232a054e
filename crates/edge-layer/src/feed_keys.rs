//! The public keys that the key feed is checked with. What none of them signed, for the place where it stands, is
//! as good as nothing.

use std::collections::HashMap;

use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use prost::Message;
use proto::{events::SignedFeedMessage, nats::signed_bytes};

/// Public keys by their names; parsed from what `keys feed-keys` prints.
#[derive(Debug, Clone)]
pub struct FeedKeys {
    by_kid: HashMap<String, ParsedPublicKey>,
}

/// Why a text holds no feed keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedKeysError {
    /// There is no key at all.
    #[error("it holds no key; fill it with the output of `keys feed-keys`")]
    Empty,
    /// A line is none.
    #[error(
        "line {0} is not `kid base64` of an Ed25519 public key; fill it with the output of `keys feed-keys`"
    )]
    Line(usize),
}

impl std::str::FromStr for FeedKeys {
    type Err = FeedKeysError;

    fn from_str(text: &str) -> Result<Self, FeedKeysError> {
        let mut by_kid = HashMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let (kid, key) = parse(line).ok_or(FeedKeysError::Line(number + 1))?;
            by_kid.insert(kid, key);
        }
        if by_kid.is_empty() { Err(FeedKeysError::Empty) } else { Ok(Self { by_kid }) }
    }
}

impl FeedKeys {
    /// The message of a value, if one of the keys signed it for `purpose`.
    pub(crate) fn open<M: Message + Default>(&self, purpose: &str, value: &[u8]) -> Option<M> {
        M::decode(self.open_bytes(purpose, value)?.as_slice()).ok()
    }

    /// The encoded message of a value, if one of the keys signed it for `purpose`.
    pub(crate) fn open_bytes(&self, purpose: &str, value: &[u8]) -> Option<Vec<u8>> {
        let signed = SignedFeedMessage::decode(value).ok()?;
        let key = self.by_kid.get(&signed.kid)?;
        key.verify_sig(&signed_bytes(purpose, &signed.message), &signed.signature).ok()?;
        Some(signed.message)
    }
}

fn parse(line: &str) -> Option<(String, ParsedPublicKey)> {
    let (kid, key) = line.trim().split_once(' ')?;
    let key = data_encoding::BASE64.decode(key.trim().as_bytes()).ok()?;
    let key = ParsedPublicKey::new(&ED25519, key).ok()?;
    Some((kid.to_owned(), key))
}

#[cfg(test)]
pub(crate) mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use rstest::rstest;

    use super::*;

    /// Signs as keys does.
    pub(crate) fn signed(pair: &Ed25519KeyPair, kid: &str, purpose: &str, message: &impl Message) -> Vec<u8> {
        let message = message.encode_to_vec();
        let signature = pair.sign(&signed_bytes(purpose, &message)).as_ref().to_vec();
        SignedFeedMessage { kid: kid.into(), signature, message }.encode_to_vec()
    }

    fn line(pair: &Ed25519KeyPair) -> String {
        format!("k1 {}\n", data_encoding::BASE64.encode(pair.public_key().as_ref()))
    }

    #[test]
    fn only_the_right_key_and_purpose_open() {
        let (pair, other) = (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
        let keys: FeedKeys = line(&pair).parse().unwrap();
        let head = proto::events::FeedHead { secrets: 3, ..Default::default() };
        let good = signed(&pair, "k1", "a", &head);
        let open = |purpose: &str, value: &[u8]| keys.open::<proto::events::FeedHead>(purpose, value);
        assert_eq!(open("a", &good), Some(head));
        assert_eq!(open("b", &good), None);
        assert_eq!(open("a", &signed(&other, "k1", "a", &head)), None);
        assert_eq!(open("a", &signed(&pair, "k2", "a", &head)), None);
        assert_eq!(open("a", &head.encode_to_vec()), None);
        assert_eq!(open("a", b""), None);
        let mut flipped = good;
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(open("a", &flipped), None);
    }

    #[rstest]
    #[case("", FeedKeysError::Empty)]
    #[case("\n \n", FeedKeysError::Empty)]
    #[case("k1", FeedKeysError::Line(1))]
    #[case("\nk1 no base64", FeedKeysError::Line(2))]
    #[case("k1 AAAA", FeedKeysError::Line(1))]
    fn a_bad_file_is_told(#[case] text: &str, #[case] error: FeedKeysError) {
        assert_eq!(text.parse::<FeedKeys>().unwrap_err(), error);
    }
}
