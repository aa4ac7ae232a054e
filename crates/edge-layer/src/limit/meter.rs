//! How far one limit of one key is used up: the generic cell rate algorithm (GCRA). A call moves the moment at which
//! nothing will be used any more by `window / requests`; a call is admitted while that moment is less than a window
//! away. Pure: time is an argument.

use super::rule::{Limit, Rate};

/// A time or a duration in sixteenths of a nanosecond, so that a million calls a second divide well. Times count
/// from the start of the edge on its monotonic clock.
pub(crate) type Tick = u64;
/// In a second.
pub(crate) const TICKS_PER_S: Tick = 16_000_000_000;
/// What others told is kept of so many edges; beyond, the oldest is forgotten.
const HEARD_MAX: usize = 256;

/// The use of one limit of one key by all edges, as far as this one knows.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    /// The limit's id.
    pub(crate) limit: u64,
    /// The limit when it was last looked at.
    pub(crate) rate: Rate,
    interval: Tick,
    /// From when on nothing is used; later than a window from now is a debt.
    pub(crate) empty_at: Tick,
    /// Which count `count` is.
    pub(crate) series: u64,
    /// Calls that this edge admitted in the series.
    pub(crate) count: u64,
    /// How many of them the others were told.
    pub(crate) told: u64,
    heard: Vec<Heard>,
}

/// What another edge told last.
#[derive(Debug, Clone, Copy)]
struct Heard {
    peer: u32,
    boot_epoch: u32,
    series: u64,
    count: u64,
}

/// What another edge tells of a limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    /// Which edge, by a number of our own.
    pub(crate) peer: u32,
    /// Which start of it.
    pub(crate) boot_epoch: u32,
    /// Which of its counts.
    pub(crate) series: u64,
    /// Calls that it admitted in the series,
    pub(crate) count: u64,
    /// of which it tells so many for the first time.
    pub(crate) fresh: u64,
    /// What it knows to be used by all, in thousandths of a call.
    pub(crate) used_milli: u64,
}

impl Meter {
    /// Nothing is used.
    pub(crate) fn new(limit: u64, rate: Rate, series: u64) -> Self {
        let interval = rate.interval();
        Self { limit, rate, interval, empty_at: 0, series, count: 0, told: 0, heard: Vec::new() }
    }

    /// Whether it counts this limit as it is now.
    pub(crate) fn is_of(&self, limit: &Limit) -> bool {
        self.limit == limit.id && self.rate == limit.rate
    }

    /// The limit has changed: so many calls as were used are used now, but no more than the new limit has.
    pub(crate) fn change(&mut self, limit: &Limit, now: Tick) {
        let used = self.used(now).min(self.room() + self.interval);
        let carried = scale(used, limit.interval, self.interval);
        (self.rate, self.interval) = (limit.rate, limit.interval);
        self.empty_at = now.saturating_add(carried.min(self.room() + self.interval));
    }

    /// How long until a call is admitted; 0 if it is now.
    pub(crate) fn wait(&self, now: Tick) -> Tick {
        self.used(now).saturating_sub(self.room())
    }

    /// Admits a call.
    pub(crate) fn charge(&mut self, now: Tick) {
        self.add(1, now);
        self.count += 1;
    }

    /// How many calls would be admitted now.
    pub(crate) fn left(&self, now: Tick) -> u64 {
        self.room().checked_sub(self.used(now)).map_or(0, |free| free / self.interval + 1)
    }

    /// What is used, as the time until it has come back.
    pub(crate) fn used(&self, now: Tick) -> Tick {
        self.empty_at.saturating_sub(now)
    }

    /// The same in thousandths of a call.
    pub(crate) fn used_milli(&self, now: Tick) -> u64 {
        scale(self.used(now), 1_000, self.interval)
    }

    /// Takes what another edge tells. Of an edge and series that were heard of, what its count has grown by is added,
    /// so a message that was lost or comes twice does no harm. Of others the edge's view is taken, if it is the
    /// worse one, and what it just admitted is added. The debt may grow to `debt_windows` windows.
    pub(crate) fn hear(&mut self, told: &Told, debt_windows: u64, now: Tick) {
        let Told { peer, boot_epoch, series, count, fresh, used_milli } = *told;
        let grown = match self.heard.iter_mut().find(|heard| heard.peer == peer) {
            Some(heard) if (heard.boot_epoch, heard.series) == (boot_epoch, series) => {
                let grown = count.saturating_sub(heard.count);
                heard.count += grown;
                Some(grown)
            }
            Some(heard) if (heard.boot_epoch, heard.series) > (boot_epoch, series) => return,
            Some(heard) => {
                *heard = Heard { peer, boot_epoch, series, count };
                None
            }
            None => {
                if self.heard.len() >= HEARD_MAX {
                    self.heard.remove(0);
                }
                self.heard.push(Heard { peer, boot_epoch, series, count });
                None
            }
        };
        let most = (1 + debt_windows).saturating_mul(self.rate.window()).saturating_add(now);
        let before = self.empty_at;
        if grown.is_none() {
            let used = scale(used_milli, self.interval, 1_000);
            let known = used.saturating_sub(self.interval.saturating_mul(fresh));
            self.empty_at = self.empty_at.max(now.saturating_add(known));
        }
        self.add(grown.unwrap_or(fresh), now);
        self.empty_at = self.empty_at.min(most.max(before));
    }

    fn add(&mut self, calls: u64, now: Tick) {
        if calls > 0 {
            let used = self.interval.saturating_mul(calls);
            self.empty_at = self.empty_at.max(now).saturating_add(used);
        }
    }

    /// How much may be used for a call to be admitted.
    fn room(&self) -> Tick {
        self.interval.saturating_mul(self.rate.requests - 1)
    }
}

fn scale(value: u64, by: u64, per: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(by) / u128::from(per)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::rule::{KeyLimits, limit};

    const NOW: Tick = 1_000 * TICKS_PER_S;

    fn limit_of(requests: u64, window_s: u32) -> Limit {
        KeyLimits::read(&[limit("a", requests, window_s)]).unwrap().limits[0].clone()
    }

    fn meter(requests: u64, window_s: u32) -> Meter {
        Meter::new(limit_of(requests, window_s).id, Rate::new(requests, window_s), 1)
    }

    /// Admits what is admitted of `calls` calls.
    fn call(meter: &mut Meter, calls: u64, now: Tick) -> u64 {
        (0..calls)
            .filter(|_| {
                let admits = meter.wait(now) == 0;
                if admits {
                    meter.charge(now);
                }
                admits
            })
            .count() as u64
    }

    fn told(count: u64, fresh: u64, used: u64) -> Told {
        Told { peer: 1, boot_epoch: 1, series: 1, count, fresh, used_milli: used.saturating_mul(1_000) }
    }

    #[test]
    fn the_whole_limit_at_once_and_then_its_rate() {
        for (requests, window_s) in
            [(1, 1), (3, 10), (100, 60), (7, 2_592_000), (1_000_000, 1), (30_000_000, 2_592_000)]
        {
            let mut meter = meter(requests, window_s);
            let burst = requests.min(20_000);
            assert_eq!(meter.left(NOW), requests);
            assert_eq!(call(&mut meter, burst, NOW), burst);
            assert_eq!(meter.left(NOW), requests - burst);
            if burst < requests {
                continue;
            }
            assert_eq!((meter.left(NOW), call(&mut meter, 1, NOW)), (0, 0));
            let wait = meter.wait(NOW);
            assert_eq!(call(&mut meter, 1, NOW + wait - 1), 0);
            assert_eq!(call(&mut meter, 2, NOW + wait), 1);
            // After a window of rest all is back, to a rounding of the window's parts.
            let rested = NOW + wait + u64::from(window_s) * TICKS_PER_S + requests;
            assert_eq!(meter.left(rested), requests);
        }
    }

    #[test]
    fn a_changed_limit_keeps_what_was_used() {
        for (requests, window_s, used, new, left) in [
            (100, 60, 100, (200, 60), 100),
            (100, 60, 50, (100, 3_600), 50),
            (100, 60, 50, (30, 60), 0),
            (1_000, 86_400, 1_000, (10, 60), 0),
            (100, 60, 0, (30, 60), 30),
        ] {
            let mut meter = meter(requests, window_s);
            assert_eq!(call(&mut meter, used, NOW), used);
            let new = limit_of(new.0, new.1);
            assert!(!meter.is_of(&new));
            meter.change(&new, NOW);
            assert!(meter.is_of(&new));
            assert_eq!(meter.left(NOW), left, "{requests} in {window_s} s");
            assert!(meter.wait(NOW) <= new.interval, "a change makes no debt");
        }
    }

    #[test]
    fn what_others_admit_counts_once() {
        let mut meter = meter(100, 60);
        assert_eq!(call(&mut meter, 10, NOW), 10);
        // Both began at once: what the other admitted is added to what we did.
        meter.hear(&told(20, 20, 20), 1, NOW);
        assert_eq!(meter.left(NOW), 70);
        meter.hear(&told(20, 20, 20), 1, NOW);
        assert_eq!(meter.left(NOW), 70, "twice");
        // One between was lost.
        meter.hear(&told(30, 2, 40), 1, NOW);
        assert_eq!(meter.left(NOW), 60);
        meter.hear(&told(25, 5, 35), 1, NOW);
        assert_eq!(meter.left(NOW), 60, "late");
        // It was unused there, and began anew.
        meter.hear(&Told { series: 2, ..told(5, 5, 5) }, 1, NOW);
        assert_eq!(meter.left(NOW), 55);
        meter.hear(&told(99, 60, 99), 1, NOW);
        assert_eq!(meter.left(NOW), 55, "of a series that is over");
    }

    #[test]
    fn the_view_of_a_stranger_is_taken_once() {
        let mut fresh = meter(100, 60);
        // A new edge learns what others know, and the second of them tells it nothing new.
        fresh.hear(&told(30, 0, 80), 1, NOW);
        fresh.hear(&Told { peer: 2, ..told(50, 0, 80) }, 1, NOW);
        assert_eq!(fresh.left(NOW), 20);
        // One that was started again knows what it knew, and counts from zero.
        fresh.hear(&Told { boot_epoch: 2, ..told(1, 1, 81) }, 1, NOW);
        assert_eq!(fresh.left(NOW), 19);
        // What it tells again in a second series of views adds up to nothing.
        fresh.hear(&Told { boot_epoch: 2, ..told(1, 0, 90) }, 1, NOW);
        assert_eq!(fresh.left(NOW), 19);
    }

    #[test]
    fn a_debt_is_paid_back_and_has_an_end() {
        let mut meter = meter(100, 10);
        assert_eq!(call(&mut meter, 100, NOW), 100);
        meter.hear(&told(100, 100, 100), 2, NOW);
        assert_eq!(meter.wait(NOW), 10 * TICKS_PER_S + TICKS_PER_S / 10, "one window more");
        meter.hear(&told(100_000, 99_900, 100_000), 2, NOW);
        assert_eq!(meter.wait(NOW), 20 * TICKS_PER_S + TICKS_PER_S / 10, "no more than two");
        meter.hear(&told(u64::MAX, u64::MAX, u64::MAX), 0, NOW);
        assert_eq!(meter.wait(NOW), 20 * TICKS_PER_S + TICKS_PER_S / 10, "and nothing is forgiven");
    }
}
