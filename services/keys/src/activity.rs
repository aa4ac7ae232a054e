//! Follows the stream `KEY_ACTIVITY`, which says when and from where keys were last used. A message is acknowledged after
//! Postgres has it; one that can not be read is counted and given up, and never blocks the rest.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use async_nats::jetstream::{
    self, AckKind, Message,
    consumer::{AckPolicy, PullConsumer, pull},
};
use domain::{KeyId, SecretId, WorkspaceId};
use futures_util::TryStreamExt as _;
use prost::Message as _;
use proto::{events::KeyActivityBatch, nats::KEY_ACTIVITY_STREAM, timestamp::from_proto};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{
    fields::to_micros,
    metrics::{Fate, Metrics},
    store::{Store, activity::KeyUse},
};

/// How long an address counts.
pub const ADDRESSES_COUNT_FOR: time::Duration = time::Duration::days(30);

/// The consumer's name, the same for all keys services: each message goes to one of them.
const CONSUMER: &str = "keys";
/// Most messages taken at once; each has at most 1,000 keys.
const MESSAGES_MAX: usize = 64;
/// How long to wait for the first of them.
const FETCH_EXPIRES: Duration = Duration::from_secs(5);
/// A message that was not acknowledged by then comes again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Pauses after a failure, doubling.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Length of a client's print.
const PRINT_BYTES: usize = 8;

/// Follows the stream until `shutdown`; waits for ingest to make it.
pub async fn run(store: Store, context: jetstream::Context, metrics: Metrics, shutdown: CancellationToken) {
    let following = async {
        let mut retry = RETRY_MIN;
        let mut said = String::new();
        loop {
            let Err(error) = follow(&store, &context, &metrics, &mut || {
                if !said.is_empty() {
                    tracing::info!("last uses of keys are followed again");
                    said.clear();
                }
                retry = RETRY_MIN;
            })
            .await;
            let reason = format!("{error:#}");
            if reason != said {
                tracing::warn!(reason, "last uses of keys wait");
                said = reason;
            }
            tokio::time::sleep(retry).await;
            retry = RETRY_MAX.min(retry * 2);
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = following => {}
    }
}

async fn follow(
    store: &Store,
    context: &jetstream::Context,
    metrics: &Metrics,
    good: &mut impl FnMut(),
) -> anyhow::Result<std::convert::Infallible> {
    let consumer = consumer(context).await?;
    loop {
        let fetched = consumer.fetch().max_messages(MESSAGES_MAX).expires(FETCH_EXPIRES).messages().await?;
        let messages: Vec<Message> = fetched.try_collect().await.map_err(anyhow::Error::from_boxed)?;
        good();
        apply(store, messages, metrics).await?;
    }
}

async fn consumer(context: &jetstream::Context) -> anyhow::Result<PullConsumer> {
    let stream = context.get_stream(KEY_ACTIVITY_STREAM).await?;
    let config = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        description: Some("when keys were last used, for Postgres".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        ..pull::Config::default()
    };
    Ok(stream.get_or_create_consumer(CONSUMER, config).await?)
}

async fn apply(store: &Store, messages: Vec<Message>, metrics: &Metrics) -> anyhow::Result<()> {
    let mut newest = BTreeMap::new();
    let mut readable = Vec::with_capacity(messages.len());
    for message in messages {
        if let Some(uses) = read(&message.payload) {
            merge(&mut newest, uses);
            readable.push(message);
        } else {
            tracing::warn!("a message on last uses of keys can not be read; it is given up");
            message.ack_with(AckKind::Term).await.map_err(anyhow::Error::from_boxed)?;
            metrics.activity(Fate::Unreadable);
        }
    }
    let uses: Vec<KeyUse> = newest.into_values().collect();
    if !uses.is_empty() {
        store.note_uses(&uses, OffsetDateTime::now_utc() - ADDRESSES_COUNT_FOR).await?;
    }
    for message in readable {
        message.ack().await.map_err(anyhow::Error::from_boxed)?;
        metrics.activity(Fate::Applied);
    }
    Ok(())
}

/// What a message says; `None` if any of it can not be read.
fn read(payload: &[u8]) -> Option<Vec<KeyUse>> {
    let batch = KeyActivityBatch::decode(payload).ok()?;
    let time = |at: Option<&prost_types::Timestamp>| Some(to_micros(from_proto(at?)?));
    let read = |key: &proto::events::KeyActivity| {
        let last_used_time = time(key.last_used_at.as_ref())?;
        let secret = |secret: &proto::events::SecretActivity| {
            Some((SecretId::from_slice(&secret.secret_id)?, time(secret.last_used_at.as_ref())?))
        };
        let print = |print: &Vec<u8>| (print.len() == PRINT_BYTES).then(|| (print.clone(), last_used_time));
        Some(KeyUse {
            key_id: KeyId::from_slice(&key.key_id)?,
            workspace_id: WorkspaceId::from_slice(&key.workspace_id)?,
            last_used_time,
            secrets: key.secrets.iter().map(secret).collect::<Option<_>>()?,
            client_prints: key.client_prints.iter().map(print).collect::<Option<_>>()?,
        })
    };
    batch.keys.iter().map(read).collect()
}

/// One entry for each key.
fn merge(newest: &mut BTreeMap<(KeyId, WorkspaceId), KeyUse>, uses: Vec<KeyUse>) {
    for used in uses {
        match newest.entry((used.key_id, used.workspace_id)) {
            Entry::Vacant(vacant) => {
                vacant.insert(used);
            }
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.last_used_time = known.last_used_time.max(used.last_used_time);
                known.secrets.extend(used.secrets);
                known.client_prints.extend(used.client_prints);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::{
        events::{KeyActivity, SecretActivity},
        timestamp::to_proto,
    };
    use time::{Duration, OffsetDateTime};

    use super::*;

    fn activity(key_id: KeyId, workspace_id: WorkspaceId, at: OffsetDateTime) -> KeyActivity {
        KeyActivity {
            key_id: key_id.as_bytes().to_vec(),
            workspace_id: workspace_id.as_bytes().to_vec(),
            last_used_at: Some(to_proto(at)),
            secrets: vec![SecretActivity {
                secret_id: SecretId::generate().as_bytes().to_vec(),
                last_used_at: Some(to_proto(at)),
            }],
            client_prints: vec![vec![7; 8]],
        }
    }

    #[test]
    fn the_latest_time_of_each_key_counts() {
        let (key_id, workspace_id) = (KeyId::generate(), WorkspaceId::generate());
        let early = OffsetDateTime::UNIX_EPOCH;
        let late = early + Duration::HOUR;
        let keys = [late, early].map(|at| activity(key_id, workspace_id, at)).to_vec();
        let mut newest = BTreeMap::new();
        merge(&mut newest, read(&KeyActivityBatch { keys }.encode_to_vec()).unwrap());
        let [used] = &newest.into_values().collect::<Vec<_>>()[..] else { panic!("one key is one entry") };
        assert_eq!((used.key_id, used.workspace_id, used.last_used_time), (key_id, workspace_id, late));
        assert_eq!(used.client_prints, [(vec![7; 8], late), (vec![7; 8], early)]);
        assert_eq!(used.secrets.iter().map(|(_, at)| *at).collect::<Vec<_>>(), [late, early]);
    }

    #[test]
    fn what_can_not_be_read_is_told() {
        let good = activity(KeyId::generate(), WorkspaceId::generate(), OffsetDateTime::UNIX_EPOCH);
        let refused = |bad: KeyActivity| {
            read(&KeyActivityBatch { keys: vec![good.clone(), bad] }.encode_to_vec()).is_none()
        };
        assert!(read(b"\xff\xff\xff").is_none());
        assert!(refused(KeyActivity { key_id: vec![1], ..good.clone() }));
        assert!(refused(KeyActivity { workspace_id: vec![], ..good.clone() }));
        assert!(refused(KeyActivity { last_used_at: None, ..good.clone() }));
        assert!(refused(KeyActivity { client_prints: vec![vec![7; 9]], ..good.clone() }));
        assert!(refused(KeyActivity { secrets: vec![SecretActivity::default()], ..good.clone() }));
        assert!(!refused(good.clone()));
    }
}
