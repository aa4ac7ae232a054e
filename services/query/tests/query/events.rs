//! Request events as a test knows them: made up, written to ClickHouse, and sorted by the filter's words in plain
//! Rust, to compare the answers with.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
};

use domain::{KeyId, Origin, Outcome, RequestId, SecretId, WorkspaceId};
use proto::usage as pb;
use uuid::{NoContext, Timestamp, Uuid};

/// One call; what is not here has the column's default.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) key_id: KeyId,
    pub(crate) request_id: RequestId,
    pub(crate) at_ms: i64,
    pub(crate) method: String,
    pub(crate) route: String,
    pub(crate) status_code: u16,
    pub(crate) resource_id: String,
    pub(crate) secret_id: SecretId,
    pub(crate) denial: String,
    pub(crate) client_ip: IpAddr,
    pub(crate) origin: Origin,
    pub(crate) latency_us: u32,
}

impl Event {
    /// Where it is in the log: calls of equal times are in the order that ClickHouse has for UUIDs, by their second half.
    pub(crate) fn place(&self) -> (i64, u64, u64) {
        let (first_half, second_half) = self.request_id.as_uuid().as_u64_pair();
        (self.at_ms, second_half, first_half)
    }

    pub(crate) fn new(key_id: KeyId, at_ms: i64) -> Self {
        Self {
            key_id,
            request_id: request_id_at(at_ms),
            at_ms,
            method: "GET".into(),
            route: "/v1/orders/{id}".into(),
            status_code: 200,
            resource_id: String::new(),
            secret_id: SecretId::from_uuid(Uuid::nil()),
            denial: String::new(),
            client_ip: Ipv6Addr::UNSPECIFIED.into(),
            origin: Origin::Upstream,
            latency_us: 0,
        }
    }

    pub(crate) const fn outcome(&self) -> Outcome {
        Outcome::of(self.status_code)
    }

    /// What the filter's documentation says, once more.
    pub(crate) fn fits(&self, filter: &pb::UsageFilter) -> bool {
        let (from, to) = span_ms(filter);
        (from..to).contains(&self.at_ms)
            && self.matches(&lists(filter))
            && filter.condition.as_ref().is_none_or(|condition| self.meets(condition))
    }

    fn meets(&self, condition: &pb::Condition) -> bool {
        use pb::condition::Kind;
        match condition.kind.as_ref().unwrap() {
            Kind::AllOf(all) => all.conditions.iter().all(|condition| self.meets(condition)),
            Kind::AnyOf(any) => any.conditions.iter().any(|condition| self.meets(condition)),
            Kind::Not(one) => !self.meets(one),
            Kind::Match(lists) => self.matches(lists),
        }
    }

    fn matches(&self, lists: &pb::Match) -> bool {
        fn any<T: PartialEq>(list: &[T], value: &T) -> bool {
            list.is_empty() || list.contains(value)
        }
        let outcome = match self.outcome() {
            Outcome::Completed => pb::Outcome::Completed,
            Outcome::Failed => pb::Outcome::Failed,
            Outcome::RateLimited => pb::Outcome::RateLimited,
        };
        let origin = match self.origin {
            Origin::Edge => pb::Origin::Edge,
            Origin::Upstream => pb::Origin::Upstream,
        };
        any(&lists.key_ids, &self.key_id.to_string())
            && any(&lists.outcomes, &outcome.into())
            && (lists.methods.is_empty()
                || lists.methods.iter().any(|m| m.eq_ignore_ascii_case(&self.method)))
            && any(&lists.routes, &self.route)
            && any(&lists.status_codes, &self.status_code.into())
            && any(&lists.status_classes, &u32::from(self.status_code / 100))
            && any(&lists.resource_ids, &self.resource_id)
            && any(&lists.request_ids, &self.request_id.to_string())
            && any(&lists.secret_ids, &self.secret_id.to_string())
            && any(&lists.denials, &self.denial)
            && any(&lists.origins, &origin.into())
            && (lists.client_ips.is_empty()
                || lists
                    .client_ips
                    .iter()
                    .any(|ip| ip.parse::<IpAddr>().unwrap().to_canonical() == self.client_ip))
            && lists.latency_us_from.is_none_or(|from| self.latency_us >= from)
            && lists.latency_us_to.is_none_or(|to| self.latency_us < to)
    }
}

/// The lists of a filter.
fn lists(filter: &pb::UsageFilter) -> pb::Match {
    pb::Match {
        key_ids: filter.key_ids.clone(),
        outcomes: filter.outcomes.clone(),
        methods: filter.methods.clone(),
        routes: filter.routes.clone(),
        status_codes: filter.status_codes.clone(),
        resource_ids: filter.resource_ids.clone(),
        secret_ids: filter.secret_ids.clone(),
        denials: filter.denials.clone(),
        status_classes: filter.status_classes.clone(),
        origins: filter.origins.clone(),
        request_ids: filter.request_ids.clone(),
        client_ips: filter.client_ips.clone(),
        latency_us_from: filter.latency_us_from,
        latency_us_to: filter.latency_us_to,
    }
}

/// The whole milliseconds of a filter's range, half-open.
pub(crate) fn span_ms(filter: &pb::UsageFilter) -> (i64, i64) {
    let ms = |at: &Option<prost_types::Timestamp>| {
        let at = at.as_ref().unwrap();
        at.seconds * 1000 + i64::from(at.nanos.div_euclid(1_000_000)) + i64::from(at.nanos % 1_000_000 > 0)
    };
    (ms(&filter.from), ms(&filter.to))
}

/// A UUIDv7 of that time.
pub(crate) fn request_id_at(at_ms: i64) -> RequestId {
    let seconds = u64::try_from(at_ms / 1000).unwrap();
    let nanos = u32::try_from(at_ms % 1000).unwrap() * 1_000_000;
    RequestId::from_uuid(Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, nanos)))
}

/// Writes them as one insert.
pub(crate) async fn insert(clickhouse: &parts::ClickHouse, workspace_id: WorkspaceId, events: &[Event]) {
    let mut sql =
        "insert into keymeter.request_events (workspace_id, key_id, request_id, occurred_at, method, \
        route, status_code, outcome, resource_id, origin, secret_id, denial, client_ip, latency_us, ingested_at) format JSONEachRow\n"
            .to_owned();
    for event in events {
        let row = serde_json::json!({
            "workspace_id": workspace_id.as_uuid(),
            "key_id": event.key_id.as_uuid(),
            "request_id": event.request_id.as_uuid(),
            "occurred_at": format!("{}.{:03}", event.at_ms / 1000, event.at_ms % 1000),
            "method": event.method,
            "route": event.route,
            "status_code": event.status_code,
            "outcome": event.outcome().as_str(),
            "resource_id": event.resource_id,
            "origin": event.origin.as_str(),
            "latency_us": event.latency_us,
            "ingested_at": format!("{}.{:03}", event.at_ms / 1000 + 1, event.at_ms % 1000),
            "secret_id": event.secret_id.as_uuid(),
            "denial": event.denial,
            "client_ip": match event.client_ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            },
        });
        writeln!(sql, "{row}").unwrap();
    }
    clickhouse.query(&sql).await;
}

/// Whether a filter asks what only single calls tell.
pub(crate) fn needs_calls(filter: &pb::UsageFilter) -> bool {
    asks(filter, &|lists| {
        !(lists.resource_ids.is_empty()
            && lists.request_ids.is_empty()
            && lists.secret_ids.is_empty()
            && lists.client_ips.is_empty()
            && lists.latency_us_from.is_none()
            && lists.latency_us_to.is_none())
    })
}

/// Whether a filter asks for routes.
pub(crate) fn needs_routes(filter: &pb::UsageFilter) -> bool {
    asks(filter, &|lists| !lists.routes.is_empty())
}

fn asks(filter: &pb::UsageFilter, what: &impl Fn(&pb::Match) -> bool) -> bool {
    fn in_condition(condition: &pb::Condition, what: &impl Fn(&pb::Match) -> bool) -> bool {
        use pb::condition::Kind;
        match condition.kind.as_ref().unwrap() {
            Kind::AllOf(all) | Kind::AnyOf(all) => all.conditions.iter().any(|one| in_condition(one, what)),
            Kind::Not(one) => in_condition(one, what),
            Kind::Match(lists) => what(lists),
        }
    }
    what(&lists(filter)) || filter.condition.as_ref().is_some_and(|condition| in_condition(condition, what))
}

/// Says that all days up to 36 days ago are archived, of the one shard there is. Returns the start of the first day of
/// which there are calls, 90 days ago, in milliseconds since 1970.
pub(crate) async fn archive(clickhouse: &parts::ClickHouse) -> i64 {
    let today = time::OffsetDateTime::now_utc().unix_timestamp() / 86_400;
    clickhouse.query("insert into keymeter.watermarks values (0, now64(3), [], now64(3))").await;
    let pass = format!("(0, 1, 1, toDate({}), now64(3))", today - 36);
    let columns = "shard, writer_epoch, pass, closed_day, through";
    clickhouse.query(&format!("insert into keymeter.archive_passes ({columns}) values {pass}")).await;
    (today - 90) * 86_400_000
}

/// Writes the totals of calls to the archive, and some of a pass that does not count.
pub(crate) async fn archive_calls(
    clickhouse: &parts::ClickHouse,
    workspace_id: WorkspaceId,
    events: &[&Event],
) {
    if events.is_empty() {
        return;
    }
    let mut sql = "insert into keymeter.daily_archive (workspace_id, key_id, day, method, route, status_code, outcome, \
                   origin, denial, calls, last_occurred_at, shard, writer_epoch, pass) format JSONEachRow\n"
        .to_owned();
    for event in events {
        for pass in [1, 2] {
            let row = serde_json::json!({
                "workspace_id": workspace_id.as_uuid(),
                "key_id": event.key_id.as_uuid(),
                "day": event.at_ms.div_euclid(86_400_000),
                "method": event.method,
                "route": event.route,
                "status_code": event.status_code,
                "outcome": event.outcome().as_str(),
                "origin": event.origin.as_str(),
                "denial": event.denial,
                "calls": 1,
                "last_occurred_at": format!("{}.{:03}", event.at_ms / 1000, event.at_ms % 1000),
                "shard": 0,
                "writer_epoch": 1,
                "pass": pass,
            });
            writeln!(sql, "{row}").unwrap();
        }
    }
    clickhouse.query(&sql).await;
}
