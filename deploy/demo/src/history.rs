//! Publishes the invented week as the spool of an edge of its own would, once. Sends the same numbers again if it
//! was stopped, so nothing is counted twice; writes no heartbeat, so it never looks like an edge that went away.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use async_nats::jetstream::{self, kv};
use domain::{Id, KeyId, RequestEvent, Secret, id::Noun};
use nats_cluster::Servers;
use prost::Message as _;
use proto::{
    events::{EdgeCommit, KeyFeedEntry, RequestEventBatch, SeqRange, SignedFeedMessage},
    nats,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use crate::{
    callers::CALLERS,
    keyring,
    past::{self, KeyIds},
};

const SEED: u64 = 1;
const BOOT_EPOCH: u32 = 1;
const BATCH_EVENTS: usize = 500;
/// How long ingest may take to make its streams, and then to commit the next events.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);

/// Settings of the past.
#[derive(Debug, clap::Args)]
pub struct Config {
    /// Where NATS is, and as whom: who may read the key feed and what is counted, and publish events.
    #[arg(
        long,
        env = "KEYMETER_DEMO_NATS_URL",
        hide_env_values = true,
        default_value = "nats://127.0.0.1:4222"
    )]
    nats_url: String,
    /// File with the keys of the callers, made by `setup`.
    #[arg(long, env = "KEYMETER_DEMO_KEYS_FILE")]
    keys_file: PathBuf,
    /// File that remembers what was begun and whether it is done.
    #[arg(long, env = "KEYMETER_DEMO_HISTORY_FILE")]
    history_file: PathBuf,
    /// Number of shards, as the edge and ingest have it.
    #[arg(long, env = "KEYMETER_DEMO_SHARDS", default_value_t = 4)]
    shards: u16,
    #[command(flatten)]
    identity: tls::Settings,
}

/// What was begun: with the keys, all that the week follows from.
#[derive(Serialize, Deserialize)]
struct Begun {
    edge_id: String,
    /// End of the week, Unix time in seconds.
    end: i64,
    done: bool,
}

enum EdgeNoun {}

impl Noun for EdgeNoun {
    const PREFIX: &'static str = "edge_";
}

/// Publishes what is not there yet and waits until it is counted.
///
/// # Errors
/// If NATS is away, a key is missing from the feed, or the events are not counted within two minutes.
#[expect(clippy::print_stderr, reason = "progress for the person who waits")]
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut begun = begin(&config.history_file)?;
    if begun.done {
        return Ok(());
    }
    let servers = Servers::parse(&config.nats_url)?.secured_by(config.identity.identity()?);
    let client = servers.connect(servers.options()).await.with_context(|| format!("no NATS at {servers}"))?;
    let stream = jetstream::new(client);
    let events = week(&stream, &config.keys_file, OffsetDateTime::from_unix_timestamp(begun.end)?).await?;
    let total = events.len();
    eprintln!("  {total} calls of the last {} days", past::DAYS);
    let shards = by_shard(events, config.shards);
    for batch in shards.iter().flat_map(|(shard, events)| batches(&begun.edge_id, *shard, events)) {
        publish(&stream, &batch).await?;
    }
    wait_until_counted(&stream, &begun.edge_id, &shards, |counted| {
        eprintln!("  {counted} of {total} counted");
    })
    .await?;
    begun.done = true;
    keyring::write(&config.history_file, &begun)
}

/// What an earlier run began, or a new beginning, written down before anything is sent.
fn begin(file: &Path) -> anyhow::Result<Begun> {
    if let Ok(bytes) = fs::read(file) {
        return serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", file.display()));
    }
    let edge_id = Id::<EdgeNoun>::generate().to_string();
    let begun = Begun { edge_id, end: OffsetDateTime::now_utc().unix_timestamp(), done: false };
    keyring::write(file, &begun)?;
    Ok(begun)
}

/// The week of all callers, oldest first.
async fn week(
    stream: &jetstream::Context,
    keys_file: &Path,
    end: OffsetDateTime,
) -> anyhow::Result<Vec<RequestEvent>> {
    let held = keyring::read(keys_file)?;
    let feed = bucket(stream, nats::KEYS_BY_HASH_BUCKET).await?;
    let mut events = Vec::new();
    for caller in CALLERS {
        let key = held.iter().find(|key| key.display_name == caller.display_name);
        let key = key.with_context(|| format!("no key {}; run `demo setup` first", caller.display_name))?;
        let ids =
            key_ids(&feed, &key.secret).await.with_context(|| format!("key {}", caller.display_name))?;
        events.extend(past::calls(SEED, end, caller, ids));
    }
    events.sort_by_key(|event| (event.occurred_at, event.request_id));
    Ok(events)
}

/// The ids of a secret, from the feed that edges verify with.
async fn key_ids(feed: &kv::Store, secret: &str) -> anyhow::Result<KeyIds> {
    let hash = Secret::parse(secret)?.hash().to_string();
    let value = wait_for("the key in the feed", async || Ok(feed.get(hash.as_str()).await?)).await?;
    let signed = SignedFeedMessage::decode(value)?;
    let entry = KeyFeedEntry::decode(signed.message.as_slice())?;
    let ids = (
        Id::from_slice(&entry.workspace_id),
        Id::from_slice(&entry.key_id),
        Id::from_slice(&entry.secret_id),
    );
    let (Some(workspace_id), Some(key_id), Some(secret_id)) = ids else {
        bail!("the feed's entry has no ids")
    };
    Ok(KeyIds { workspace_id, key_id, secret_id })
}

async fn bucket(stream: &jetstream::Context, name: &str) -> anyhow::Result<kv::Store> {
    wait_for(name, async || Ok(stream.get_key_value(name).await.ok())).await
}

fn by_shard(events: Vec<RequestEvent>, shards: u16) -> BTreeMap<u16, Vec<RequestEvent>> {
    let mut sorted = BTreeMap::<u16, Vec<_>>::new();
    for event in events {
        let key_id: KeyId = event.key_id;
        sorted.entry(nats::shard_of(&key_id, shards)).or_default().push(event);
    }
    sorted
}

fn batches(edge_id: &str, shard: u16, events: &[RequestEvent]) -> Vec<RequestEventBatch> {
    let mut first_seq = 1;
    let batch = |events: &[RequestEvent]| {
        let batch = RequestEventBatch {
            edge_id: edge_id.to_owned(),
            boot_epoch: BOOT_EPOCH,
            shard: shard.into(),
            first_seq,
            events: events.iter().map(Into::into).collect(),
            lost: Vec::new(),
        };
        first_seq += events.len() as u64;
        batch
    };
    events.chunks(BATCH_EVENTS).map(batch).collect()
}

/// Publishes one batch and waits until the stream has it; the stream may not have been made yet.
async fn publish(stream: &jetstream::Context, batch: &RequestEventBatch) -> anyhow::Result<()> {
    let subject = nats::request_events_subject(u16::try_from(batch.shard)?);
    let payload = bytes::Bytes::from(batch.encode_to_vec());
    wait_for(&subject, async || {
        let sent = stream.publish(subject.clone(), payload.clone()).await?;
        Ok(sent.await.ok())
    })
    .await?;
    Ok(())
}

/// Waits for ingest's word that ClickHouse has all of it, and tells how many it has whenever that changes.
async fn wait_until_counted(
    stream: &jetstream::Context,
    edge_id: &str,
    shards: &BTreeMap<u16, Vec<RequestEvent>>,
    mut tell: impl FnMut(u64),
) -> anyhow::Result<()> {
    let commits = bucket(stream, nats::EDGE_COMMITS_BUCKET).await?;
    let total: u64 = shards.values().map(|events| events.len() as u64).sum();
    let mut known = 0;
    while known < total {
        known = wait_for("the calls to be counted", async || {
            let mut counted = 0;
            for (shard, events) in shards {
                let key = nats::edge_commit_key(edge_id, BOOT_EPOCH, *shard);
                if let Some(value) = commits.get(key).await? {
                    counted += covered(&EdgeCommit::decode(value)?.committed, events.len() as u64);
                }
            }
            Ok((counted > known).then_some(counted))
        })
        .await?;
        tell(known);
    }
    Ok(())
}

/// How many of the sequences 1 to `last` the ranges hold.
fn covered(ranges: &[SeqRange], last: u64) -> u64 {
    ranges.iter().map(|range| (range.last_seq.min(last) + 1).saturating_sub(range.first_seq.max(1))).sum()
}

/// Asks until there is an answer.
async fn wait_for<T>(
    what: &str,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain for {what}; see the log of ingest and keys", PATIENCE.as_secs());
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use domain::{SecretId, WorkspaceId};

    use super::*;

    #[test]
    fn batches_number_each_shard_from_one_without_a_gap() {
        let ids = KeyIds {
            workspace_id: WorkspaceId::generate(),
            key_id: KeyId::generate(),
            secret_id: SecretId::generate(),
        };
        let events = past::calls(SEED, OffsetDateTime::now_utc(), &CALLERS[0], ids);
        let shards = by_shard(events.clone(), 4);
        assert_eq!(shards.len(), 1, "a key has one shard");
        let (shard, kept) = shards.first_key_value().unwrap();
        let mut next_seq = 1;
        for batch in batches("edge_x", *shard, kept) {
            assert_eq!(batch.first_seq, next_seq);
            assert!((1..=1000).contains(&batch.events.len()));
            next_seq += batch.events.len() as u64;
        }
        assert_eq!(next_seq, events.len() as u64 + 1);
    }

    #[test]
    fn counts_what_the_ranges_cover() {
        let range = |first_seq, last_seq| SeqRange { first_seq, last_seq };
        assert_eq!(covered(&[], 10), 0);
        assert_eq!(covered(&[range(1, 10)], 10), 10);
        assert_eq!(covered(&[range(1, 3), range(5, 20)], 10), 9);
        assert_eq!(covered(&[range(11, 20)], 10), 0);
    }

    #[test]
    fn a_second_beginning_is_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("history.json");
        let first = begin(&file).unwrap();
        let second = begin(&file).unwrap();
        assert_eq!((first.edge_id, first.end), (second.edge_id, second.end));
    }
}
