//! The limits of a key as the feed states them. Pure; never counts a call.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use http::HeaderValue;
use proto::events as pb;
use smallvec::SmallVec;

use super::meter::{TICKS_PER_S, Tick};

/// Most limits of a key; keys allows no more.
pub(crate) const LIMITS_MAX: usize = 10;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 32;
/// 30 days.
pub(super) const WINDOW_S_MAX: u32 = 2_592_000;

/// At most so many calls in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// At least 1.
    pub(crate) requests: u64,
    /// In seconds, 1 s to 30 days.
    pub(crate) window_s: u32,
}

impl Rate {
    /// A rate that can be counted; what is out of bounds is set to the nearest bound, since a key with a strange
    /// limit is better limited than let through or lost.
    #[must_use]
    pub(crate) fn new(requests: u64, window_s: u32) -> Self {
        Self { requests: requests.max(1), window_s: window_s.clamp(1, WINDOW_S_MAX) }
    }

    /// After how long one used call comes back.
    #[must_use]
    pub(crate) fn interval(self) -> Tick {
        let window = self.window();
        ((window + self.requests / 2) / self.requests).max(1)
    }

    /// The window.
    #[must_use]
    pub(crate) fn window(self) -> Tick {
        u64::from(self.window_s) * TICKS_PER_S
    }
}

/// One limit of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limit {
    /// What edges call it among each other: FNV-1a of the name.
    pub(crate) id: u64,
    /// Unique in its key, of a-z, 0-9, _ and -.
    pub(crate) name: Box<str>,
    /// How much.
    pub(crate) rate: Rate,
    /// Its [`Rate::interval`].
    pub(crate) interval: Tick,
}

/// All limits of a key; at least one. Most keys have no more, and then it is found without another look into memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyLimits {
    /// In the order of the feed.
    pub(crate) limits: SmallVec<[Limit; 1]>,
    /// The value of `RateLimit-Policy`.
    pub(crate) policy: HeaderValue,
    /// Where the key's meters were.
    pub(crate) place: Place,
}

/// Where the meters of a key were found last, among those of its shard. A hint: they may be elsewhere by now, so whoever
/// looks there makes sure whose they are. It says nothing of the limits, so any two are equal.
#[derive(Debug, Default)]
pub(crate) struct Place(AtomicU32);

impl Place {
    pub(super) fn get(&self) -> usize {
        self.0.load(Relaxed) as usize
    }

    pub(super) fn set(&self, at: usize) {
        self.0.store(at as u32, Relaxed);
    }
}

impl Clone for Place {
    fn clone(&self) -> Self {
        Self(self.0.load(Relaxed).into())
    }
}

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Place {}

impl KeyLimits {
    /// Reads what the feed says; `None` if there is no limit.
    #[must_use]
    pub(crate) fn read(limits: &[pb::RateLimit]) -> Option<Self> {
        if limits.is_empty() {
            return None;
        }
        let limits: SmallVec<[Limit; 1]> = limits.iter().take(LIMITS_MAX).map(read).collect();
        let mut policy = String::new();
        for limit in &limits {
            let (name, Rate { requests, window_s }) = (&limit.name, limit.rate);
            let comma = if policy.is_empty() { "" } else { ", " };
            let _ = write!(policy, "{comma}\"{name}\";q={};w={window_s}", integer(requests));
        }
        let policy = HeaderValue::try_from(policy).expect("names are letters, digits, _ and -");
        Some(Self { limits, policy, place: Place::default() })
    }
}

fn read(limit: &pb::RateLimit) -> Limit {
    let good = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' { c } else { '_' };
    let name: String = limit.name.chars().take(NAME_BYTES_MAX).map(good).collect();
    let rate = Rate::new(limit.requests, limit.window_s);
    Limit { id: id_of(&limit.name), name: name.into(), rate, interval: rate.interval() }
}

/// FNV-1a of a limit's name.
fn id_of(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A number as structured fields allow it: at most 15 digits (RFC 9651, section 3.3.1).
pub(super) fn integer(value: u64) -> u64 {
    value.min(999_999_999_999_999)
}

#[cfg(test)]
pub(super) fn limit(name: &str, requests: u64, window_s: u32) -> pb::RateLimit {
    pb::RateLimit { name: name.into(), requests, window_s }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_in_their_order() {
        assert_eq!(KeyLimits::read(&[]), None);
        let limits = KeyLimits::read(&[limit("burst", 10, 1), limit("month", u64::MAX, 2_592_000)]).unwrap();
        assert_eq!(limits.policy, "\"burst\";q=10;w=1, \"month\";q=999999999999999;w=2592000");
        let names: Vec<_> = limits.limits.iter().map(|limit| &*limit.name).collect();
        assert_eq!(names, ["burst", "month"]);
        assert_eq!(limits.limits[0].interval, TICKS_PER_S / 10);
        assert_eq!(limits.limits[1].interval, 1, "faster than can be counted");
        assert_ne!(limits.limits[0].id, limits.limits[1].id);
    }

    #[test]
    fn what_keys_never_sends_is_still_a_limit() {
        let limits = KeyLimits::read(&[limit("a\"\r\né", 0, 0), limit("", 1, u32::MAX)]).unwrap();
        assert_eq!(limits.policy, "\"a____\";q=1;w=1, \"\";q=1;w=2592000");
        assert_eq!(KeyLimits::read(&vec![limit("a", 1, 1); 99]).unwrap().limits.len(), LIMITS_MAX);
    }
}
