//! When a shard's next insert may start. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Inserts of a shard start at least this far apart unless they are full, so that parts stay few; the first event
/// after a pause waits for nothing.
const PACE: Duration = Duration::from_millis(300);
/// The same for the bulk shard, which is to leave the server to the others: full or not, it rests so many times as long as
/// its last insert took, unless it is late.
const BULK_PACE: Duration = Duration::from_secs(1);
const BULK_REST: u32 = 15;
const BULK_LATE: time::Duration = time::Duration::seconds(30);

/// The pace of one shard.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    is_bulk: bool,
    paced_until: Option<Instant>,
    rest_until: Option<Instant>,
}

impl Pace {
    /// That of the bulk shard.
    pub(crate) fn of_bulk() -> Self {
        Self { is_bulk: true, ..Self::default() }
    }

    /// When what came first at `first_at` is to be written.
    pub(crate) fn due(&self, first_at: Instant, is_full: bool) -> Instant {
        let paced_until = self.paced_until.filter(|_| !is_full);
        [paced_until, self.rest_until].into_iter().flatten().fold(first_at, Instant::max)
    }

    /// An insert starts.
    pub(crate) fn starts(&mut self, now: Instant) {
        self.paced_until = Some(now + if self.is_bulk { BULK_PACE } else { PACE });
    }

    /// The insert that `started` has ended; the broker took its last message so long ago as `late` says.
    pub(crate) fn ended(&mut self, started: Instant, now: Instant, late: time::Duration) {
        let rests = self.is_bulk && late < BULK_LATE;
        self.rest_until = rests.then(|| now + (now - started) * BULK_REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_after_a_pause_is_due_at_once_and_a_full_one_too() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.due(start, false), start);
        pace.starts(start);
        let soon = start + PACE / 4;
        pace.ended(start, soon, time::Duration::ZERO);
        assert_eq!(pace.due(soon, false), start + PACE);
        assert_eq!(pace.due(soon, true), soon);
        assert_eq!(pace.due(soon + PACE, false), soon + PACE);
    }

    #[test]
    fn the_bulk_shard_rests_unless_it_is_late() {
        let (mut pace, start) = (Pace::of_bulk(), Instant::now());
        pace.starts(start);
        assert_eq!(pace.due(start, false), start + BULK_PACE);
        let now = start + PACE;
        pace.ended(start, now, time::Duration::ZERO);
        assert_eq!(
            (pace.due(now, false), pace.due(now, true)),
            (now + PACE * BULK_REST, now + PACE * BULK_REST)
        );
        pace.ended(start, now, BULK_LATE);
        assert_eq!((pace.due(now, false), pace.due(now, true)), (start + BULK_PACE, now));
    }
}
