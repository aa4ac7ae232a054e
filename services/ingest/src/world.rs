//! Everything that a worker asks of the outside, in the words of PROTOCOL.md: NATS, ClickHouse, the clock. The
//! protocol (`shard`, `takeover`, `lease`, `batch`) knows nothing else, so that a model can stand in for all of it.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::nats;
use time::OffsetDateTime;
use tokio::sync::watch;
use trace::SpanContext;

use crate::{
    activity::Activity,
    archive::{Archived, Pass},
    audit::{self, Findings, Singled},
    batch::{DeadLetter, Message},
    bus::{self, Bus, StreamState},
    erasures::Erased,
    gaps::Gap,
    inserts::Inserts,
    intervals::Intervals,
    letters,
    native::{Block, Common},
    record::Record,
    restore::Identity,
    rows::Rows,
    spans,
    store::{Found, Store},
    trouble::Trouble,
    watermark::Standing,
};

/// An answer of the outside. After an error nobody knows whether what was asked for has happened, but for
/// [`Trouble::Lost`].
type Answer<T> = Result<T, Trouble>;

/// What there is outside of a worker. Each answer may come late, or not at all.
pub trait World: Clone + Send + Sync + 'static {
    /// See [`Messages`].
    type Reader: Messages;

    /// The time of day.
    fn now(&self) -> OffsetDateTime;

    /// A clock that only goes forward.
    fn instant(&self) -> Instant;

    /// Returns at that moment.
    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send;

    /// Returns after a while.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        self.sleep_until(self.instant() + duration)
    }

    /// Changes with every new connection to NATS, which may have forgotten meanwhile.
    fn connections(&self) -> watch::Receiver<u64>;

    /// Makes what is missing of the streams and buckets of a shard.
    fn ensure(&self, shard: u16) -> impl Future<Output = Answer<StreamState>> + Send;

    /// A shard's record, if there is one, and the revision to change it by.
    fn record(&self, shard: u16) -> impl Future<Output = Answer<(Option<Record>, u64)>> + Send;

    /// Changes it, unless it was changed since `revision` ([`Trouble::Lost`]), and says the new revision.
    fn write_record(
        &self,
        shard: u16,
        record: &Record,
        revision: u64,
    ) -> impl Future<Output = Answer<u64>> + Send;

    /// Reads the stream of a shard from behind `sequence` on.
    fn read(&self, shard: u16, sequence: u64) -> impl Future<Output = Answer<Self::Reader>> + Send;

    /// Stores dead letters.
    fn publish_dead_letters(
        &self,
        shard: u16,
        incarnation: &str,
        letters: &[DeadLetter],
    ) -> impl Future<Output = Answer<()>> + Send;

    /// Announces the use of keys.
    fn publish_activity(&self, activity: &Activity) -> impl Future<Output = Answer<()>> + Send;

    /// What an edge was told last of one of its boots, if it can be read, and the revision to change that by.
    fn told_edge(
        &self,
        shard: u16,
        edge_id: &str,
        boot_epoch: u32,
    ) -> impl Future<Output = Answer<(u64, Option<Intervals>)>> + Send;

    /// Tells an edge what ClickHouse has for good of one of its boots, unless it was told something else since
    /// `revision` ([`Trouble::Lost`]), and says the new revision.
    fn tell_edge(
        &self,
        shard: u16,
        edge_id: &str,
        boot_epoch: u32,
        closed: &Intervals,
        revision: u64,
    ) -> impl Future<Output = Answer<u64>> + Send;

    /// The stream of a shard.
    fn stream_state(&self, shard: u16) -> impl Future<Output = Answer<StreamState>> + Send;

    /// Removes the messages of a shard up to and with `sequence`.
    fn purge(&self, shard: u16, sequence: u64) -> impl Future<Output = Answer<()>> + Send;

    /// The epoch below which writers of a shard are refused; 0 if none was ever raised.
    fn fence(&self, shard: u16) -> impl Future<Output = Answer<u32>> + Send;

    /// Refuses writers of a shard below `epoch` from now on.
    fn raise_fence(&self, shard: u16, epoch: u32) -> impl Future<Output = Answer<()>> + Send;

    /// Ends the inserts of a shard below `epoch`, and waits until none runs.
    fn end_older_inserts(&self, shard: u16, epoch: u32) -> impl Future<Output = Answer<()>> + Send;

    /// The sequences in rows of a shard with an `ingested_at` after `after_ms`.
    fn found_after(&self, shard: u16, after_ms: i64) -> impl Future<Output = Answer<Vec<Found>>> + Send;

    /// Inserts rows as the `number`th insert of its epoch. [`Trouble::Lost`] if a newer epoch has the shard: then
    /// nothing was written.
    fn insert(&self, rows: Arc<Rows>, common: Common, number: u64)
    -> impl Future<Output = Answer<()>> + Send;

    /// How far a shard is archived; `None` if there was no pass yet.
    fn archived(&self, shard: u16) -> impl Future<Output = Answer<Option<Archived>>> + Send;

    /// Adds a pass to the archive, then notes it; one that was not noted counts for nothing. [`Trouble::Lost`] if a
    /// newer epoch has the shard: then it was not.
    fn archive(&self, pass: Pass) -> impl Future<Output = Answer<()>> + Send;

    /// Lets rows that are archived expire when their workspace wants it.
    fn expire(&self) -> impl Future<Output = Answer<()>> + Send;

    /// Deletes the rows and totals of a shard that were erased, and says how many rows there were.
    fn erase(&self, shard: u16, erased: &Erased) -> impl Future<Output = Answer<u64>> + Send;

    /// Removes the dead letters of a shard that name erased workspaces, and says how many there were.
    fn erase_letters(&self, shard: u16, erased: &Erased) -> impl Future<Output = Answer<u64>> + Send;

    /// Notes closed sequences that have no row.
    fn note_gaps(&self, shard: u16, gaps: &[Gap]) -> impl Future<Output = Answer<()>> + Send;

    /// Forgets those of `settled` that were noted, since they have a row now.
    fn forget_gaps(
        &self,
        shard: u16,
        settled: &BTreeSet<Identity>,
    ) -> impl Future<Output = Answer<()>> + Send;

    /// Those of `asked` that have a row.
    fn present(
        &self,
        shard: u16,
        asked: &BTreeSet<Identity>,
    ) -> impl Future<Output = Answer<Vec<Identity>>> + Send;

    /// Looks for rows that are missing or doubled, given a record that is no newer than the question.
    fn audit(&self, shard: u16, record: &Record) -> impl Future<Output = Answer<Findings>> + Send;

    /// Makes one row of each of `doubled` that is not in the archive, as the `number`th insert of its epoch, and says
    /// how many were doubled indeed. [`Trouble::Lost`] if a newer epoch has the shard. No pass of the archive may run.
    fn make_single(
        &self,
        doubled: &BTreeSet<Identity>,
        common: Common,
        number: u64,
    ) -> impl Future<Output = Answer<Singled>> + Send;

    /// What was said last of how far a shard is complete.
    fn standing(&self, shard: u16) -> impl Future<Output = Answer<Option<Standing>>> + Send;

    /// Says how far a shard is complete.
    fn set_standing(&self, shard: u16, standing: &Standing) -> impl Future<Output = Answer<()>> + Send;
}

/// The messages of a shard in order, none left out.
pub trait Messages: Send {
    /// The next message; may be dropped while it waits. After an error it is read again from the last one.
    fn next(&mut self) -> impl Future<Output = Answer<Message>> + Send;
}

/// The servers themselves.
#[derive(Clone)]
pub struct Servers {
    /// NATS.
    pub bus: Bus,
    /// ClickHouse.
    pub store: Store,
    inserts: Inserts,
    bulk_shard: u16,
}

impl Servers {
    /// Both, once they can be used, for so many shards.
    #[must_use]
    pub fn new(bus: Bus, store: Store, shards: u16) -> Self {
        let inserts = Inserts::start(store.clone());
        Self { bus, store, inserts, bulk_shard: nats::bulk_shard(shards) }
    }
}

impl Messages for bus::Reader {
    async fn next(&mut self) -> Answer<Message> {
        Self::next(self).await.map_err(Trouble::nats)
    }
}

impl World for Servers {
    type Reader = bus::Reader;

    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    async fn sleep_until(&self, at: Instant) {
        tokio::time::sleep_until(at.into()).await;
    }

    fn connections(&self) -> watch::Receiver<u64> {
        self.bus.connections()
    }

    async fn ensure(&self, shard: u16) -> Answer<StreamState> {
        self.bus.ensure(shard).await.map_err(Trouble::nats)
    }

    async fn record(&self, shard: u16) -> Answer<(Option<Record>, u64)> {
        self.bus.record(shard).await.map_err(Trouble::nats)
    }

    async fn write_record(&self, shard: u16, record: &Record, revision: u64) -> Answer<u64> {
        self.bus.write_record(shard, record, revision).await
    }

    async fn read(&self, shard: u16, sequence: u64) -> Answer<bus::Reader> {
        self.bus.read(shard, sequence).await.map_err(Trouble::nats)
    }

    async fn publish_dead_letters(
        &self,
        shard: u16,
        incarnation: &str,
        letters: &[DeadLetter],
    ) -> Answer<()> {
        self.bus.publish_dead_letters(shard, incarnation, letters).await.map_err(Trouble::nats)
    }

    async fn publish_activity(&self, activity: &Activity) -> Answer<()> {
        self.bus.publish_activity(activity).await.map_err(Trouble::nats)
    }

    async fn told_edge(
        &self,
        shard: u16,
        edge_id: &str,
        boot_epoch: u32,
    ) -> Answer<(u64, Option<Intervals>)> {
        self.bus.told_edge(shard, edge_id, boot_epoch).await.map_err(Trouble::nats)
    }

    async fn tell_edge(
        &self,
        shard: u16,
        edge_id: &str,
        boot_epoch: u32,
        closed: &Intervals,
        revision: u64,
    ) -> Answer<u64> {
        self.bus.tell_edge(shard, edge_id, boot_epoch, closed, revision).await
    }

    async fn stream_state(&self, shard: u16) -> Answer<StreamState> {
        self.bus.stream_state(shard).await.map_err(Trouble::nats)
    }

    async fn purge(&self, shard: u16, sequence: u64) -> Answer<()> {
        self.bus.purge(shard, sequence).await.map_err(Trouble::nats)
    }

    async fn fence(&self, shard: u16) -> Answer<u32> {
        Ok(self.store.fence(shard).await?)
    }

    async fn raise_fence(&self, shard: u16, epoch: u32) -> Answer<()> {
        Ok(self.store.raise_fence(shard, epoch).await?)
    }

    async fn end_older_inserts(&self, shard: u16, epoch: u32) -> Answer<()> {
        Ok(self.store.end_older_inserts(shard, epoch).await?)
    }

    async fn found_after(&self, shard: u16, after_ms: i64) -> Answer<Vec<Found>> {
        Ok(self.store.found_after(shard, after_ms).await?)
    }

    async fn insert(&self, rows: Arc<Rows>, common: Common, number: u64) -> Answer<()> {
        let id = insert_id(common, number);
        // What is beyond a quota makes nobody else's insert longer.
        if common.shard == self.bulk_shard {
            let asked_in = trace::current().filter(SpanContext::is_sampled);
            let span = spans::of_insert(asked_in, rows.len());
            return Ok(self.store.insert(Block::new(rows, common), &id, span).await?);
        }
        Ok(self.inserts.insert(rows, common, id).await?)
    }

    async fn archived(&self, shard: u16) -> Answer<Option<Archived>> {
        Ok(self.store.archived(shard).await?)
    }

    async fn archive(&self, pass: Pass) -> Answer<()> {
        Ok(self.store.archive(pass).await?)
    }

    async fn expire(&self) -> Answer<()> {
        self.store.expire().await?;
        Ok(())
    }

    async fn erase(&self, shard: u16, erased: &Erased) -> Answer<u64> {
        Ok(self.store.erase(shard, erased).await?)
    }

    async fn erase_letters(&self, shard: u16, erased: &Erased) -> Answer<u64> {
        letters::erase(self.bus.jetstream(), shard, erased).await.map_err(Trouble::nats)
    }

    async fn note_gaps(&self, shard: u16, gaps: &[Gap]) -> Answer<()> {
        Ok(self.store.note_gaps(shard, gaps).await?)
    }

    async fn forget_gaps(&self, shard: u16, settled: &BTreeSet<Identity>) -> Answer<()> {
        Ok(self.store.forget_gaps(shard, settled).await?)
    }

    async fn present(&self, shard: u16, asked: &BTreeSet<Identity>) -> Answer<Vec<Identity>> {
        Ok(self.store.present(shard, asked).await?)
    }

    async fn audit(&self, shard: u16, record: &Record) -> Answer<Findings> {
        audit::find(&self.store, &self.bus, shard, record, self.now()).await
    }

    async fn make_single(
        &self,
        doubled: &BTreeSet<Identity>,
        common: Common,
        number: u64,
    ) -> Answer<Singled> {
        Ok(self.store.make_single(doubled, common, &insert_id(common, number)).await?)
    }

    async fn standing(&self, shard: u16) -> Answer<Option<Standing>> {
        Ok(self.store.standing(shard).await?)
    }

    async fn set_standing(&self, shard: u16, standing: &Standing) -> Answer<()> {
        Ok(self.store.set_standing(shard, standing).await?)
    }
}

/// What a takeover knows an insert by.
fn insert_id(common: Common, number: u64) -> String {
    format!("ingest-{}-{}-{number}", common.shard, common.writer_epoch)
}
