//! Somebody who restores events beside the workers, of messages that are long counted, on their way, or whose rows
//! were deleted by hand: each is one row in the end, whatever goes wrong meanwhile.

use std::time::Duration;

use bytes::Bytes;
use ingest::{
    Services,
    decode::decode,
    erasures::Erased,
    metrics::Metrics,
    restore::{Published, restore},
    takeover,
    trouble::Trouble,
};

use time::OffsetDateTime;

use crate::{
    SHARD, chaos,
    model::{Identity, Stored, edge_number},
    servers::{Seen, Servers},
};

const MESSAGES_MAX: u64 = 4;
const PAUSE: Duration = Duration::from_secs(1);
/// No pass of the archive can have begun to read what came so lately.
const OPEN: time::Duration = time::Duration::days(35);

/// Restores now and then until `end`, and what was deleted until it is there again.
pub(crate) async fn work(servers: Servers, metrics: Metrics, end: Duration) {
    let (services, _kept) = chaos::services(&servers, &metrics, "operator".into());
    let mut owed: Vec<Published> = Vec::new();
    while servers.clock.now() < end || !owed.is_empty() {
        servers.clock.sleep(PAUSE).await;
        servers.delay(100).await;
        let (mut messages, deletes) = some_published(&servers);
        if deletes && servers.clock.now() < end {
            let oldest = servers.day() - OPEN;
            messages.iter().for_each(|message| delete_rows(&servers, &message.payload, oldest));
            owed.extend(messages.iter().cloned());
        }
        messages.extend(owed.iter().cloned());
        if restore_all(&services, &messages).await.is_ok() {
            owed.clear();
            servers.shared.lock().unwrap().deleted.clear();
        }
    }
}

async fn restore_all(services: &Services<Seen>, messages: &[Published]) -> Result<(), Trouble> {
    let restored = Box::pin(async {
        let mut lease = takeover::take(SHARD, "restore", services).await?;
        let mut inserts = 0;
        let next = || {
            inserts += 1;
            inserts
        };
        restore(&services.world, &mut lease, SHARD, &Erased::default(), messages, next).await?;
        lease.release().await;
        Ok(())
    });
    takeover::in_one_connection(&services.world, restored).await
}

fn some_published(servers: &Servers) -> (Vec<Published>, bool) {
    let mut shared = servers.shared.lock().unwrap();
    let count = shared.published.len() as u64;
    let wanted = shared.chance.below(MESSAGES_MAX).min(count);
    let chosen: Vec<u64> = (0..wanted).map(|_| shared.chance.below(count)).collect();
    let of = |index: &u64| shared.published[usize::try_from(*index).unwrap()].clone();
    let messages = chosen.iter().map(of).map(|(at, payload)| Published { at, payload }).collect();
    (messages, shared.chance.below(3) == 0)
}

/// Deletes the rows of a message that came a short while ago. What the archive has counted already would come into it
/// again when it is restored.
fn delete_rows(servers: &Servers, payload: &Bytes, oldest: OffsetDateTime) {
    let Ok(decoded) = decode(payload.clone(), SHARD) else { return };
    let mut shared = servers.shared.lock().unwrap();
    for seq in decoded.first_seq..decoded.first_seq + decoded.events.len() as u64 {
        let identity: Identity = (edge_number(&decoded.edge_id), decoded.boot_epoch, seq);
        let is_open = |rows: &Vec<Stored>| rows.iter().all(|row| row.occurred_at > oldest);
        if shared.clickhouse.rows.get(&identity).is_some_and(is_open) {
            shared.clickhouse.rows.remove(&identity);
            shared.deleted.insert(identity);
        }
    }
}
