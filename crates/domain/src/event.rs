//! A request event: one API call as one row, and the rule that sorts calls into outcomes.

use std::net::Ipv6Addr;

use time::OffsetDateTime;

use crate::{KeyId, RequestId, SecretId, WorkspaceId};

/// Longest raw path kept, in bytes; the rest is cut at a character's boundary.
pub const PATH_BYTES_MAX: usize = 1024;

/// One API call with a known key, whatever came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestEvent {
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// The key that the call was made with.
    pub key_id: KeyId,
    /// Which of the key's secrets was sent.
    pub secret_id: SecretId,
    /// Minted by the edge, UUIDv7.
    pub request_id: RequestId,
    /// The client's own `X-Request-Id`; empty if it sent none.
    pub client_request_id: String,
    /// Start of the request at the edge, UTC, kept to the millisecond.
    pub occurred_at: OffsetDateTime,
    /// HTTP method in upper case.
    pub method: String,
    /// Template such as `/v1/orders/{id}`; of low cardinality.
    pub route: String,
    /// Raw path without the query string, at most [`PATH_BYTES_MAX`] bytes.
    pub path: String,
    /// The id that the path names; empty if none.
    pub resource_id: String,
    /// HTTP status of the answer.
    pub status_code: u16,
    /// Who answered.
    pub origin: Origin,
    /// Why the edge refused; `None` if it did not.
    pub denial: Option<Denial>,
    /// The limit that refused; empty if none did.
    pub limit_name: String,
    /// Window of that limit, or, of an admitted call, of the limit with the fewest calls left; 0 if none was asked.
    pub limit_window_s: u32,
    /// How many more calls that limit admitted right after this one; 0 if it refused.
    pub limit_remaining: u64,
    /// From the request's first byte to the answer's last, in microseconds.
    pub latency_us: u32,
    /// Body bytes received from the client.
    pub request_bytes: u64,
    /// Body bytes sent to the client.
    pub response_bytes: u64,
    /// The client's address; IPv4 as `::ffff:a.b.c.d`.
    pub client_ip: Ipv6Addr,
    /// The client's `User-Agent`, cut at 256 bytes.
    pub user_agent: String,
    /// Region that the edge is configured with; may be empty.
    pub region: String,
    /// W3C trace id; zeros if the call had none.
    pub trace_id: [u8; 16],
    /// The edge's span of the call in that trace; zeros unless the call is sampled.
    pub span_id: [u8; 8],
    /// The edge stopped before the answer ended; latency and bytes are what was known.
    pub interrupted: bool,
}

impl RequestEvent {
    /// Exactly one outcome for each call.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        Outcome::of(self.status_code)
    }
}

/// What came of a call, as its caller sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered with a status below 400.
    Completed,
    /// Any other answer, and no answer at all.
    Failed,
    /// Answered with 429, whoever gave it.
    RateLimited,
}

impl Outcome {
    /// All of them, in the order of the cards.
    pub const ALL: [Self; 3] = [Self::Completed, Self::Failed, Self::RateLimited];

    /// The rule: 429 is rate limited; else below 400 is completed; else failed. So the three always
    /// add up to the total.
    #[must_use]
    pub const fn of(status_code: u16) -> Self {
        match status_code {
            429 => Self::RateLimited,
            0..400 => Self::Completed,
            _ => Self::Failed,
        }
    }

    /// The name in SQL and in links.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::RateLimited => "rate_limited",
        }
    }
}

impl std::str::FromStr for Outcome {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or(())
    }
}

/// Who gave the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The edge itself: a refusal, or no answer from upstream.
    Edge,
    /// The API behind the edge.
    Upstream,
}

impl Origin {
    /// The name in SQL and on pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Upstream => "upstream",
        }
    }
}

macro_rules! denials {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:literal;)*) => {
        /// Why the edge refused a call whose key it knows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Denial {
            $($(#[$doc])* $variant,)*
        }

        impl Denial {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in SQL, in problem documents and on pages.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The HTTP status that the edge answers with.
            #[must_use]
            pub const fn status_code(self) -> u16 {
                match self {
                    $(Self::$variant => $status,)*
                }
            }
        }
    };
}

denials! {
    /// A limit of the key was exceeded.
    RateLimited = "rate_limited", 429;
    /// The key was deleted.
    Deleted = "deleted", 401;
    /// The key's expiry has passed.
    Expired = "expired", 401;
    /// The key is switched off.
    Disabled = "disabled", 401;
    /// The secret was rotated away and its overlap has ended.
    SecretRetired = "secret_retired", 401;
    /// The caller's address is outside the key's ranges.
    IpNotAllowed = "ip_not_allowed", 403;
    /// The key lacks the scope that the route asks for.
    ScopeMissing = "scope_missing", 403;
    /// A test key on a live edge, or the reverse.
    EnvironmentMismatch = "environment_mismatch", 403;
    /// The edge has heard nothing of keys for too long to be sure.
    FeedLost = "feed_lost", 503;
}

impl std::str::FromStr for Denial {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|denial| denial.as_str() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(101, Outcome::Completed)]
    #[case(200, Outcome::Completed)]
    #[case(304, Outcome::Completed)]
    #[case(399, Outcome::Completed)]
    #[case(400, Outcome::Failed)]
    #[case(428, Outcome::Failed)]
    #[case(429, Outcome::RateLimited)]
    #[case(430, Outcome::Failed)]
    #[case(499, Outcome::Failed)]
    #[case(502, Outcome::Failed)]
    #[case(599, Outcome::Failed)]
    fn status_decides_the_outcome(#[case] status_code: u16, #[case] outcome: Outcome) {
        assert_eq!(Outcome::of(status_code), outcome);
    }

    #[test]
    fn names_parse_back() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.as_str().parse(), Ok(outcome));
        }
        for denial in Denial::ALL {
            assert_eq!(denial.as_str().parse(), Ok(*denial));
        }
        assert_eq!("".parse::<Outcome>(), Err(()));
    }
}
