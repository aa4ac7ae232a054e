//! The bucket `keys_by_hash` as its one writer sees it. Every write names the sequence that the one before
//! got, so a second writer, and a bucket that went back in time, are noticed by the write itself.

use std::fmt::Display;

use async_nats::{
    HeaderMap,
    header::NATS_EXPECTED_LAST_SEQUENCE,
    jetstream::{
        self,
        context::{PublishError, PublishErrorKind},
        kv,
        stream::StorageType,
    },
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;
use proto::{
    events::{KeyFeedEntry, KeyState},
    nats::KEYS_BY_HASH_BUCKET,
    timestamp::to_proto,
};

use crate::{
    fields::to_micros,
    store::outbox::{BucketPosition, Entry},
};

/// How many entries are read at once before they are written.
const READS_AT_ONCE: usize = 32;

/// Why the bucket was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum BucketError {
    /// It is not as it was when it was opened: somebody else wrote, or NATS went back in time.
    #[error("the bucket changed under its writer")]
    Moved,
    /// NATS gives no answer, or a refusal.
    #[error("{what}: {reason}")]
    Nats { what: &'static str, reason: String },
}

/// An open bucket.
pub(super) struct Bucket {
    context: jetstream::Context,
    store: kv::Store,
    position: BucketPosition,
}

impl Bucket {
    /// Opens the bucket, after making it where there is none.
    pub(super) async fn open(context: &jetstream::Context) -> Result<Self, BucketError> {
        let store = match context.get_key_value(KEYS_BY_HASH_BUCKET).await {
            Ok(store) => store,
            Err(_) => context.create_key_value(config()).await.map_err(failed("make the bucket"))?,
        };
        let info = store.stream.cached_info();
        let position = BucketPosition {
            created: to_micros(info.created),
            sequence: i64::try_from(info.state.last_sequence).unwrap_or(i64::MAX),
        };
        Ok(Self { context: context.clone(), store, position })
    }

    /// Which bucket it is and how far it is written.
    pub(super) const fn position(&self) -> BucketPosition {
        self.position
    }

    /// Writes entries in their order, but for those that the bucket has in the same or a higher version. All are
    /// there when it returns; after an error some may be.
    pub(super) async fn write(&mut self, entries: &[Entry]) -> Result<(), BucketError> {
        let known: Vec<Option<KeyFeedEntry>> =
            stream::iter(entries).map(|entry| self.read(entry)).buffered(READS_AT_ONCE).try_collect().await?;
        let mut acks = Vec::new();
        let mut sequence = self.position.sequence;
        for (entry, known) in entries.iter().zip(known) {
            if known.is_some_and(|known| !replaces(entry, &known)) {
                continue;
            }
            let mut headers = HeaderMap::new();
            headers.insert(NATS_EXPECTED_LAST_SEQUENCE, sequence.to_string());
            let subject = format!("{}{}", self.store.prefix, entry.hash);
            let value = message(entry).encode_to_vec().into();
            acks.push(self.context.publish_with_headers(subject, headers, value).await.map_err(refused)?);
            sequence += 1;
        }
        for ack in acks {
            ack.await.map_err(refused)?;
        }
        self.position.sequence = sequence;
        Ok(())
    }

    async fn read(&self, entry: &Entry) -> Result<Option<KeyFeedEntry>, BucketError> {
        let known = self.store.entry(entry.hash.to_string()).await.map_err(failed("read the bucket"))?;
        // What nobody can read, and the mark of a removal, are as good as nothing.
        Ok(known.and_then(|known| KeyFeedEntry::decode(known.value).ok()))
    }
}

/// A higher version of the key, or the same one at a later place in the feed.
fn replaces(entry: &Entry, known: &KeyFeedEntry) -> bool {
    (entry.version.unsigned_abs(), entry.feed_version.unsigned_abs()) > (known.version, known.feed_version)
}

fn message(entry: &Entry) -> KeyFeedEntry {
    let state = if entry.deleted { KeyState::Deleted } else { KeyState::Active };
    KeyFeedEntry {
        workspace_id: entry.workspace_id.as_bytes().to_vec(),
        key_id: entry.key_id.as_bytes().to_vec(),
        secret_id: entry.secret_id.as_bytes().to_vec(),
        version: entry.version.unsigned_abs(),
        feed_version: entry.feed_version.unsigned_abs(),
        state: state.into(),
        expire_time: entry.expire_time.map(to_proto),
        ..KeyFeedEntry::default()
    }
}

fn config() -> kv::Config {
    kv::Config {
        bucket: KEYS_BY_HASH_BUCKET.to_owned(),
        description: "what edges verify secrets with, by their SHA-256".to_owned(),
        history: 1,
        storage: StorageType::File,
        ..kv::Config::default()
    }
}

fn refused(error: PublishError) -> BucketError {
    match error.kind() {
        PublishErrorKind::WrongLastSequence => BucketError::Moved,
        _ => failed("write the bucket")(error),
    }
}

fn failed<E: Display>(what: &'static str) -> impl Fn(E) -> BucketError {
    move |error| BucketError::Nats { what, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use domain::{KeyId, SecretHash, SecretId, WorkspaceId};
    use rstest::rstest;
    use time::OffsetDateTime;

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
            deleted: version > 1,
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
        assert_eq!(message.state(), KeyState::Deleted);
        assert_eq!(KeyId::from_slice(&message.key_id), Some(entry.key_id));
        assert_eq!(message.expire_time, entry.expire_time.map(to_proto));
    }
}
