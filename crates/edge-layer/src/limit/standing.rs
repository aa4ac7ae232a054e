//! How the limits of a key stand right after a call, and how its answer and its event tell that: `RateLimit` and
//! `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-10, and `Retry-After`. Pure.

use std::fmt::Write as _;

use domain::Denial;
use http::{HeaderMap, HeaderName, HeaderValue, header::RETRY_AFTER};
use proto::event_bytes::Beginning;

use super::{
    meter::{Meter, TICKS_PER_S, Tick},
    rule::{KeyLimits, LIMITS_MAX, integer},
};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// How each limit stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// Of each limit the calls that are left, and in how many seconds all are back, or one if none is left.
    rows: [(u64, u32); LIMITS_MAX],
    /// The limit that refused for longest, or else the one with the fewest calls left.
    nth: usize,
    /// Seconds until it admits again; 0 if the call was admitted.
    retry_after_s: u32,
}

impl Standing {
    /// How `meters` stand, the call being charged; `refusing` is how long which one refuses.
    pub(super) fn of(meters: &[Meter], refusing: Option<(Tick, usize)>, now: Tick) -> Self {
        let mut rows = [(0, 0); LIMITS_MAX];
        for (row, meter) in rows.iter_mut().zip(meters) {
            let left = meter.left(now);
            *row = (left, seconds(if left == 0 { meter.wait(now) } else { meter.used(now) }));
        }
        let fewest = || (0..meters.len().min(LIMITS_MAX)).min_by_key(|nth| rows[*nth].0).unwrap_or(0);
        let nth = refusing.map_or_else(fewest, |(_, nth)| nth);
        Self { rows, nth, retry_after_s: refusing.map_or(0, |(wait, _)| seconds(wait).max(1)) }
    }

    #[cfg(test)]
    pub(super) fn is_admitted(&self) -> bool {
        self.retry_after_s == 0
    }

    #[cfg(test)]
    pub(super) fn nth(&self) -> usize {
        self.nth
    }

    #[cfg(test)]
    pub(super) fn left(&self, nth: usize) -> u64 {
        self.rows[nth].0
    }
}

fn seconds(ticks: Tick) -> u32 {
    u32::try_from(ticks.div_ceil(TICKS_PER_S)).unwrap_or(u32::MAX)
}

/// A call that was held against the limits of its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked<'a> {
    pub(super) limits: &'a KeyLimits,
    pub(super) standing: Standing,
}

impl Checked<'_> {
    /// Why the call is refused; `None` if it is not.
    pub(crate) fn denial(&self) -> Option<Denial> {
        (self.standing.retry_after_s > 0).then_some(Denial::RateLimited)
    }

    /// The limit that refused, or else the one with the fewest calls left.
    pub(crate) fn name(&self) -> &str {
        self.limits.limits.get(self.standing.nth).map_or("", |limit| &limit.name)
    }

    /// Writes down which limit it was.
    pub(crate) fn record<'a>(&'a self, event: &mut Beginning<'a>) {
        let Some(limit) = self.limits.limits.get(self.standing.nth) else { return };
        if self.standing.retry_after_s > 0 {
            event.limit_name = &limit.name;
        }
        event.limit_window_s = limit.rate.window_s;
        event.limit_remaining = self.standing.rows[self.standing.nth].0;
    }

    /// Tells the client. The API behind may tell of limits of its own, which stay.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let Self { limits: KeyLimits { limits, policy, .. }, standing } = self;
        let mut text = String::with_capacity(limits.len() * 48);
        for (limit, (left, reset_s)) in limits.iter().zip(standing.rows) {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}\"{}\";r={};t={reset_s}", limit.name, integer(left));
        }
        headers.append(RATELIMIT_POLICY, policy.clone());
        headers.append(RATELIMIT, HeaderValue::try_from(text).expect("names are letters, digits, _ and -"));
        if standing.retry_after_s > 0 {
            headers.insert(RETRY_AFTER, standing.retry_after_s.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::Id;

    use super::*;
    use crate::limit::{rule::limit, table::Table};

    #[test]
    fn an_answer_tells_every_limit() {
        let (table, key) = (Table::default(), Id::generate());
        let limits = KeyLimits::read(&[limit("minute", 3, 60), limit("day", 1_000, 86_400)]).unwrap();
        let now = 5 * TICKS_PER_S;
        let call = |now| {
            let standing = table.admit(&key, &limits, now);
            let checked = Checked { limits: &limits, standing };
            let mut headers = HeaderMap::from_iter([(RATELIMIT, HeaderValue::from_static("\"api\";r=1"))]);
            checked.tell(&mut headers);
            let told: Vec<_> =
                headers.get_all(RATELIMIT).iter().map(|v| v.to_str().unwrap().to_owned()).collect();
            assert_eq!(told[0], "\"api\";r=1");
            assert_eq!(headers[RATELIMIT_POLICY], "\"minute\";q=3;w=60, \"day\";q=1000;w=86400");
            let retry = headers.get(RETRY_AFTER).map(|v| v.to_str().unwrap().to_owned());
            (told[1].clone(), retry, checked.denial())
        };
        let admitted = |text: &str| (text.to_owned(), None, None);
        assert_eq!(call(now), admitted("\"minute\";r=2;t=20, \"day\";r=999;t=87"));
        assert_eq!(call(now), admitted("\"minute\";r=1;t=40, \"day\";r=998;t=173"));
        assert_eq!(call(now), admitted("\"minute\";r=0;t=20, \"day\";r=997;t=260"));
        let refused = (
            "\"minute\";r=0;t=20, \"day\";r=997;t=260".to_owned(),
            Some("20".to_owned()),
            Some(Denial::RateLimited),
        );
        assert_eq!(call(now), refused);
        assert_eq!(call(now + 20 * TICKS_PER_S), admitted("\"minute\";r=0;t=20, \"day\";r=996;t=326"));
    }
}
