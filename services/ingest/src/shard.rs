//! One shard, from its stream to its rows: take it over, then read, batch, write. Whatever goes
//! wrong ends in a takeover; nothing is repaired on the spot.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use time::{Date, OffsetDateTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Services,
    archive::{Archive, Attempts},
    audit::{Findings, Repaired, Said},
    batch::Buffer,
    erasures::Erasures,
    lease,
    schema::Refusal,
    stream_keep::Kept,
    takeover,
    trouble::Trouble,
    watermark::{Heartbeat, Standing, Watermark},
    world::{Messages as _, World},
    write::Writer,
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
    let (mut reason, mut pause, mut attempts) = ("start", PAUSE_FIRST, Attempts::default());
    loop {
        let started = services.world.instant();
        let owned = Box::pin(own(shard, reason, &services, &mut attempts, &shutdown)).await;
        let Err(trouble) = owned else { return Ok(()) };
        services.metrics.owned(shard, false);
        reason = trouble.label();
        match trouble {
            Trouble::Refused(refusal) => return Err(refusal),
            Trouble::Nats(reason) => services.nats.down(shard, &reason),
            Trouble::ClickHouse(reason) => services.clickhouse.down(shard, &reason),
            Trouble::Lost => {}
        }
        pause = if services.world.instant() - started > PAUSE_MAX {
            PAUSE_FIRST
        } else {
            (pause * 2).min(PAUSE_MAX)
        };
        let wait = async {
            services.world.sleep(pause).await;
            stand_by(shard, &services).await;
        };
        tokio::select! {
            biased;
            () = wait => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// Waits while another process has the shard, for which nothing is needed. Who had trouble may have lost it meanwhile
/// and not know.
async fn stand_by<W: World>(shard: u16, services: &Services<W>) {
    let Services { world, owner, .. } = services;
    // Whether NATS is away is for the takeover to find out.
    let Ok(Some(_)) = lease::of_another(world, shard, owner).await else { return };
    services.shards.up(shard);
    services.nats.up(shard);
    services.clickhouse.up(shard);
    tracing::info!(shard, "lost the shard: standing by");
    let _ = lease::wait_until_free(world, shard, owner).await;
}

async fn own<W: World>(
    shard: u16,
    reason: &'static str,
    services: &Services<W>,
    attempts: &mut Attempts,
    shutdown: &CancellationToken,
) -> Result<(), Trouble> {
    // Before the takeover reads anything, so that no later connection goes unnoticed.
    let connections = services.world.connections();
    let worker = tokio::select! {
        biased;
        worker = Worker::start(shard, reason, services, attempts, connections) => worker?,
        () = shutdown.cancelled() => return Ok(()),
    };
    services.shards.up(shard);
    services.nats.up(shard);
    services.metrics.owned(shard, true);
    Box::pin(worker.work(shutdown)).await
}

type Work = Pin<Box<dyn Future<Output = Result<(), Trouble>> + Send>>;

struct Worker<'a, W: World> {
    shard: u16,
    services: &'a Services<W>,
    writer: Writer<'a, W>,
    reader: W::Reader,
    buffer: Buffer,
    erasures: watch::Receiver<Erasures>,
    connections: watch::Receiver<u64>,
    archive: Archive,
    attempts: &'a mut Attempts,
    /// What of it is being done, beside the inserts: those have a later `ingested_at` than what it reads.
    beside: Option<Work>,
    /// When rows were last let expire.
    expired_on: Option<Date>,
    kept: Kept,
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
        attempts: &'a mut Attempts,
        connections: watch::Receiver<u64>,
    ) -> Result<Self, Trouble> {
        let mut lease = takeover::take(shard, reason, services).await?;
        let archived = lease.hold(services.world.archived(shard)).await??;
        let archive = Archive::new(shard, lease.record().epoch, archived);
        let said = lease.hold(services.world.standing(shard)).await??;
        let nothing = Standing { complete_up_to: None, unaccounted: Vec::new() };
        let reader = services.world.read(shard, lease.record().cursor.sequence).await?;
        let buffer = Buffer::new(shard, lease.record().closed.clone(), services.rows_max);
        let mut worker = Self {
            shard,
            services,
            reader,
            buffer: if shard == services.bulk_shard { buffer.of_bulk() } else { buffer },
            writer: Writer::new(shard, services, lease),
            erasures: services.erasures.clone(),
            connections,
            archive,
            attempts,
            beside: None,
            expired_on: None,
            kept: Kept::new(services.stream_keep),
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
        worker.writer.lease.hold(all_known).await??;
        worker.obey().await?;
        let everything = worker.writer.lease.record().closed.iter();
        let everything =
            everything.map(|(edge_id, boot_epoch, _)| (edge_id.to_owned(), boot_epoch)).collect();
        worker.writer.tell_edges(everything).await?;
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
                    self.writer.lease.release().await;
                    return Ok(());
                }
                _ = self.connections.changed() => return Err(Trouble::Nats("the connection was made anew".into())),
                () = world.sleep_until(self.next_tick) => self.tick().await?,
                _ = self.erasures.changed() => self.obey().await?,
                found = done(&mut self.audit), if self.audit.is_some() => {
                    self.audit = None;
                    self.settle(found).await?;
                }
                done = done(&mut self.beside), if self.beside.is_some() => self.finished(done)?,
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
        // Nor does a pass of the archive, which might have read the rows already.
        self.await_beside().await?;
        let rows = self.writer.lease.hold(self.services.world.erase(self.shard, &erased)).await??;
        if rows > 0 {
            tracing::info!(self.shard, rows, "deleted what was erased");
            self.services.metrics.erased(self.shard, rows);
        }
        let letters =
            self.writer.lease.hold(self.services.world.erase_letters(self.shard, &erased)).await??;
        if letters > 0 {
            tracing::info!(self.shard, letters, "removed dead letters of what was erased");
            self.services.metrics.letters_erased(self.shard, letters);
        }
        Ok(())
    }

    /// Writes what was read, and meanwhile reads what comes next.
    async fn flush(&mut self) -> Result<(), Trouble> {
        let world = &self.services.world;
        let started = world.instant();
        let (batch, closed) = self.buffer.drain(started);
        let published_at = batch.published_at.unwrap_or_else(|| world.now());
        if let Some(oldest) = batch.rows.oldest() {
            self.archive.inserting(oldest);
        }
        let mut writing = std::pin::pin!(self.writer.write(batch, closed));
        loop {
            tokio::select! {
                biased;
                written = &mut writing => {
                    let late = world.now() - published_at;
                    return written.map(|rows| self.buffer.written(rows, started, world.instant(), late));
                }
                message = self.reader.next(), if !self.buffer.is_full() => match message {
                    Ok(message) => self.buffer.push(message, world.instant()),
                    // What is being written need not be found by a takeover.
                    Err(trouble) => return writing.await.and(Err(trouble)),
                },
            }
        }
    }

    async fn tick(&mut self) -> Result<(), Trouble> {
        self.services.clickhouse.up(self.shard);
        self.writer.lease.renew().await?;
        self.advance_watermark().await?;
        self.archive();
        self.next_tick = self.services.world.instant() + TICK;
        self.ticks += 1;
        if self.ticks % AUDIT_TICKS == 1 && self.audit.is_none() {
            let (world, shard, record) =
                (&self.services.world, self.shard, self.writer.lease.record().clone());
            self.audit = Some(Box::pin(async move { world.audit(shard, &record).await }));
        }
        if self.ticks.is_multiple_of(PURGE_TICKS) {
            self.purge().await?;
        }
        Ok(())
    }

    /// Starts what is due of the archive.
    fn archive(&mut self) {
        if self.beside.is_some() || !self.attempts.may_begin(self.services.world.instant()) {
            return;
        }
        let (world, now) = (self.services.world.clone(), self.services.world.now());
        // No insert runs, so these are all rows of the shard up to then that there will ever be.
        let through_ms = self.writer.lease.record().closed_through_ms;
        if let Some(pass) = self.archive.begin(through_ms, now) {
            self.beside = Some(Box::pin(async move { world.archive(pass).await }));
        } else if self.shard == 0 && self.expired_on != Some(now.date()) {
            // Once a day for the rows of all shards, since it goes through all of them.
            self.expired_on = Some(now.date());
            self.beside = Some(Box::pin(async move { world.expire().await }));
        }
    }

    async fn await_beside(&mut self) -> Result<(), Trouble> {
        if self.beside.is_some() {
            let done = self.writer.lease.hold(done(&mut self.beside)).await?;
            self.finished(done)?;
        }
        Ok(())
    }

    fn finished(&mut self, done: Result<(), Trouble>) -> Result<(), Trouble> {
        self.beside = None;
        self.attempts.went(done.is_ok(), self.services.world.instant());
        if let Err(trouble) = &done {
            tracing::warn!(self.shard, reason = %trouble, "could not archive; the shard is taken over to find out");
        }
        done?;
        self.archive.noted();
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
        let standing = self.watermark.standing(&self.writer.lease.record().closed, now);
        if self.said.as_ref() == Some(&standing) { Ok(()) } else { self.say(standing).await }
    }

    async fn say(&mut self, standing: Standing) -> Result<(), Trouble> {
        self.writer.lease.hold(self.services.world.set_standing(self.shard, &standing)).await??;
        if let Some(at) = standing.complete_up_to {
            self.services.metrics.complete_up_to(self.shard, at);
        }
        self.said = Some(standing);
        Ok(())
    }

    /// Repairs what an audit has found. One that could not look is no trouble: the next one will.
    async fn settle(&mut self, found: Result<Findings, Trouble>) -> Result<(), Trouble> {
        let metrics = &self.services.metrics;
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
        // A pass of the archive might have read what is about to be deleted.
        self.await_beside().await?;
        // What is restored may be of any day.
        self.archive.inserting(OffsetDateTime::UNIX_EPOCH);
        let repaired = self.writer.repair(&erased, &findings).await?;
        let Repaired { restored, gone, single, archived } = repaired;
        tracing::warn!(self.shard, restored, gone, single, archived, "repaired what the audit found");
        metrics.audited(self.shard, "found");
        metrics.repaired(self.shard, &findings, repaired);
        Ok(())
    }

    async fn purge(&mut self) -> Result<(), Trouble> {
        let Services { world, metrics, stream_bytes_max, .. } = self.services;
        let stream = world.stream_state(self.shard).await?;
        let cursor = &self.writer.lease.record().cursor;
        if stream.incarnation != cursor.incarnation {
            return Err(Trouble::Nats("the stream was made anew".into()));
        }
        let closed = cursor.sequence;
        let waiting = stream.last_sequence.saturating_sub(closed);
        metrics.stream(self.shard, stream.bytes, *stream_bytes_max, waiting);
        let over = self.kept.over(closed, world.instant());
        let over = if stream.bytes > stream_bytes_max / 100 * FULL_PERCENT { Some(closed) } else { over };
        if let Some(sequence) = over {
            world.purge(self.shard, sequence).await?;
        }
        Ok(())
    }
}

/// What is done beside; never, if there is nothing.
async fn done<T>(beside: &mut Option<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> T {
    match beside {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}
