//! One shard, from its stream to its rows: take it over, then read, batch, insert, record, tell. Whatever goes
//! wrong ends in a takeover; nothing is repaired on the spot.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Services,
    audit::{self, Findings, Repaired, Said},
    batch::{Batch, Buffer},
    erasures::Erasures,
    intervals::Intervals,
    lease::{self, Lease},
    native::Common,
    record::{Cursor, INTERVALS_MAX, Record},
    schema::Refusal,
    takeover,
    trouble::Trouble,
    watermark::{Heartbeat, Standing, Watermark},
    world::{Messages as _, World},
};

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_secs(1);
/// A stream is looked at, and purged if need be, once in so many ticks.
const PURGE_TICKS: u64 = 5;
/// Rows are held against what is closed once in so many ticks, the first time right after the takeover.
const AUDIT_TICKS: u64 = 30;
/// How full a stream may get before what is closed is removed, in percent of its limit.
const FULL_PERCENT: u64 = 60;

/// Ingests `shard` until `shutdown`.
///
/// # Errors
/// If a server does not suit this version.
pub async fn run<W: World>(
    shard: u16,
    services: Services<W>,
    shutdown: CancellationToken,
) -> Result<(), Refusal> {
    let (mut reason, mut pause) = ("start", PAUSE_FIRST);
    loop {
        let started = services.world.instant();
        let Err(trouble) = Box::pin(own(shard, reason, &services, &shutdown)).await else { return Ok(()) };
        services.metrics.owned(shard, false);
        reason = trouble.label();
        match trouble {
            Trouble::Refused(refusal) => return Err(refusal),
            Trouble::Nats(reason) => services.nats.down(shard, &reason),
            Trouble::ClickHouse(reason) => services.clickhouse.down(shard, &reason),
            Trouble::Lost => {
                services.shards.up(shard);
                services.nats.up(shard);
                services.clickhouse.up(shard);
                tracing::info!(shard, "lost the shard: standing by");
                tokio::select! {
                    biased;
                    _ = lease::wait_until_free(&services.world, shard, &services.owner) => {}
                    () = shutdown.cancelled() => return Ok(()),
                }
            }
        }
        pause = if services.world.instant() - started > PAUSE_MAX {
            PAUSE_FIRST
        } else {
            (pause * 2).min(PAUSE_MAX)
        };
        tokio::select! {
            biased;
            () = services.world.sleep(pause) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

async fn own<W: World>(
    shard: u16,
    reason: &'static str,
    services: &Services<W>,
    shutdown: &CancellationToken,
) -> Result<(), Trouble> {
    // Before the takeover reads anything, so that no later connection goes unnoticed.
    let connections = services.world.connections();
    let worker = tokio::select! {
        biased;
        worker = Worker::start(shard, reason, services, connections) => worker?,
        () = shutdown.cancelled() => return Ok(()),
    };
    services.shards.up(shard);
    services.nats.up(shard);
    services.metrics.owned(shard, true);
    Box::pin(worker.work(shutdown)).await
}

struct Worker<'a, W: World> {
    shard: u16,
    services: &'a Services<W>,
    lease: Lease<W>,
    reader: W::Reader,
    buffer: Buffer,
    erasures: watch::Receiver<Erasures>,
    /// The revision of what each edge and boot was told last in this epoch.
    told: BTreeMap<(String, u32), u64>,
    /// Inserts of this epoch so far.
    inserts: u64,
    connections: watch::Receiver<u64>,
    watermark: Watermark,
    said: Option<Standing>,
    ticks: u64,
    next_tick: Instant,
    /// One that looks beside the work.
    audit: Option<Audit<'a>>,
}

type Audit<'a> = Pin<Box<dyn Future<Output = Result<Findings, Trouble>> + Send + 'a>>;

impl<'a, W: World> Worker<'a, W> {
    async fn start(
        shard: u16,
        reason: &'static str,
        services: &'a Services<W>,
        connections: watch::Receiver<u64>,
    ) -> Result<Self, Trouble> {
        let mut lease = takeover::take(shard, reason, services).await?;
        let said = lease.hold(services.world.standing(shard)).await??;
        let nothing = Standing { complete_up_to: None, unaccounted: Vec::new() };
        let reader = services.world.read(shard, lease.record().cursor.sequence).await?;
        let mut worker = Self {
            shard,
            services,
            reader,
            buffer: Buffer::new(shard, lease.record().closed.clone()),
            lease,
            erasures: services.erasures.clone(),
            told: BTreeMap::new(),
            inserts: 0,
            connections,
            watermark: Watermark::new(said.clone().unwrap_or_else(|| nothing.clone())),
            said,
            ticks: 0,
            audit: None,
            next_tick: services.world.instant() + TICK,
        };
        if worker.said.is_none() {
            worker.say(nothing).await?;
        }
        // Nothing is read before all erasures are known, so that what was erased does not even come back for a while.
        let all_known = async {
            let known = worker.erasures.wait_for(|erasures| erasures.is_complete).await;
            known.map(drop).map_err(Trouble::nats)
        };
        worker.lease.hold(all_known).await??;
        worker.obey().await?;
        let everything = worker.lease.record().closed.iter();
        let everything =
            everything.map(|(edge_id, boot_epoch, _)| (edge_id.to_owned(), boot_epoch)).collect();
        worker.tell_edges(everything).await?;
        Ok(worker)
    }

    async fn work(mut self, shutdown: &CancellationToken) -> Result<(), Trouble> {
        loop {
            let due = self.buffer.due();
            let world = &self.services.world;
            let wait = world.sleep_until(due.unwrap_or(self.next_tick));
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    // What was read and not written is read again.
                    self.lease.release().await;
                    return Ok(());
                }
                _ = self.connections.changed() => return Err(Trouble::Nats("the connection was made anew".into())),
                () = world.sleep_until(self.next_tick) => self.tick().await?,
                _ = self.erasures.changed() => self.obey().await?,
                found = async { self.audit.as_mut().expect("there is one").await }, if self.audit.is_some() => {
                    self.audit = None;
                    self.settle(found).await?;
                }
                // Before the wait: what is there already goes into the same insert.
                message = self.reader.next(), if !self.buffer.is_full() => {
                    self.buffer.push(message?, world.instant());
                }
                () = wait, if due.is_some() => self.flush().await?,
            }
        }
    }

    /// Deletes what was erased. No insert of the shard runs meanwhile, and later ones leave it out, so nothing of it
    /// is left.
    async fn obey(&mut self) -> Result<(), Trouble> {
        let erased = self.erasures.borrow_and_update().erased.clone();
        self.buffer.obey(erased.clone());
        let rows = self.lease.hold(self.services.world.erase(self.shard, &erased)).await??;
        if rows > 0 {
            tracing::info!(self.shard, rows, "deleted what was erased");
            self.services.metrics.erased(self.shard, rows);
        }
        let letters = self.lease.hold(self.services.world.erase_letters(self.shard, &erased)).await??;
        if letters > 0 {
            tracing::info!(self.shard, letters, "removed dead letters of what was erased");
            self.services.metrics.letters_erased(self.shard, letters);
        }
        Ok(())
    }

    /// Writes what was read. The order is the protocol: what is closed was inserted, dead-lettered and announced.
    async fn flush(&mut self) -> Result<(), Trouble> {
        let (mut batch, closed) = self.buffer.drain(self.services.world.instant());
        let Services { world, metrics, .. } = self.services;
        let record = self.lease.record().clone();
        let incarnation = &record.cursor.incarnation;
        let letters = world.publish_dead_letters(self.shard, incarnation, &batch.dead_letters);
        self.lease.hold(letters).await??;
        if !batch.gaps.is_empty() {
            self.lease.hold(world.note_gaps(self.shard, &batch.gaps)).await??;
        }
        let closed_through_ms = self.insert(&mut batch).await?;
        self.lease.hold(world.publish_activity(&batch.activity)).await??;
        let cursor = Cursor { sequence: batch.last_sequence, ..record.cursor };
        self.lease.write(Record { cursor, closed, closed_through_ms, ..record }).await?;
        metrics.committed(self.shard, &batch);
        self.tell_edges(batch.touched).await
    }

    /// Inserts the rows under an `ingested_at` later than every one before, and returns it.
    async fn insert(&mut self, batch: &mut Batch) -> Result<i64, Trouble> {
        let Record { epoch, closed_through_ms, .. } = *self.lease.record();
        let rows = std::mem::take(&mut batch.rows);
        if rows.is_empty() {
            return Ok(closed_through_ms);
        }
        let now_ms = i64::try_from(self.services.world.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let ingested_at_ms = now_ms.max(closed_through_ms + 1);
        let started = self.services.world.instant();
        self.inserts += 1;
        let common = Common { shard: self.shard, writer_epoch: epoch, ingested_at_ms };
        self.lease.hold(self.services.world.insert(rows, common, self.inserts)).await??;
        self.services.metrics.inserted(
            self.shard,
            batch.fates.rows,
            (self.services.world.instant() - started).as_secs_f64(),
        );
        self.services.clickhouse.up(self.shard);
        Ok(ingested_at_ms)
    }

    /// Tells edges what they may forget. What they were told before stays true, so nothing is ever taken back, not
    /// even by a worker that has lost the shard and does not know it yet.
    async fn tell_edges(&mut self, touched: BTreeSet<(String, u32)>) -> Result<(), Trouble> {
        for edge in touched {
            let (edge_id, boot_epoch) = (edge.0.as_str(), edge.1);
            let Some(closed) = self.lease.record().closed.of(edge_id, boot_epoch) else { continue };
            let world = &self.services.world;
            let (revision, told) = match self.told.get(&edge) {
                Some(revision) => (*revision, None),
                None => world.told_edge(self.shard, edge_id, boot_epoch).await?,
            };
            let before = told.iter().flat_map(Intervals::iter);
            // The first ones are those that free the oldest segments.
            let known = before.chain(closed.iter()).collect::<Intervals>().first(INTERVALS_MAX);
            let revision = if told.as_ref() == Some(&known) {
                revision
            } else {
                world.tell_edge(self.shard, edge_id, boot_epoch, &known, revision).await?
            };
            self.told.insert(edge, revision);
            self.lease.renew().await?;
        }
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), Trouble> {
        self.services.clickhouse.up(self.shard);
        self.lease.renew().await?;
        self.advance_watermark().await?;
        self.next_tick = self.services.world.instant() + TICK;
        self.ticks += 1;
        if self.ticks % AUDIT_TICKS == 1 && self.audit.is_none() {
            let (world, shard, record) = (&self.services.world, self.shard, self.lease.record().clone());
            self.audit = Some(Box::pin(async move { world.audit(shard, &record).await }));
        }
        if self.ticks.is_multiple_of(PURGE_TICKS) {
            self.purge().await?;
        }
        Ok(())
    }

    async fn advance_watermark(&mut self) -> Result<(), Trouble> {
        let now = self.services.world.now();
        {
            let edges = self.services.edges.borrow();
            if !edges.is_complete {
                return Ok(());
            }
            self.watermark.retain(|edge_id| edges.heartbeats.contains_key(edge_id));
            for (edge_id, heartbeat) in &edges.heartbeats {
                if let Some(heartbeat) = Heartbeat::of_shard(heartbeat, self.shard) {
                    self.watermark.observe(edge_id, heartbeat, now);
                }
            }
        }
        let standing = self.watermark.standing(&self.lease.record().closed, now);
        if self.said.as_ref() == Some(&standing) { Ok(()) } else { self.say(standing).await }
    }

    async fn say(&mut self, standing: Standing) -> Result<(), Trouble> {
        self.lease.hold(self.services.world.set_standing(self.shard, &standing)).await??;
        if let Some(at) = standing.complete_up_to {
            self.services.metrics.complete_up_to(self.shard, at);
        }
        self.said = Some(standing);
        Ok(())
    }

    /// Repairs what an audit has found. One that could not look is no trouble: the next one will.
    async fn settle(&mut self, found: Result<Findings, Trouble>) -> Result<(), Trouble> {
        let Services { world, metrics, .. } = self.services;
        let findings = match found {
            Ok(findings) if findings.is_empty() => {
                metrics.audited(self.shard, "clean");
                return Ok(());
            }
            Ok(findings) => findings,
            Err(reason) => {
                metrics.audited(self.shard, "failed");
                tracing::warn!(self.shard, %reason, "could not audit");
                return Ok(());
            }
        };
        let (missing, doubled) = (Said(&findings.missing).to_string(), Said(&findings.doubled).to_string());
        tracing::warn!(self.shard, missing, doubled, "the audit found rows that are missing or doubled");
        let erased = self.erasures.borrow().erased.clone();
        let inserts = &mut self.inserts;
        let next = || {
            *inserts += 1;
            *inserts
        };
        let repaired = audit::repair(world, &mut self.lease, self.shard, &erased, &findings, next).await?;
        let Repaired { restored, gone, single } = repaired;
        tracing::warn!(self.shard, restored, gone, single, "repaired what the audit found");
        metrics.audited(self.shard, "found");
        metrics.repaired(self.shard, &findings, repaired);
        Ok(())
    }

    async fn purge(&mut self) -> Result<(), Trouble> {
        let Services { world, metrics, stream_bytes_max, .. } = self.services;
        let stream = world.stream_state(self.shard).await?;
        metrics.stream_bytes(self.shard, stream.bytes);
        if stream.bytes > stream_bytes_max / 100 * FULL_PERCENT {
            world.purge(self.shard, self.lease.record().cursor.sequence).await?;
        }
        Ok(())
    }
}
