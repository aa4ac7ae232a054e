//! NATS: makes the streams and buckets, reads a shard's stream, publishes dead letters, key activity and commits.
//! Trusts no consumer's memory: where reading goes on is said by the caller.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use async_nats::{
    Client, Event,
    connection::State,
    jetstream::{
        self, Context, ErrorCode,
        consumer::{AckPolicy, DeliverPolicy, pull},
        context::GetStreamErrorKind,
        kv::{self, UpdateErrorKind},
        stream::{Config as StreamConfig, DiscardPolicy},
    },
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use nats_cluster::Servers;
use prost::Message as _;
use proto::{events as pb, nats};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    sync::{OnceCell, watch},
    task::JoinSet,
};
use trace::{TRACEPARENT, Traceparent};

use crate::{
    activity::Activity,
    batch::{DeadLetter, Message},
    intervals::Intervals,
    letters,
    record::Record,
    schema::{self, Refusal},
    trouble::Trouble,
};

/// Bytes that a dead letter's headers may add to the original message.
const HEADER_BYTES_MAX: usize = 4 << 10;
/// Long enough that a dead letter published again after a crash is recognised.
const DEAD_LETTER_WINDOW: Duration = Duration::from_secs(24 * 3600);
const DEAD_LETTERS_BYTES_MAX: i64 = 256 << 20;
const KEY_ACTIVITY_BYTES_MAX: i64 = 64 << 20;
const KEY_ACTIVITY_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Keys of one activity message; with 64 addresses and 5 secrets each it has less than half a megabyte.
const ACTIVITY_KEYS_MAX: usize = 500;
/// Messages and bytes asked for at once; at most two such requests are outstanding.
const FETCH_MESSAGES: usize = 500;
const FETCH_BYTES: usize = 2 << 20;
const HEARTBEAT: Duration = Duration::from_secs(2);
const FETCH_EXPIRES: Duration = Duration::from_secs(10);
/// After which NATS forgets the consumer of a process that is gone.
const CONSUMER_IDLE_MAX: Duration = Duration::from_secs(30);

/// A connection to NATS.
#[derive(Clone)]
pub struct Bus {
    client: Client,
    jetstream: Context,
    connections: watch::Receiver<u64>,
    stream_bytes_max: i64,
    replicas: usize,
    records: Arc<OnceCell<Values>>,
    commits: Arc<OnceCell<Values>>,
    /// Ends with the last clone.
    _watching: Arc<JoinSet<Infallible>>,
}

/// A shard's stream as it is now.
#[derive(Debug, Clone)]
pub struct StreamState {
    /// When it was created.
    pub incarnation: String,
    /// The last message's sequence; 0 if there never was one.
    pub last_sequence: u64,
    /// How large it is.
    pub bytes: u64,
}

impl Bus {
    /// Connects; later losses of the connection heal by themselves.
    ///
    /// # Errors
    /// If nobody answers at the settings' addresses. The inner error is a server that is too old.
    pub async fn connect(
        servers: &Servers,
        stream_bytes_max: i64,
        replicas: usize,
    ) -> anyhow::Result<Result<Self, Refusal>> {
        let (connected, connections) = watch::channel(0_u64);
        let options = servers.options().name("keymeter-ingest").event_callback(move |event| {
            if event == Event::Connected {
                connected.send_modify(|count| *count += 1);
            }
            std::future::ready(())
        });
        let client = servers.connect(options).await?;
        if let Err(refusal) = schema::check_version("NATS", &client.server_info().version, schema::NATS_MIN) {
            return Ok(Err(refusal));
        }
        let jetstream = nats_cluster::context(client.clone());
        let (watched, mut watching) = (jetstream.clone(), JoinSet::new());
        let servers = servers.clone();
        watching.spawn(async move { servers.leave_deaf(&watched).await });
        let (records, commits) = (Arc::default(), Arc::default());
        Ok(Ok(Self {
            client,
            jetstream,
            connections,
            stream_bytes_max,
            replicas,
            records,
            commits,
            _watching: Arc::new(watching),
        }))
    }

    /// Streams and their messages.
    #[must_use]
    pub const fn jetstream(&self) -> &Context {
        &self.jetstream
    }

    /// Changes with every new connection: a NATS that was away may have forgotten.
    #[must_use]
    pub fn connections(&self) -> watch::Receiver<u64> {
        let mut connections = self.connections.clone();
        connections.mark_unchanged();
        connections
    }

    /// Makes what is missing of the streams and buckets that `shard` needs.
    ///
    /// # Errors
    /// If NATS is away or refuses.
    pub async fn ensure(&self, shard: u16) -> anyhow::Result<StreamState> {
        if self.client.connection_state() != State::Connected {
            return Err(anyhow!("not connected"));
        }
        let num_replicas = self.replicas;
        let limits = StreamConfig { discard: DiscardPolicy::Old, num_replicas, ..StreamConfig::default() };
        self.ensure_stream(StreamConfig {
            name: nats::DEAD_LETTERS_STREAM.to_owned(),
            subjects: vec![nats::DEAD_LETTERS_SUBJECTS.to_owned()],
            max_bytes: DEAD_LETTERS_BYTES_MAX,
            duplicate_window: DEAD_LETTER_WINDOW,
            ..limits.clone()
        })
        .await?;
        self.ensure_stream(StreamConfig {
            name: nats::KEY_ACTIVITY_STREAM.to_owned(),
            subjects: vec![nats::KEY_ACTIVITY_SUBJECT.to_owned()],
            max_bytes: KEY_ACTIVITY_BYTES_MAX,
            max_age: KEY_ACTIVITY_AGE_MAX,
            ..limits
        })
        .await?;
        for bucket in [nats::EDGES_BUCKET, nats::EDGE_COMMITS_BUCKET, nats::SHARDS_BUCKET] {
            let bucket_name = bucket.to_owned();
            let config =
                kv::Config { bucket: bucket_name, history: 1, num_replicas, ..kv::Config::default() };
            self.jetstream
                .create_or_update_key_value(config)
                .await
                .with_context(|| format!("make bucket {bucket}"))?;
        }
        self.ensure_stream(self.events(shard)).await
    }

    /// What the stream of `shard` is to be like.
    fn events(&self, shard: u16) -> StreamConfig {
        let max_payload = self.client.server_info().max_payload;
        StreamConfig {
            name: nats::request_events_stream(shard),
            subjects: vec![nats::request_events_subject(shard)],
            max_bytes: self.stream_bytes_max,
            discard: DiscardPolicy::New,
            num_replicas: self.replicas,
            // So that a dead letter, which adds headers, fits into a message as well.
            max_message_size: i32::try_from(max_payload.saturating_sub(HEADER_BYTES_MAX)).unwrap_or(i32::MAX),
            ..StreamConfig::default()
        }
    }

    async fn ensure_stream(&self, config: StreamConfig) -> anyhow::Result<StreamState> {
        let name = config.name.clone();
        let info = self.jetstream.create_or_update_stream(config).await;
        state(&info.with_context(|| format!("make stream {name}"))?)
    }

    /// A bucket that exists.
    ///
    /// # Errors
    /// If NATS is away or has no such bucket.
    pub async fn bucket(&self, name: &str) -> anyhow::Result<kv::Store> {
        Ok(self.jetstream.get_key_value(name).await?)
    }

    /// A shard's record, if there is one, and the revision to change it by.
    ///
    /// # Errors
    /// If NATS is away or the record is none that this version can read.
    pub async fn record(&self, shard: u16) -> anyhow::Result<(Option<Record>, u64)> {
        let (value, revision) = self.records().await?.value(&shard.to_string()).await?;
        let read = |value: Bytes| serde_json::from_slice(&value).context("the shard's record cannot be read");
        Ok((value.map(read).transpose()?, revision))
    }

    /// A shard's record; `None` also if no ingest ever ran.
    ///
    /// # Errors
    /// If NATS is away or the record is none that this version can read.
    pub async fn existing_record(&self, shard: u16) -> anyhow::Result<Option<Record>> {
        match self.jetstream.get_stream(format!("KV_{}", nats::SHARDS_BUCKET)).await {
            Ok(_) => Ok(self.record(shard).await?.0),
            Err(error) if is_absent(&error.kind()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes a shard's record, unless it was changed since `revision`, and says the new revision.
    ///
    /// # Errors
    /// [`Trouble::Lost`] if it was; otherwise it is unknown whether it was changed.
    pub async fn write_record(&self, shard: u16, record: &Record, revision: u64) -> Result<u64, Trouble> {
        let value = serde_json::to_vec(record).map_err(Trouble::nats)?;
        let records = self.records().await.map_err(Trouble::nats)?;
        records.change(&shard.to_string(), value.into(), revision).await
    }

    /// What an edge was told last of one of its boots, if it can be read, and the revision to change that by.
    ///
    /// # Errors
    /// If NATS is away.
    pub async fn told_edge(
        &self,
        shard: u16,
        edge_id: &str,
        boot_epoch: u32,
    ) -> anyhow::Result<(u64, Option<Intervals>)> {
        let key = nats::edge_commit_key(edge_id, boot_epoch, shard);
        let (value, revision) = self.commits().await?.value(&key).await?;
        let commit = value.and_then(|value| pb::EdgeCommit::decode(value).ok());
        Ok((
            revision,
            commit.map(|commit| commit.committed.iter().map(|r| (r.first_seq, r.last_seq)).collect()),
        ))
    }

    /// Tells an edge what ClickHouse has for good of one of its boots, unless it was told something else since
    /// `revision`, and says the new revision.
    ///
    /// # Errors
    /// [`Trouble::Lost`] if it was; otherwise it is unknown what it was told.
    pub async fn tell_edge(
        &self,
        shard: u16,
        edge_id: &str,
        boot_epoch: u32,
        closed: &Intervals,
        revision: u64,
    ) -> Result<u64, Trouble> {
        let key = nats::edge_commit_key(edge_id, boot_epoch, shard);
        let ranges = closed.iter().map(|(first_seq, last_seq)| pb::SeqRange { first_seq, last_seq });
        let value = pb::EdgeCommit { committed: ranges.collect() }.encode_to_vec();
        let commits = self.commits().await.map_err(Trouble::nats)?;
        commits.change(&key, value.into(), revision).await
    }

    async fn records(&self) -> anyhow::Result<&Values> {
        self.records.get_or_try_init(|| self.values(nats::SHARDS_BUCKET)).await
    }

    async fn commits(&self) -> anyhow::Result<&Values> {
        self.commits.get_or_try_init(|| self.values(nats::EDGE_COMMITS_BUCKET)).await
    }

    async fn values(&self, bucket: &str) -> anyhow::Result<Values> {
        Ok(Values(self.bucket(bucket).await?))
    }

    /// A bucket with one value for each workspace, made where there is none; keys, who writes it, says how many servers
    /// hold it.
    ///
    /// # Errors
    /// If NATS is away or refuses.
    pub async fn workspaces(&self, bucket: &str) -> anyhow::Result<kv::Store> {
        if let Ok(known) = self.jetstream.get_key_value(bucket).await {
            return Ok(known);
        }
        let (bucket, num_replicas) = (bucket.to_owned(), self.replicas);
        let config = kv::Config { bucket, history: 1, num_replicas, ..kv::Config::default() };
        Ok(self.jetstream.create_key_value(config).await?)
    }

    /// Reads the stream of `shard` from behind `sequence` on.
    ///
    /// # Errors
    /// If NATS is away.
    pub async fn read(&self, shard: u16, sequence: u64) -> anyhow::Result<Reader> {
        let start = DeliverPolicy::ByStartSequence { start_sequence: sequence + 1 };
        Ok(self.deliver(shard, start).await?.0)
    }

    /// Reads what the stream of `shard` has taken since `from`, and says how many messages there are of it now.
    ///
    /// # Errors
    /// If NATS is away.
    pub async fn read_since(&self, shard: u16, from: OffsetDateTime) -> anyhow::Result<(Reader, u64)> {
        self.deliver(shard, DeliverPolicy::ByStartTime { start_time: from }).await
    }

    async fn deliver(&self, shard: u16, deliver_policy: DeliverPolicy) -> anyhow::Result<(Reader, u64)> {
        let config = pull::Config {
            deliver_policy,
            ack_policy: AckPolicy::None,
            inactive_threshold: CONSUMER_IDLE_MAX,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer =
            self.jetstream.create_consumer_on_stream(config, nats::request_events_stream(shard)).await?;
        let pending = consumer.cached_info().num_pending;
        let messages = consumer
            .stream()
            .max_messages_per_batch(FETCH_MESSAGES)
            .max_bytes_per_batch(FETCH_BYTES)
            .expires(FETCH_EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages()
            .await?;
        Ok((Reader { messages, delivered: 0 }, pending))
    }

    /// Publishes dead letters and waits until they are stored.
    ///
    /// # Errors
    /// If one may not be.
    pub async fn publish_dead_letters(
        &self,
        shard: u16,
        incarnation: &str,
        letters: &[DeadLetter],
    ) -> anyhow::Result<()> {
        letters::publish(&self.jetstream, shard, incarnation, letters).await
    }

    /// Announces the use of keys.
    ///
    /// # Errors
    /// If it may not be stored.
    pub async fn publish_activity(&self, activity: &Activity) -> anyhow::Result<()> {
        let keys: Vec<_> = activity.messages().collect();
        for keys in keys.chunks(ACTIVITY_KEYS_MAX) {
            let message = pb::KeyActivityBatch { keys: keys.to_vec() }.encode_to_vec();
            self.jetstream.publish(nats::KEY_ACTIVITY_SUBJECT, message.into()).await?.await?;
        }
        Ok(())
    }

    /// How large the stream of `shard` is, and where it ends. It has NATS write down once more what the stream is to be like,
    /// since one whose disk is full answers no publisher, but says so here.
    ///
    /// # Errors
    /// If NATS is away, can not write, or has no such stream.
    pub async fn stream_state(&self, shard: u16) -> anyhow::Result<StreamState> {
        let info = self.jetstream.update_stream(self.events(shard)).await;
        state(&info.with_context(|| format!("keep stream {}", nats::request_events_stream(shard)))?)
    }

    /// The first and the last sequence that the stream of `shard` holds; `(0, 0)` if it is empty.
    ///
    /// # Errors
    /// If NATS is away.
    pub async fn held(&self, shard: u16) -> anyhow::Result<(u64, u64)> {
        let stream = self.jetstream.get_stream(nats::request_events_stream(shard)).await?;
        let state = &stream.cached_info().state;
        Ok(if state.messages == 0 { (0, 0) } else { (state.first_sequence, state.last_sequence) })
    }

    /// Removes the messages of `shard` up to and with `sequence`.
    ///
    /// # Errors
    /// If NATS is away.
    pub async fn purge(&self, shard: u16, sequence: u64) -> anyhow::Result<()> {
        let stream = self.jetstream.get_stream_no_info(nats::request_events_stream(shard)).await?;
        stream.purge().sequence(sequence + 1).await?;
        Ok(())
    }
}

/// The messages of a shard in order, none left out.
pub struct Reader {
    messages: pull::Stream,
    delivered: u64,
}

impl Reader {
    /// The next message; may be dropped while it waits.
    ///
    /// # Errors
    /// If NATS is away or a message was lost on the way: read again from the last one.
    pub async fn next(&mut self) -> anyhow::Result<Message> {
        let message = self.messages.next().await.context("the consumer ended")??;
        let info = message.info().map_err(|error| anyhow!("message without a position: {error}"))?;
        if info.consumer_sequence != self.delivered + 1 {
            return Err(anyhow!("a message was lost on the way"));
        }
        self.delivered += 1;
        let (sequence, published_at) = (info.stream_sequence, info.published);
        let sent_in = message.headers.as_ref().and_then(|headers| headers.get(TRACEPARENT.as_str()));
        let sent_in = sent_in.and_then(|value| Traceparent::parse(value.as_str().as_bytes()));
        Ok(Message { sequence, published_at, sent_in, payload: message.payload.clone() })
    }
}

/// Whether a stream is not there, rather than that nobody can tell now.
pub(crate) fn is_absent(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// A bucket whose values change by compare-and-set only, so that what is sent late changes nothing.
struct Values(kv::Store);

impl Values {
    /// A value, if there is one, and the revision to change it by. Asks the leader: of another server an old one could
    /// come, which would pass for a shard that was lost.
    async fn value(&self, key: &str) -> anyhow::Result<(Option<Bytes>, u64)> {
        let (value, revision) = nats_cluster::value(&self.0, key).await?;
        Ok((value.map(|message| message.payload), revision))
    }

    async fn change(&self, key: &str, value: Bytes, revision: u64) -> Result<u64, Trouble> {
        self.0.update(key, value, revision).await.map_err(|error| match error.kind() {
            UpdateErrorKind::WrongLastRevision => Trouble::Lost,
            _ => Trouble::nats(error),
        })
    }
}

fn state(info: &jetstream::stream::Info) -> anyhow::Result<StreamState> {
    let incarnation = info.created.format(&Rfc3339).context("a stream's creation time is a date")?;
    Ok(StreamState { incarnation, last_sequence: info.state.last_sequence, bytes: info.state.bytes })
}
