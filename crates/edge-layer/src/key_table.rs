//! Every secret's hash and what is known of its key: sorted arrays, some 120 bytes a secret. Readers take no lock;
//! a writer swaps one small shard.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use domain::{AddressStorage, KeyId, KeyState, SecretHash, SecretId, WorkspaceId};
use proto::{events as pb, timestamp};
use time::OffsetDateTime;

use crate::network::Network;

/// Shards; with a million keys one update copies some 250 entries.
const SHARDS: usize = 4096;

/// What the edge knows of one secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyEntry {
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// The key.
    pub key_id: KeyId,
    /// Which of the key's secrets.
    pub secret_id: SecretId,
    /// Of the key.
    pub version: u64,
    /// Where it stands in the feed: with the version it says which of two entries is the newer one.
    pub feed_version: u64,
    /// Whether the key works, the policy aside.
    pub state: KeyState,
    /// What is kept of its callers' addresses.
    pub address_storage: AddressStorage,
    /// What most keys have none of.
    pub policy: Option<Arc<Policy>>,
}

/// What limits the use of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// From when on the key does not work; `None` if it has no end.
    pub expires_at: Option<OffsetDateTime>,
    /// From when on this secret does not work, since another took its place.
    pub retires_at: Option<OffsetDateTime>,
    /// From where it works; empty is anywhere.
    pub networks: Box<[Network]>,
    /// What it may do.
    pub scopes: Box<[Box<str>]>,
}

impl KeyEntry {
    fn is_newer_than(&self, other: &Self) -> bool {
        (self.version, self.feed_version) > (other.version, other.feed_version)
    }
}

impl TryFrom<&pb::KeyFeedEntry> for KeyEntry {
    /// The field that is missing or out of bounds.
    type Error = &'static str;

    fn try_from(entry: &pb::KeyFeedEntry) -> Result<Self, Self::Error> {
        let time = |at: &Option<_>, field| match at {
            Some(at) => timestamp::from_proto(at).map(Some).ok_or(field),
            None => Ok(None),
        };
        // One that cannot be read holds nobody, so the key is refused rather than the whole feed.
        let networks = entry.allowed_networks.iter().map(|text| text.parse().unwrap_or(Network::NOWHERE));
        let policy = Policy {
            expires_at: time(&entry.expire_time, "expire_time")?,
            retires_at: time(&entry.retire_time, "retire_time")?,
            networks: networks.collect(),
            scopes: entry.scopes.iter().map(|scope| scope.as_str().into()).collect(),
        };
        Ok(Self {
            workspace_id: WorkspaceId::from_slice(&entry.workspace_id).ok_or("workspace_id")?,
            key_id: KeyId::from_slice(&entry.key_id).ok_or("key_id")?,
            secret_id: SecretId::from_slice(&entry.secret_id).ok_or("secret_id")?,
            version: entry.version,
            feed_version: entry.feed_version,
            state: match pb::KeyState::try_from(entry.state) {
                Ok(pb::KeyState::Active) => KeyState::Active,
                Ok(pb::KeyState::Disabled) => KeyState::Disabled,
                Ok(pb::KeyState::Deleted) => KeyState::Deleted,
                Ok(pb::KeyState::Unspecified) | Err(_) => return Err("state"),
            },
            address_storage: address_storage(entry.address_storage),
            policy: (policy != Policy::default()).then(|| Arc::new(policy)),
        })
    }
}

/// Entries of before the setting say nothing, and are whole; of what is not known yet nothing is kept.
fn address_storage(value: i32) -> AddressStorage {
    match pb::AddressStorage::try_from(value) {
        Ok(pb::AddressStorage::Unspecified | pb::AddressStorage::Whole) => AddressStorage::Whole,
        Ok(pb::AddressStorage::Truncated) => AddressStorage::Truncated,
        Ok(pb::AddressStorage::None) | Err(_) => AddressStorage::None,
    }
}

#[derive(Debug, Clone)]
struct Row {
    hash: SecretHash,
    entry: KeyEntry,
}

/// Sorted by hash, each hash once.
type Shard = Box<[Row]>;

/// The table of all keys.
#[derive(Debug)]
pub(crate) struct KeyTable {
    shards: Box<[ArcSwap<Shard>]>,
    len: AtomicUsize,
}

impl Default for KeyTable {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(), len: AtomicUsize::new(0) }
    }
}

impl KeyTable {
    /// What is known of a secret.
    #[must_use]
    pub(crate) fn get(&self, hash: &SecretHash) -> Option<KeyEntry> {
        let shard = self.shards[shard(hash)].load();
        find(&shard, hash).ok().map(|at| shard[at].entry.clone())
    }

    /// How many secrets are known.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Forgets everything. For one caller at a time, as [`Self::merge`].
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            shard.store(Arc::default());
        }
        self.len.store(0, Relaxed);
    }

    /// Takes new entries; none replaces a newer one. For one caller at a time: the feed.
    pub(crate) fn merge(&self, entries: impl IntoIterator<Item = (SecretHash, KeyEntry)>) {
        let mut rows: Vec<Row> = entries.into_iter().map(|(hash, entry)| Row { hash, entry }).collect();
        // Stable: of two that are equally new the first stays.
        rows.sort_by_key(|row| *row.hash.as_bytes());
        for fresh in rows.chunk_by(|a, b| shard(&a.hash) == shard(&b.hash)) {
            let place = &self.shards[shard(&fresh[0].hash)];
            let known = place.load();
            let merged = merged(&known, fresh);
            self.len.fetch_add(merged.len() - known.len(), Relaxed);
            place.store(Arc::new(merged));
        }
    }
}

/// Both, sorted by hash; of each hash the newest.
fn merged(known: &[Row], fresh: &[Row]) -> Shard {
    let mut rows = Vec::<Row>::with_capacity(known.len() + fresh.len());
    let (mut known, mut fresh) = (known.iter().peekable(), fresh.iter().peekable());
    let is_known_first = |known: Option<&&Row>, fresh: Option<&&Row>| match (known, fresh) {
        (Some(known), Some(fresh)) => Some(known.hash.as_bytes() <= fresh.hash.as_bytes()),
        (Some(_), None) => Some(true),
        (None, Some(_)) => Some(false),
        (None, None) => None,
    };
    while let Some(is_known) = is_known_first(known.peek(), fresh.peek()) {
        let Some(row) = (if is_known { known.next() } else { fresh.next() }) else { break };
        match rows.last_mut().filter(|last| last.hash == row.hash) {
            Some(last) if row.entry.is_newer_than(&last.entry) => last.entry = row.entry.clone(),
            Some(_) => {}
            None => rows.push(row.clone()),
        }
    }
    rows.into_boxed_slice()
}

fn find(shard: &[Row], hash: &SecretHash) -> Result<usize, usize> {
    shard.binary_search_by(|row| row.hash.as_bytes().cmp(hash.as_bytes()))
}

/// A hash is as good as random, so its first bits will do; shards are in the order of hashes.
fn shard(hash: &SecretHash) -> usize {
    let [high, low, ..] = *hash.as_bytes();
    usize::from(u16::from_be_bytes([high, low])) / (usize::from(u16::MAX) / SHARDS + 1)
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
            feed_version: version,
            state,
            address_storage: AddressStorage::Whole,
            policy: None,
        }
    }

    #[test]
    fn an_older_version_never_revives_a_key() {
        let (table, hash) = (KeyTable::default(), SecretHash::of("a"));
        let (active, deleted) = (entry(1, KeyState::Active), entry(2, KeyState::Deleted));
        assert_eq!(table.get(&hash), None);
        table.merge([(hash, active.clone())]);
        assert_eq!(table.get(&hash), Some(active.clone()));
        table.merge([(hash, deleted.clone()), (hash, active.clone())]);
        assert_eq!(table.get(&hash), Some(deleted.clone()));
        table.merge([(hash, active)]);
        assert_eq!(table.get(&hash), Some(deleted.clone()));
        assert_eq!(table.get(&SecretHash::of("b")), None);
        // A workspace that is suspended and comes back changes no version of its keys.
        let suspended = KeyEntry { feed_version: 3, state: KeyState::Disabled, ..deleted.clone() };
        table.merge([(hash, suspended.clone())]);
        table.merge([(hash, deleted)]);
        assert_eq!(table.get(&hash), Some(suspended));
        assert_eq!(table.len(), 1);
        table.clear();
        assert_eq!((table.get(&hash), table.len()), (None, 0));
    }

    #[test]
    fn many_keys_are_all_found() {
        let table = KeyTable::default();
        let keys: Vec<_> =
            (0..10_000).map(|n| (SecretHash::of(&n.to_string()), entry(n, KeyState::Active))).collect();
        for some in keys.chunks(3_000) {
            table.merge(some.iter().cloned());
        }
        table.merge(keys.iter().rev().cloned());
        assert!(keys.iter().all(|(hash, entry)| table.get(hash).as_ref() == Some(entry)));
        assert_eq!(table.len(), keys.len());
    }

    #[test]
    fn an_unknown_way_to_keep_addresses_keeps_none() {
        let of = [0, 1, 2, 3, 99].map(address_storage);
        use AddressStorage::{None, Truncated, Whole};
        assert_eq!(of, [Whole, Whole, Truncated, None, None]);
    }

    #[test]
    fn a_row_is_small() {
        assert!(size_of::<Row>() <= 112, "{} bytes", size_of::<Row>());
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
            |entry| entry.retire_time = Some(prost_types::Timestamp { seconds: i64::MIN, nanos: 0 }),
            "retire_time",
        );
        check(
            |entry| entry.expire_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
            "expire_time",
        );
    }
}
