//! A shard's record in NATS, and the right to change it. Every change is a compare-and-set on its revision, so of
//! two owners one finds out at its next change.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::jetstream::kv::{self, Operation, UpdateErrorKind};

use crate::{record::Record, trouble::Trouble};

/// An owner writes its record at least this often.
const RENEW_AFTER: Duration = Duration::from_secs(2);
/// An owner that has not for this long is taken for gone.
pub const GONE_AFTER: Duration = Duration::from_secs(8);

/// Where the records are.
pub struct Records {
    bucket: kv::Store,
    key: String,
}

impl Records {
    /// The record of `shard` in `bucket`.
    #[must_use]
    pub fn new(bucket: kv::Store, shard: u16) -> Self {
        Self { bucket, key: shard.to_string() }
    }

    /// The record, if there is one, and the revision to change it by.
    ///
    /// # Errors
    /// If NATS is away or the record is none that this version can read.
    pub async fn read(&self) -> Result<(Option<Record>, u64), Trouble> {
        let Some(entry) = self.bucket.entry(self.key.as_str()).await.map_err(Trouble::nats)? else {
            return Ok((None, 0));
        };
        if entry.operation != Operation::Put {
            return Ok((None, entry.revision));
        }
        let record = serde_json::from_slice(&entry.value).context("the shard's record cannot be read");
        Ok((Some(record.map_err(Trouble::nats)?), entry.revision))
    }

    /// Waits until nobody shows to own the shard: the record is absent, let go of, our own, or was not written
    /// for [`GONE_AFTER`] by this process's clock.
    ///
    /// # Errors
    /// If NATS is away.
    pub async fn wait_until_free(&self, owner: &str) -> Result<(), Trouble> {
        let mut seen = (0, Instant::now());
        loop {
            let (record, revision) = self.read().await?;
            if record.is_none_or(|record| record.owner.is_empty() || record.owner == owner) {
                return Ok(());
            }
            if revision != seen.0 {
                seen = (revision, Instant::now());
            } else if seen.1.elapsed() >= GONE_AFTER {
                return Ok(());
            }
            tokio::time::sleep(RENEW_AFTER / 2).await;
        }
    }

    /// Makes `record` the shard's, unless it was changed since `revision`.
    ///
    /// # Errors
    /// [`Trouble::Lost`] if it was.
    pub async fn claim(self, record: Record, revision: u64) -> Result<Lease, Trouble> {
        let mut lease =
            Lease { records: self, record: Record::default(), revision, written_at: Instant::now() };
        lease.write(record).await?;
        Ok(lease)
    }
}

/// The record of a shard that this process owns as far as it knows.
pub struct Lease {
    records: Records,
    record: Record,
    revision: u64,
    written_at: Instant,
}

impl Lease {
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
        let value = serde_json::to_vec(&record).map_err(Trouble::nats)?;
        let written = self.records.bucket.update(&self.records.key, value.into(), self.revision).await;
        self.revision = written.map_err(|error| match error.kind() {
            UpdateErrorKind::WrongLastRevision => Trouble::Lost,
            _ => Trouble::nats(error),
        })?;
        self.record = record;
        self.written_at = Instant::now();
        Ok(())
    }

    /// Shows that the owner lives, if it has not for a while.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn renew(&mut self) -> Result<(), Trouble> {
        if self.written_at.elapsed() < RENEW_AFTER {
            return Ok(());
        }
        self.write(self.record.clone()).await
    }

    /// Waits for `work` and renews meanwhile; the work is dropped if the shard is lost.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Trouble> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep(RENEW_AFTER) => self.renew().await?,
            }
        }
    }
}
