//! Every secret's hash and what is known of its key: sorted arrays, some 120 bytes a secret. Readers take no lock
//! and touch some five cache lines; a writer swaps one small shard.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use domain::{AddressStorage, KeyId, KeyState, SecretHash, SecretId, WorkspaceId};
use proto::{events as pb, timestamp};
use time::OffsetDateTime;

use crate::{limit::KeyLimits, network::Network};

/// Shards; with a million keys one update copies some 250 entries.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 12;

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
    /// How often it may be used.
    pub limits: Option<KeyLimits>,
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
            limits: KeyLimits::read(&entry.rate_limits),
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

/// The first bytes of a hash, as a number that sorts alike.
type Head = u64;
/// The other bytes of a hash.
type Tail = [u8; 24];

#[derive(Debug, Clone)]
struct Row {
    tail: Tail,
    entry: KeyEntry,
}

/// Sorted by hash, each hash once. The heads stand by themselves, so that a search stays within a line or two.
#[derive(Debug, Default)]
struct Shard {
    heads: Box<[Head]>,
    rows: Box<[Row]>,
}

/// The table of all keys.
#[derive(Debug)]
pub(crate) struct KeyTable {
    shards: Box<[ArcSwap<Shard>]>,
    len: AtomicUsize,
    /// One writer at a time: a shard is read, merged and put back.
    writing: Mutex<()>,
}

impl Default for KeyTable {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| ArcSwap::default()).collect();
        Self { shards, len: AtomicUsize::new(0), writing: Mutex::new(()) }
    }
}

impl KeyTable {
    /// What is known of a secret.
    #[must_use]
    pub(crate) fn get(&self, hash: &SecretHash) -> Option<KeyEntry> {
        let (head, tail) = split(hash);
        self.shards[shard(head)].load().find(head, tail).cloned()
    }

    /// How many secrets are known.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Takes everything that another one has; none replaces a newer one.
    pub(crate) fn absorb(&self, other: &Self) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, fresh) in self.shards.iter().zip(&other.shards) {
            let (known, fresh) = (place.load(), fresh.load_full());
            let merged = if known.rows.is_empty() { fresh } else { Arc::new(known.with(fresh.iter())) };
            self.len.fetch_add(merged.rows.len() - known.rows.len(), Relaxed);
            place.store(merged);
        }
    }

    /// Takes new entries; none replaces a newer one.
    pub(crate) fn merge(&self, entries: impl IntoIterator<Item = (SecretHash, KeyEntry)>) {
        let row = |(hash, entry)| {
            let (head, tail) = split(&hash);
            (head, Row { tail: *tail, entry })
        };
        let mut rows: Vec<(Head, Row)> = entries.into_iter().map(row).collect();
        // Stable: of two that are equally new the first stays.
        rows.sort_by_key(|(head, row)| (*head, row.tail));
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        for fresh in rows.chunk_by(|(a, _), (b, _)| shard(*a) == shard(*b)) {
            let place = &self.shards[shard(fresh[0].0)];
            let known = place.load();
            let merged = known.with(fresh.iter().map(|(head, row)| (*head, row)));
            self.len.fetch_add(merged.rows.len() - known.rows.len(), Relaxed);
            place.store(Arc::new(merged));
        }
    }
}

impl Shard {
    /// Hashes are as good as random, so each stands about where its value says; from there it is a few steps.
    fn find(&self, head: Head, tail: &Tail) -> Option<&KeyEntry> {
        let Self { heads, rows } = self;
        let within = u128::from(head << SHARD_BITS);
        let mut at = usize::try_from((within * heads.len() as u128) >> Head::BITS).unwrap_or(0);
        while at > 0 && heads[at - 1] >= head {
            at -= 1;
        }
        while heads.get(at).is_some_and(|other| *other < head) {
            at += 1;
        }
        let same = heads[at..].iter().take_while(|other| **other == head).count();
        rows[at..at + same].iter().find(|row| row.tail == *tail).map(|row| &row.entry)
    }

    fn iter(&self) -> impl ExactSizeIterator<Item = (Head, &Row)> {
        self.heads.iter().copied().zip(&self.rows)
    }

    /// These rows too, of each hash the newest.
    fn with<'a>(&'a self, fresh: impl ExactSizeIterator<Item = (Head, &'a Row)>) -> Self {
        let most = self.rows.len() + fresh.len();
        let (mut heads, mut rows) = (Vec::with_capacity(most), Vec::<Row>::with_capacity(most));
        let (mut known, mut fresh) = (self.iter().peekable(), fresh.peekable());
        let key = |(head, row): &(Head, &Row)| (*head, row.tail);
        loop {
            let is_known = match (known.peek(), fresh.peek()) {
                (Some(known), Some(fresh)) => key(known) <= key(fresh),
                (known, _) => known.is_some(),
            };
            let Some((head, row)) = (if is_known { known.next() } else { fresh.next() }) else { break };
            let last = rows.last_mut().filter(|last| heads.last() == Some(&head) && last.tail == row.tail);
            match last {
                Some(last) if row.entry.is_newer_than(&last.entry) => last.entry = row.entry.clone(),
                Some(_) => {}
                None => {
                    heads.push(head);
                    rows.push(row.clone());
                }
            }
        }
        Self { heads: heads.into_boxed_slice(), rows: rows.into_boxed_slice() }
    }
}

fn split(hash: &SecretHash) -> (Head, &Tail) {
    let (head, tail) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    (Head::from_be_bytes(*head), tail.try_into().expect("a hash has 32 bytes"))
}

/// A hash is as good as random, so its first bits will do; shards are in the order of hashes.
fn shard(head: Head) -> usize {
    usize::try_from(head >> (Head::BITS - SHARD_BITS)).unwrap_or(0)
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
    }

    #[test]
    fn absorbed_is_what_is_newer() {
        let (table, other) = (KeyTable::default(), KeyTable::default());
        let [both, ours, theirs] = ["both", "ours", "theirs"].map(SecretHash::of);
        let (old, new) = (entry(1, KeyState::Active), entry(2, KeyState::Deleted));
        table.merge([(both, new.clone()), (ours, old.clone())]);
        other.merge([(both, old.clone()), (theirs, new.clone())]);
        table.absorb(&other);
        assert_eq!(
            [both, ours, theirs].map(|hash| table.get(&hash)),
            [Some(new.clone()), Some(old), Some(new)]
        );
        assert_eq!(table.len(), 3);
        let empty = KeyTable::default();
        empty.absorb(&table);
        assert_eq!((empty.len(), empty.get(&both)), (3, table.get(&both)));
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

    /// Hashes that do not stand where their value says: of one head, at both ends, next to each other.
    #[test]
    fn uneven_hashes_are_found() {
        let bytes = |first: u8, last: u8| {
            let mut bytes = [first; 32];
            bytes[31] = last;
            SecretHash::from_slice(&bytes).unwrap()
        };
        let table = KeyTable::default();
        let hashes: Vec<_> =
            [0, 1, 254, 255].iter().flat_map(|first| (0..50).map(|last| bytes(*first, last * 2))).collect();
        let keys: Vec<_> = hashes.iter().map(|hash| (*hash, entry(1, KeyState::Active))).collect();
        table.merge(keys.iter().rev().cloned());
        assert!(keys.iter().all(|(hash, entry)| table.get(hash).as_ref() == Some(entry)));
        for first in [0, 1, 128, 254, 255] {
            assert_eq!(table.get(&bytes(first, 1)), None);
        }
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
        let bytes = size_of::<Head>() + size_of::<Row>();
        assert!(bytes <= 112, "{bytes} bytes");
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
