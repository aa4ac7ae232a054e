//! Request events as a test knows them: made up, written to ClickHouse, and sorted by the filter's words in plain
//! Rust, to compare the answers with.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
};

use domain::{KeyId, Outcome, RequestId, SecretId, WorkspaceId};
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
}

impl Event {
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
        }
    }

    pub(crate) const fn outcome(&self) -> Outcome {
        Outcome::of(self.status_code)
    }

    /// What the filter's documentation says, once more.
    pub(crate) fn fits(&self, filter: &pb::UsageFilter) -> bool {
        let nanos =
            |at: &prost_types::Timestamp| i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
        let at = i128::from(self.at_ms) * 1_000_000;
        let outcome = match self.outcome() {
            Outcome::Completed => pb::Outcome::Completed,
            Outcome::Failed => pb::Outcome::Failed,
            Outcome::RateLimited => pb::Outcome::RateLimited,
        };
        fn any<T: PartialEq>(list: &[T], value: &T) -> bool {
            list.is_empty() || list.contains(value)
        }
        filter.from.as_ref().is_some_and(|from| nanos(from) <= at)
            && filter.to.as_ref().is_some_and(|to| at < nanos(to))
            && any(&filter.key_ids, &self.key_id.to_string())
            && any(&filter.outcomes, &outcome.into())
            && (filter.methods.is_empty()
                || filter.methods.iter().any(|m| m.eq_ignore_ascii_case(&self.method)))
            && any(&filter.routes, &self.route)
            && any(&filter.status_codes, &self.status_code.into())
            && any(&filter.resource_ids, &self.resource_id)
            && any(&filter.secret_ids, &self.secret_id.to_string())
            && any(&filter.denials, &self.denial)
    }
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
        route, status_code, outcome, resource_id, origin, secret_id, denial, client_ip) format JSONEachRow\n"
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
            "origin": "upstream",
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
