//! Why a worker gave up a shard, and whose fault it is. After any of these a takeover finds out what happened.

use std::{
    collections::BTreeMap,
    fmt::Display,
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
};

use boot::Need;

use crate::{schema::Refusal, store::StoreError};

const SILENT_HINT: &str = "; if this stays, see the log of NATS, and whether its disk has space left";

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Another worker has the shard.
    #[error("another worker has the shard")]
    Lost,
    /// NATS is away or did not do as asked.
    #[error("nats: {0}")]
    Nats(String),
    /// ClickHouse is away or did not do as asked.
    #[error("{0}")]
    ClickHouse(String),
    /// Waiting will not help.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Trouble {
    /// Trouble with NATS, with its causes.
    pub fn nats(error: impl Into<anyhow::Error>) -> Self {
        let reason = format!("{:#}", error.into());
        // One that cannot write does not answer whoever publishes.
        let hint = if reason.contains("timed out") { SILENT_HINT } else { "" };
        Self::Nats(reason + hint)
    }

    /// As a metric's label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Nats(_) => "nats",
            Self::ClickHouse(_) => "clickhouse",
            Self::Refused(_) => "refused",
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fenced => Self::Lost,
            StoreError::Refused(refusal) => Self::Refused(refusal),
            StoreError::Unknown(reason) => Self::ClickHouse(reason),
        }
    }
}

/// A need that several shards have: missing while any of them lacks it, said once in the log.
#[derive(Clone)]
pub struct SharedNeed {
    need: Need,
    lacking: Arc<Mutex<BTreeMap<u16, String>>>,
}

impl SharedNeed {
    /// Missing until every one of `shards` has said that it has it.
    #[must_use]
    pub fn missing(need: Need, shards: RangeInclusive<u16>) -> Self {
        let lacking = shards.map(|shard| (shard, String::new())).collect();
        Self { need, lacking: Arc::new(Mutex::new(lacking)) }
    }

    /// There until one shard says that it is not.
    #[must_use]
    pub fn present(need: Need) -> Self {
        Self { need, lacking: Arc::default() }
    }

    /// A shard has it.
    pub fn up(&self, shard: u16) {
        let mut lacking = self.lacking.lock().unwrap_or_else(PoisonError::into_inner);
        let was_said = lacking.values().any(|reason| !reason.is_empty());
        if lacking.remove(&shard).is_some() && lacking.is_empty() {
            self.need.up();
            if was_said {
                tracing::info!(need = self.need.name(), "back");
            }
        }
    }

    /// A shard lacks it.
    pub fn down(&self, shard: u16, reason: &impl Display) {
        let mut lacking = self.lacking.lock().unwrap_or_else(PoisonError::into_inner);
        let was_said = lacking.values().any(|reason| !reason.is_empty());
        let reason = reason.to_string();
        if !was_said {
            tracing::warn!(need = self.need.name(), reason, "away: waiting, nothing is read meanwhile");
        }
        self.need.down(reason.clone());
        lacking.insert(shard, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_nats_may_have_a_full_disk() {
        let of = |reason: &'static str| Trouble::nats(anyhow::anyhow!(reason)).to_string();
        assert!(of("timed out: didn't receive ack in time").ends_with("its disk has space left"));
        assert_eq!(of("not connected"), "nats: not connected");
    }

    #[test]
    fn missing_while_any_shard_lacks_it() {
        let health = boot::Health::default();
        let need = SharedNeed::missing(health.need("clickhouse"), 0..=1);
        let ready = || *health.ready().borrow();
        need.up(0);
        assert!(!ready());
        need.up(1);
        assert!(ready());
        let need = SharedNeed::present(need.need);
        need.down(1, &"connection refused");
        need.up(0);
        assert!(!ready());
        need.up(1);
        assert!(ready());
    }
}
