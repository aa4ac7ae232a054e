//! The world of one worker process: every request takes its time, may not arrive, may lose its answer, and goes on
//! by itself once it is sent, whatever becomes of who sent it.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ingest::{
    activity::Activity,
    archive::{Archived, Pass},
    audit::{Findings, Singled},
    batch::DeadLetter,
    bus::StreamState,
    erasures::Erased,
    gaps::Gap,
    intervals::Intervals,
    native::Common,
    record::Record,
    restore,
    rows::Rows,
    store::Found,
    trouble::Trouble,
    watermark::Standing,
    world::World,
};
use time::OffsetDateTime;
use tokio::sync::{oneshot, watch};

use crate::{
    audit::audit,
    chance::Chance,
    clock::Clock,
    model::{ClickHouse, Disk, Identity, Stored, edge_number},
    reader::Reader,
};

/// A bug that is put in on purpose: the simulator must see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Takeovers do not raise the fence.
    NoFence,
    /// Takeovers do not wait for older inserts to end.
    NoWait,
    /// Takeovers do not read back what was written.
    NoReadBack,
    /// A stream that was made anew is taken for the one before.
    SameStream,
    /// Edges are told of sequences before they are written.
    EarlyCommit,
    /// What a worker that is no more has sent late replaces what edges were told since.
    LateCommit,
    /// Events are restored without looking whether they have a row.
    NoLook,
    /// A pass of the archive counts before all of it is there.
    EarlyNote,
}

/// What all processes share.
pub(crate) struct Shared {
    pub(crate) chance: Chance,
    pub(crate) disk: Disk,
    /// Older states of it that may come back.
    pub(crate) copies: VecDeque<Disk>,
    pub(crate) nats_is_up: bool,
    pub(crate) clickhouse: ClickHouse,
    pub(crate) clickhouse_is_up: bool,
    /// Requests may be lost, and answers.
    pub(crate) is_lossy: bool,
    pub(crate) letters: u64,
    /// Rows that were deleted by hand and are not restored yet.
    pub(crate) deleted: BTreeSet<Identity>,
    /// Everything that was ever in the stream.
    pub(crate) published: Vec<(OffsetDateTime, Bytes)>,
    pub(crate) bug: Option<Bug>,
    pub(crate) inserts: u64,
    pub(crate) takeovers: u64,
}

#[derive(Clone)]
pub(crate) struct Servers {
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<Mutex<Shared>>,
    pub(crate) connections: Arc<watch::Sender<u64>>,
    /// Changes with each message.
    pub(crate) arrivals: Arc<watch::Sender<u64>>,
}

/// The servers as one process sees them.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) servers: Servers,
    /// False while the process is stopped (SIGSTOP).
    pub(crate) runs: watch::Receiver<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    Nats,
    ClickHouse,
}

/// The day on which simulated runs start: so far ahead that all events are counted under the broker's time.
const START: OffsetDateTime = time::macros::datetime!(2126-11-22 00:00 UTC);
/// Days go by this fast, so that some are closed in each run.
const DAYS_PER_SECOND: u32 = 10;

impl Servers {
    /// A time up to so many milliseconds, now and then much longer.
    pub(crate) async fn delay(&self, ms_max: u64) {
        let ms = {
            let chance = &mut self.shared.lock().unwrap().chance;
            match chance.below(64) {
                0 => chance.below(ms_max * 200),
                1..=8 => chance.below(ms_max * 10),
                _ => chance.below(ms_max),
            }
        };
        self.clock.sleep(Duration::from_millis(ms)).await;
    }

    pub(crate) fn chance(&self, one_in: u64) -> bool {
        self.shared.lock().unwrap().chance.below(one_in) == 0
    }

    pub(crate) fn day(&self) -> OffsetDateTime {
        START + self.clock.now() * (DAYS_PER_SECOND * 86_400)
    }

    fn is_up(&self, server: Server) -> bool {
        let shared = self.shared.lock().unwrap();
        if server == Server::Nats { shared.nats_is_up } else { shared.clickhouse_is_up }
    }

    /// One insert, as the server does it: part after part, whoever waits for it.
    async fn insert(&self, rows: Arc<Rows>, common: Common) -> Result<(), Trouble> {
        let (number, crashes) = {
            let mut shared = self.shared.lock().unwrap();
            if common.writer_epoch < shared.clickhouse.fence {
                return Err(Trouble::Lost);
            }
            shared.inserts += 1;
            let number = shared.inserts;
            shared.clickhouse.running.insert(number, common.writer_epoch);
            (number, shared.clickhouse.crashes)
        };
        let parts = 1 + self.shared.lock().unwrap().chance.below(3);
        for part in 0..parts {
            self.delay(40).await;
            let mut shared = self.shared.lock().unwrap();
            let ends = shared.clickhouse.killed.remove(&number) && shared.chance.below(2) == 0;
            if shared.clickhouse.crashes != crashes {
                return Err(Trouble::ClickHouse("crashed".into()));
            }
            if ends {
                shared.clickhouse.running.remove(&number);
                return Err(Trouble::ClickHouse("killed".into()));
            }
            let ingested_at_ms = common.ingested_at_ms;
            for (occurred_at, number) in rows.times().filter(|(_, number)| number.edge_seq % parts == part) {
                let identity = (edge_number(number.edge_id), number.boot_epoch, number.edge_seq);
                let stored = Stored { occurred_at, ingested_at_ms };
                shared.clickhouse.rows.entry(identity).or_default().push(stored);
            }
        }
        self.delay(10).await;
        self.shared.lock().unwrap().clickhouse.running.remove(&number);
        Ok(())
    }
}

impl Seen {
    pub(crate) async fn running(&self) {
        let mut runs = self.runs.clone();
        let _ = runs.wait_for(|runs| *runs).await;
    }

    /// Sends a request, which the server carries out on its own, and waits for its answer.
    async fn ask<T, F>(
        &self,
        server: Server,
        work: impl FnOnce(Servers) -> F + Send + 'static,
    ) -> Result<T, Trouble>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>> + Send,
    {
        self.running().await;
        let lost = |what: &str| match server {
            Server::Nats => Trouble::Nats(what.into()),
            Server::ClickHouse => Trouble::ClickHouse(what.into()),
        };
        let (tell, answer) = oneshot::channel();
        let servers = self.servers.clone();
        let is_lossy = servers.shared.lock().unwrap().is_lossy;
        self.servers.clock.spawn(async move {
            servers.delay(15).await;
            if !servers.is_up(server) || is_lossy && servers.chance(60) {
                return;
            }
            let result = work(servers.clone()).await;
            servers.delay(15).await;
            if servers.is_up(server) && !(is_lossy && servers.chance(60)) {
                let _ = tell.send(result);
            }
        });
        let answer = answer.await;
        if answer.is_err() {
            // A time-out takes its time.
            self.servers.clock.sleep(Duration::from_millis(500)).await;
        }
        self.running().await;
        answer.map_err(|_| lost("no answer"))?
    }

    /// A request that only looks or changes something at once.
    async fn at_once<T: Send + 'static>(
        &self,
        server: Server,
        work: impl FnOnce(&mut Shared) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        self.ask(server, |servers| async move { work(&mut servers.shared.lock().unwrap()) }).await
    }

    fn bug(&self) -> Option<Bug> {
        self.servers.shared.lock().unwrap().bug
    }
}

impl World for Seen {
    type Reader = Reader;

    fn now(&self) -> OffsetDateTime {
        self.servers.day()
    }

    fn instant(&self) -> Instant {
        self.servers.clock.instant()
    }

    async fn sleep_until(&self, at: Instant) {
        self.servers.clock.sleep_until(at).await;
        self.running().await;
    }

    fn connections(&self) -> watch::Receiver<u64> {
        let mut connections = self.servers.connections.subscribe();
        connections.mark_unchanged();
        connections
    }

    async fn ensure(&self, _: u16) -> Result<StreamState, Trouble> {
        let same = self.bug() == Some(Bug::SameStream);
        self.at_once(Server::Nats, move |shared| {
            shared.takeovers += 1;
            let mut state = state(&shared.disk);
            if same {
                (state.incarnation, state.last_sequence) = ("0".into(), u64::MAX);
            }
            Ok(state)
        })
        .await
    }

    async fn record(&self, _: u16) -> Result<(Option<Record>, u64), Trouble> {
        self.at_once(Server::Nats, |shared| {
            let record = shared.disk.record.clone();
            Ok(record.map_or((None, 0), |(revision, record)| (Some(record), revision)))
        })
        .await
    }

    async fn write_record(&self, _: u16, record: &Record, revision: u64) -> Result<u64, Trouble> {
        let record = record.clone();
        self.at_once(Server::Nats, move |shared| {
            let disk = &mut shared.disk;
            if disk.record.as_ref().map_or(0, |(revision, _)| *revision) != revision {
                return Err(Trouble::Lost);
            }
            disk.revision += 1;
            disk.record = Some((disk.revision, record));
            Ok(disk.revision)
        })
        .await
    }

    async fn read(&self, _: u16, sequence: u64) -> Result<Reader, Trouble> {
        self.at_once(Server::Nats, |_| Ok(())).await?;
        Ok(Reader::new(self.clone(), sequence))
    }

    async fn publish_dead_letters(&self, _: u16, _: &str, letters: &[DeadLetter]) -> Result<(), Trouble> {
        if letters.is_empty() {
            return Ok(());
        }
        let count = letters.len() as u64;
        self.at_once(Server::Nats, move |shared| {
            shared.letters += count;
            Ok(())
        })
        .await
    }

    async fn publish_activity(&self, _: &Activity) -> Result<(), Trouble> {
        self.at_once(Server::Nats, |_| Ok(())).await
    }

    async fn told_edge(&self, _: u16, edge: &str, boot: u32) -> Result<(u64, Option<Intervals>), Trouble> {
        let key = (edge.to_owned(), boot);
        self.at_once(Server::Nats, move |shared| {
            let told = shared.disk.commits.get(&key).cloned();
            Ok(told.map_or((0, None), |(revision, closed)| (revision, Some(closed))))
        })
        .await
    }

    async fn tell_edge(
        &self,
        _: u16,
        edge: &str,
        boot: u32,
        closed: &Intervals,
        revision: u64,
    ) -> Result<u64, Trouble> {
        let (key, mut closed) = ((edge.to_owned(), boot), closed.clone());
        let bug = self.bug();
        if bug == Some(Bug::EarlyCommit) {
            let last = closed.iter().last().map_or(0, |(_, last)| last);
            closed.insert((1, last + 2));
        }
        self.at_once(Server::Nats, move |shared| {
            let disk = &mut shared.disk;
            let last = disk.commits.get(&key).map_or(0, |(revision, _)| *revision);
            if last != revision && bug != Some(Bug::LateCommit) {
                return Err(Trouble::Lost);
            }
            disk.revision += 1;
            disk.commits.insert(key, (disk.revision, closed));
            Ok(disk.revision)
        })
        .await
    }

    async fn stream_state(&self, _: u16) -> Result<StreamState, Trouble> {
        self.at_once(Server::Nats, |shared| Ok(state(&shared.disk))).await
    }

    async fn purge(&self, _: u16, sequence: u64) -> Result<(), Trouble> {
        self.at_once(Server::Nats, move |shared| {
            shared.disk.purge(sequence);
            Ok(())
        })
        .await
    }

    async fn fence(&self, _: u16) -> Result<u32, Trouble> {
        self.at_once(Server::ClickHouse, |shared| Ok(shared.clickhouse.fence)).await
    }

    async fn raise_fence(&self, _: u16, epoch: u32) -> Result<(), Trouble> {
        let skips = self.bug() == Some(Bug::NoFence);
        self.at_once(Server::ClickHouse, move |shared| {
            let fence = &mut shared.clickhouse.fence;
            *fence = if skips { *fence } else { epoch.max(*fence) };
            Ok(())
        })
        .await
    }

    async fn end_older_inserts(&self, _: u16, epoch: u32) -> Result<(), Trouble> {
        if self.bug() == Some(Bug::NoWait) {
            return Ok(());
        }
        loop {
            let left = self.at_once(Server::ClickHouse, move |shared| {
                let ClickHouse { running, killed, .. } = &mut shared.clickhouse;
                let older = running.iter().filter(|(_, of)| **of < epoch).map(|(number, _)| *number);
                let older: Vec<u64> = older.collect();
                killed.extend(&older);
                Ok(older.len())
            });
            if left.await? == 0 {
                return Ok(());
            }
            self.sleep(Duration::from_millis(20)).await;
        }
    }

    async fn found_after(&self, _: u16, after_ms: i64) -> Result<Vec<Found>, Trouble> {
        if self.bug() == Some(Bug::NoReadBack) {
            return Ok(Vec::new());
        }
        self.at_once(Server::ClickHouse, move |shared| Ok(shared.clickhouse.found_after(after_ms))).await
    }

    async fn insert(&self, rows: Arc<Rows>, common: Common, _: u64) -> Result<(), Trouble> {
        self.ask(Server::ClickHouse, move |servers| async move { servers.insert(rows, common).await }).await
    }

    async fn archived(&self, _: u16) -> Result<Option<Archived>, Trouble> {
        self.at_once(Server::ClickHouse, |shared| Ok(shared.clickhouse.archived())).await
    }

    async fn archive(&self, pass: Pass) -> Result<(), Trouble> {
        self.ask(Server::ClickHouse, move |servers| async move { servers.archive(pass).await }).await
    }

    async fn expire(&self) -> Result<(), Trouble> {
        Ok(())
    }

    async fn erase(&self, _: u16, _: &Erased) -> Result<u64, Trouble> {
        Ok(0)
    }

    async fn erase_letters(&self, _: u16, _: &Erased) -> Result<u64, Trouble> {
        Ok(0)
    }

    async fn note_gaps(&self, _: u16, gaps: &[Gap]) -> Result<(), Trouble> {
        let noted: Vec<_> = gaps
            .iter()
            .flat_map(|gap| {
                let (first, last) = gap.interval;
                (first..=last).map(|seq| (edge_number(&gap.edge_id), gap.boot_epoch, seq))
            })
            .collect();
        self.at_once(Server::ClickHouse, move |shared| {
            shared.clickhouse.gaps.extend(noted);
            Ok(())
        })
        .await
    }

    async fn forget_gaps(&self, _: u16, settled: &BTreeSet<restore::Identity>) -> Result<(), Trouble> {
        let settled: Vec<_> =
            settled.iter().map(|(edge, boot, seq)| (edge_number(edge), *boot, *seq)).collect();
        self.at_once(Server::ClickHouse, move |shared| {
            settled.iter().for_each(|identity| {
                shared.clickhouse.gaps.remove(identity);
            });
            Ok(())
        })
        .await
    }

    async fn present(
        &self,
        _: u16,
        asked: &BTreeSet<restore::Identity>,
    ) -> Result<Vec<restore::Identity>, Trouble> {
        if self.bug() == Some(Bug::NoLook) {
            return Ok(Vec::new());
        }
        let asked = asked.clone();
        self.at_once(Server::ClickHouse, move |shared| {
            let rows = &shared.clickhouse.rows;
            let is_there =
                |(edge, boot, seq): &restore::Identity| rows.contains_key(&(edge_number(edge), *boot, *seq));
            Ok(asked.into_iter().filter(is_there).collect())
        })
        .await
    }

    async fn audit(&self, _: u16, record: &Record) -> Result<Findings, Trouble> {
        let record = record.clone();
        self.at_once(Server::ClickHouse, move |shared| Ok(audit(shared, &record))).await
    }

    async fn make_single(
        &self,
        _: &BTreeSet<restore::Identity>,
        _: Common,
        _: u64,
    ) -> Result<Singled, Trouble> {
        Err(Trouble::ClickHouse("a doubled row is what a run must never come to".into()))
    }

    async fn standing(&self, _: u16) -> Result<Option<Standing>, Trouble> {
        Ok(None)
    }

    async fn set_standing(&self, _: u16, _: &Standing) -> Result<(), Trouble> {
        Ok(())
    }
}

fn state(disk: &Disk) -> StreamState {
    let bytes = disk.messages.iter().map(|(_, payload)| payload.len() as u64).sum();
    StreamState { incarnation: disk.incarnation.to_string(), last_sequence: disk.last_sequence(), bytes }
}
