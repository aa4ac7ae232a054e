//! The dead letters in NATS: stored, read back, removed.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use async_nats::{
    HeaderMap,
    header::NATS_MESSAGE_ID,
    jetstream::{
        Context, ErrorCode, Message,
        consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull},
        stream::DeleteMessageErrorKind,
    },
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use proto::nats;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    batch::DeadLetter,
    bus,
    erasures::Erased,
    letter::{self, Letter},
};

const REASON_BYTES_MAX: usize = 1 << 10;
/// Letters whose acknowledgements are awaited together.
const PUBLISHED_AT_ONCE: usize = 256;
/// Letters that are fetched together.
const FETCH: usize = 200;
const FETCH_EXPIRES: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(2);
const CONSUMER_IDLE_MAX: Duration = Duration::from_secs(30);

/// Stores dead letters; returns once they are.
///
/// # Errors
/// If one may not be.
pub async fn publish(
    jetstream: &Context,
    shard: u16,
    incarnation: &str,
    letters: &[DeadLetter],
) -> anyhow::Result<()> {
    for letters in letters.chunks(PUBLISHED_AT_ONCE) {
        let mut stored = Vec::with_capacity(letters.len());
        for letter in letters {
            let stream = nats::request_events_stream(shard);
            let mut position = format!("{stream}@{incarnation}:{}", letter.sequence);
            if let Some(event) = letter.event {
                position = format!("{position}/{event}");
            }
            let mut headers = HeaderMap::new();
            headers.insert(nats::DEAD_LETTER_REASON, header_text(&letter.reason).as_str());
            headers.insert(nats::DEAD_LETTER_POSITION, position.as_str());
            headers.insert(nats::DEAD_LETTER_PUBLISHED_AT, letter.published_at.format(&Rfc3339)?.as_str());
            headers.insert(NATS_MESSAGE_ID, position.as_str());
            let subject = nats::dead_letters_subject(shard);
            stored.push(jetstream.publish_with_headers(subject, headers, letter.payload.clone()).await?);
        }
        for stored in stored {
            stored.await?;
        }
    }
    Ok(())
}

/// Which letters to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Which {
    /// Of this shard only.
    pub shard: Option<u16>,
    /// With a higher number only.
    pub after: u64,
    /// Stored at this time or later only; not together with `after`.
    pub since: Option<OffsetDateTime>,
}

/// Letters in order, up to the newest.
pub struct Letters {
    messages: Option<pull::Stream>,
    left: u64,
}

impl Letters {
    /// The letters that `which` asks for.
    ///
    /// # Errors
    /// If NATS is away.
    pub async fn read(jetstream: &Context, which: Which) -> anyhow::Result<Self> {
        let stream = match jetstream.get_stream(nats::DEAD_LETTERS_STREAM).await {
            Ok(stream) => stream,
            // Nothing was ever ingested.
            Err(error) if bus::is_absent(&error.kind()) => {
                return Ok(Self { messages: None, left: 0 });
            }
            Err(error) => return Err(error.into()),
        };
        let deliver_policy = which
            .since
            .map_or(DeliverPolicy::ByStartSequence { start_sequence: which.after + 1 }, |start_time| {
                DeliverPolicy::ByStartTime { start_time }
            });
        let config = pull::Config {
            deliver_policy,
            filter_subject: which
                .shard
                .map_or_else(|| nats::DEAD_LETTERS_SUBJECTS.to_owned(), nats::dead_letters_subject),
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            inactive_threshold: CONSUMER_IDLE_MAX,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let left = consumer.cached_info().num_pending;
        let messages = consumer
            .stream()
            .max_messages_per_batch(FETCH)
            .expires(FETCH_EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages()
            .await?;
        Ok(Self { messages: Some(messages), left })
    }

    /// How many are still to come.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// The next one; `None` after the newest.
    ///
    /// # Errors
    /// If NATS is away.
    pub async fn next(&mut self) -> anyhow::Result<Option<Letter>> {
        let Some(messages) = self.messages.as_mut().filter(|_| self.left > 0) else { return Ok(None) };
        let message = messages.next().await.context("the dead letters ended early")??;
        let info = message.info().map_err(|error| anyhow!("a dead letter without a number: {error}"))?;
        self.left = info.pending;
        let (number, stored_at) = (info.stream_sequence, info.published);
        Ok(Some(read(&message, number, stored_at)))
    }
}

/// Removes a letter for good; true if it was there.
///
/// # Errors
/// If NATS is away.
pub async fn remove(jetstream: &Context, number: u64) -> anyhow::Result<bool> {
    let stream = jetstream.get_stream_no_info(nats::DEAD_LETTERS_STREAM).await?;
    match stream.delete_message(number).await {
        Ok(removed) => Ok(removed),
        Err(error) if is_gone(&error.kind()) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a message is not there, rather than that a cluster that has no leader now could not say.
fn is_gone(kind: &DeleteMessageErrorKind) -> bool {
    let DeleteMessageErrorKind::JetStream(error) = kind else { return false };
    [ErrorCode::SEQUENCE_NOT_FOUND, ErrorCode::STREAM_MESSAGE_DELETE_FAILED, ErrorCode::STREAM_NOT_FOUND]
        .contains(&error.error_code())
}

/// Removes the letters of `shard` that name erased workspaces, and says how many there were.
///
/// # Errors
/// If some may be left.
pub async fn erase(jetstream: &Context, shard: u16, erased: &Erased) -> anyhow::Result<u64> {
    if erased.iter().next().is_none() {
        return Ok(0);
    }
    let held = held(jetstream, shard).await?;
    let mut letters = Letters::read(jetstream, Which { shard: Some(shard), ..Which::default() }).await?;
    // Whoever delivers them may lack the newest ones.
    anyhow::ensure!(
        letters.left() >= held,
        "a server of NATS that lacks dead letters was asked for all of them"
    );
    let mut removed = 0;
    while let Some(letter) = letters.next().await? {
        if letter::is_erased(&letter.payload, letter.published_at, erased) {
            removed += u64::from(remove(jetstream, letter.number).await?);
        }
    }
    Ok(removed)
}

/// How many letters of `shard` there are, as the stream's leader has it.
async fn held(jetstream: &Context, shard: u16) -> anyhow::Result<u64> {
    let stream = match jetstream.get_stream(nats::DEAD_LETTERS_STREAM).await {
        Ok(stream) => stream,
        Err(error) if bus::is_absent(&error.kind()) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let mut subjects = stream.info_with_subjects(nats::dead_letters_subject(shard)).await?;
    let mut letters = 0;
    while let Some((_, count)) = subjects.try_next().await? {
        letters += u64::try_from(count)?;
    }
    Ok(letters)
}

fn read(message: &Message, number: u64, stored_at: OffsetDateTime) -> Letter {
    let header = |name| message.headers.as_ref()?.get(name).map(ToString::to_string);
    let published_at = header(nats::DEAD_LETTER_PUBLISHED_AT);
    let published_at = published_at.and_then(|at| OffsetDateTime::parse(&at, &Rfc3339).ok());
    let shard = message.subject.rsplit('.').next().and_then(|shard| shard.parse().ok());
    Letter {
        number,
        shard: shard.unwrap_or_default(),
        reason: header(nats::DEAD_LETTER_REASON).unwrap_or_default(),
        position: header(nats::DEAD_LETTER_POSITION).unwrap_or_default(),
        published_at: published_at.unwrap_or(stored_at),
        stored_at,
        payload: message.payload.clone(),
    }
}

/// One line that fits into a header.
fn header_text(reason: &str) -> String {
    let line: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.char_indices().take_while(|(at, _)| *at < REASON_BYTES_MAX).map(|(_, c)| c).collect()
}
