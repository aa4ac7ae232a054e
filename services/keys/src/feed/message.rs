//! What the feed says to edges, signed for the place where it stands. Pure.

use domain::{AddressStorage, KeyState, SecretHash};
use prost::Message as _;
use proto::{
    events::{
        AddressStorage as PbAddressStorage, FeedHead, FeedSnapshot, HashedFeedEntry, KeyFeedEntry,
        KeyState as PbState, RateLimit, SignedFeedMessage,
    },
    nats::{FEED_HEAD_PURPOSE, FEED_WATCH_PURPOSE, feed_entry_purpose, feed_snapshot_purpose},
    timestamp::to_proto,
};
use time::OffsetDateTime;

use crate::{
    signing::Signing,
    store::outbox::{Entry, FeedState},
};

/// The value of an entry.
pub(super) fn signed_entry(entry: &Entry, signing: &Signing) -> Vec<u8> {
    signed(signing, &feed_entry_purpose(&entry.hash.to_string()), &message(entry))
}

/// The value of an entry that says that the key of a known one is deleted.
pub(super) fn signed_tombstone(hash: &SecretHash, known: KeyFeedEntry, signing: &Signing) -> Vec<u8> {
    let tombstone = KeyFeedEntry { version: known.version + 1, state: PbState::Deleted.into(), ..known };
    signed(signing, &feed_entry_purpose(&hash.to_string()), &tombstone)
}

/// The value of the head.
pub(super) fn signed_head(head: &FeedHead, signing: &Signing) -> Vec<u8> {
    signed(signing, FEED_HEAD_PURPOSE, head)
}

/// The value of a part of the snapshot: the bucket as `state` has it, with what `entries` say.
pub(super) fn signed_part(part: &str, state: &FeedState, entries: &[Entry], signing: &Signing) -> Vec<u8> {
    let position = state.position.as_ref();
    let snapshot = FeedSnapshot {
        bucket_created_us: position.map_or(0, |position| micros(position.created)),
        bucket_sequence: position.map_or(0, |position| position.sequence.unsigned_abs()),
        feed_version: state.feed_version.unsigned_abs(),
        entries: entries.iter().map(hashed).collect(),
        fills: state.fills.unsigned_abs(),
    };
    signed(signing, &feed_snapshot_purpose(part), &snapshot)
}

/// An entry with its hash, for what is signed as a whole.
pub(super) fn hashed(entry: &Entry) -> HashedFeedEntry {
    HashedFeedEntry { secret_hash: entry.hash.as_bytes().to_vec(), entry: Some(message(entry)) }
}

/// The message of a watch; `batch` is encoded already, since the next one names its hash.
pub(super) fn signed_batch(batch: Vec<u8>, signing: &Signing) -> Vec<u8> {
    let signature = signing.sign(FEED_WATCH_PURPOSE, &batch);
    SignedFeedMessage { kid: signature.kid, signature: signature.bytes, message: batch }.encode_to_vec()
}

/// The entry under a hash, if we signed it for that place; what anybody else wrote there is as good as nothing.
pub(super) fn own_entry(hash: &SecretHash, value: &[u8], signing: &Signing) -> Option<KeyFeedEntry> {
    opened(signing, &feed_entry_purpose(&hash.to_string()), value)
}

/// The head, if we signed it.
pub(super) fn own_head(value: &[u8], signing: &Signing) -> Option<FeedHead> {
    opened(signing, FEED_HEAD_PURPOSE, value)
}

/// Whether an entry is newer than a known one: a higher version of the key, or the same at a later place in the
/// feed.
pub(super) fn replaces(entry: &Entry, known: &KeyFeedEntry) -> bool {
    (entry.version.unsigned_abs(), entry.feed_version.unsigned_abs()) > (known.version, known.feed_version)
}

/// Microseconds since 1970.
pub(super) fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

fn message(entry: &Entry) -> KeyFeedEntry {
    let state = match entry.state {
        KeyState::Active => PbState::Active,
        KeyState::Disabled => PbState::Disabled,
        KeyState::Deleted => PbState::Deleted,
    };
    let address_storage = match entry.address_storage {
        AddressStorage::Whole => PbAddressStorage::Whole,
        AddressStorage::Truncated => PbAddressStorage::Truncated,
        AddressStorage::None => PbAddressStorage::None,
    };
    let limit = |limit: &crate::store::outbox::RateLimit| RateLimit {
        name: limit.name.clone(),
        requests: limit.requests,
        window_s: limit.window_s,
    };
    KeyFeedEntry {
        workspace_id: entry.workspace_id.as_bytes().to_vec(),
        key_id: entry.key_id.as_bytes().to_vec(),
        secret_id: entry.secret_id.as_bytes().to_vec(),
        version: entry.version.unsigned_abs(),
        feed_version: entry.feed_version.unsigned_abs(),
        state: state.into(),
        expire_time: entry.expire_time.map(to_proto),
        retire_time: entry.retire_time.map(to_proto),
        scopes: entry.scopes.clone(),
        allowed_networks: entry.allowed_networks.clone(),
        rate_limits: entry.rate_limits.iter().map(limit).collect(),
        address_storage: address_storage.into(),
    }
}

fn signed(signing: &Signing, purpose: &str, message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let signature = signing.sign(purpose, &message);
    SignedFeedMessage { kid: signature.kid, signature: signature.bytes, message }.encode_to_vec()
}

fn opened<M: prost::Message + Default>(signing: &Signing, purpose: &str, value: &[u8]) -> Option<M> {
    let signed = SignedFeedMessage::decode(value).ok()?;
    let good = signing.verifies(purpose, &signed.message, &signed.kid, &signed.signature);
    good.then(|| M::decode(signed.message.as_slice()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use domain::{KeyId, SecretId, WorkspaceId};
    use rstest::rstest;

    use super::*;

    fn entry(version: i64, feed_version: i64) -> Entry {
        Entry {
            feed_version,
            hash: SecretHash::of("x"),
            secret_id: SecretId::generate(),
            key_id: KeyId::generate(),
            workspace_id: WorkspaceId::generate(),
            version,
            expire_time: Some(OffsetDateTime::UNIX_EPOCH),
            retire_time: None,
            state: if version > 1 { KeyState::Deleted } else { KeyState::Active },
            scopes: vec!["orders:*".into()],
            allowed_networks: vec!["192.0.2.0/24".into()],
            rate_limits: Vec::new(),
            address_storage: AddressStorage::Truncated,
            is_new: true,
        }
    }

    #[rstest]
    #[case::newer((2, 5), (1, 4), true)]
    #[case::newer_out_of_order((2, 4), (1, 5), true)]
    #[case::older((1, 5), (2, 4), false)]
    #[case::same((1, 4), (1, 4), false)]
    #[case::same_further_on((1, 5), (1, 4), true)]
    #[case::same_further_back((1, 3), (1, 4), false)]
    fn an_older_entry_replaces_nothing(
        #[case] new: (i64, i64),
        #[case] known: (i64, i64),
        #[case] expected: bool,
    ) {
        assert_eq!(replaces(&entry(new.0, new.1), &message(&entry(known.0, known.1))), expected);
    }

    #[test]
    fn a_deleted_key_is_a_tombstone() {
        let entry = entry(2, 7);
        let message = message(&entry);
        assert_eq!(message.state(), PbState::Deleted);
        assert_eq!(KeyId::from_slice(&message.key_id), Some(entry.key_id));
        assert_eq!(message.expire_time, entry.expire_time.map(to_proto));
        assert_eq!((message.scopes, message.allowed_networks), (entry.scopes, entry.allowed_networks));
    }
}
