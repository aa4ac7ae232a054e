//! Whether one address of the API works: told by failed connections and by probes, shared by all threads. An
//! address that is out is only asked when no other is left, so this never makes an outage of its own. Pure but
//! for its log lines.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Failed connections in a row after which an address is left out for a while.
const FAILURES_MAX: u32 = 3;
/// How long it is left out at first; doubled at each further failure.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
/// How long at most.
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// The health of one address.
#[derive(Debug)]
pub(crate) struct Health {
    name: String,
    began: Instant,
    failures: AtomicU32,
    /// In milliseconds after `began`.
    out_until: AtomicU64,
    is_probed_down: AtomicBool,
}

impl Health {
    /// An address that works as far as is known.
    pub(crate) fn new(name: String, now: Instant) -> Self {
        Self {
            name,
            began: now,
            failures: AtomicU32::new(0),
            out_until: AtomicU64::new(0),
            is_probed_down: AtomicBool::new(false),
        }
    }

    /// Host and port.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is to be asked.
    pub(crate) fn is_up(&self, now: Instant) -> bool {
        !self.is_probed_down.load(Relaxed) && self.out_until.load(Relaxed) <= self.millis(now)
    }

    /// There was a connection.
    pub(crate) fn worked(&self) {
        // Asked first, so that threads do not take the line from each other at each connection.
        if self.failures.load(Relaxed) != 0 && self.failures.swap(0, Relaxed) >= FAILURES_MAX {
            self.out_until.store(0, Relaxed);
            tracing::info!(upstream = self.name, "the API can be reached again");
        }
    }

    /// There was none.
    pub(crate) fn failed(&self, now: Instant, error: &impl std::fmt::Display) {
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        if failures < FAILURES_MAX {
            return;
        }
        let doublings = (failures - FAILURES_MAX).min(10);
        let pause = (BACK_OFF_MIN * 2_u32.pow(doublings)).min(BACK_OFF_MAX);
        self.out_until.store(self.millis(now + pause), Relaxed);
        if failures == FAILURES_MAX {
            tracing::warn!(upstream = self.name, %error, "the API cannot be reached; others are asked if there are any");
        }
    }

    /// What a probe found.
    pub(crate) fn probed(&self, found: Result<(), &str>) {
        if self.is_probed_down.swap(found.is_err(), Relaxed) != found.is_err() {
            match found {
                Ok(()) => tracing::info!(upstream = self.name, "the API is healthy again"),
                Err(reason) => tracing::warn!(upstream = self.name, reason, "the API is not healthy"),
            }
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_take_an_address_out_for_longer_and_longer() {
        let start = Instant::now();
        let (health, error) = (Health::new("a:1".into(), start), std::io::Error::other("no"));
        for _ in 1..FAILURES_MAX {
            health.failed(start, &error);
            assert!(health.is_up(start));
        }
        let mut now = start;
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            health.failed(now, &error);
            let back = now + Duration::from_secs(pause);
            assert!(!health.is_up(back - Duration::from_millis(1)) && health.is_up(back));
            now = back;
        }
        health.worked();
        assert!(health.is_up(now));
        health.failed(now, &error);
        assert!(health.is_up(now), "it begins anew");
    }

    #[test]
    fn a_probe_takes_it_out_until_one_succeeds() {
        let now = Instant::now();
        let health = Health::new("a:1".into(), now);
        health.probed(Err("503"));
        health.worked();
        assert!(!health.is_up(now));
        health.probed(Ok(()));
        assert!(health.is_up(now));
    }
}
