//! Edges: they number events, publish them in batches, again and out of order, and keep each until ClickHouse has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use prost::Message as _;
use proto::events as pb;

use crate::{
    SHARD,
    model::{Disk, Identity, edge_id},
    servers::Servers,
};

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A row.
    Good,
    /// A dead letter.
    Bad,
    /// Nothing: its edge had no room for it.
    Lost,
}

/// Everything that edges ever numbered.
pub(crate) type Truth = Arc<Mutex<BTreeMap<Identity, Kind>>>;

/// One edge.
pub(crate) struct Edge {
    number: u64,
    boot: u32,
    next: u64,
    /// Not known to be in ClickHouse, and what was not published since the connection was made.
    spool: BTreeMap<(u32, u64), Kind>,
    unpublished: BTreeSet<(u32, u64)>,
    servers: Servers,
    truth: Truth,
}

impl Edge {
    pub(crate) fn new(number: u64, servers: Servers, truth: Truth) -> Self {
        let (spool, unpublished) = (BTreeMap::new(), BTreeSet::new());
        Self { number, boot: 1, next: 1, spool, unpublished, servers, truth }
    }

    /// Lives: calls come until `calls_end`; ends when nothing is left to deliver. The error says what was freed
    /// without being there.
    pub(crate) async fn run(mut self, calls_end: Duration) -> Result<(), String> {
        let mut connections = self.servers.connections.subscribe();
        while self.servers.clock.now() < calls_end || !self.spool.is_empty() {
            if connections.has_changed().unwrap_or(false) {
                connections.mark_unchanged();
                self.unpublished = self.spool.keys().copied().collect();
            }
            if self.servers.clock.now() < calls_end {
                self.take_calls();
            }
            self.publish();
            self.free()?;
            self.servers.delay(150).await;
        }
        Ok(())
    }

    fn take_calls(&mut self) {
        let mut shared = self.servers.shared.lock().unwrap();
        let mut truth = self.truth.lock().unwrap();
        if shared.chance.below(60) == 0 {
            // A restart: what is in the spool keeps its numbers.
            (self.boot, self.next) = (self.boot + 1, 1);
            self.unpublished = self.spool.keys().copied().collect();
        }
        for _ in 0..shared.chance.below(3) {
            let kind = match shared.chance.below(20) {
                0 => Kind::Bad,
                1 => Kind::Lost,
                _ => Kind::Good,
            };
            truth.insert((self.number, self.boot, self.next), kind);
            self.spool.insert((self.boot, self.next), kind);
            self.unpublished.insert((self.boot, self.next));
            self.next += 1;
        }
    }

    /// Sends what is unpublished in batches of neighbours, several at once.
    fn publish(&mut self) {
        let waiting = std::mem::take(&mut self.unpublished);
        let mut batch = Vec::<(u32, u64)>::new();
        for at in waiting {
            let full = batch.len() as u64 > self.servers.shared.lock().unwrap().chance.below(9);
            // What is lost travels alone.
            let fits = |(boot, seq): &(u32, u64)| {
                let kinds = [(*boot, *seq), at].map(|at| self.spool[&at]);
                !full && (*boot, seq + 1) == at && !kinds.contains(&Kind::Lost)
            };
            if batch.last().is_some_and(|last| !fits(last)) {
                self.send(&std::mem::take(&mut batch));
            }
            batch.push(at);
        }
        if !batch.is_empty() {
            self.send(&batch);
        }
    }

    fn send(&mut self, sequences: &[(u32, u64)]) {
        let payload = self.message(sequences);
        let servers = self.servers.clone();
        let (lost, answered) = {
            let mut shared = servers.shared.lock().unwrap();
            let is_lossy = shared.is_lossy;
            (is_lossy && shared.chance.below(30) == 0, !is_lossy || shared.chance.below(30) > 0)
        };
        // Without an answer it is sent again.
        if lost || !answered || !servers.shared.lock().unwrap().nats_is_up {
            self.unpublished.extend(sequences);
        }
        self.servers.clock.spawn(async move {
            servers.delay(60).await;
            let published_at = servers.day();
            let mut shared = servers.shared.lock().unwrap();
            if shared.nats_is_up && !lost {
                shared.published.push((published_at, payload.clone()));
                shared.disk.messages.push((published_at, payload));
                servers.arrivals.send_modify(|count| *count += 1);
            }
        });
    }

    fn message(&self, sequences: &[(u32, u64)]) -> bytes::Bytes {
        let (boot_epoch, first_seq) = sequences[0];
        let kinds: Vec<Kind> = sequences.iter().map(|at| self.spool[at]).collect();
        let mut batch = pb::RequestEventBatch {
            edge_id: edge_id(self.number),
            boot_epoch,
            shard: SHARD.into(),
            first_seq,
            events: Vec::new(),
            lost: Vec::new(),
        };
        for (kind, (_, seq)) in kinds.iter().zip(sequences) {
            match kind {
                Kind::Lost => batch.lost.push(pb::SeqRange { first_seq: *seq, last_seq: *seq }),
                Kind::Good | Kind::Bad => batch.events.push(event(*kind)),
            }
        }
        batch.encode_to_vec().into()
    }

    /// Forgets what it is told that ClickHouse has; what it is told must be so.
    fn free(&mut self) -> Result<(), String> {
        let shared = self.servers.shared.lock().unwrap();
        if !shared.nats_is_up {
            return Ok(());
        }
        let Disk { commits, .. } = &shared.disk;
        let mut freed = Vec::new();
        for boot in 1..=self.boot {
            let Some((_, committed)) = commits.get(&(edge_id(self.number), boot)) else { continue };
            let kept = self.spool.range((boot, 0)..=(boot, u64::MAX)).map(|(at, _)| *at);
            freed.extend(kept.filter(|(_, seq)| committed.contains(*seq)));
        }
        for (boot, seq) in freed {
            let kind = self.spool.remove(&(boot, seq));
            self.unpublished.remove(&(boot, seq));
            let identity = (self.number, boot, seq);
            let is_there =
                shared.clickhouse.rows.contains_key(&identity) || shared.deleted.contains(&identity);
            if kind == Some(Kind::Good) && !is_there {
                return Err(format!("an edge was told that {identity:?} is in ClickHouse, and it is not"));
            }
        }
        Ok(())
    }
}

fn event(kind: Kind) -> pb::RequestEvent {
    pb::RequestEvent {
        workspace_id: vec![1; 16],
        key_id: vec![2; 16],
        secret_id: vec![3; 16],
        request_id: vec![4; 16],
        occurred_at: Some(prost_types::Timestamp { seconds: 1_795_000_000, nanos: 0 }),
        status_code: if kind == Kind::Good { 200 } else { 99 },
        origin: pb::Origin::Upstream.into(),
        client_ip: vec![0; 16],
        ..Default::default()
    }
}
