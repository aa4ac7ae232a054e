//! For how long a stream keeps messages that are closed, so that `ingest rebuild` finds them. Pure.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Marks in the time that is kept; what goes is late by at most one part.
const PARTS: u32 = 24;

/// Up to where a stream was closed, and when.
#[derive(Debug)]
pub struct Kept {
    keep: Duration,
    marks: VecDeque<(Instant, u64)>,
}

impl Kept {
    /// Keeps messages for `keep` after they were closed.
    #[must_use]
    pub const fn new(keep: Duration) -> Self {
        Self { keep, marks: VecDeque::new() }
    }

    /// The sequence up to which messages may go, if there are such; `closed` is the cursor.
    pub fn over(&mut self, closed: u64, now: Instant) -> Option<u64> {
        if self.marks.back().is_none_or(|(at, _)| now - *at >= self.keep / PARTS) {
            self.marks.push_back((now, closed));
        }
        let mut over = None;
        while let Some((_, sequence)) = self.marks.front().filter(|(at, _)| now - *at >= self.keep) {
            over = Some(*sequence);
            self.marks.pop_front();
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stay_for_the_time_and_then_go() {
        let (start, hour) = (Instant::now(), Duration::from_secs(3_600));
        let mut kept = Kept::new(24 * hour);
        for hours in 0..24 {
            assert_eq!(kept.over(u64::from(hours) * 10, start + hours * hour), None);
            assert_eq!(kept.over(9_999, start + hours * hour + hour / 2), None);
        }
        assert_eq!(kept.over(240, start + 24 * hour), Some(0));
        assert_eq!(kept.over(260, start + 26 * hour), Some(20), "two at once");
        assert_eq!(kept.over(260, start + 26 * hour), None);
        assert!(kept.marks.len() <= PARTS as usize + 1);
    }
}
