//! A key as its events make it. Pure: takes the time, knows no store and no wire.

use domain::{Environment, KeyId, SecretHash, SecretId, WorkspaceId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A key, after some number of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// Its id, for good.
    pub key_id: KeyId,
    /// How many events it has had; the first makes it 1.
    pub version: i64,
    /// What it is for.
    pub display_name: String,
    /// Anything worth knowing; may be empty.
    pub description: String,
    /// Where it may be used.
    pub environment: Environment,
    /// First characters of its secret.
    pub start: String,
    /// When it was made.
    pub create_time: OffsetDateTime,
    /// When it last changed.
    pub update_time: OffsetDateTime,
    /// When it stops working; `None` is never.
    pub expire_time: Option<OffsetDateTime>,
    /// When it was deleted.
    pub delete_time: Option<OffsetDateTime>,
}

/// Whether a key works at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Accepted.
    Active,
    /// Its expiry has passed.
    Expired,
    /// Refused for good.
    Deleted,
}

/// What happened to a key; its JSON is what Postgres keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "payload", rename_all = "snake_case")]
pub enum KeyEvent {
    /// It was made, with its first secret.
    Created(Created),
    /// Some fields changed.
    Updated(Changes),
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
}

impl Created {
    /// The secret's id and hash; `None` if the event is damaged.
    #[must_use]
    pub fn secret(&self) -> Option<(SecretId, SecretHash)> {
        Some((self.secret_id.parse().ok()?, SecretHash::from_hex(&self.secret_hash)?))
    }
}

/// New values of fields; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Anything worth knowing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it stops working.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_time: Option<Expiry>,
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

impl Changes {
    /// Without what the key has already.
    #[must_use]
    pub fn without_same(self, key: &Key) -> Self {
        Self {
            display_name: self.display_name.filter(|name| *name != key.display_name),
            description: self.description.filter(|text| *text != key.description),
            expire_time: self.expire_time.filter(|expiry| expiry.time() != key.expire_time),
        }
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Key {
    /// The key that a first event makes.
    #[must_use]
    pub fn created(workspace_id: WorkspaceId, key_id: KeyId, event: &Created, at: OffsetDateTime) -> Self {
        Self {
            workspace_id,
            key_id,
            version: 1,
            display_name: event.display_name.clone(),
            description: event.description.clone(),
            environment: event.environment,
            start: event.start.clone(),
            create_time: at,
            update_time: at,
            expire_time: event.expire_time,
            delete_time: None,
        }
    }

    /// The key after one more event. A second `Created` changes nothing but the version.
    #[must_use]
    pub fn after(mut self, event: &KeyEvent, at: OffsetDateTime) -> Self {
        self.version += 1;
        self.update_time = at;
        match event {
            KeyEvent::Created(_) => {}
            KeyEvent::Updated(changes) => {
                if let Some(display_name) = &changes.display_name {
                    self.display_name.clone_from(display_name);
                }
                if let Some(description) = &changes.description {
                    self.description.clone_from(description);
                }
                if let Some(expiry) = changes.expire_time {
                    self.expire_time = expiry.time();
                }
            }
            KeyEvent::Deleted {} => self.delete_time = Some(at),
        }
        self
    }

    /// Whether it works at `now`.
    #[must_use]
    pub fn standing(&self, now: OffsetDateTime) -> Standing {
        if self.delete_time.is_some() {
            Standing::Deleted
        } else if self.expire_time.is_some_and(|end| end <= now) {
            Standing::Expired
        } else {
            Standing::Active
        }
    }

    /// Changes with every visible change, also when the expiry passes.
    #[must_use]
    pub fn etag(&self, now: OffsetDateTime) -> String {
        let standing = self.standing(now) as u8;
        let seen = [&self.key_id.as_bytes()[..], &self.version.to_be_bytes(), &[standing]].concat();
        data_encoding::HEXLOWER.encode(&crate::token::sha256(&seen)[..8])
    }
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

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 06:00 UTC);

    fn created() -> Created {
        Created {
            display_name: "billing".into(),
            description: "nightly".into(),
            environment: Environment::Test,
            expire_time: None,
            start: "km_test_0123".into(),
            secret_id: SecretId::generate().to_string(),
            secret_hash: "ab".repeat(32),
        }
    }

    fn key() -> Key {
        Key::created(WorkspaceId::generate(), KeyId::generate(), &created(), NOW)
    }

    #[test]
    fn events_make_the_key() {
        let (later, end) = (NOW + Duration::HOUR, NOW + Duration::DAY);
        let key = key();
        let named = Changes { display_name: Some("payroll".into()), ..Changes::default() };
        let expiring = Changes { expire_time: Some(Expiry::At(end)), ..Changes::default() };
        let endless = Changes { expire_time: Some(Expiry::Never), ..Changes::default() };
        let updated = key.clone().after(&KeyEvent::Updated(named), later);
        assert_eq!(updated, Key { version: 2, display_name: "payroll".into(), update_time: later, ..key });
        let updated = updated.after(&KeyEvent::Updated(expiring), later);
        assert_eq!((updated.version, updated.expire_time), (3, Some(end)));
        let updated = updated.after(&KeyEvent::Updated(endless), later);
        assert_eq!((updated.version, updated.expire_time), (4, None));
        let deleted = updated.after(&KeyEvent::Deleted {}, end);
        assert_eq!((deleted.version, deleted.delete_time, deleted.update_time), (5, Some(end), end));
    }

    #[test]
    fn standing_follows_from_the_time() {
        let key = Key { expire_time: Some(NOW + Duration::HOUR), ..key() };
        assert_eq!(key.standing(NOW), Standing::Active);
        assert_eq!(key.standing(NOW + Duration::HOUR), Standing::Expired);
        let deleted = Key { delete_time: Some(NOW), ..key.clone() };
        assert_eq!(deleted.standing(NOW + Duration::HOUR), Standing::Deleted);
        assert_ne!(key.etag(NOW), key.etag(NOW + Duration::HOUR));
        assert_eq!(key.etag(NOW), key.etag(NOW + Duration::MINUTE));
        assert_ne!(key.etag(NOW), Key { version: 2, ..key }.etag(NOW));
    }

    #[test]
    fn what_is_the_same_is_no_change() {
        let key = Key { expire_time: Some(NOW), ..key() };
        let same = Changes {
            display_name: Some(key.display_name.clone()),
            description: Some(key.description.clone()),
            expire_time: Some(Expiry::At(NOW)),
        };
        assert!(same.without_same(&key).is_empty());
        let endless = Changes { expire_time: Some(Expiry::Never), ..Changes::default() };
        assert_eq!(endless.clone().without_same(&key), endless);
    }

    /// What is in Postgres must be readable for ever.
    #[test]
    fn stored_forms_are_fixed() {
        let check = |event: &KeyEvent, json: &str| {
            assert_eq!(serde_json::to_string(event).unwrap(), json);
            assert_eq!(&serde_json::from_str::<KeyEvent>(json).unwrap(), event);
        };
        let created = Created { secret_id: "sec_x".into(), expire_time: Some(NOW), ..created() };
        check(
            &KeyEvent::Created(Created { secret_hash: "00".into(), ..created }),
            r#"{"type":"created","payload":{"display_name":"billing","description":"nightly","environment":"test","expire_time":"2026-11-22T06:00:00Z","start":"km_test_0123","secret_id":"sec_x","secret_hash":"00"}}"#,
        );
        let changes = |expire_time| Changes { expire_time: Some(expire_time), ..Changes::default() };
        check(
            &KeyEvent::Updated(changes(Expiry::Never)),
            r#"{"type":"updated","payload":{"expire_time":"never"}}"#,
        );
        check(
            &KeyEvent::Updated(changes(Expiry::At(NOW))),
            r#"{"type":"updated","payload":{"expire_time":{"at":"2026-11-22T06:00:00Z"}}}"#,
        );
        check(&KeyEvent::Deleted {}, r#"{"type":"deleted","payload":{}}"#);
    }
}
