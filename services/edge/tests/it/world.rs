//! What surrounds an edge in these tests: NATS with the streams and buckets that keys and ingest make, an API
//! behind the edge, and the edge itself as a process.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use async_nats::jetstream::{self, consumer::PullConsumer, kv, stream};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::Router;
use bytes::Bytes;
use domain::{Environment, Id, KeyId, RequestEvent, Secret, SecretId, WorkspaceId};
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use parts::{Nats, Service, eventually, free_port};
use prost::Message as _;
use proto::{events as pb, nats, timestamp};
use time::OffsetDateTime;

pub(crate) const SHARDS: u16 = 2;

/// Which event: edge, boot, shard, sequence.
pub(crate) type Identity = (String, u32, u32, u64);

pub(crate) struct World {
    pub(crate) nats: Nats,
    pub(crate) jetstream: jetstream::Context,
}

/// A key and its secret.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) secret: Secret,
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) key_id: KeyId,
    pub(crate) secret_id: SecretId,
}

impl Key {
    /// What the feed says of it.
    pub(crate) fn entry(&self, state: pb::KeyState) -> pb::KeyFeedEntry {
        pb::KeyFeedEntry {
            workspace_id: self.workspace_id.as_bytes().to_vec(),
            key_id: self.key_id.as_bytes().to_vec(),
            secret_id: self.secret_id.as_bytes().to_vec(),
            version: 1,
            state: state.into(),
            ..pb::KeyFeedEntry::default()
        }
    }
}

impl World {
    /// NATS with everything that others make.
    pub(crate) async fn start() -> Self {
        let world = Self::bare().await;
        world.make_streams().await;
        world.make_buckets().await;
        world
    }

    /// NATS with nothing in it.
    pub(crate) async fn bare() -> Self {
        let nats = Nats::start().await;
        let client = async_nats::connect(nats.url()).await.unwrap();
        Self { jetstream: jetstream::new(client), nats }
    }

    pub(crate) async fn make_streams(&self) {
        for shard in nats::all_shards(SHARDS) {
            let config = stream::Config {
                name: nats::request_events_stream(shard),
                subjects: vec![nats::request_events_subject(shard)],
                ..Default::default()
            };
            self.jetstream.create_stream(config).await.unwrap();
        }
    }

    pub(crate) async fn make_buckets(&self) {
        for bucket in [nats::KEYS_BY_HASH_BUCKET, nats::EDGES_BUCKET, nats::EDGE_COMMITS_BUCKET] {
            let config = kv::Config { bucket: bucket.into(), ..Default::default() };
            self.jetstream.create_key_value(config).await.unwrap();
        }
        self.write_head().await;
    }

    /// The layer without the proxy, once it has the keys.
    pub(crate) async fn layer(&self, spool: &std::path::Path) -> edge_layer::Edge {
        let keys = feed_keys().parse().unwrap();
        let settings = edge_layer::Settings {
            shards: SHARDS,
            spool_bytes_max: 64 << 20,
            ..edge_layer::Settings::new(self.nats.url(), spool, keys)
        };
        let edge = edge_layer::Edge::start(settings).await.unwrap();
        eventually("the keys are there", async || edge.status().feed == edge_layer::Feed::Live).await;
        edge
    }

    /// A new key in the feed.
    pub(crate) async fn key(&self) -> Key {
        self.key_of(Environment::Live).await
    }

    /// A new key of an environment.
    pub(crate) async fn key_of(&self, environment: Environment) -> Key {
        let key = Key {
            secret: Secret::generate(environment),
            workspace_id: Id::generate(),
            key_id: Id::generate(),
            secret_id: Id::generate(),
        };
        self.feed(&key, 1, pb::KeyState::Active, None).await;
        key
    }

    /// Writes a key into the feed; says where it stands there.
    pub(crate) async fn feed(
        &self,
        key: &Key,
        version: u64,
        state: pb::KeyState,
        expires_at: Option<OffsetDateTime>,
    ) -> u64 {
        let entry = pb::KeyFeedEntry { expire_time: expires_at.map(timestamp::to_proto), ..key.entry(state) };
        self.feed_entry(key, pb::KeyFeedEntry { version, ..entry }).await
    }

    /// Writes an entry at the next place of the feed, and a head that covers it.
    pub(crate) async fn feed_entry(&self, key: &Key, mut entry: pb::KeyFeedEntry) -> u64 {
        let bucket = self.bucket(nats::KEYS_BY_HASH_BUCKET).await;
        entry.feed_version = bucket.stream.get_info().await.unwrap().state.last_sequence + 1;
        let hash = key.secret.hash().to_string();
        let value = signed(&nats::feed_entry_purpose(&hash), &entry);
        bucket.put(hash, value.into()).await.unwrap();
        self.write_head().await;
        entry.feed_version
    }

    /// Writes the head, as keys does after each change.
    pub(crate) async fn write_head(&self) {
        let bucket = self.bucket(nats::KEYS_BY_HASH_BUCKET).await;
        let has_head = bucket.get(nats::FEED_HEAD_KEY).await.unwrap().is_some();
        let info = bucket.stream.get_info().await.unwrap();
        let head = pb::FeedHead {
            bucket_created_us: i64::try_from(info.created.unix_timestamp_nanos() / 1_000).unwrap(),
            bucket_sequence: info.state.last_sequence,
            feed_version: info.state.last_sequence,
            secrets: info.state.messages - u64::from(has_head),
            ..pb::FeedHead::default()
        };
        let value = signed(nats::FEED_HEAD_PURPOSE, &head);
        bucket.put(nats::FEED_HEAD_KEY, value.into()).await.unwrap();
    }

    pub(crate) async fn bucket(&self, name: &str) -> kv::Store {
        self.jetstream.get_key_value(name).await.unwrap()
    }

    /// Every batch in the streams.
    pub(crate) async fn batches(&self) -> Vec<pb::RequestEventBatch> {
        let mut batches = Vec::new();
        for shard in nats::all_shards(SHARDS) {
            let mut stream = self.jetstream.get_stream(nats::request_events_stream(shard)).await.unwrap();
            let messages = stream.info().await.unwrap().state.messages;
            let consumer: PullConsumer = stream.create_consumer(Default::default()).await.unwrap();
            let limit = usize::try_from(messages).unwrap();
            let mut messages = consumer.fetch().max_messages(limit).messages().await.unwrap();
            while let Some(message) = messages.next().await {
                batches.push(pb::RequestEventBatch::decode(message.unwrap().payload.clone()).unwrap());
            }
        }
        batches
    }

    /// Every event in the streams, once; the same identity always names the same event.
    pub(crate) async fn events(&self) -> BTreeMap<Identity, RequestEvent> {
        let mut events = BTreeMap::new();
        for batch in self.batches().await {
            for (seq, event) in (batch.first_seq..).zip(batch.events) {
                let event = RequestEvent::try_from(event).unwrap();
                let identity = (batch.edge_id.clone(), batch.boot_epoch, batch.shard, seq);
                if let Some(other) = events.insert(identity.clone(), event.clone()) {
                    assert_eq!(other, event, "{identity:?} names two events");
                }
            }
        }
        events
    }

    /// The events once there are at least `count`.
    pub(crate) async fn events_of(&self, count: usize) -> Vec<RequestEvent> {
        eventually(&format!("{count} events are published"), async || {
            let events: Vec<_> = self.events().await.into_values().collect();
            (events.len() >= count).then_some(events)
        })
        .await
    }

    /// The one event that was published.
    pub(crate) async fn event(&self) -> RequestEvent {
        let mut events = self.events_of(1).await;
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    /// Says of everything in the streams that ClickHouse has it, as ingest does.
    pub(crate) async fn commit(&self) {
        let mut ranges = BTreeMap::<String, Vec<(u64, u64)>>::new();
        for batch in self.batches().await {
            let key =
                nats::edge_commit_key(&batch.edge_id, batch.boot_epoch, u16::try_from(batch.shard).unwrap());
            let ranges = ranges.entry(key).or_default();
            let count = batch.events.len() as u64;
            ranges.extend((count > 0).then(|| (batch.first_seq, batch.first_seq + count - 1)));
            ranges.extend(batch.lost.iter().map(|lost| (lost.first_seq, lost.last_seq)));
        }
        let bucket = self.bucket(nats::EDGE_COMMITS_BUCKET).await;
        for (key, ranges) in ranges {
            let committed = ranges
                .into_iter()
                .map(|(first_seq, last_seq)| pb::SeqRange { first_seq, last_seq })
                .collect();
            bucket.put(key, pb::EdgeCommit { committed }.encode_to_vec().into()).await.unwrap();
        }
    }

    /// The last heartbeats.
    pub(crate) async fn heartbeats(&self) -> Vec<pb::EdgeHeartbeat> {
        let bucket = self.bucket(nats::EDGES_BUCKET).await;
        let keys: Vec<_> = bucket.keys().await.unwrap().collect().await;
        let mut heartbeats = Vec::new();
        for key in keys {
            if let Some(value) = bucket.get(key.unwrap()).await.unwrap() {
                heartbeats.push(pb::EdgeHeartbeat::decode(value).unwrap());
            }
        }
        heartbeats
    }
}

/// The pair that signs in the place of keys.
fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

/// What edges check the feed with.
pub(crate) fn feed_keys() -> String {
    format!("k1 {}\n", data_encoding::BASE64.encode(pair().public_key().as_ref()))
}

/// Signs as keys does.
pub(crate) fn signed(purpose: &str, message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let signature = pair().sign(&nats::signed_bytes(purpose, &message)).as_ref().to_vec();
    pb::SignedFeedMessage { kid: "k1".into(), signature, message }.encode_to_vec()
}

/// The edge as a process.
pub(crate) struct EdgeProcess {
    pub(crate) service: Service,
    pub(crate) addr: String,
    pub(crate) health: String,
    pub(crate) spool: tempfile::TempDir,
    pub(crate) feed_keys: tempfile::NamedTempFile,
}

impl EdgeProcess {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(world: &World, upstream: SocketAddr, more: &[(&str, &str)]) -> Self {
        let mut edge = Self::spawn(&world.nats.url(), &format!("http://{upstream}"), more).await;
        edge.wait_ready().await;
        edge
    }

    /// Starts it.
    pub(crate) async fn spawn(nats_url: &str, upstream_url: &str, more: &[(&str, &str)]) -> Self {
        let spool = tempfile::tempdir().unwrap();
        let feed_keys_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&feed_keys_file, feed_keys()).unwrap();
        let addr = format!("127.0.0.1:{}", free_port());
        let health = format!("127.0.0.1:{}", free_port());
        let mut environment = vec![
            ("KEYMETER_EDGE_ADDR", addr.as_str()),
            ("KEYMETER_EDGE_HEALTH_ADDR", &health),
            ("KEYMETER_EDGE_UPSTREAM_URL", upstream_url),
            ("KEYMETER_EDGE_NATS_URL", nats_url),
            ("KEYMETER_EDGE_SPOOL_DIR", spool.path().to_str().unwrap()),
            ("KEYMETER_EDGE_FEED_KEYS_FILE", feed_keys_file.path().to_str().unwrap()),
            ("KEYMETER_EDGE_SHARDS", "2"),
            ("KEYMETER_EDGE_REGION", "eu-1"),
        ];
        environment.extend(more);
        let service = Service::spawn("edge", &environment).await;
        Self { service, addr, health, spool, feed_keys: feed_keys_file }
    }

    /// Waits until it says on its own port that it is ready: it says so on the other before it listens here.
    pub(crate) async fn wait_ready(&mut self) {
        self.service.wait_ready(&self.health).await;
        let ready = async || matches!(parts::get(&self.addr, "/.keymeter/readyz").await, Ok(said) if said.status == 200);
        eventually("the edge is ready", ready).await;
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

/// Serves `api` on a port of its own.
pub(crate) async fn serve(api: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, api).await });
    addr
}

/// An API that answers everything with what it was asked.
pub(crate) fn echo() -> Router {
    Router::new().fallback(async |request: axum::extract::Request| {
        let (head, body) = request.into_parts();
        let headers: BTreeMap<_, _> = head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("?").to_owned()))
            .collect();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let said = serde_json::json!({
            "method": head.method.as_str(),
            "uri": head.uri.to_string(),
            "headers": headers,
            "body": String::from_utf8_lossy(&body),
        });
        axum::Json(said)
    })
}

/// A request with the key.
pub(crate) fn get(url: &str, key: &Key) -> Request<Full<Bytes>> {
    Request::get(url)
        .header("authorization", format!("Bearer {}", key.secret.reveal()))
        .body(Full::default())
        .unwrap()
}

/// Sends a request; the body is read to its end.
pub(crate) async fn send(request: Request<Full<Bytes>>) -> Response<Bytes> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.unwrap();
    let (head, body) = response.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

/// Polls an edge until the key works there.
pub(crate) async fn until_known(edge: &EdgeProcess, key: &Key, path: &str) {
    eventually("the key is known", async || send(get(&edge.url(path), key)).await.status() == 200).await;
}

pub(crate) fn json(response: &Response<Bytes>) -> serde_json::Value {
    serde_json::from_slice(response.body()).unwrap()
}

/// Longer than any pause of the edge.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
