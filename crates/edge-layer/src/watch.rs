//! Follows the key feed over gRPC from the keys service, beside NATS and without it, and tells that service how far this
//! edge is. Takes only what keys signed for this very watch; keeps it on the disk.

use std::{error::Error as _, iter::successors, path::PathBuf, sync::Arc, time::Duration};

use domain::EdgeId;
use http::Uri;
use prost::Message as _;
use proto::{
    events::FeedBatch,
    keys::{AckFeedRequest, WatchKeysRequest, keys_service_client::KeysServiceClient},
    nats::FEED_WATCH_PURPOSE,
};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    metadata::{AsciiMetadataValue, errors::InvalidMetadataValue},
    transport::Channel,
};
use trace::{Span, SpanBuilder, rpc};

use crate::{
    chain::{Broken, Chain, changes},
    feed::{FeedState, Source},
    feed_keys::FeedKeys,
    feed_log::{FeedLog, read_entry},
    key_table::KeyTable,
    link::backoff,
};

/// Longest wait for a connection, and for the first answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The keys service says something at least twice a second; after so much silence it is tried anew.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Longest pause between two tries: deletions wait for it.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How often the keys service is told how far this edge is, if nothing changes.
const ACK_INTERVAL: Duration = Duration::from_secs(1);
/// Changes within this time are acknowledged as one.
const ACK_PAUSE: Duration = Duration::from_millis(10);
/// Bytes of what tells one watch from all others.
const WATCH_BYTES: usize = 16;
/// A log that is so many times as large as one that is due to be renewed is renewed without NATS too.
const OVERDUE: u64 = 8;

/// How the keys service is reached.
#[derive(Debug, Clone)]
pub struct KeysAccess {
    /// Its gRPC address, `http://host:port` or `https://host:port`.
    pub url: Uri,
    /// File with the output of `keys edge-token`; read at each connection.
    pub token_file: PathBuf,
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("the edge token in {} cannot be used: {reason}", file.display())]
    Token { file: PathBuf, reason: String },
    #[error("the keys service cannot be reached: {0}")]
    Unreachable(String),
    #[error("the keys service says: {}", .0.message())]
    Status(Status),
    #[error("the keys service is silent")]
    Silent,
    #[error("a batch was not signed by keys")]
    Unsigned,
    #[error("{0}")]
    Broken(#[from] Broken),
}

impl From<Status> for WatchError {
    /// What the service said itself has no cause.
    fn from(status: Status) -> Self {
        let causes = successors(status.source(), |cause| (*cause).source());
        match causes.last() {
            Some(cause) => Self::Unreachable(cause.to_string()),
            None => Self::Status(status),
        }
    }
}

/// Follows, and what it keeps current.
pub(crate) struct Watcher {
    pub(crate) access: KeysAccess,
    pub(crate) identity: Option<tls::Identity>,
    pub(crate) keys: FeedKeys,
    pub(crate) table: Arc<KeyTable>,
    pub(crate) state: Arc<FeedState>,
    pub(crate) log: Option<Arc<FeedLog>>,
    /// This edge has known that version before it started: nothing older is to be used.
    pub(crate) floor: u64,
    pub(crate) edge_id: EdgeId,
    pub(crate) boot_epoch: u32,
}

/// One watch.
struct Watched {
    chain: Chain,
    requested_at: Instant,
}

impl Watcher {
    /// Watches until `stop`, again and again.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut said = String::new();
        let mut failures = 0;
        let watching = async {
            loop {
                let before = self.state.heard(Source::Keys);
                match self.watch().await {
                    Ok(()) => {}
                    Err(error) => {
                        let reason = error.to_string();
                        if reason != said {
                            tracing::warn!(reason, "the key feed over gRPC: trying again");
                            said = reason;
                        }
                    }
                }
                let was_good = self.state.heard(Source::Keys) != before;
                if was_good {
                    said.clear();
                }
                failures = if was_good { 1 } else { failures + 1 };
                tokio::time::sleep(backoff(failures).min(RETRY_MAX)).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = watching => {}
        }
    }

    /// Watches over one connection; ends well if a new log is due.
    async fn watch(&self) -> Result<(), WatchError> {
        let client = self.connect().await?;
        // Of the stream alone: what is acknowledged each second would hide everything else.
        let span = Span::begin(None, || SpanBuilder::from_name("follow the key feed"));
        tokio::select! {
            ended = trace::within(span.as_ref(), self.follow(client.clone())) => ended,
            never = self.acknowledge(client) => match never {},
        }
    }

    async fn connect(&self) -> Result<Authorized, WatchError> {
        let file = &self.access.token_file;
        let useless = |reason: String| WatchError::Token { file: file.clone(), reason };
        let token = tokio::fs::read_to_string(file).await.map_err(|error| useless(error.to_string()))?;
        let token = format!("Bearer {}", token.trim()).parse();
        let token = token.map_err(|error: InvalidMetadataValue| useless(error.to_string()))?;
        let channel =
            tls::channel("the address of keys", &self.access.url, self.identity.as_ref(), |endpoint| {
                endpoint
                    .connect_timeout(CONNECT_TIMEOUT)
                    .http2_keep_alive_interval(SILENCE_MAX)
                    .keep_alive_timeout(SILENCE_MAX)
            });
        let channel = channel.map_err(|error| WatchError::Unreachable(format!("{error:#}")))?;
        Ok(Authorized { client: KeysServiceClient::new(rpc::Client(channel)), token })
    }

    async fn follow(&self, mut client: Authorized) -> Result<(), WatchError> {
        let after_version = self.goes_on_after();
        let mut watch = vec![0; WATCH_BYTES];
        aws_lc_rs::rand::fill(&mut watch).expect("the operating system gives randomness");
        let request = WatchKeysRequest { after_version, watch: watch.clone() };
        let requested_at = Instant::now();
        let mut watched = Watched { chain: Chain::begins(watch, after_version), requested_at };
        self.on_disk(move |log| log.begin(after_version)).await;
        let answer = timeout(CONNECT_TIMEOUT, client.client.watch_keys(client.token.request(request))).await;
        let mut batches = answer.map_err(|_| WatchError::Silent)??.into_inner();
        loop {
            let batch = timeout(SILENCE_MAX, batches.message()).await.map_err(|_| WatchError::Silent)??;
            let Some(batch) = batch else { return Ok(()) };
            self.take(&mut watched, batch.signed_batch).await?;
            if self.is_renewal_due() {
                return Ok(());
            }
        }
    }

    /// The version from which the next watch goes on: where the disk's log ends, so that the log goes on; else what the
    /// table has.
    fn goes_on_after(&self) -> u64 {
        let known = if self.state.is_complete() { self.state.version() } else { 0 };
        let logged =
            self.log.as_ref().map(|log| if self.is_renewal_due() { Some(0) } else { log.goes_on_after() });
        logged.flatten().unwrap_or(known)
    }

    /// A log that has grown is made anew while NATS tells what changes, or when it is far too large.
    fn is_renewal_due(&self) -> bool {
        let is_safe = self.state.source() == Some(Source::Nats);
        self.log.as_ref().is_some_and(|log| log.is_large(if is_safe { 1 } else { OVERDUE }))
    }

    /// Takes a batch: onto the disk, into the table, and only then is its version one that this edge knows.
    async fn take(&self, watched: &mut Watched, value: Vec<u8>) -> Result<(), WatchError> {
        let message = self.keys.open_bytes(FEED_WATCH_PURPOSE, &value).ok_or(WatchError::Unsigned)?;
        let batch = FeedBatch::decode(message.as_slice()).map_err(|_| WatchError::Unsigned)?;
        let chain = &mut watched.chain;
        chain.follows(&batch, &message)?;
        let (version, is_whole) = (chain.version(), chain.is_whole());
        let value = Arc::new(value);
        if changes(&batch) {
            let value = value.clone();
            self.on_disk(move |log| log.append(&value, version, is_whole)).await;
        }
        let entries: Vec<_> = batch.entries.iter().filter_map(read_entry).collect();
        if entries.len() < batch.entries.len() {
            tracing::warn!("the key feed has an entry that cannot be read; the key stays as it was");
        }
        self.table.merge(entries);
        if !is_whole {
            return Ok(());
        }
        let is_first = !self.state.is_complete();
        // Before it is said that all is known: a version that is told of must be one of which everything is.
        let known = self.state.version().max(self.floor);
        self.state.has_applied(version);
        if batch.is_current && version >= known {
            if is_first {
                tracing::info!(
                    feed.version = version,
                    secrets = self.table.len(),
                    "the keys are complete, over gRPC"
                );
            }
            let elapsed = Duration::from_micros(batch.elapsed_us);
            // The watch began there after it was asked for here, so this is no later than it was.
            self.state.is_current_at((watched.requested_at + elapsed).min(Instant::now()), Source::Keys);
            self.on_disk(move |log| log.is_current(&value, OffsetDateTime::now_utc())).await;
        }
        Ok(())
    }

    /// Does something with the log where there is one. What fails costs the snapshot, nothing else.
    async fn on_disk(&self, write: impl FnOnce(&FeedLog) -> std::io::Result<()> + Send + 'static) {
        let Some(log) = self.log.clone() else { return };
        let written = tokio::task::spawn_blocking(move || write(&log)).await;
        if let Err(error) = written.map_err(std::io::Error::other).and_then(|written| written) {
            tracing::warn!(%error, "the snapshot of the keys cannot be written: without NATS and keys this edge could not start");
        }
    }

    /// Tells how far this edge is, for as long as it is polled. What fails is said again.
    async fn acknowledge(&self, mut client: Authorized) -> std::convert::Infallible {
        let mut told = self.state.told();
        let edge_id = self.edge_id.to_string();
        loop {
            let ack = AckFeedRequest {
                edge_id: edge_id.clone(),
                boot_epoch: self.boot_epoch,
                feed_version: *told.borrow_and_update(),
                feed_lost_after_ms: u32::try_from(self.state.lost_after().as_millis()).unwrap_or(u32::MAX),
                serves_stale: self.state.serves_stale(),
            };
            let answer = timeout(CONNECT_TIMEOUT, client.client.ack_feed(client.token.request(ack))).await;
            if let Ok(Err(status)) = answer {
                tracing::debug!(
                    reason = status.message(),
                    "the keys service was not told how far this edge is"
                );
            }
            tokio::time::sleep(ACK_PAUSE).await;
            let _ = timeout(ACK_INTERVAL, told.changed()).await;
        }
    }
}

/// A client with what it shows.
#[derive(Clone)]
struct Authorized {
    client: KeysServiceClient<rpc::Client<Channel>>,
    token: Token,
}

#[derive(Clone)]
struct Token(AsciiMetadataValue);

impl std::str::FromStr for Token {
    type Err = InvalidMetadataValue;

    fn from_str(text: &str) -> Result<Self, InvalidMetadataValue> {
        text.parse().map(Self)
    }
}

impl Token {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.0.clone());
        request
    }
}
