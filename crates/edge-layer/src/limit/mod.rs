//! Rate limits: every edge decides by itself, from what it admitted and what the others tell. A call waits for no
//! network and no disk; gossip and a file beside the spool follow behind.

mod disk;
mod gossip;
mod keys;
mod meter;
mod peers;
mod rule;
#[cfg(test)]
mod simulation;
mod standing;
mod table;

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use domain::EdgeId;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::{
    disk::{Journal, Moment},
    gossip::Exchange,
    meter::Tick,
    table::{SHARDS, Table},
};
pub(crate) use self::{
    gossip::{Figures, farewell, run as gossip},
    rule::KeyLimits,
    standing::Checked,
};
use crate::key_table::KeyEntry;

/// How often what changed is written to the disk: what a `kill -9` forgets at most of what only this edge knows.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);
/// In so many saves every shard is swept once.
const SWEEP_SAVES: usize = 16;

/// The limits of all keys at this edge.
#[derive(Debug)]
pub(crate) struct RateLimits {
    /// Ticks count from here.
    began: Instant,
    table: Table,
    journal: Mutex<Journal>,
    exchange: Exchange,
    /// Somebody is to tell the others; woken once, until they were told.
    stirred: Notify,
    is_stirred: AtomicBool,
}

impl RateLimits {
    /// Takes up what an earlier start left in the spool's folder. Blocks while it reads.
    ///
    /// # Errors
    /// If the file there cannot be read or written.
    pub(crate) fn open(spool_dir: &Path, edge_id: EdgeId, boot_epoch: u32) -> io::Result<Self> {
        let (began, table) = (Instant::now(), Table::default());
        let journal = Journal::open(spool_dir, &table, moment(began))?;
        Ok(Self {
            began,
            table,
            journal: Mutex::new(journal),
            exchange: Exchange::new(edge_id, boot_epoch),
            stirred: Notify::new(),
            is_stirred: AtomicBool::new(false),
        })
    }

    /// Holds an otherwise admitted call against the limits of its key, and charges them if they admit it; `None` if
    /// the key has none.
    pub(crate) fn check<'a>(&self, entry: &'a KeyEntry, at: Instant) -> Option<Checked<'a>> {
        let limits = entry.policy.as_deref()?.limits.as_ref()?;
        let checked = Checked { limits, standing: self.table.admit(&entry.key_id, limits, self.tick(at)) };
        if checked.denial().is_none()
            && !self.is_stirred.load(Relaxed)
            && !self.is_stirred.swap(true, Relaxed)
        {
            self.stirred.notify_one();
        }
        Some(checked)
    }

    /// Whether limits are counted with all edges; else this edge counts alone.
    pub(crate) fn is_shared(&self) -> bool {
        self.exchange.is_current(Instant::now())
    }

    /// Figures for metrics.
    pub(crate) fn figures(&self) -> Figures {
        self.exchange.figures(self.table.len(), Instant::now())
    }

    fn tick(&self, at: Instant) -> Tick {
        ticks(at.saturating_duration_since(self.began))
    }

    fn save(&self) -> io::Result<()> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.save(&self.table, moment(self.began))
    }

    fn sweep(&self, round: usize) {
        let now = self.tick(Instant::now());
        (0..SHARDS)
            .skip(round % SWEEP_SAVES)
            .step_by(SWEEP_SAVES)
            .for_each(|shard| self.table.sweep(shard, now));
    }
}

/// Writes to the disk what changed, and drops what is not used, until `stop`, and then once more.
pub(crate) async fn keep(limits: Arc<RateLimits>, stop: CancellationToken) {
    let mut is_failing = false;
    for round in 0.. {
        let is_last = stop.run_until_cancelled(tokio::time::sleep(SAVE_INTERVAL)).await.is_none();
        let kept = limits.clone();
        let saved = tokio::task::spawn_blocking(move || {
            kept.sweep(round);
            kept.save()
        })
        .await;
        match saved.expect("saving does not panic") {
            Err(error) if !is_failing => {
                tracing::warn!(%error, "rate limits cannot be saved; a restart would forget what is used of them");
                is_failing = true;
            }
            Err(_) => {}
            Ok(()) => is_failing = false,
        }
        limits.exchange.is_save_failing.store(is_failing, Relaxed);
        if is_last {
            return;
        }
    }
}

fn ticks(duration: Duration) -> Tick {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).saturating_mul(meter::TICKS_PER_S / 1_000_000_000)
}

fn moment(began: Instant) -> Moment {
    let unix_us = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000;
    Moment { tick: ticks(began.elapsed()), unix_us: u64::try_from(unix_us).unwrap_or(0) }
}
