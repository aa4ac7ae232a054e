//! Typed ids: a UUIDv7 that prints as a prefix and 26 characters, `key_01jd…`.
//!
//! The text is base32hex in lower case, so ids sort as text in the order in which they were made.
//! Postgres and ClickHouse hold the UUID itself.

use std::{fmt, hash::Hash, marker::PhantomData, str::FromStr, sync::LazyLock};

use data_encoding::{Encoding, Specification};
use uuid::Uuid;

/// What an id names; its prefix is the fixed start of the id's text.
pub trait Noun {
    /// Lead of the text form with its underscore, for example `key_`.
    const PREFIX: &'static str;
}

macro_rules! nouns {
    ($($(#[$doc:meta])* $noun:ident, $id:ident, $prefix:literal;)*) => {$(
        #[doc = concat!("Marks ids that start with `", $prefix, "`.")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $noun {}
        impl Noun for $noun {
            const PREFIX: &'static str = $prefix;
        }
        $(#[$doc])*
        pub type $id = Id<$noun>;
    )*};
}

nouns! {
    /// A workspace, the tenant.
    WorkspaceNoun, WorkspaceId, "ws_";
    /// An API key, over all of its secrets.
    KeyNoun, KeyId, "key_";
    /// One secret of a key.
    SecretNoun, SecretId, "sec_";
    /// One API call.
    RequestNoun, RequestId, "req_";
    /// A person who signs in.
    AccountNoun, AccountId, "acc_";
    /// A token of an internal service.
    ServiceTokenNoun, ServiceTokenId, "svc_";
    /// A person who was asked into a workspace.
    InvitationNoun, InvitationId, "inv_";
    /// An edge, for as long as its spool folder lives.
    EdgeNoun, EdgeId, "edge_";
}

/// An id of one noun: 128 bits, a UUIDv7.
pub struct Id<N>(Uuid, PhantomData<fn() -> N>);

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {prefix} followed by 26 characters of 0-9 and a-v")]
pub struct IdError {
    prefix: &'static str,
}

/// RFC 4648 base32hex, lower case, no padding: 16 bytes are 26 characters.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("0123456789abcdefghijklmnopqrstuv");
    spec.encoding().expect("the alphabet has 32 distinct characters")
});

/// Characters after the prefix.
const DIGITS: usize = 26;

impl<N> Id<N> {
    /// A new id; its first 48 bits are the time in milliseconds.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_uuid(Uuid::now_v7())
    }

    /// The id that a store holds as `uuid`.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }

    /// The id of 16 bytes, big-endian; `None` for any other length.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self::from_uuid)
    }

    /// What a store holds.
    #[must_use]
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }

    /// 16 bytes, big-endian.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl<N: Noun> FromStr for Id<N> {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.strip_prefix(N::PREFIX)
            .and_then(|digits| BASE32.decode(digits.as_bytes()).ok())
            .and_then(|bytes| Self::from_slice(&bytes))
            .ok_or(IdError { prefix: N::PREFIX })
    }
}

impl<N: Noun> fmt::Display for Id<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; DIGITS];
        BASE32.encode_mut(self.0.as_bytes(), &mut digits);
        f.write_str(N::PREFIX)?;
        f.write_str(str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl<N: Noun> fmt::Debug for Id<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// By hand, since a derive would ask the same of the marker type.
impl<N> Clone for Id<N> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<N> Copy for Id<N> {}
impl<N> PartialEq for Id<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<N> Eq for Id<N> {}
impl<N> PartialOrd for Id<N> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<N> Ord for Id<N> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<N> Hash for Id<N> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::empty("")]
    #[case::other_noun("ws_00000000000000000000000000")]
    #[case::short("key_0000000000000000000000000")]
    #[case::long("key_000000000000000000000000000")]
    #[case::upper("key_0000000000000000000000000A")]
    #[case::outside_alphabet("key_0000000000000000000000000w")]
    #[case::set_padding_bits("key_00000000000000000000000001")]
    #[case::not_ascii("key_000000000000000000000000é")]
    fn refuses(#[case] text: &str) {
        assert_eq!(text.parse::<KeyId>(), Err(IdError { prefix: "key_" }));
    }

    proptest! {
        #[test]
        fn text_round_trips_and_keeps_order(a: [u8; 16], b: [u8; 16]) {
            let (a, b) = (KeyId::from_uuid(Uuid::from_bytes(a)), KeyId::from_uuid(Uuid::from_bytes(b)));
            prop_assert_eq!(a.to_string().parse::<KeyId>(), Ok(a));
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
        }
    }
}
