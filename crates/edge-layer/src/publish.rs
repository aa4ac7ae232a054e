//! From the spool to the stream: batches of neighbouring numbers, each awaited. What fails is sent again from
//! the oldest segment, less what was acknowledged since the connection began.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::{HeaderMap, jetstream};
use futures_util::{StreamExt as _, stream};
use proto::{event_bytes, events as pb, nats};
use trace::{Span, TRACEPARENT, Traceparent};

use crate::{
    link::backoff,
    spans,
    spool::{Item, Reader, Spool, record::StreamId},
};

/// Most events of one batch; a reader refuses more.
const BATCH_EVENTS_MAX: usize = 1000;
/// A batch is closed before it grows beyond this, in bytes; NATS takes messages of 1 MiB.
const BATCH_BYTES_MAX: usize = 512 * 1024;
/// Items read before they are sent.
const ROUND_ITEMS: usize = 4096;
/// Batches under way at once.
const IN_FLIGHT_MAX: usize = 8;
/// How long the first event of a quiet time waits for others.
const GATHER: Duration = Duration::from_millis(50);

/// Sends what is in the spool, and what comes, until it is dropped.
pub(crate) async fn run(jetstream: jetstream::Context, spool: Arc<Spool>) -> Result<(), std::io::Error> {
    let mut reader = Reader::default();
    let mut failures = 0;
    let mut is_behind = false;
    spool.forget_published();
    loop {
        let source = spool.clone();
        let read = move || {
            let round = reader.read(&source, ROUND_ITEMS);
            (reader, round)
        };
        let (back, round) = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?;
        reader = back;
        let (items, is_end) = round?;
        let is_idle = items.is_empty();
        if let Err(error) = send(&jetstream, &spool, items).await {
            if failures == 0 {
                tracing::warn!(reason = %error, "events cannot be published; they stay in the spool and are sent again");
            }
            is_behind = true;
            failures += 1;
            tokio::time::sleep(backoff(failures)).await;
        } else if !is_idle {
            failures = 0;
        }
        if is_end && is_behind {
            reader.restart();
            is_behind = false;
        } else if is_end {
            spool.arrival().await;
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// Sends all batches, several at a time, and says the first error if any was refused.
async fn send(
    jetstream: &jetstream::Context,
    spool: &Spool,
    items: Vec<Item>,
) -> Result<(), async_nats::Error> {
    let edge_id = spool.edge_id().to_string();
    let sent = stream::iter(batches(&edge_id, items))
        .map(|(stream, batch)| async move {
            let span = spans::of_batch(stream.shard, &batch.events);
            let sent = publish(jetstream, stream.shard, &batch, span.as_ref());
            let sent = trace::within(span.as_ref(), sent).await;
            if let (Err(_), Some(span)) = (&sent, span) {
                span.failed("not_stored");
            }
            sent?;
            for (first, last) in batch.numbers() {
                spool.publish(stream, first, last);
            }
            Ok::<_, async_nats::Error>(())
        })
        .buffer_unordered(IN_FLIGHT_MAX)
        .collect::<Vec<_>>();
    sent.await.into_iter().collect()
}

/// Returns once the stream has the batch.
async fn publish(
    jetstream: &jetstream::Context,
    shard: u16,
    batch: &Batch,
    span: Option<&Span>,
) -> Result<(), async_nats::Error> {
    let subject = nats::request_events_subject(shard);
    let payload = event_bytes::encode_batch(&batch.head, &batch.events).into();
    let stored = match span {
        None => jetstream.publish(subject, payload).await?,
        Some(span) => {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT.as_str(), Traceparent::from(&span.ids()).to_string());
            jetstream.publish_with_headers(subject, headers, payload).await?
        }
    };
    stored.await?;
    Ok(())
}

/// A batch on its way.
#[derive(Debug)]
struct Batch {
    /// All of it but the events.
    head: pb::RequestEventBatch,
    /// Encoded.
    events: Vec<Vec<u8>>,
}

impl Batch {
    fn numbers(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let Self { head, events } = self;
        let events = (!events.is_empty()).then(|| (head.first_seq, head.first_seq + events.len() as u64 - 1));
        events.into_iter().chain(head.lost.iter().map(|range| (range.first_seq, range.last_seq)))
    }
}

/// Groups items into batches of one stream and neighbouring numbers. Lost ranges travel alone.
fn batches(edge_id: &str, items: Vec<Item>) -> Vec<(StreamId, Batch)> {
    let with = |stream: StreamId, first_seq, lost| {
        let (boot_epoch, shard) = (stream.boot_epoch, stream.shard.into());
        let (edge_id, events) = (edge_id.to_owned(), Vec::new());
        Batch {
            head: pb::RequestEventBatch { edge_id, boot_epoch, shard, first_seq, events, lost },
            events: Vec::new(),
        }
    };
    let empty = |stream, first_seq| with(stream, first_seq, Vec::new());
    let mut whole = Vec::new();
    let mut growing = BTreeMap::<StreamId, (Batch, usize)>::new();
    for item in items {
        match item {
            Item::Event { stream, seq, event } => {
                let bytes = event.len() + 8;
                let (batch, total) = growing.entry(stream).or_insert_with(|| (empty(stream, seq), 0));
                let fits = batch.head.first_seq + batch.events.len() as u64 == seq
                    && batch.events.len() < BATCH_EVENTS_MAX
                    && *total + bytes <= BATCH_BYTES_MAX;
                if !fits {
                    whole.push((stream, std::mem::replace(batch, empty(stream, seq))));
                    *total = 0;
                }
                batch.events.push(event);
                *total += bytes;
            }
            Item::Lost { stream, first_seq, last_seq } => {
                let lost = vec![pb::SeqRange { first_seq, last_seq }];
                whole.push((stream, with(stream, first_seq, lost)));
            }
        }
    }
    whole.extend(growing.into_iter().map(|(stream, (batch, _))| (stream, batch)));
    whole
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    const STREAM: StreamId = StreamId { boot_epoch: 1, shard: 0 };

    fn event(stream: StreamId, seq: u64, path_bytes: usize) -> Item {
        let event = pb::RequestEvent { path: "x".repeat(path_bytes), ..Default::default() };
        Item::Event { stream, seq, event: event.encode_to_vec() }
    }

    fn shape(items: Vec<Item>) -> Vec<(u16, u64, usize, usize)> {
        let batches = batches("edge_x", items);
        batches
            .iter()
            .map(|(stream, batch)| {
                (stream.shard, batch.head.first_seq, batch.events.len(), batch.head.lost.len())
            })
            .collect()
    }

    #[test]
    fn neighbours_share_a_batch() {
        let other = StreamId { shard: 1, ..STREAM };
        let items = vec![event(STREAM, 4, 1), event(other, 9, 1), event(STREAM, 5, 1), event(STREAM, 7, 1)];
        assert_eq!(shape(items), [(0, 4, 2, 0), (0, 7, 1, 0), (1, 9, 1, 0)]);
        let lost = Item::Lost { stream: STREAM, first_seq: 1, last_seq: 3 };
        assert_eq!(shape(vec![lost, event(STREAM, 4, 1)]), [(0, 1, 0, 1), (0, 4, 1, 0)]);
        assert_eq!(shape(Vec::new()), []);
    }

    #[test]
    fn a_batch_is_bounded_by_events_and_bytes() {
        assert_eq!(
            shape((1..=2500).map(|seq| event(STREAM, seq, 1)).collect()),
            [(0, 1, 1000, 0), (0, 1001, 1000, 0), (0, 2001, 500, 0)]
        );
        let large: Vec<_> = (1..=1000).map(|seq| event(STREAM, seq, 1024)).collect();
        for (_, batch) in batches("edge_x", large) {
            let bytes = event_bytes::encode_batch(&batch.head, &batch.events).len();
            assert!(bytes < 600 * 1024 && batch.events.len() > 400);
        }
    }
}
