//! A limit on calls in a window of time; pure, so that the API and its invented past obey the same one.

use std::{collections::VecDeque, time::Duration};

/// Calls admitted in each window.
const CALLS_MAX: usize = 3;
/// Length of the sliding window.
const WINDOW: Duration = Duration::from_secs(10);

/// The calls of one window.
#[derive(Debug, Default)]
pub struct Pressure(VecDeque<Duration>);

impl Pressure {
    /// Admits a call at `now`, a time since any fixed start that never goes back.
    ///
    /// # Errors
    /// How long to wait before the next call, if there were too many.
    pub fn admit(&mut self, now: Duration) -> Result<(), Duration> {
        while self.0.front().is_some_and(|first| *first + WINDOW <= now) {
            self.0.pop_front();
        }
        match self.0.front() {
            Some(first) if self.0.len() == CALLS_MAX => Err(*first + WINDOW - now),
            _ => {
                self.0.push_back(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_three_calls_in_any_ten_seconds() {
        let mut pressure = Pressure::default();
        let mut at = |seconds| pressure.admit(Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(2)], [Ok(()); 3]);
        assert_eq!(at(4), Err(Duration::from_secs(6)));
        assert_eq!(at(9), Err(Duration::from_secs(1)));
        assert_eq!(at(10), Ok(()));
        assert_eq!(at(10), Err(Duration::from_secs(1)));
    }
}
