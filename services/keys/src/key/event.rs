//! What happened to a key, in the form that Postgres keeps for ever. Fields are only ever added, each with a
//! default for what was stored before it.

use std::collections::BTreeMap;

use access::Subject;
use domain::{Environment, SecretHash, SecretId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::Key;

/// What happened to a key; its JSON is what Postgres keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "payload", rename_all = "snake_case")]
pub enum KeyEvent {
    /// It was made, with its first secret.
    Created(Created),
    /// Some fields changed.
    Updated(Changes),
    /// It was switched off.
    Disabled {},
    /// It was switched on again.
    Enabled {},
    /// It got a new secret.
    Rotated(Rotated),
    /// One of its secrets was retired at once.
    SecretRetired(SecretRetired),
    /// A leak of one of its secrets was reported.
    Exposed(Exposed),
    /// It was deleted.
    Deleted {},
}

/// What a key starts with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Created {
    /// What it is for.
    pub display_name: String,
    /// Anything worth knowing.
    pub description: String,
    /// `live` or `test`.
    #[serde(with = "environment")]
    pub environment: Environment,
    /// `None` is never.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expire_time: Option<OffsetDateTime>,
    /// First characters of the secret.
    pub start: String,
    /// The secret's id, as text.
    pub secret_id: String,
    /// The secret's hash, in hexadecimal.
    pub secret_hash: String,
    /// Whatever helps to find it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Who answers for it; `None` in events from before there were owners.
    #[serde(default, with = "owner", skip_serializing_if = "Option::is_none")]
    pub owner: Option<Subject>,
    /// What it may do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// From where it may be used; empty is from anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_networks: Vec<IpNet>,
    /// What it may be called at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limits: Vec<RateLimit>,
}

impl Created {
    /// The secret's id and hash; `None` if the event is damaged.
    #[must_use]
    pub fn secret(&self) -> Option<(SecretId, SecretHash)> {
        secret(&self.secret_id, &self.secret_hash)
    }
}

/// At most so many requests in a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Unique in its key.
    pub name: String,
    /// At least 1.
    pub requests: i64,
    /// In seconds.
    pub window_s: u32,
}

/// New values of fields; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Changes {
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Anything worth knowing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it stops working.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_time: Option<Expiry>,
    /// All of its tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// Who answers for it.
    #[serde(with = "owner", skip_serializing_if = "Option::is_none")]
    pub owner: Option<Subject>,
    /// All of its scopes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// All of its networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_networks: Option<Vec<IpNet>>,
    /// All of its limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limits: Option<Vec<RateLimit>>,
}

impl Changes {
    /// Without what the key has already.
    #[must_use]
    pub fn without_same(self, key: &Key) -> Self {
        Self {
            display_name: self.display_name.filter(|name| *name != key.display_name),
            description: self.description.filter(|text| *text != key.description),
            expire_time: self.expire_time.filter(|expiry| expiry.time() != key.expire_time),
            tags: self.tags.filter(|tags| *tags != key.tags),
            owner: self.owner.filter(|owner| Some(*owner) != key.owner),
            scopes: self.scopes.filter(|scopes| *scopes != key.scopes),
            allowed_networks: self.allowed_networks.filter(|networks| *networks != key.allowed_networks),
            rate_limits: self.rate_limits.filter(|limits| *limits != key.rate_limits),
        }
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// When a key stops working, where "not at all" must be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// Never.
    Never,
    /// At that time.
    At(#[serde(with = "time::serde::rfc3339")] OffsetDateTime),
}

impl Expiry {
    /// The time, if any.
    #[must_use]
    pub const fn time(self) -> Option<OffsetDateTime> {
        match self {
            Self::Never => None,
            Self::At(at) => Some(at),
        }
    }
}

impl From<Option<OffsetDateTime>> for Expiry {
    fn from(at: Option<OffsetDateTime>) -> Self {
        at.map_or(Self::Never, Self::At)
    }
}

/// A new secret, and what it means for those before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotated {
    /// First characters of the new secret.
    pub start: String,
    /// Its id, as text.
    pub secret_id: String,
    /// Its hash, in hexadecimal.
    pub secret_hash: String,
    /// Ids of the secrets that are told to retire, as text.
    pub retired: Vec<String>,
    /// When they do.
    #[serde(with = "time::serde::rfc3339")]
    pub retire_time: OffsetDateTime,
}

impl Rotated {
    /// The new secret's id and hash; `None` if the event is damaged.
    #[must_use]
    pub fn secret(&self) -> Option<(SecretId, SecretHash)> {
        secret(&self.secret_id, &self.secret_hash)
    }
}

/// Which secret was retired at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRetired {
    /// Its id, as text.
    pub secret_id: String,
}

/// Where a secret was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exposed {
    /// Its id, as text.
    pub secret_id: String,
    /// The kind of place, in the reporter's words: `commit`, `issue_comment` …
    pub source: String,
    /// The place; may be empty.
    pub url: String,
}

fn secret(secret_id: &str, secret_hash: &str) -> Option<(SecretId, SecretHash)> {
    Some((secret_id.parse().ok()?, SecretHash::from_hex(secret_hash)?))
}

mod environment {
    use domain::Environment;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &Environment, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Environment, D::Error> {
        let name = String::deserialize(from)?;
        name.parse().map_err(|()| D::Error::custom("neither live nor test"))
    }
}

mod owner {
    use access::Subject;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &Option<Subject>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(owner) => to.collect_str(owner),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Subject>, D::Error> {
        let name: Option<String> = Option::deserialize(from)?;
        name.map(|name| name.parse().map_err(D::Error::custom)).transpose()
    }
}
