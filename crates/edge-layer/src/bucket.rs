//! Follows a bucket of NATS: everything that is in it first, then each change. Says when it is known to be
//! current, which a quiet bucket would not tell by itself.

use std::time::Duration;

use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, push::OrderedConfig},
    stream::Stream,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use nats_cluster::{is_led, newest};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// How often a bucket is asked for its last number.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long it may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// A bucket that has more than was delivered for so long is followed anew.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What is heard of a bucket.
#[derive(Debug)]
pub(crate) enum Update<'a> {
    /// The newest value of a key, and its sequence in the bucket.
    Entry(&'a str, Bytes, u64),
    /// Everything that was in the bucket at this moment has been delivered, up to this sequence. Repeated while
    /// that stays so.
    Current(Instant, u64),
}

/// Why a bucket can no longer be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    /// It is not there yet, or NATS does not answer.
    #[error("bucket {bucket} cannot be followed: {reason}")]
    Unavailable {
        /// The bucket.
        bucket: String,
        /// What NATS said.
        reason: String,
    },
    /// It was made anew, so numbers mean something else.
    #[error("bucket {0} was made anew")]
    Replaced(String),
    /// Changes are there and do not arrive.
    #[error("bucket {0} does not deliver its changes")]
    Stalled(String),
    /// It is not what its writer left.
    #[error("bucket {0} does not hold what its writer says: waiting until that is put right")]
    Doubtful(String),
}

/// The stream of a bucket.
///
/// # Errors
/// If it is not there.
pub(crate) async fn stream(jetstream: &jetstream::Context, bucket: &str) -> Result<Stream, FollowError> {
    let stream = jetstream.get_stream(format!("KV_{bucket}")).await;
    stream.map_err(|error| unavailable(bucket, &error))
}

/// That a bucket cannot be used now.
pub(crate) fn unavailable(bucket: &str, reason: &dyn std::fmt::Display) -> FollowError {
    FollowError::Unavailable { bucket: bucket.into(), reason: reason.to_string() }
}

/// Follows the keys that match `keys` (`>` for all) until that is no longer possible: what is there after sequence
/// `after`, then each change. A key that was deleted from the bucket keeps its last value here.
///
/// # Errors
/// Always, in the end: see [`FollowError`]; also what `on` returns.
pub(crate) async fn follow(
    jetstream: &jetstream::Context,
    bucket: &str,
    keys: &str,
    after: u64,
    mut on: impl FnMut(Update<'_>) -> Result<(), FollowError>,
) -> Result<(), FollowError> {
    let unavailable = |reason: &dyn std::fmt::Display| unavailable(bucket, reason);
    let prefix = format!("$KV.{bucket}.");
    let stream = stream(jetstream, bucket).await?;
    let first = stream.cached_info().clone();
    let config = OrderedConfig {
        deliver_subject: jetstream.client().new_inbox(),
        filter_subject: format!("{prefix}{keys}"),
        // A bucket keeps one value of each key, so this is all of them.
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
        ..Default::default()
    };
    // As its leader has it: who delivers may lack the newest ones, and believe that nothing is left.
    let newest = newest(&stream, &format!("{prefix}{keys}")).await.map_err(|error| unavailable(&error))?;
    let consumer = stream.create_consumer(config).await.map_err(|error| unavailable(&error))?;
    let mut progress = Progress {
        whole: keys == ">",
        awaited: newest.map(|newest| newest.sequence).filter(|newest| *newest > after),
        delivered: first.state.last_sequence,
        came: 0,
        behind_since: None,
    };
    let mut messages = consumer.messages().await.map_err(|error| unavailable(&error))?;
    let mut probes = interval(PROBE_INTERVAL);
    probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = messages.next() => {
                let message = message.ok_or_else(|| unavailable(&"its consumer ended"))?;
                let message = message.map_err(|error| unavailable(&error))?;
                let info = message.info().map_err(|error| unavailable(&error))?;
                if progress.delivers(info.stream_sequence) {
                    probes.reset_immediately();
                }
                if let Some(key) = message.subject.strip_prefix(&prefix).filter(|_| !is_removal(&message)) {
                    on(Update::Entry(key, message.payload.clone(), info.stream_sequence))?;
                }
            }
            _ = probes.tick() => {
                let asked_at = Instant::now();
                let answer = timeout(PROBE_TIMEOUT, stream.get_info()).await;
                let info = answer.map_err(|error| unavailable(&error))?.map_err(|error| unavailable(&error))?;
                if info.created != first.created || info.state.last_sequence < first.state.last_sequence {
                    return Err(FollowError::Replaced(bucket.into()));
                }
                // What a server says that leads no more is old.
                if is_led(&info) && progress.is_current(info.state.last_sequence, asked_at) {
                    on(Update::Current(asked_at, info.state.last_sequence))?;
                } else if progress.is_stalled(asked_at) {
                    return Err(FollowError::Stalled(bucket.into()));
                }
            }
        }
    }
}

/// A key was taken out of the bucket: by a client, or by the server for its age.
fn is_removal(message: &jetstream::Message) -> bool {
    let has = |name| message.headers.as_ref().is_some_and(|headers| headers.get(name).is_some());
    has("KV-Operation") || has("Nats-Marker-Reason")
}

#[derive(Debug)]
struct Progress {
    /// All keys are followed, so the last number of the bucket is to be seen.
    whole: bool,
    /// The newest message that was there at the beginning and is still to come.
    awaited: Option<u64>,
    /// The bucket's last number that was delivered, or was there before the first delivery began.
    delivered: u64,
    /// How many messages came.
    came: u64,
    behind_since: Option<(u64, Instant)>,
}

impl Progress {
    /// A message came; whether all that was there at the beginning has come with it.
    fn delivers(&mut self, sequence: u64) -> bool {
        self.delivered = self.delivered.max(sequence);
        self.came += 1;
        self.awaited.take_if(|awaited| *awaited <= sequence).is_some()
    }

    fn is_current(&mut self, last_sequence: u64, asked_at: Instant) -> bool {
        if self.awaited.is_none() && (!self.whole || last_sequence <= self.delivered) {
            self.behind_since = None;
            return true;
        }
        // Behind, but getting on.
        if self.behind_since.is_none_or(|(came, _)| came < self.came) {
            self.behind_since = Some((self.came, asked_at));
        }
        false
    }

    fn is_stalled(&self, now: Instant) -> bool {
        self.behind_since.is_some_and(|(_, since)| now - since > STALL_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_delivers_may_lack_the_newest_ones() {
        // The leader has 9, which a server that is behind has not: to it nothing is left to deliver.
        let mut progress =
            Progress { whole: true, awaited: Some(9), delivered: 9, came: 0, behind_since: None };
        let began = Instant::now();
        assert!(!progress.is_current(9, began));
        assert!(!progress.delivers(8) && !progress.is_current(9, began));
        tokio::time::advance(STALL_TIMEOUT).await;
        assert!(!progress.is_current(9, Instant::now()) && !progress.is_stalled(Instant::now()));
        tokio::time::advance(STALL_TIMEOUT).await;
        assert!(progress.is_stalled(Instant::now()), "followed anew, perhaps by way of another server");
        assert!(progress.delivers(10), "its key was written again");
        assert!(progress.is_current(10, began) && !progress.is_stalled(Instant::now()));
        assert!(!progress.is_current(11, began), "one more came");
    }
}
