//! What a worker writes, in the order of the protocol: dead letters, gaps, rows, activity, the record, what edges may forget.
//! Reads nothing from the stream.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    Services,
    audit::{self, Findings, Repaired},
    batch::Batch,
    erasures::Erased,
    intervals::Intervals,
    lease::Lease,
    native::Common,
    record::{Closed, Cursor, INTERVALS_MAX, Record},
    rows::Rows,
    spans,
    trouble::Trouble,
    world::World,
};

/// The writing half of a worker.
pub(crate) struct Writer<'a, W> {
    shard: u16,
    services: &'a Services<W>,
    /// The right to write.
    pub(crate) lease: Lease<W>,
    /// The revision of what each edge and boot was told last in this epoch.
    told: BTreeMap<(String, u32), u64>,
    /// Inserts of this epoch so far.
    inserts: u64,
}

impl<'a, W: World> Writer<'a, W> {
    /// That of a worker that has just taken its shard over.
    pub(crate) const fn new(shard: u16, services: &'a Services<W>, lease: Lease<W>) -> Self {
        Self { shard, services, lease, told: BTreeMap::new(), inserts: 0 }
    }

    /// Writes a batch and gives its rows back; `closed` is what is closed once that is done. The order is the
    /// protocol: what is closed was dead-lettered, noted as a gap, inserted and announced.
    ///
    /// # Errors
    /// Then nobody knows how far it came: a takeover finds out.
    pub(crate) async fn write(&mut self, batch: Batch, closed: Closed) -> Result<Rows, Trouble> {
        let span = spans::of_batch(self.shard, &batch);
        let written = trace::within(span.as_ref(), Box::pin(self.write_in_order(batch, closed))).await;
        if let (Err(trouble), Some(span)) = (&written, &span) {
            span.failed(trouble.label());
        }
        written
    }

    async fn write_in_order(&mut self, mut batch: Batch, closed: Closed) -> Result<Rows, Trouble> {
        let Services { world, metrics, .. } = self.services;
        let record = self.lease.record().clone();
        let incarnation = &record.cursor.incarnation;
        let letters = world.publish_dead_letters(self.shard, incarnation, &batch.dead_letters);
        self.lease.hold(letters).await??;
        if !batch.gaps.is_empty() {
            self.lease.hold(world.note_gaps(self.shard, &batch.gaps)).await??;
        }
        let rows = Arc::new(std::mem::take(&mut batch.rows));
        let closed_through_ms = self.insert(rows.clone()).await?;
        self.lease.hold(world.publish_activity(&batch.activity)).await??;
        let cursor = Cursor { sequence: batch.last_sequence, ..record.cursor };
        self.lease.write(Record { cursor, closed, closed_through_ms, ..record }).await?;
        metrics.committed(self.shard, &batch);
        self.tell_edges(batch.touched).await?;
        Ok(Arc::into_inner(rows).unwrap_or_default())
    }

    /// Inserts the rows under an `ingested_at` later than every one before, and returns it.
    async fn insert(&mut self, rows: Arc<Rows>) -> Result<i64, Trouble> {
        let record = self.lease.record();
        let count = rows.len() as u64;
        if rows.is_empty() {
            return Ok(record.closed_through_ms);
        }
        let common = Common::next(self.shard, record, self.services.world.now());
        let started = self.services.world.instant();
        self.inserts += 1;
        self.lease.hold(self.services.world.insert(rows, common, self.inserts)).await??;
        self.services.metrics.inserted(
            self.shard,
            count,
            (self.services.world.instant() - started).as_secs_f64(),
        );
        self.services.clickhouse.up(self.shard);
        Ok(common.ingested_at_ms)
    }

    /// Repairs what an audit has found. No pass of the archive may run.
    ///
    /// # Errors
    /// Some may be repaired then; the next audit finds the rest.
    pub(crate) async fn repair(&mut self, erased: &Erased, findings: &Findings) -> Result<Repaired, Trouble> {
        let Self { services, lease, inserts, .. } = self;
        let next = || {
            *inserts += 1;
            *inserts
        };
        audit::repair(&services.world, lease, self.shard, erased, findings, next).await
    }

    /// Tells edges what they may forget. What they were told before stays true, so nothing is ever taken back, not
    /// even by a worker that has lost the shard and does not know it yet.
    ///
    /// # Errors
    /// If one may not know.
    pub(crate) async fn tell_edges(&mut self, touched: BTreeSet<(String, u32)>) -> Result<(), Trouble> {
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
}
