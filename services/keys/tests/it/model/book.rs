//! What a key must be after any calls, written down once more and as plainly as possible.

use domain::SecretId;
use time::{Duration, OffsetDateTime};

/// One of the calls.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Rename(u8),
    /// Seconds from now, or never.
    Expire(Option<i64>),
    Disable,
    Enable,
    Rotate(Duration),
    /// Which secret, counted from the newest, round and round.
    Retire(usize),
    Expose(usize),
    Delete,
}

/// What comes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Deleted,
    Stale,
    Current,
    TooMany,
    Past,
}

/// Whether a secret is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Good {
    Yes,
    Deleted,
    Disabled,
    Expired,
    Retired,
}

#[derive(Debug, Clone)]
pub(crate) struct Secret {
    pub(crate) id: SecretId,
    pub(crate) text: String,
    pub(crate) end: Option<OffsetDateTime>,
    pub(crate) exposed: bool,
}

/// A key.
#[derive(Debug, Clone)]
pub(crate) struct Book {
    pub(crate) version: i64,
    pub(crate) name: String,
    pub(crate) expires: Option<OffsetDateTime>,
    pub(crate) disabled: bool,
    pub(crate) deleted: bool,
    /// Newest first.
    pub(crate) secrets: Vec<Secret>,
}

/// What an etag stands for.
pub(crate) type Seen = (i64, &'static str);

impl Book {
    pub(crate) fn standing(&self, now: OffsetDateTime) -> &'static str {
        match () {
            () if self.deleted => "deleted",
            () if self.disabled => "disabled",
            () if self.expires.is_some_and(|end| end <= now) => "expired",
            () => "active",
        }
    }

    pub(crate) fn seen(&self, now: OffsetDateTime) -> Seen {
        (self.version, self.standing(now))
    }

    pub(crate) fn good(&self, place: usize, now: OffsetDateTime) -> Good {
        match self.standing(now) {
            "deleted" => Good::Deleted,
            "disabled" => Good::Disabled,
            "expired" => Good::Expired,
            _ if self.secrets[place].end.is_some_and(|end| end <= now) => Good::Retired,
            _ => Good::Yes,
        }
    }

    /// The key after a call. A rotation adds its secret without text; `fresh` says which.
    pub(crate) fn after(&self, op: &Op, seen: Option<Seen>, now: OffsetDateTime) -> (Outcome, Self) {
        let mut next = self.clone();
        let outcome = next.take(op, seen.is_some_and(|seen| seen != self.seen(now)), now);
        (outcome, if outcome == Outcome::Done { next } else { self.clone() })
    }

    fn take(&mut self, op: &Op, stale: bool, now: OffsetDateTime) -> Outcome {
        let working = |secret: &Secret| secret.end.is_none_or(|end| end > now);
        match op {
            Op::Delete if self.deleted => return Outcome::Done,
            Op::Expose(place) => {
                let place = place % self.secrets.len();
                if !self.deleted && !self.secrets[place].exposed {
                    self.secrets[place].exposed = true;
                    self.version += 1 + i64::from(!self.disabled);
                    self.disabled = true;
                }
                return Outcome::Done;
            }
            _ if self.deleted => return Outcome::Deleted,
            Op::Disable if self.disabled => return Outcome::Done,
            Op::Enable if !self.disabled => return Outcome::Done,
            Op::Retire(place) if !working(&self.secrets[place % self.secrets.len()]) => return Outcome::Done,
            _ if stale => return Outcome::Stale,
            _ => {}
        }
        match op {
            Op::Rename(name) if self.name == format!("name {name}") => return Outcome::Done,
            Op::Rename(name) => self.name = format!("name {name}"),
            Op::Expire(after) => {
                let end = after.map(|after| now + Duration::seconds(after));
                if end == self.expires {
                    return Outcome::Done;
                }
                if end.is_some_and(|end| end <= now) {
                    return Outcome::Past;
                }
                self.expires = end;
            }
            Op::Disable => self.disabled = true,
            Op::Enable => self.disabled = false,
            Op::Delete => self.deleted = true,
            Op::Retire(place) => {
                let place = place % self.secrets.len();
                if place == 0 {
                    return Outcome::Current;
                }
                self.secrets[place].end = Some(now);
            }
            Op::Rotate(overlap) => {
                for secret in self.secrets.iter_mut().filter(|secret| working(secret)) {
                    let end = now + *overlap;
                    secret.end = Some(secret.end.map_or(end, |earlier| earlier.min(end)));
                }
                if self.secrets.iter().filter(|secret| working(secret)).count() > 4 {
                    return Outcome::TooMany;
                }
                let fresh =
                    Secret { id: SecretId::generate(), text: String::new(), end: None, exposed: false };
                self.secrets.insert(0, fresh);
            }
            Op::Expose(_) => {}
        }
        self.version += 1;
        Outcome::Done
    }
}
