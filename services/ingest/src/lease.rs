//! A shard's record in NATS, and the right to change it. Every change is a compare-and-set on its revision, so of
//! two owners one finds out at its next change.

use std::time::{Duration, Instant};

use crate::{record::Record, trouble::Trouble, world::World};

/// An owner writes its record at least this often.
const RENEW_AFTER: Duration = Duration::from_secs(2);
/// An owner that has not for this long is taken for gone.
pub const GONE_AFTER: Duration = Duration::from_secs(8);

/// Revision of the shard's record if that says that somebody else than `owner` has it, alive or not.
///
/// # Errors
/// If NATS is away.
pub async fn of_another(world: &impl World, shard: u16, owner: &str) -> Result<Option<u64>, Trouble> {
    let (record, revision) = world.record(shard).await?;
    let is_anothers = record.is_some_and(|record| !record.owner.is_empty() && record.owner != owner);
    Ok(is_anothers.then_some(revision))
}

/// Waits until nobody shows to own the shard: the record is absent, let go of, our own, or was not written for
/// [`GONE_AFTER`] by this process's clock.
///
/// # Errors
/// If NATS is away.
pub async fn wait_until_free(world: &impl World, shard: u16, owner: &str) -> Result<(), Trouble> {
    let mut seen = (0, world.instant());
    while let Some(revision) = of_another(world, shard, owner).await? {
        if revision != seen.0 {
            seen = (revision, world.instant());
        } else if world.instant() - seen.1 >= GONE_AFTER {
            break;
        }
        world.sleep(RENEW_AFTER / 2).await;
    }
    Ok(())
}

/// The record of a shard that this process owns as far as it knows.
pub struct Lease<W> {
    world: W,
    shard: u16,
    record: Record,
    revision: u64,
    written_at: Instant,
}

impl<W: World> Lease<W> {
    /// Makes `record` the shard's, unless it was changed since `revision`.
    ///
    /// # Errors
    /// [`Trouble::Lost`] if it was.
    pub async fn claim(world: W, shard: u16, record: Record, revision: u64) -> Result<Self, Trouble> {
        let written_at = world.instant();
        let mut lease = Self { world, shard, record: Record::default(), revision, written_at };
        lease.write(record).await?;
        Ok(lease)
    }

    /// What is recorded.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// Changes the record.
    ///
    /// # Errors
    /// [`Trouble::Lost`] if somebody else has; otherwise it is unknown whether it was changed.
    pub async fn write(&mut self, record: Record) -> Result<(), Trouble> {
        self.revision = self.world.write_record(self.shard, &record, self.revision).await?;
        self.record = record;
        self.written_at = self.world.instant();
        Ok(())
    }

    /// Shows that the owner lives, if it has not for a while.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn renew(&mut self) -> Result<(), Trouble> {
        if self.world.instant() - self.written_at < RENEW_AFTER {
            return Ok(());
        }
        self.write(self.record.clone()).await
    }

    /// Lets the shard go, so that another process need not wait.
    pub async fn release(mut self) {
        let record = Record { owner: String::new(), ..self.record.clone() };
        if let Err(trouble) = self.write(record).await {
            tracing::info!(self.shard, reason = %trouble, "could not let the shard go");
        }
    }

    /// Waits for `work` and renews meanwhile; the work is dropped if the shard is lost.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Trouble> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = self.world.sleep(RENEW_AFTER) => self.renew().await?,
            }
        }
    }
}
