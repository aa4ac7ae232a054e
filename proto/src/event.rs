//! `RequestEvent` on the wire and in the domain, with every bound that a reader checks.

use std::net::Ipv6Addr;

use domain::{Denial, Id, Origin, RequestEvent};

use crate::{events as pb, timestamp};

/// Why a wire event is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Absent, of the wrong length or out of range.
    #[error("field {0} is missing or out of bounds")]
    Field(&'static str),
    /// An enum value that this version does not know.
    #[error("field {0} has the unknown value {1}")]
    UnknownValue(&'static str, i32),
    /// Longer than the contract allows.
    #[error("field {field} has {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// Name on the wire.
        field: &'static str,
        /// Length found.
        bytes: usize,
        /// Length allowed.
        max: usize,
    },
}

impl From<&RequestEvent> for pb::RequestEvent {
    fn from(event: &RequestEvent) -> Self {
        Self {
            workspace_id: event.workspace_id.as_bytes().to_vec(),
            key_id: event.key_id.as_bytes().to_vec(),
            secret_id: event.secret_id.as_bytes().to_vec(),
            request_id: event.request_id.as_bytes().to_vec(),
            client_request_id: event.client_request_id.clone(),
            occurred_at: Some(timestamp::to_proto(event.occurred_at)),
            method: event.method.clone(),
            route: event.route.clone(),
            path: event.path.clone(),
            resource_id: event.resource_id.clone(),
            status_code: u32::from(event.status_code),
            origin: pb::Origin::from(event.origin).into(),
            denial: event.denial.map_or(pb::Denial::Unspecified, pb::Denial::from).into(),
            limit_name: event.limit_name.clone(),
            latency_us: event.latency_us,
            request_bytes: event.request_bytes,
            response_bytes: event.response_bytes,
            client_ip: event.client_ip.octets().to_vec(),
            user_agent: event.user_agent.clone(),
            region: event.region.clone(),
            trace_id: if event.trace_id == [0; 16] { Vec::new() } else { event.trace_id.to_vec() },
            span_id: if event.span_id == [0; 8] { Vec::new() } else { event.span_id.to_vec() },
            interrupted: event.interrupted,
            limit_window_s: event.limit_window_s,
            limit_remaining: event.limit_remaining,
        }
    }
}

impl TryFrom<pb::RequestEvent> for RequestEvent {
    type Error = EventError;

    fn try_from(event: pb::RequestEvent) -> Result<Self, EventError> {
        let origin = known("origin", event.origin, pb::Origin::try_from)?;
        let denial = known("denial", event.denial, pb::Denial::try_from)?;
        Ok(Self {
            workspace_id: id("workspace_id", &event.workspace_id)?,
            key_id: id("key_id", &event.key_id)?,
            secret_id: id("secret_id", &event.secret_id)?,
            request_id: id("request_id", &event.request_id)?,
            client_request_id: text("client_request_id", event.client_request_id, 256)?,
            occurred_at: event
                .occurred_at
                .as_ref()
                .and_then(timestamp::from_proto)
                .ok_or(EventError::Field("occurred_at"))?,
            method: text("method", event.method, 32)?,
            route: text("route", event.route, 1024)?,
            path: text("path", event.path, domain::event::PATH_BYTES_MAX)?,
            resource_id: text("resource_id", event.resource_id, 256)?,
            status_code: u16::try_from(event.status_code)
                .ok()
                .filter(|code| (100..600).contains(code))
                .ok_or(EventError::Field("status_code"))?,
            origin: Option::from(origin).ok_or(EventError::Field("origin"))?,
            denial: denial.into(),
            limit_name: text("limit_name", event.limit_name, 256)?,
            latency_us: event.latency_us,
            request_bytes: event.request_bytes,
            response_bytes: event.response_bytes,
            client_ip: <[u8; 16]>::try_from(event.client_ip.as_slice())
                .map(Ipv6Addr::from)
                .map_err(|_| EventError::Field("client_ip"))?,
            user_agent: text("user_agent", event.user_agent, 256)?,
            region: text("region", event.region, 64)?,
            trace_id: match event.trace_id.as_slice() {
                [] => [0; 16],
                bytes => bytes.try_into().map_err(|_| EventError::Field("trace_id"))?,
            },
            span_id: match event.span_id.as_slice() {
                [] => [0; 8],
                bytes => bytes.try_into().map_err(|_| EventError::Field("span_id"))?,
            },
            interrupted: event.interrupted,
            limit_window_s: event.limit_window_s,
            limit_remaining: event.limit_remaining,
        })
    }
}

fn id<N>(field: &'static str, bytes: &[u8]) -> Result<Id<N>, EventError> {
    Id::from_slice(bytes).filter(|id| !id.as_uuid().is_nil()).ok_or(EventError::Field(field))
}

fn text(field: &'static str, text: String, max: usize) -> Result<String, EventError> {
    if text.len() > max { Err(EventError::TooLong { field, bytes: text.len(), max }) } else { Ok(text) }
}

fn known<T, E>(field: &'static str, value: i32, read: impl Fn(i32) -> Result<T, E>) -> Result<T, EventError> {
    read(value).map_err(|_| EventError::UnknownValue(field, value))
}

impl From<Origin> for pb::Origin {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Edge => Self::Edge,
            Origin::Upstream => Self::Upstream,
        }
    }
}

impl From<pb::Origin> for Option<Origin> {
    fn from(origin: pb::Origin) -> Self {
        match origin {
            pb::Origin::Unspecified => None,
            pb::Origin::Edge => Some(Origin::Edge),
            pb::Origin::Upstream => Some(Origin::Upstream),
        }
    }
}

macro_rules! same_denials {
    ($($name:ident)*) => {
        impl From<Denial> for pb::Denial {
            fn from(denial: Denial) -> Self {
                match denial {
                    $(Denial::$name => Self::$name,)*
                }
            }
        }

        impl From<pb::Denial> for Option<Denial> {
            fn from(denial: pb::Denial) -> Self {
                match denial {
                    pb::Denial::Unspecified => None,
                    $(pb::Denial::$name => Some(Denial::$name),)*
                }
            }
        }
    };
}
same_denials!(RateLimited Deleted Expired Disabled SecretRetired IpNotAllowed ScopeMissing EnvironmentMismatch FeedLost);

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn event() -> RequestEvent {
        RequestEvent {
            workspace_id: Id::generate(),
            key_id: Id::generate(),
            secret_id: Id::generate(),
            request_id: Id::generate(),
            client_request_id: "abc".into(),
            occurred_at: OffsetDateTime::from_unix_timestamp(1_790_000_000).unwrap(),
            method: "GET".into(),
            route: "/v1/orders/{id}".into(),
            path: "/v1/orders/17".into(),
            resource_id: "17".into(),
            status_code: 401,
            origin: Origin::Edge,
            denial: Some(Denial::Deleted),
            limit_name: "minute".into(),
            limit_window_s: 60,
            limit_remaining: 7,
            latency_us: 12,
            request_bytes: 3,
            response_bytes: 4,
            client_ip: Ipv6Addr::LOCALHOST,
            user_agent: "curl/8".into(),
            region: "eu-1".into(),
            trace_id: [7; 16],
            span_id: [8; 8],
            interrupted: false,
        }
    }

    #[test]
    fn an_event_survives_the_wire() {
        for denial in Denial::ALL.iter().copied().map(Some).chain([None]) {
            let event = RequestEvent { denial, ..event() };
            assert_eq!(RequestEvent::try_from(pb::RequestEvent::from(&event)), Ok(event));
        }
    }

    #[test]
    fn each_bound_is_named() {
        let check = |change: fn(&mut pb::RequestEvent), error: EventError| {
            let mut wire = pb::RequestEvent::from(&event());
            change(&mut wire);
            assert_eq!(RequestEvent::try_from(wire), Err(error));
        };
        check(|e| e.key_id.truncate(15), EventError::Field("key_id"));
        check(|e| e.workspace_id = vec![0; 16], EventError::Field("workspace_id"));
        check(|e| e.occurred_at = None, EventError::Field("occurred_at"));
        check(|e| e.status_code = 99, EventError::Field("status_code"));
        check(|e| e.status_code = 70_000, EventError::Field("status_code"));
        check(|e| e.origin = 0, EventError::Field("origin"));
        check(|e| e.denial = 99, EventError::UnknownValue("denial", 99));
        check(|e| e.client_ip.clear(), EventError::Field("client_ip"));
        check(|e| e.trace_id = vec![1], EventError::Field("trace_id"));
        check(|e| e.span_id = vec![1], EventError::Field("span_id"));
        let long = EventError::TooLong { field: "path", bytes: 1025, max: 1024 };
        check(|e| e.path = "/".repeat(1025), long);
    }
}
