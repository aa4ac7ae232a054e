//! The bucket `keys_by_hash` as its one writer sees it. Every write names the sequence that the one before
//! got, so a second writer, and a bucket that went back in time, are noticed by the write itself.

use std::{fmt::Display, time::Duration};

use async_nats::{
    HeaderMap,
    header::NATS_EXPECTED_LAST_SEQUENCE,
    jetstream::{
        self,
        consumer::{DeliverPolicy, pull::OrderedConfig},
        context::{PublishAckFuture, PublishError, PublishErrorKind},
        kv,
    },
};
use bytes::Bytes;
use domain::SecretHash;
use futures_util::StreamExt as _;
use proto::nats::{FEED_HEAD_KEY, KEYS_BY_HASH_BUCKET};
use tokio::time::timeout;

use super::message::micros;
use crate::{fields::to_micros, nats::Streams, store::outbox::BucketPosition};

/// Longest wait for the next of what others wrote.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of what others wrote is looked at one by one.
pub(super) const FOREIGN_MAX: i64 = 10_000;

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
    values: i64,
    sent: Vec<PublishAckFuture>,
}

impl Bucket {
    /// Opens the bucket, after making it where there is none.
    pub(super) async fn open(streams: &Streams) -> Result<Self, BucketError> {
        let store =
            streams.bucket(KEYS_BY_HASH_BUCKET, "what edges verify secrets with, by their SHA-256").await;
        let store = store.map_err(failed("make the bucket"))?;
        let info = store.stream.cached_info();
        let position = BucketPosition {
            created: to_micros(info.created),
            sequence: i64::try_from(info.state.last_sequence).unwrap_or(i64::MAX),
        };
        let values = i64::try_from(info.state.messages).unwrap_or(i64::MAX);
        Ok(Self { context: streams.context.clone(), store, position, values, sent: Vec::new() })
    }

    /// Which bucket it is and how far it is written.
    pub(super) const fn position(&self) -> BucketPosition {
        self.position
    }

    /// When it was made, in microseconds since 1970.
    pub(super) fn created_us(&self) -> i64 {
        micros(self.position.created)
    }

    /// How many values it had when it was opened.
    pub(super) const fn values(&self) -> i64 {
        self.values
    }

    /// Sends a value; it is there after [`Self::settle`].
    pub(super) async fn send(&mut self, key: &str, value: Vec<u8>) -> Result<(), BucketError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SEQUENCE, self.position.sequence.to_string());
        let subject = format!("{}{key}", self.store.prefix);
        let ack = self.context.publish_with_headers(subject, headers, value.into()).await.map_err(refused)?;
        self.sent.push(ack);
        self.position.sequence += 1;
        Ok(())
    }

    /// Waits until all that was sent is there; after an error some may be.
    pub(super) async fn settle(&mut self) -> Result<(), BucketError> {
        for ack in self.sent.drain(..) {
            ack.await.map_err(refused)?;
        }
        Ok(())
    }

    /// The newest value under a key, as the bucket's leader has it: by an old one a version could be given out twice.
    pub(super) async fn value(&self, key: &str) -> Result<Option<Bytes>, BucketError> {
        let (value, _) = nats_cluster::value(&self.store, key).await.map_err(failed("read the bucket"))?;
        Ok(value.map(|message| message.payload))
    }

    /// Keys that were written after a sequence, marks of removal included.
    pub(super) async fn written_after(&self, sequence: i64) -> Result<Vec<String>, BucketError> {
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: sequence.unsigned_abs() + 1 },
            ..OrderedConfig::default()
        };
        let consumer =
            self.store.stream.create_consumer(config).await.map_err(failed("read what others wrote"))?;
        let mut left = consumer.cached_info().num_pending;
        let mut messages = consumer.messages().await.map_err(failed("read what others wrote"))?;
        let mut keys = Vec::new();
        while left > 0 {
            let next =
                timeout(READ_TIMEOUT, messages.next()).await.map_err(failed("read what others wrote"))?;
            let next = next.ok_or_else(|| failed("read what others wrote")("the consumer ended"))?;
            let message = next.map_err(failed("read what others wrote"))?;
            keys.extend(message.subject.strip_prefix(&self.store.prefix).map(str::to_owned));
            left = message.info().map_err(failed("read the bucket"))?.pending;
        }
        Ok(keys)
    }

    /// All keys but the head's.
    pub(super) async fn keys(&self) -> Result<Vec<String>, BucketError> {
        let subjects = format!("{}>", self.store.prefix);
        let mut all =
            self.store.stream.info_with_subjects(subjects).await.map_err(failed("list the bucket"))?;
        let mut keys = Vec::new();
        while let Some(subject) = all.next().await {
            let (subject, _) = subject.map_err(failed("list the bucket"))?;
            keys.extend(subject.strip_prefix(&self.store.prefix).map(str::to_owned));
        }
        keys.retain(|key| key != FEED_HEAD_KEY);
        Ok(keys)
    }

    /// Takes a key out without a mark: there is nothing that says it was there.
    pub(super) async fn forget(&mut self, key: &str) -> Result<(), BucketError> {
        let subject = format!("{}{key}", self.store.prefix);
        let gone = self.store.stream.purge().filter(subject).await.map_err(failed("clean the bucket"))?;
        self.values -= i64::try_from(gone.purged).unwrap_or(i64::MAX);
        Ok(())
    }
}

/// The hash that a key of the bucket stands for.
pub(super) fn hash_of(key: &str) -> Option<SecretHash> {
    SecretHash::from_hex(key).filter(|hash| hash.to_string() == key)
}

fn refused(error: PublishError) -> BucketError {
    match error.kind() {
        PublishErrorKind::WrongLastSequence => BucketError::Moved,
        _ => failed("write the bucket")(error),
    }
}

/// Says what failed.
pub(super) fn failed<E: Display>(what: &'static str) -> impl Fn(E) -> BucketError {
    move |error| BucketError::Nats { what, reason: error.to_string() }
}
