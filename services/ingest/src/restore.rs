//! Counts events whose sequences are closed already, if no row has them: dead letters that can be read by now, rows
//! that are gone. What is there is asked of ClickHouse, not of the record. Needs the shard, so that nobody else
//! writes meanwhile; PROTOCOL.md says why that is exact.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use bytes::Bytes;
use time::OffsetDateTime;

use crate::{
    batch::{Buffer, Message},
    decode,
    erasures::Erased,
    event,
    lease::Lease,
    letter,
    native::Common,
    record::{Closed, Record},
    rows::Rows,
    trouble::Trouble,
    world::World,
};

/// Most events that are looked for at once: as many intervals as one boot of an edge may have closed.
pub const EVENTS_MAX: usize = 1_000;

/// The identity of an event within its shard: edge, boot, sequence.
pub type Identity = (String, u32, u64);

/// A message to be counted as it was published then.
#[derive(Debug, Clone)]
pub struct Published {
    /// When the broker took it.
    pub at: OffsetDateTime,
    /// Its bytes.
    pub payload: Bytes,
}

/// What became of the events of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Are rows now, and were none before.
    pub counted: u64,
    /// Had a row already.
    pub known: u64,
    /// Of an erased workspace: never to be counted.
    pub erased: u64,
    /// Why it, or the first of its events that cannot be read, still is none.
    pub unreadable: Option<String>,
}

/// Counts what is in `messages` and in no row. Repeating it changes nothing.
///
/// # Errors
/// Nobody knows then which of them are rows; ask again under a new lease.
pub async fn restore<W: World>(
    world: &W,
    lease: &mut Lease<W>,
    shard: u16,
    erased: &Erased,
    messages: &[Published],
    mut next_insert: impl FnMut() -> u64,
) -> Result<Vec<Outcome>, Trouble> {
    let mut outcomes = Vec::with_capacity(messages.len());
    let mut rest = messages;
    while !rest.is_empty() {
        let chunk = &rest[..chunk_len(rest, shard)];
        rest = &rest[chunk.len()..];
        outcomes.extend(restore_chunk(world, lease, shard, erased, chunk, next_insert()).await?);
    }
    Ok(outcomes)
}

/// So many messages that their events are not too many; one at least.
fn chunk_len(messages: &[Published], shard: u16) -> usize {
    let mut events = 0;
    let fits = messages.iter().take_while(|message| {
        events += identities(message, shard).len().max(1);
        events <= EVENTS_MAX
    });
    fits.count().max(1)
}

async fn restore_chunk<W: World>(
    world: &W,
    lease: &mut Lease<W>,
    shard: u16,
    erased: &Erased,
    messages: &[Published],
    insert: u64,
) -> Result<Vec<Outcome>, Trouble> {
    let asked: BTreeSet<Identity> = messages.iter().flat_map(|message| identities(message, shard)).collect();
    let there = lease.hold(world.present(shard, &asked)).await??;
    let mut closed = Closed::default();
    for (edge_id, boot_epoch, seq) in &there {
        closed.insert_found(edge_id, *boot_epoch, (*seq, *seq));
    }
    // It knows of the rows that are there and of nothing else that is closed.
    let mut buffer = Buffer::new(shard, closed, EVENTS_MAX);
    buffer.obey(erased.clone());
    let now = world.instant();
    let outcomes = messages.iter().map(|message| push(&mut buffer, message, shard, now)).collect();
    let (mut batch, _) = buffer.drain(now);
    let rows = std::mem::take(&mut batch.rows);
    let mut settled: BTreeSet<Identity> = there.into_iter().collect();
    settled.extend(rows.numbers().map(|of| (of.edge_id.to_owned(), of.boot_epoch, of.edge_seq)));
    if !rows.is_empty() {
        insert_rows(world, lease, shard, rows, insert).await?;
        lease.hold(world.publish_activity(&batch.activity)).await??;
    }
    if !settled.is_empty() {
        lease.hold(world.forget_gaps(shard, &settled)).await??;
    }
    Ok(outcomes)
}

/// Takes in each event of a message that can be read by itself: of two copies of an event the one that cannot be read
/// must not stand in the other's way.
fn push(buffer: &mut Buffer, message: &Published, shard: u16, now: Instant) -> Outcome {
    let mut outcome = Outcome::default();
    let decoded = match decode::decode(message.payload.clone(), shard) {
        Ok(decoded) => decoded,
        Err(reason) => return Outcome { unreadable: Some(reason), ..outcome },
    };
    for (index, (seq, bytes)) in (decoded.first_seq..).zip(decoded.events).enumerate() {
        if let Err(reason) = event::read(&bytes, |_| ()) {
            let reason = format!("event {index} with sequence {seq}: {reason}");
            outcome.unreadable.get_or_insert(reason);
            continue;
        }
        let before = buffer.fates();
        let payload = letter::alone(&message.payload, index, seq);
        buffer.push(Message { sequence: 0, published_at: message.at, sent_in: None, payload }, now);
        let after = buffer.fates();
        outcome.counted += after.rows - before.rows;
        outcome.known += after.duplicate - before.duplicate;
        outcome.erased += after.erased - before.erased;
    }
    outcome
}

/// Inserts the rows like any others: under an `ingested_at` later than every one before, closed once they are there.
async fn insert_rows<W: World>(
    world: &W,
    lease: &mut Lease<W>,
    shard: u16,
    rows: Rows,
    insert: u64,
) -> Result<(), Trouble> {
    let mut record = lease.record().clone();
    for of in rows.numbers() {
        record.closed.insert_found(of.edge_id, of.boot_epoch, (of.edge_seq, of.edge_seq));
    }
    let common = Common::next(shard, &record, world.now());
    lease.hold(world.insert(Arc::new(rows), common, insert)).await??;
    lease.write(Record { closed_through_ms: common.ingested_at_ms, ..record }).await
}

/// The events that a message numbers; none if it cannot be read as a whole.
fn identities(message: &Published, shard: u16) -> Vec<Identity> {
    let Ok(decoded) = decode::decode(message.payload.clone(), shard) else { return Vec::new() };
    let count = decoded.events.len() as u64;
    (decoded.first_seq..decoded.first_seq + count)
        .map(|seq| (decoded.edge_id.clone(), decoded.boot_epoch, seq))
        .collect()
}
