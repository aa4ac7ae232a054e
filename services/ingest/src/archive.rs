//! When days of a shard go into the daily archive, which outlives rows, and what of them: pure, `now` is an argument.
//! PROTOCOL.md says why each call is in it once.

use std::{ops::RangeInclusive, time::Instant};

use time::{Date, Duration, OffsetDateTime};

/// A day is closed when this many have begun after it: by then the broker takes no more events of it under their own
/// time (`time_rule::BEHIND_MAX`).
const CLOSED_AFTER: Duration = Duration::days(36);
/// Days that a workspace may keep its rows. The first is later than [`CLOSED_AFTER`].
pub const RETENTION_DAYS: RangeInclusive<u16> = 37..=400;
/// Of a workspace that has not chosen.
pub const RETENTION_DAYS_DEFAULT: u16 = 90;

/// Passes in a row that may fail before the archive has to wait.
const FAILURES_MAX: u32 = 3;
/// For so long: each failure costs its shard a takeover.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(600);

/// How far a shard is archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    /// Every day up to this one is,
    pub closed_day: Date,
    /// with every row of those days whose `ingested_at` is at or below it. Milliseconds since 1970.
    pub through_ms: i64,
}

impl Archived {
    /// When the first day begins that is not closed.
    #[must_use]
    pub fn end(self) -> OffsetDateTime {
        self.closed_day.next_day().unwrap_or(Date::MAX).midnight().assume_utc()
    }
}

/// One addition to the archive: it counts as soon as it is noted, which is after all of it is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Whose rows.
    pub shard: u16,
    /// The ownership that writes it, with `number` its identity. Never used twice.
    pub writer_epoch: u32,
    /// Counts the passes of the epoch.
    pub number: u32,
    /// How far the shard is archived before it; `None` if there was no pass yet.
    pub from: Option<Archived>,
    /// And after it.
    pub to: Archived,
    /// Whether there may be rows of the days in `from` that came later.
    pub has_late: bool,
}

/// What the owner of a shard knows of its archive.
#[derive(Debug)]
pub struct Archive {
    shard: u16,
    writer_epoch: u32,
    number: u32,
    archived: Option<Archived>,
    /// Rows at or below this day came, or may have come, after the last pass.
    has_late: bool,
    running: Option<Pass>,
}

impl Archive {
    /// The archive of a shard that was just taken over, as ClickHouse has noted it.
    #[must_use]
    pub const fn new(shard: u16, writer_epoch: u32, archived: Option<Archived>) -> Self {
        // The owner before may have written such rows and told nobody.
        Self { shard, writer_epoch, number: 0, archived, has_late: true, running: None }
    }

    /// Rows are about to be inserted, the oldest of which occurred then.
    pub fn inserting(&mut self, oldest: OffsetDateTime) {
        let archived = self.running.map(|pass| pass.to).or(self.archived);
        self.has_late |= archived.is_some_and(|archived| oldest < archived.end());
    }

    /// The pass that is due, given up to which `ingested_at` all rows of the shard are there. It is running then.
    pub fn begin(&mut self, through_ms: i64, now: OffsetDateTime) -> Option<Pass> {
        let closed_day = (now - CLOSED_AFTER).to_offset(time::UtcOffset::UTC).date();
        // A clock that went back opens no day again.
        let closed_day = self.archived.map_or(closed_day, |archived| archived.closed_day.max(closed_day));
        let closes = self.archived.is_none_or(|archived| archived.closed_day < closed_day);
        if self.running.is_some() || !closes && !self.has_late {
            return None;
        }
        self.number += 1;
        let pass = Pass {
            shard: self.shard,
            writer_epoch: self.writer_epoch,
            number: self.number,
            from: self.archived,
            to: Archived { closed_day, through_ms },
            has_late: std::mem::replace(&mut self.has_late, false),
        };
        self.running = Some(pass);
        Some(pass)
    }

    /// The running pass is noted.
    pub fn noted(&mut self) {
        self.archived = self.running.take().map(|pass| pass.to).or(self.archived);
    }
}

/// How passes have gone lately, over takeovers: what can not be archived must not hold up what is ingested.
#[derive(Debug, Default)]
pub struct Attempts {
    failures: u32,
    next_at: Option<Instant>,
}

impl Attempts {
    /// Whether one may begin.
    #[must_use]
    pub fn may_begin(&self, now: Instant) -> bool {
        self.next_at.is_none_or(|at| now >= at)
    }

    /// One went well, or did not.
    pub fn went(&mut self, well: bool, now: Instant) {
        self.failures = if well { 0 } else { self.failures + 1 };
        self.next_at = (self.failures >= FAILURES_MAX).then(|| now + PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use time::macros::{date, datetime};

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 13:00 UTC);

    fn archived(closed_day: Date, through_ms: i64) -> Archived {
        Archived { closed_day, through_ms }
    }

    #[test]
    fn a_day_is_closed_once_when_the_36th_after_it_begins() {
        let mut archive = Archive::new(3, 7, None);
        let first = archive.begin(1_000, NOW).unwrap();
        assert_eq!((first.shard, first.writer_epoch, first.number), (3, 7, 1));
        assert_eq!((first.from, first.to), (None, archived(date!(2026 - 10 - 17), 1_000)));
        assert_eq!(archive.begin(2_000, NOW), None, "one at a time");
        archive.noted();
        let midnight = datetime!(2026-11-23 00:00 UTC);
        assert_eq!(archive.begin(2_000, midnight - Duration::MILLISECOND), None);
        let second = archive.begin(2_000, midnight).unwrap();
        assert_eq!((second.from, second.to), (Some(first.to), archived(date!(2026 - 10 - 18), 2_000)));
        assert_eq!((second.number, second.has_late), (2, false));
        archive.noted();
        assert_eq!(archive.begin(3_000, NOW - Duration::days(9)), None, "a clock that went back opens none");
    }

    #[test]
    fn rows_before_the_end_of_a_closed_day_make_a_pass_and_others_none() {
        let known = archived(date!(2026 - 10 - 17), 1_000);
        let mut archive = Archive::new(3, 8, Some(known));
        let after_takeover = archive.begin(2_000, NOW).unwrap();
        assert!(after_takeover.has_late, "the owner before may have written some");
        // Not in the pass that is running, so in the next.
        archive.inserting(known.end() - Duration::MILLISECOND);
        archive.noted();
        let next = archive.begin(3_000, NOW).unwrap();
        assert_eq!(
            (next.from, next.to),
            (Some(archived(known.closed_day, 2_000)), archived(known.closed_day, 3_000))
        );
        assert!(next.has_late);
        archive.noted();
        archive.inserting(known.end());
        assert_eq!(archive.begin(4_000, NOW), None);
    }

    #[test]
    fn a_row_of_a_day_that_is_being_closed_is_late() {
        let mut archive = Archive::new(3, 8, Some(archived(date!(2026 - 10 - 16), 1_000)));
        let closing = archive.begin(2_000, NOW).unwrap();
        archive.inserting(closing.to.end() - Duration::SECOND);
        archive.noted();
        assert!(archive.begin(3_000, NOW).is_some_and(|pass| pass.has_late));
    }

    #[test]
    fn what_fails_again_and_again_waits() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for _ in 1..FAILURES_MAX {
            attempts.went(false, now);
            assert!(attempts.may_begin(now));
        }
        attempts.went(false, now);
        assert!(!attempts.may_begin(now) && attempts.may_begin(now + PAUSE));
        attempts.went(true, now);
        assert!(attempts.may_begin(now));
    }

    #[test]
    fn no_row_may_expire_before_its_day_is_closed() {
        assert!(Duration::days((*RETENTION_DAYS.start()).into()) > CLOSED_AFTER);
        assert!(CLOSED_AFTER > crate::time_rule::BEHIND_MAX);
    }
}
