//! One entry of a workspace's chain, and what is hashed of it. Pure.

use std::fmt;

use aws_lc_rs::digest;
use domain::{KeyId, WorkspaceId};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::canonical::{Content, NotCanonical};

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

/// A key event or an audit entry, but for its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// What happened.
    pub fact: Fact,
    /// `acc_…`, `svc_…`, or the name of a command.
    pub actor: String,
    /// From where.
    pub origin: Origin,
    /// When, to the microsecond.
    pub time: OffsetDateTime,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A row of `key_events`.
    Key {
        /// The key.
        key_id: KeyId,
        /// The key's version that the event made.
        version: i64,
        /// The event's type.
        kind: String,
        /// The event.
        payload: Value,
        /// What the changed fields were; `None` for the first event.
        before: Option<Value>,
    },
    /// A row of `audit_entries`.
    Audit {
        /// What was done.
        action: String,
        /// To what, as a resource name.
        resource: String,
        /// What it was.
        before: Option<Value>,
        /// What it is.
        after: Option<Value>,
    },
}

/// From where somebody asked. An address is personal where the actor is a person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// In the clear, of services.
    pub from_address: Option<String>,
    /// Sealed, of persons.
    pub personal: Option<Sealed>,
}

/// Personal fields, sealed under a key of the person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The key.
    pub person_key_id: Uuid,
    /// The fields.
    pub bytes: Vec<u8>,
}

/// An entry in its place, as a row has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// 1, 2, 3 … in its workspace.
    pub sequence: i64,
    /// The entry; `None` if it was pruned since.
    pub entry: Option<Entry>,
    /// What the row says of the entry's hash.
    pub content_hash: Option<Hash>,
    /// What the row says of the chain up to it.
    pub entry_hash: Option<Hash>,
}

impl Entry {
    /// The hash of everything in it but its place.
    ///
    /// # Errors
    /// If JSON in it has a number that is no integer.
    pub fn content_hash(&self) -> Result<Hash, NotCanonical> {
        let mut content = Content::new(match self.fact {
            Fact::Key { .. } => "keymeter key event 1",
            Fact::Audit { .. } => "keymeter audit entry 1",
        });
        content.bytes(self.workspace_id.as_bytes());
        match &self.fact {
            Fact::Key { key_id, version, kind, payload, before } => {
                content.bytes(key_id.as_bytes());
                content.integer(*version);
                content.bytes(kind.as_bytes());
                content.json(Some(payload))?;
                content.json(before.as_ref())?;
            }
            Fact::Audit { action, resource, before, after } => {
                content.bytes(action.as_bytes());
                content.bytes(resource.as_bytes());
                content.json(before.as_ref())?;
                content.json(after.as_ref())?;
            }
        }
        let Self { actor, origin: Origin { from_address, personal }, time, .. } = self;
        content.bytes(actor.as_bytes());
        content.optional(from_address.as_deref().map(str::as_bytes));
        content.optional(personal.as_ref().map(|sealed| &sealed.person_key_id.as_bytes()[..]));
        content.optional(personal.as_ref().map(|sealed| &sealed.bytes[..]));
        content.integer(micros(*time));
        Ok(content.finish())
    }
}

/// Microseconds since 1970, as Postgres keeps times.
fn micros(time: OffsetDateTime) -> i64 {
    time.unix_timestamp() * 1_000_000 + i64::from(time.microsecond())
}

impl Hash {
    /// What is before the first entry.
    pub const START: Self = Self([0; 32]);

    /// SHA-256 of the previous entry's hash, the sequence as eight bytes, and the content's hash.
    #[must_use]
    pub fn next(&self, sequence: i64, content: &Self) -> Self {
        let linked = [&self.0[..], &sequence.to_be_bytes(), &content.0].concat();
        Self::of_digest(&digest::digest(&digest::SHA256, &linked))
    }

    /// The hash in these bytes, if there are 32.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn of_digest(digest: &digest::Digest) -> Self {
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;
    use time::{Duration, macros::datetime};

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 06:00:00.123456 UTC);

    type Change = dyn Fn(&mut KeyId, &mut i64, &mut String, &mut Value, &mut Option<Value>);

    pub(in crate::ledger) fn entry(workspace_id: WorkspaceId) -> Entry {
        Entry {
            workspace_id,
            fact: Fact::Key {
                key_id: KeyId::from_uuid(Uuid::from_u128(2)),
                version: 2,
                kind: "updated".into(),
                payload: json!({"display_name": "b"}),
                before: Some(json!({"display_name": "a"})),
            },
            actor: "acc_x".into(),
            origin: Origin {
                from_address: None,
                personal: Some(Sealed { person_key_id: Uuid::from_u128(3), bytes: vec![1, 2, 3] }),
            },
            time: NOW,
        }
    }

    fn workspace() -> WorkspaceId {
        WorkspaceId::from_uuid(Uuid::from_u128(1))
    }

    /// What was chained once must be verifiable for ever.
    #[test]
    fn hashes_are_fixed() {
        let key = entry(workspace());
        let audit = Entry {
            fact: Fact::Audit {
                action: "reveal_key".into(),
                resource: "workspaces/x/keys/y".into(),
                before: None,
                after: None,
            },
            origin: Origin { from_address: Some("192.0.2.1".into()), personal: None },
            ..entry(workspace())
        };
        let hash = |entry: &Entry| entry.content_hash().unwrap().to_string();
        assert_eq!(hash(&key), "d31f5b356dd55ed5101d05901cd3e5d15e2360b6cc1b6c24c31e3d1f06bb0303");
        assert_eq!(hash(&audit), "dfcbad4d7471d19712ead090cd4605e84842cabdc5a256021f14848298e6070d");
        let first = Hash::START.next(1, &key.content_hash().unwrap());
        assert_eq!(first.to_string(), "35407dd5882dd8351f42db9e863a8f6444d67c2d36c448645c2981b6477d78f0");
        assert_ne!(first, Hash::START.next(2, &key.content_hash().unwrap()));
    }

    #[test]
    fn every_field_is_hashed() {
        let entry = entry(workspace());
        let with = |change: &dyn Fn(&mut Entry)| {
            let mut changed = entry.clone();
            change(&mut changed);
            changed.content_hash().unwrap()
        };
        let fact = |change: &Change| {
            with(&|entry| {
                let Fact::Key { key_id, version, kind, payload, before } = &mut entry.fact else { panic!() };
                change(key_id, version, kind, payload, before);
            })
        };
        let all = [
            entry.content_hash().unwrap(),
            with(&|entry| entry.workspace_id = WorkspaceId::from_uuid(Uuid::from_u128(9))),
            fact(&|key_id, _, _, _, _| *key_id = KeyId::from_uuid(Uuid::from_u128(9))),
            fact(&|_, version, _, _, _| *version = 3),
            fact(&|_, _, kind, _, _| *kind = "deleted".into()),
            fact(&|_, _, _, payload, _| *payload = json!({"display_name": "c"})),
            fact(&|_, _, _, _, before| *before = None),
            with(&|entry| entry.actor = "acc_y".into()),
            with(&|entry| entry.origin.from_address = Some("192.0.2.1".into())),
            with(&|entry| entry.origin.personal = None),
            with(&|entry| entry.origin.personal.as_mut().unwrap().person_key_id = Uuid::from_u128(9)),
            with(&|entry| entry.origin.personal.as_mut().unwrap().bytes.push(0)),
            with(&|entry| entry.time += Duration::MICROSECOND),
            with(&|entry| {
                entry.fact =
                    Fact::Audit { action: "a".into(), resource: "b".into(), before: None, after: None };
            }),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(all[place + 1..].iter().all(|other| other != one), "{place}");
        }
    }
}
