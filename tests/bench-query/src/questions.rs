//! What is asked: about which key, which time, under which conditions. Knows no server; each makes its own words of it.

use std::fmt;

use domain::{KeyId, RequestId, SecretId, WorkspaceId};

use crate::load::RANGE_MS;

const HOUR_MS: i64 = 3_600_000;
/// How far a range that is not aligned ends before the data do.
const UNALIGNED_MS: i64 = 421_583;
const WORKSPACES: u16 = 500;
const ROUTES: u16 = 200;

/// A key, by how often it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// 0 is the hottest.
    pub(crate) rank: u16,
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) key_id: KeyId,
    pub(crate) secret_id: SecretId,
    /// One of its calls.
    pub(crate) request_id: RequestId,
}

/// A time, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) name: &'static str,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    /// It begins and ends at quarter hours.
    pub(crate) is_aligned: bool,
}

/// What a condition is about; named as the column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Method,
    Route,
    StatusCode,
    Outcome,
    Origin,
    Denial,
    ResourceId,
    ClientIp,
    LatencyUsFrom,
    SecretId,
}

/// A field has this value; a latency at least this.
pub(crate) type Condition = (Field, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Method,
    StatusCode,
    Route,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Summary,
    Breakdown(By),
    /// Days by the clocks of this time zone.
    Series(&'static str),
    Latency,
    Log,
    /// One call by its id.
    Call,
    /// All keys of the workspace.
    KeyUsage,
    /// A key's page: a summary, three breakdowns and the first page of its log at once. Ours has bars and the range before
    /// as well.
    Page,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) kind: Kind,
    pub(crate) key: Key,
    pub(crate) range: Range,
    pub(crate) conditions: Vec<Condition>,
}

impl Field {
    pub(crate) const ALL: [Self; 10] = [
        Self::Method,
        Self::Route,
        Self::StatusCode,
        Self::Outcome,
        Self::Origin,
        Self::Denial,
        Self::ResourceId,
        Self::ClientIp,
        Self::LatencyUsFrom,
        Self::SecretId,
    ];

    pub(crate) const fn column(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Route => "route",
            Self::StatusCode => "status_code",
            Self::Outcome => "outcome",
            Self::Origin => "origin",
            Self::Denial => "denial",
            Self::ResourceId => "resource_id",
            Self::ClientIp => "client_ip",
            Self::LatencyUsFrom => "latency_us",
            Self::SecretId => "secret_id",
        }
    }

    /// A value that many of the key's calls have, one that few have, and one that none has.
    fn values(self, key: &Key) -> [String; 3] {
        let unknown = SecretId::generate();
        match self {
            Self::Method => ["GET", "PATCH", "TRACE"].map(str::to_owned),
            Self::Route => [route(key.rank, 0), route(key.rank, 199), "/v1/nothing".to_owned()],
            Self::StatusCode => ["200", "503", "418"].map(str::to_owned),
            Self::Outcome => ["completed", "rate_limited", "rate_limited"].map(str::to_owned),
            Self::Origin => ["upstream", "edge", "edge"].map(str::to_owned),
            Self::Denial => ["", "deleted", "disabled"].map(str::to_owned),
            Self::ResourceId => ["4711", "190000", "nothing"].map(str::to_owned),
            Self::ClientIp => [address(key.rank), address(key.rank), "192.0.2.1".to_owned()],
            Self::LatencyUsFrom => ["200", "39000", "4000000"].map(str::to_owned),
            Self::SecretId => {
                [key.secret_id, key.secret_id, unknown].map(|secret_id| secret_id.as_uuid().to_string())
            }
        }
    }
}

impl By {
    pub(crate) const ALL: [Self; 3] = [Self::Method, Self::StatusCode, Self::Route];

    pub(crate) const fn column(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::StatusCode => "status_code",
            Self::Route => "route",
        }
    }

    /// How many rows are wanted.
    pub(crate) const fn limit(self) -> i32 {
        match self {
            Self::Method | Self::StatusCode => 100,
            Self::Route => 10,
        }
    }
}

impl Range {
    /// An hour, a day and 30 days, aligned or not.
    pub(crate) fn all(end_ms: i64, is_aligned: bool) -> [Self; 3] {
        let to_ms = if is_aligned { end_ms } else { end_ms - UNALIGNED_MS };
        [("1 h", HOUR_MS), ("24 h", 24 * HOUR_MS), ("30 d", RANGE_MS)].map(|(name, length_ms)| Self {
            name,
            from_ms: to_ms - length_ms,
            to_ms,
            is_aligned,
        })
    }

    pub(crate) const fn is_whole(&self) -> bool {
        self.to_ms - self.from_ms == RANGE_MS
    }
}

impl Question {
    /// Which figure it counts for; none but whole months count.
    pub(crate) fn figure(&self) -> Option<&'static str> {
        let is_plain = self.conditions.is_empty();
        match self.kind {
            Kind::Call => Some("call"),
            _ if !self.range.is_whole() => None,
            Kind::Log => Some(if is_plain { "plain_log_page" } else { "log_page" }),
            Kind::KeyUsage => Some("key_usage"),
            Kind::Summary => Some(if is_plain { "summary" } else { "filtered_summary" }),
            Kind::Breakdown(By::Route) => {
                Some(if is_plain { "top_endpoints" } else { "filtered_top_endpoints" })
            }
            Kind::Breakdown(_) => Some(if is_plain { "breakdown" } else { "filtered_breakdown" }),
            Kind::Series(_) => Some(if is_plain { "series" } else { "filtered_series" }),
            Kind::Latency => Some(if is_plain { "latency" } else { "filtered_latency" }),
            Kind::Page => Some(if is_plain { "page" } else { "filtered_page" }),
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Summary => "summary".to_owned(),
            Kind::Breakdown(by) => format!("breakdown by {}", by.column()),
            Kind::Series(zone) => format!("days in {zone}"),
            Kind::Latency => "latency".to_owned(),
            Kind::Log => "log page".to_owned(),
            Kind::Call => "one call".to_owned(),
            Kind::KeyUsage => "key usage".to_owned(),
            Kind::Page => "page".to_owned(),
        };
        let unaligned = if self.range.is_aligned { "" } else { " unaligned" };
        write!(f, "{kind}, {} key, {}{unaligned}", self.key.name, self.range.name)?;
        for (field, value) in &self.conditions {
            let equals = if *field == Field::LatencyUsFrom { ">=" } else { "=" };
            write!(f, ", {} {equals} '{value}'", field.column())?;
        }
        Ok(())
    }
}

/// Everything that is asked of one size; each kind without conditions and with one that only rows can answer.
pub(crate) fn all(keys: &[Key], end_ms: i64) -> Vec<Question> {
    let ([hour, day, month], [odd_hour, _, odd_month]) =
        (Range::all(end_ms, true), Range::all(end_ms, false));
    let mut questions = Vec::new();
    for key in keys {
        let by_address = vec![(Field::ClientIp, address(key.rank))];
        for range in [hour, day, month, odd_hour, odd_month] {
            for kind in [
                Kind::Summary,
                Kind::Breakdown(By::StatusCode),
                Kind::Breakdown(By::Route),
                Kind::Series("Europe/Berlin"),
                Kind::Latency,
                Kind::Log,
                Kind::Page,
            ] {
                for conditions in [vec![], by_address.clone()] {
                    questions.push(Question { kind, key: key.clone(), range, conditions });
                }
            }
            for kind in [Kind::Series("UTC"), Kind::KeyUsage] {
                questions.push(Question { kind, key: key.clone(), range, conditions: vec![] });
            }
        }
        questions.push(call(key, end_ms));
        questions.extend(pairs(key, end_ms));
    }
    questions
}

/// What is asked of others too: fewer ranges, fewer pairs.
pub(crate) fn compared(keys: &[Key], end_ms: i64) -> Vec<Question> {
    let mut questions = Vec::new();
    for key in keys {
        let [_, day, month] = Range::all(end_ms, true);
        for range in [day, month] {
            for kind in [
                Kind::Summary,
                Kind::Breakdown(By::StatusCode),
                Kind::Breakdown(By::Route),
                Kind::Series("UTC"),
                Kind::Latency,
                Kind::Log,
                Kind::KeyUsage,
                Kind::Page,
            ] {
                questions.push(Question { kind, key: key.clone(), range, conditions: vec![] });
            }
        }
        let zone = Kind::Series("Europe/Berlin");
        questions.push(Question { kind: zone, key: key.clone(), range: month, conditions: vec![] });
        let by_address = vec![(Field::ClientIp, address(key.rank))];
        for kind in [Kind::Summary, Kind::Breakdown(By::Route), Kind::Page] {
            let conditions = by_address.clone();
            questions.push(Question { kind, key: key.clone(), range: month, conditions });
        }
        questions.push(call(key, end_ms));
        questions.extend(pairs(key, end_ms).into_iter().step_by(6));
    }
    questions
}

fn call(key: &Key, end_ms: i64) -> Question {
    let [_, _, range] = Range::all(end_ms, true);
    Question { kind: Kind::Call, key: key.clone(), range, conditions: vec![] }
}

/// Pages of the log with every pair of fields; which values are taken goes round, and differs from key to key. The
/// hottest key has two rounds.
fn pairs(key: &Key, end_ms: i64) -> Vec<Question> {
    /// Often, seldom or never, for the first and the second field.
    const ROUND: [(usize, usize); 5] = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)];
    let [_, _, range] = Range::all(end_ms, true);
    let mut questions = Vec::new();
    for round in 0..if key.rank == 0 { 2 } else { 1 } {
        for (at, one) in Field::ALL.into_iter().enumerate() {
            for other in Field::ALL.into_iter().skip(at + 1) {
                let next = questions.len() + usize::from(key.rank) + round;
                let (of_one, of_other) = ROUND[next % ROUND.len()];
                let value = |field: Field, which: usize| (field, field.values(key)[which].clone());
                let conditions = vec![value(one, of_one), value(other, of_other)];
                questions.push(Question { kind: Kind::Log, key: key.clone(), range, conditions });
            }
        }
    }
    questions
}

/// The first address that the key of a rank is called from, by a third of its calls.
pub(crate) fn address(rank: u16) -> String {
    format!("10.{}.{}.0", rank >> 8, rank & 0xff)
}

/// The route that the key's workspace calls most.
pub(crate) fn favourite_route(key: &Key) -> String {
    route(key.rank, 0)
}

/// A route, by how often the key's workspace calls it.
fn route(rank: u16, favourite: u16) -> String {
    let number = (favourite + rank % WORKSPACES * 7) % ROUTES;
    let tail = ["", "/{id}", "/{id}/items", "/{id}/status"][usize::from(number % 4)];
    format!("/v1/resource-{}{tail}", number / 4)
}
