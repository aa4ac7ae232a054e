//! Tells whoever wants to know what happens to keys: a message for each key event, in the order of its workspace's
//! chain, on a stream of its own. The key feed never waits for it.

use std::{convert::Infallible, time::Duration};

use async_nats::{HeaderMap, header::NATS_MESSAGE_ID, jetstream};
use domain::WorkspaceId;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;
use proto::{
    events::KeyEvent,
    nats::{KEY_EVENTS_STREAM, KEY_EVENTS_SUBJECTS, key_events_subject},
    timestamp::to_proto,
};

use super::{
    FeedError, again,
    bucket::{BucketError, failed},
};
use crate::{
    nats::Streams,
    store::{
        Store,
        announced::{Happened, Unannounced},
    },
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Chains in one look, and events of one chain at once.
const CHAINS_MAX: i64 = 1_000;
const EVENTS_MAX: i64 = 1_000;
/// How long the stream keeps a message.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Most bytes of the stream; then the oldest messages go.
const STREAM_BYTES_MAX: i64 = 1 << 30;

/// Announces for ever.
pub(super) async fn run(store: &Store, streams: &Streams) -> Infallible {
    again(LOOK_EVERY, "key events are announced later", async || announce(store, streams).await).await
}

/// Everything that was not announced yet.
async fn announce(store: &Store, streams: &Streams) -> Result<(), FeedError> {
    let context = &streams.context;
    let mut is_there = false;
    loop {
        let chains = store.unannounced(CHAINS_MAX).await?;
        if chains.is_empty() {
            return Ok(());
        }
        if !std::mem::replace(&mut is_there, true) {
            context
                .get_or_create_stream(config(streams.replicas))
                .await
                .map_err(failed("make the stream KEY_EVENTS"))?;
        }
        for chain in chains {
            announce_chain(store, context, chain).await?;
        }
    }
}

async fn announce_chain(
    store: &Store,
    context: &jetstream::Context,
    chain: Unannounced,
) -> Result<(), FeedError> {
    let events = store.happened(chain, EVENTS_MAX).await?;
    let is_whole = i64::try_from(events.len()).is_ok_and(|count| count < EVENTS_MAX);
    let up_to = events.last().filter(|_| !is_whole).map_or(chain.up_to, |last| last.sequence);
    let acks = stream::iter(&events).then(|event| send(context, chain.workspace_id, event));
    let acks: Vec<_> = acks.try_collect().await?;
    for ack in acks {
        ack.await.map_err(failed("announce a key event"))?;
    }
    Ok(store.announced(chain.workspace_id, up_to).await?)
}

/// Sends one; a repetition within two minutes is dropped by NATS, a later one has the same place.
async fn send(
    context: &jetstream::Context,
    workspace_id: WorkspaceId,
    event: &Happened,
) -> Result<jetstream::context::PublishAckFuture, BucketError> {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, format!("{workspace_id}.{}", event.sequence));
    let subject = key_events_subject(workspace_id, &event.kind);
    let message = KeyEvent {
        workspace_id: workspace_id.as_bytes().to_vec(),
        key_id: event.key_id.as_bytes().to_vec(),
        sequence: event.sequence.unsigned_abs(),
        version: event.version.unsigned_abs(),
        r#type: event.kind.clone(),
        actor: event.actor.clone(),
        event_time: Some(to_proto(event.time)),
    };
    let sent = context.publish_with_headers(subject, headers, message.encode_to_vec().into()).await;
    sent.map_err(failed("announce a key event"))
}

fn config(num_replicas: usize) -> jetstream::stream::Config {
    jetstream::stream::Config {
        name: KEY_EVENTS_STREAM.to_owned(),
        description: Some("What happened to keys, for whoever wants to know".into()),
        subjects: vec![KEY_EVENTS_SUBJECTS.to_owned()],
        max_age: KEPT_FOR,
        max_bytes: STREAM_BYTES_MAX,
        discard: jetstream::stream::DiscardPolicy::Old,
        num_replicas,
        ..Default::default()
    }
}
