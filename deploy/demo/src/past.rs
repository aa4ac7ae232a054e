//! A week of calls that might have been: pure, the same for the same seed, end and keys.

use std::{net::Ipv4Addr, time::Duration};

use domain::{KeyId, Origin, RequestEvent, RequestId, SecretId, WorkspaceId};
use time::OffsetDateTime;

use crate::{callers::Caller, catalogue, dice::Dice, pressure::Pressure};

/// How far back it goes.
pub const DAYS: u32 = 7;
const HOUR_MS: u64 = 3_600_000;
/// Time between two calls of a burst.
const BURST_STEP_MS: u64 = 350;
/// When payments were down, in hours before the end: a rise of failures to notice.
const OUTAGE_HOURS: std::ops::Range<u64> = 26..27;

/// A caller's key as the events name it.
#[derive(Debug, Clone, Copy)]
pub struct KeyIds {
    /// The tenant.
    pub workspace_id: WorkspaceId,
    /// The key.
    pub key_id: KeyId,
    /// Its secret.
    pub secret_id: SecretId,
}

/// All calls of `caller` in the week before `end`, oldest first.
#[must_use]
pub fn calls(seed: u64, end: OffsetDateTime, caller: &Caller, ids: KeyIds) -> Vec<RequestEvent> {
    let mut dice = Dice::new(seed ^ u64::from(caller.host).wrapping_mul(0x0100_0000_01b3));
    let mut pressure = Pressure::default();
    let mut events = Vec::new();
    for hours_ago in (u64::from(caller.silent_days) * 24..u64::from(DAYS) * 24).rev() {
        let start = end - Duration::from_millis((hours_ago + 1) * HOUR_MS);
        let mut offsets: Vec<u64> =
            (0..calls_in_hour(caller, start, &mut dice)).map(|_| dice.below(HOUR_MS)).collect();
        offsets.sort_unstable();
        for offset in offsets {
            let call = caller.call(&mut dice);
            for step in 0..u64::from(call.burst) {
                let at = start + Duration::from_millis(offset + step * BURST_STEP_MS);
                if at < end {
                    let outage = OUTAGE_HOURS.contains(&hours_ago);
                    events.push(event(caller, ids, at, &call, outage, &mut pressure, &mut dice));
                }
            }
        }
    }
    events
}

/// The hour's share of the day, give or take a fifth.
fn calls_in_hour(caller: &Caller, start: OffsetDateTime, dice: &mut Dice) -> u64 {
    let total: u32 = caller.hours.iter().sum();
    let weight = caller.hours[usize::from(start.hour())];
    let hundredths =
        u64::from(caller.calls_per_day) * u64::from(weight) * (80 + dice.below(41)) / u64::from(total);
    // What is left of a call is one with that chance.
    hundredths / 100 + u64::from(dice.below(100) < hundredths % 100)
}

fn event(
    caller: &Caller,
    ids: KeyIds,
    at: OffsetDateTime,
    call: &crate::callers::Call,
    outage: bool,
    pressure: &mut Pressure,
    dice: &mut Dice,
) -> RequestEvent {
    let path = call.path_and_query.split('?').next().unwrap_or_default();
    let endpoint = catalogue::find(call.method, path).expect("callers call only what the API has");
    let since_epoch = Duration::from_millis(millis(at));
    let status_code = if endpoint.limited && pressure.admit(since_epoch).is_err() {
        429
    } else if outage && path.ends_with("/payments") {
        503
    } else {
        catalogue::status(endpoint, &call.path_and_query, call.body.as_bytes())
    };
    let latency_us = 1000 * (endpoint.latency_ms + dice.below(endpoint.latency_ms)) + dice.below(1000);
    RequestEvent {
        workspace_id: ids.workspace_id,
        key_id: ids.key_id,
        secret_id: ids.secret_id,
        request_id: request_id(at, dice),
        client_request_id: String::new(),
        occurred_at: at,
        method: call.method.to_owned(),
        route: endpoint.route.to_owned(),
        path: path.to_owned(),
        resource_id: if endpoint.route.contains("{id}") {
            path.split('/').nth(3).unwrap_or_default()
        } else {
            ""
        }
        .to_owned(),
        status_code,
        origin: Origin::Upstream,
        denial: None,
        limit_name: String::new(),
        limit_window_s: 0,
        limit_remaining: 0,
        latency_us: u32::try_from(latency_us).unwrap_or(u32::MAX),
        request_bytes: call.body.len() as u64,
        response_bytes: if status_code == 204 { 0 } else { 40 + dice.below(600) },
        client_ip: Ipv4Addr::new(203, 0, 113, caller.host).to_ipv6_mapped(),
        user_agent: caller.user_agent.to_owned(),
        region: String::new(),
        trace_id: [0; 16],
        span_id: [0; 8],
        interrupted: false,
    }
}

/// A UUIDv7 of that time.
fn request_id(at: OffsetDateTime, dice: &mut Dice) -> RequestId {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&dice.roll().to_be_bytes());
    random[8..].copy_from_slice(&dice.roll().to_be_bytes()[..2]);
    RequestId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis(at), &random).into_uuid())
}

fn millis(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).expect("the past week is after 1970")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::callers::CALLERS;

    fn week(caller: &Caller) -> Vec<RequestEvent> {
        let ids = KeyIds {
            workspace_id: WorkspaceId::from_slice(&[1; 16]).unwrap(),
            key_id: KeyId::from_slice(&[2; 16]).unwrap(),
            secret_id: SecretId::from_slice(&[3; 16]).unwrap(),
        };
        calls(7, end(), caller, ids)
    }

    fn end() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_790_000_123).unwrap()
    }

    #[test]
    fn the_same_seed_makes_the_same_week() {
        assert_eq!(week(&CALLERS[1]), week(&CALLERS[1]));
    }

    #[test]
    fn a_week_is_in_order_within_bounds_and_of_the_wanted_size() {
        let mut requests = HashSet::new();
        for caller in CALLERS {
            let events = week(caller);
            let days = DAYS - caller.silent_days;
            let expected = usize::try_from(caller.calls_per_day * days).unwrap();
            assert!(
                (expected * 8 / 10..expected * 15 / 10).contains(&events.len()),
                "{} calls",
                events.len()
            );
            let newest = end() - Duration::from_secs(u64::from(caller.silent_days) * 86_400);
            for event in &events {
                assert!(
                    event.occurred_at < newest
                        && event.occurred_at >= end() - Duration::from_secs(7 * 86_400)
                );
                assert_eq!(event.occurred_at.nanosecond() % 1_000_000, 0, "kept to the millisecond");
                assert!(requests.insert(event.request_id), "request ids are unique");
            }
        }
    }

    #[test]
    fn the_night_job_calls_at_night_and_meets_the_limit() {
        let events = week(&CALLERS[1]);
        let by_night = events.iter().filter(|event| event.occurred_at.hour() < 4).count();
        assert!(by_night * 2 > events.len(), "{by_night} of {}", events.len());
        assert!(events.iter().any(|event| event.status_code == 429));
    }

    #[test]
    fn payments_fail_in_the_outage() {
        let outage = end() - Duration::from_secs(27 * 3600)..end() - Duration::from_secs(26 * 3600);
        let all = CALLERS.iter().flat_map(week).collect::<Vec<_>>();
        let mut payments = all
            .iter()
            .filter(|e| e.path.ends_with("/payments") && outage.contains(&e.occurred_at))
            .peekable();
        assert!(payments.peek().is_some());
        assert!(payments.all(|event| event.status_code == 503));
    }
}
