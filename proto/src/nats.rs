//! Names of NATS streams, subjects and buckets. Ingest creates all of them but the key feed, which keys
//! creates; everybody else waits for them.

use std::ops::RangeInclusive;

/// Stream with the request events of one shard.
#[must_use]
pub fn request_events_stream(shard: u16) -> String {
    format!("REQUEST_EVENTS_{shard}")
}

/// Subject with the request events of one shard; messages are `RequestEventBatch`.
#[must_use]
pub fn request_events_subject(shard: u16) -> String {
    format!("request_events.{shard}")
}

/// Stream with messages that ingest could not read.
pub const DEAD_LETTERS_STREAM: &str = "DEAD_LETTERS";

/// Subject with what could not be read of one shard: a `RequestEventBatch` with one event of which no byte was changed,
/// or all of a message that could not be read as a whole; the reason in the header [`DEAD_LETTER_REASON`], where it
/// stood in [`DEAD_LETTER_POSITION`], when it was published in [`DEAD_LETTER_PUBLISHED_AT`].
#[must_use]
pub fn dead_letters_subject(shard: u16) -> String {
    format!("dead_letters.{shard}")
}

/// All of them.
pub const DEAD_LETTERS_SUBJECTS: &str = "dead_letters.*";
/// Header with the reason, a sentence.
pub const DEAD_LETTER_REASON: &str = "Keymeter-Reason";
/// Header with the position, `<stream>@<incarnation>:<sequence>`, with `/<event>` behind it if it is one event of that
/// message, counted from 0.
pub const DEAD_LETTER_POSITION: &str = "Keymeter-Position";
/// Header with when the message was published, RFC 3339.
pub const DEAD_LETTER_PUBLISHED_AT: &str = "Keymeter-Published-At";

/// Stream with when keys were last used.
pub const KEY_ACTIVITY_STREAM: &str = "KEY_ACTIVITY";
/// Its subject; messages are `KeyActivityBatch`.
pub const KEY_ACTIVITY_SUBJECT: &str = "key_activity";

/// Stream with what happened to keys; messages are `KeyEvent`. Keys creates it.
pub const KEY_EVENTS_STREAM: &str = "KEY_EVENTS";
/// All of its subjects.
pub const KEY_EVENTS_SUBJECTS: &str = "key_events.>";

/// Subject of one kind of event in one workspace; `kind` is `KeyEvent.type`.
#[must_use]
pub fn key_events_subject(workspace_id: domain::WorkspaceId, kind: &str) -> String {
    format!("key_events.{workspace_id}.{kind}")
}

/// Bucket from the lower-case hexadecimal hash of a secret to `KeyFeedEntry`, and from [`FEED_HEAD_KEY`] to
/// `FeedHead`, each as a `SignedFeedMessage`.
pub const KEYS_BY_HASH_BUCKET: &str = "keys_by_hash";
/// Key of the head in [`KEYS_BY_HASH_BUCKET`].
pub const FEED_HEAD_KEY: &str = "head";
/// Bucket from the number of a part to `FeedSnapshot` as a `SignedFeedMessage`.
pub const KEYS_SNAPSHOT_BUCKET: &str = "keys_snapshot";
/// How many parts a snapshot has. A value of NATS holds 1 MiB unless it is told otherwise: some 7 million keys.
pub const SNAPSHOT_PARTS: u16 = 1024;

/// The part that holds a secret: the first 10 bits of its hash.
#[must_use]
pub fn snapshot_part_of(hash: &domain::SecretHash) -> u16 {
    let [high, low, ..] = *hash.as_bytes();
    u16::from_be_bytes([high, low]) / (u16::MAX / SNAPSHOT_PARTS + 1)
}

/// What the signature of `FeedHead` is for.
pub const FEED_HEAD_PURPOSE: &str = "keymeter feed head";

/// What the signature of `KeyFeedEntry` under a key of [`KEYS_BY_HASH_BUCKET`] is for.
#[must_use]
pub fn feed_entry_purpose(key: &str) -> String {
    format!("keymeter feed entry {key}")
}

/// What the signature of `FeedSnapshot` under a key of [`KEYS_SNAPSHOT_BUCKET`] is for.
#[must_use]
pub fn feed_snapshot_purpose(key: &str) -> String {
    format!("keymeter feed snapshot {key}")
}

/// What the signature of a `FeedBatch` of `KeysService.WatchKeys` is for.
pub const FEED_WATCH_PURPOSE: &str = "keymeter feed watch";

/// What is signed: the purpose, a zero byte, the message. So no message passes for one of another purpose.
#[must_use]
pub fn signed_bytes(purpose: &str, message: &[u8]) -> Vec<u8> {
    [purpose.as_bytes(), &[0], message].concat()
}

/// Subject of core NATS with `FeedAck`.
pub const FEED_ACKS_SUBJECT: &str = "feed_acks";
/// Subject of core NATS with `LimitGossip`.
pub const LIMIT_GOSSIP_SUBJECT: &str = "limit_gossip";
/// Bucket from a workspace's id to `Erasure`; keys or ingest creates it, whichever comes first.
pub const ERASURES_BUCKET: &str = "erasures";

/// Bucket from a workspace's id to `Retention`; keys or ingest creates it, whichever comes first.
pub const RETENTIONS_BUCKET: &str = "retentions";

/// Bucket from an edge's id to `EdgeHeartbeat`.
pub const EDGES_BUCKET: &str = "edges";

/// Bucket from [`edge_commit_key`] to `EdgeCommit`.
pub const EDGE_COMMITS_BUCKET: &str = "edge_commits";

/// Key in [`EDGE_COMMITS_BUCKET`].
#[must_use]
pub fn edge_commit_key(edge_id: &str, boot_epoch: u32, shard: u16) -> String {
    format!("{edge_id}.{boot_epoch}.{shard}")
}

/// Keys in [`EDGE_COMMITS_BUCKET`] of one edge.
#[must_use]
pub fn edge_commit_keys(edge_id: &str) -> String {
    format!("{edge_id}.>")
}

/// Bucket with ingest's own record of each shard, under the shard's number.
pub const SHARDS_BUCKET: &str = "ingest_shards";

/// The shard of events beyond the quota of their workspace, whatever their key: the one behind the last of `shards`.
#[must_use]
pub const fn bulk_shard(shards: u16) -> u16 {
    shards
}

/// All shards: those of keys, and the bulk shard.
#[must_use]
pub const fn all_shards(shards: u16) -> RangeInclusive<u16> {
    0..=bulk_shard(shards)
}

/// Which shard a key's events belong to, out of `shards`; FNV-1a of the key's 16 bytes, so that every
/// implementation can agree. A key moves when the number changes, which is allowed: an event's identity
/// holds its shard.
#[must_use]
pub fn shard_of(key_id: &domain::KeyId, shards: u16) -> u16 {
    let hash = key_id.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    u16::try_from(hash % u64::from(shards.max(1))).unwrap_or(0)
}

/// User and password that an address of NATS names, `nats://user:password@host`, or the first of several that does:
/// the client library reads them and signs in without them. What a URL cannot hold is percent-encoded there.
#[must_use]
pub fn credentials(addresses: &str) -> Option<(String, String)> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    addresses.split(',').find_map(|address| {
        let address = address.split_once("://").map_or(address, |(_, rest)| rest);
        let (user, password) = address.rsplit_once('@')?.0.split_once(':')?;
        Some((decoded(user.trim()), decoded(password)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_those_of_the_address() {
        let check = |addresses: &str, expected: Option<(&str, &str)>| {
            let found = credentials(addresses);
            assert_eq!(found.as_ref().map(|(user, password)| (user.as_str(), password.as_str())), expected);
        };
        check("nats://127.0.0.1:4222", None);
        check("127.0.0.1:4222", None);
        check("nats://ada:p%40ss%3A@host:4222", Some(("ada", "p@ss:")));
        check("tls://a:4222, ada:secret@b:4222", Some(("ada", "secret")));
        check("nats://token@host", None);
    }
}
