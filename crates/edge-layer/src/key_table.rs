//! Every secret's hash and what is known of its key. Readers take no lock; a writer swaps one small shard.

use std::collections::HashMap;

use arc_swap::ArcSwap;
use domain::{KeyId, KeyState, SecretHash, SecretId, WorkspaceId};
use proto::{events as pb, timestamp};
use time::OffsetDateTime;

/// Shards; with a million keys one update copies some 250 entries.
const SHARDS: usize = 4096;

/// What the edge knows of one secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyEntry {
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// The key.
    pub key_id: KeyId,
    /// Which of the key's secrets.
    pub secret_id: SecretId,
    /// Of the key; an entry never replaces one with a higher version.
    pub version: u64,
    /// Whether the key works, its expiry aside.
    pub state: KeyState,
    /// From when on the key does not work; `None` if it has no end.
    pub expires_at: Option<OffsetDateTime>,
}

impl TryFrom<&pb::KeyFeedEntry> for KeyEntry {
    /// The field that is missing or out of bounds.
    type Error = &'static str;

    fn try_from(entry: &pb::KeyFeedEntry) -> Result<Self, Self::Error> {
        Ok(Self {
            workspace_id: WorkspaceId::from_slice(&entry.workspace_id).ok_or("workspace_id")?,
            key_id: KeyId::from_slice(&entry.key_id).ok_or("key_id")?,
            secret_id: SecretId::from_slice(&entry.secret_id).ok_or("secret_id")?,
            version: entry.version,
            state: match pb::KeyState::try_from(entry.state) {
                Ok(pb::KeyState::Active) => KeyState::Active,
                Ok(pb::KeyState::Disabled) => KeyState::Disabled,
                Ok(pb::KeyState::Deleted) => KeyState::Deleted,
                Ok(pb::KeyState::Unspecified) | Err(_) => return Err("state"),
            },
            expires_at: match &entry.expire_time {
                Some(at) => Some(timestamp::from_proto(at).ok_or("expire_time")?),
                None => None,
            },
        })
    }
}

type Shard = HashMap<SecretHash, KeyEntry>;

/// The table of all keys.
#[derive(Debug)]
pub(crate) struct KeyTable {
    shards: Box<[ArcSwap<Shard>]>,
}

impl Default for KeyTable {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| ArcSwap::default()).collect() }
    }
}

impl KeyTable {
    /// What is known of a secret.
    #[must_use]
    pub(crate) fn get(&self, hash: &SecretHash) -> Option<KeyEntry> {
        self.shards[shard(hash)].load().get(hash).copied()
    }

    /// Takes new entries. For one caller at a time: the feed.
    pub(crate) fn merge(&self, entries: impl IntoIterator<Item = (SecretHash, KeyEntry)>) {
        let mut by_shard = HashMap::<usize, Vec<(SecretHash, KeyEntry)>>::new();
        for (hash, entry) in entries {
            by_shard.entry(shard(&hash)).or_default().push((hash, entry));
        }
        for (shard, entries) in by_shard {
            let mut fresh = Shard::clone(&self.shards[shard].load());
            for (hash, entry) in entries {
                let known = fresh.entry(hash).or_insert(entry);
                if entry.version > known.version {
                    *known = entry;
                }
            }
            self.shards[shard].store(fresh.into());
        }
    }
}

/// A hash is as good as random, so its first bits will do.
fn shard(hash: &SecretHash) -> usize {
    let [high, low, ..] = *hash.as_bytes();
    usize::from(u16::from_be_bytes([high, low])) % SHARDS
}

#[cfg(test)]
mod tests {
    use domain::Id;

    use super::*;

    fn entry(version: u64, state: KeyState) -> KeyEntry {
        KeyEntry {
            workspace_id: Id::generate(),
            key_id: Id::generate(),
            secret_id: Id::generate(),
            version,
            state,
            expires_at: None,
        }
    }

    #[test]
    fn an_older_version_never_revives_a_key() {
        let (table, hash) = (KeyTable::default(), SecretHash::of("a"));
        let (active, deleted) = (entry(1, KeyState::Active), entry(2, KeyState::Deleted));
        assert_eq!(table.get(&hash), None);
        table.merge([(hash, active)]);
        assert_eq!(table.get(&hash), Some(active));
        table.merge([(hash, deleted), (hash, active)]);
        assert_eq!(table.get(&hash), Some(deleted));
        table.merge([(hash, active)]);
        assert_eq!(table.get(&hash), Some(deleted));
        assert_eq!(table.get(&SecretHash::of("b")), None);
    }

    #[test]
    fn many_keys_are_all_found() {
        let table = KeyTable::default();
        let keys: Vec<_> =
            (0..10_000).map(|n| (SecretHash::of(&n.to_string()), entry(n, KeyState::Active))).collect();
        table.merge(keys.iter().copied());
        assert!(keys.iter().all(|(hash, entry)| table.get(hash) == Some(*entry)));
    }

    #[test]
    fn a_garbled_entry_is_refused_by_field() {
        let good = pb::KeyFeedEntry {
            workspace_id: vec![1; 16],
            key_id: vec![2; 16],
            secret_id: vec![3; 16],
            version: 1,
            feed_version: 1,
            state: pb::KeyState::Active.into(),
            expire_time: None,
            ..pb::KeyFeedEntry::default()
        };
        assert!(KeyEntry::try_from(&good).is_ok());
        let check = |change: fn(&mut pb::KeyFeedEntry), field| {
            let mut entry = good.clone();
            change(&mut entry);
            assert_eq!(KeyEntry::try_from(&entry), Err(field));
        };
        check(|entry| entry.workspace_id.clear(), "workspace_id");
        check(|entry| entry.key_id.push(0), "key_id");
        check(|entry| entry.secret_id.truncate(1), "secret_id");
        check(|entry| entry.state = 0, "state");
        check(|entry| entry.state = 99, "state");
        check(
            |entry| entry.expire_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
            "expire_time",
        );
    }
}
