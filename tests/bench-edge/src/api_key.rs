//! What the edge under test verifies with: a NATS with the streams and buckets that ingest makes, and the key feed,
//! signed as keys signs it. It also stands for ingest: says that ClickHouse has whatever was published.

use std::time::Duration;

use async_nats::jetstream::{self, kv, stream};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use domain::{Environment, KeyId, Secret, SecretId, WorkspaceId};
use prost::Message as _;
use proto::{events as pb, nats};

/// As the edge has by default.
const SHARDS: u16 = 4;
/// What a stream holds before it forgets the oldest, in bytes.
const STREAM_BYTES_MAX: i64 = 256 << 20;
/// How often the edge is told what it may forget.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// Makes streams and buckets, and a key in the feed whose limit is never reached. Returns its secret.
pub(crate) async fn make(nats: &str) -> anyhow::Result<Secret> {
    let jetstream = jetstream::new(async_nats::connect(nats).await?);
    for shard in nats::all_shards(SHARDS) {
        let config = stream::Config {
            name: nats::request_events_stream(shard),
            subjects: vec![nats::request_events_subject(shard)],
            max_bytes: STREAM_BYTES_MAX,
            ..Default::default()
        };
        jetstream.create_stream(config).await?;
    }
    for bucket in [nats::KEYS_BY_HASH_BUCKET, nats::EDGES_BUCKET, nats::EDGE_COMMITS_BUCKET] {
        jetstream.create_key_value(kv::Config { bucket: bucket.into(), ..Default::default() }).await?;
    }
    let secret = Secret::generate(Environment::Live);
    let feed = jetstream.get_key_value(nats::KEYS_BY_HASH_BUCKET).await?;
    let hash = secret.hash().to_string();
    let entry = pb::KeyFeedEntry {
        workspace_id: WorkspaceId::generate().as_bytes().to_vec(),
        key_id: KeyId::generate().as_bytes().to_vec(),
        secret_id: SecretId::generate().as_bytes().to_vec(),
        version: 1,
        feed_version: 1,
        state: pb::KeyState::Active.into(),
        rate_limits: vec![pb::RateLimit { name: "ample".into(), requests: 1_000_000_000, window_s: 60 }],
        ..pb::KeyFeedEntry::default()
    };
    feed.put(&hash, signed(&nats::feed_entry_purpose(&hash), &entry).into()).await?;
    let info = feed.stream.get_info().await?;
    let head = pb::FeedHead {
        bucket_created_us: i64::try_from(info.created.unix_timestamp_nanos() / 1_000)?,
        bucket_sequence: info.state.last_sequence,
        secrets: 1,
        ..pb::FeedHead::default()
    };
    feed.put(nats::FEED_HEAD_KEY, signed(nats::FEED_HEAD_PURPOSE, &head).into()).await?;
    tokio::spawn(commit(jetstream));
    Ok(secret)
}

/// The pair that signs in the place of keys.
fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed has 32 bytes")
}

/// What the edge checks the feed with.
pub(crate) fn feed_keys() -> String {
    format!("k1 {}\n", data_encoding::BASE64.encode(pair().public_key().as_ref()))
}

fn signed(purpose: &str, message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let signature = pair().sign(&nats::signed_bytes(purpose, &message)).as_ref().to_vec();
    pb::SignedFeedMessage { kid: "k1".into(), signature, message }.encode_to_vec()
}

/// The last heartbeat of each edge.
pub(crate) async fn heartbeats(jetstream: &jetstream::Context) -> anyhow::Result<Vec<pb::EdgeHeartbeat>> {
    use futures_util::TryStreamExt as _;
    let edges = jetstream.get_key_value(nats::EDGES_BUCKET).await?;
    let names: Vec<String> = edges.keys().await?.try_collect().await?;
    let mut heartbeats = Vec::new();
    for name in names {
        if let Some(value) = edges.get(name).await? {
            heartbeats.push(pb::EdgeHeartbeat::decode(value)?);
        }
    }
    Ok(heartbeats)
}

async fn commit(jetstream: jetstream::Context) {
    loop {
        tokio::time::sleep(COMMIT_EVERY).await;
        // What fails now is done a second later.
        let _ = commit_once(&jetstream).await;
    }
}

async fn commit_once(jetstream: &jetstream::Context) -> anyhow::Result<()> {
    let commits = jetstream.get_key_value(nats::EDGE_COMMITS_BUCKET).await?;
    for heartbeat in heartbeats(jetstream).await? {
        for position in &heartbeat.positions {
            let shard = u16::try_from(position.shard)?;
            let key = nats::edge_commit_key(&heartbeat.edge_id, position.boot_epoch, shard);
            let range = pb::SeqRange { first_seq: 1, last_seq: position.published_seq };
            let commit = pb::EdgeCommit { committed: vec![range] };
            commits.put(key, commit.encode_to_vec().into()).await?;
        }
    }
    Ok(())
}
