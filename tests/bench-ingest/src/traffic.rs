//! Calls as a large installation sees them: 10,000 keys of 500 workspaces, called after Zipf's law, 200 routes, a
//! realistic mix of answers. The same seed, the same calls, but for the day on which they happen.

use std::net::Ipv4Addr;

use domain::{Denial, Id, KeyId, Origin, RequestEvent, SecretId, WorkspaceId};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

const KEYS: usize = 10_000;
const WORKSPACES: usize = 500;
const ROUTES: usize = 200;
const USER_AGENTS: usize = 40;
/// How uneven keys are, and the routes of a workspace.
const ZIPF: f64 = 1.1;

/// Methods, by how often routes have them.
const METHODS: &[(&str, u64)] = &[("GET", 62), ("POST", 22), ("PUT", 6), ("PATCH", 4), ("DELETE", 6)];

/// Answers in a thousand: the status, who gave it, and why the edge refused.
const ANSWERS: &[(u16, Origin, Option<Denial>, u64)] = &[
    (200, Origin::Upstream, None, 790),
    (201, Origin::Upstream, None, 60),
    (204, Origin::Upstream, None, 30),
    (304, Origin::Upstream, None, 15),
    (400, Origin::Upstream, None, 20),
    (404, Origin::Upstream, None, 35),
    (409, Origin::Upstream, None, 4),
    (422, Origin::Upstream, None, 8),
    (429, Origin::Edge, Some(Denial::RateLimited), 18),
    (401, Origin::Edge, Some(Denial::Expired), 4),
    (401, Origin::Edge, Some(Denial::Deleted), 2),
    (403, Origin::Edge, Some(Denial::ScopeMissing), 3),
    (500, Origin::Upstream, None, 6),
    (502, Origin::Edge, None, 3),
    (503, Origin::Upstream, None, 2),
];

/// Numbers by chance from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// At least 0 and below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A UUIDv7 of that time.
    fn uuid(&mut self, at: OffsetDateTime) -> Uuid {
        let ms = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.next().to_le_bytes());
        random[8..].copy_from_slice(&self.next().to_le_bytes()[..2]);
        uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid()
    }
}

/// Numbers from 0 up, the first ones the most often.
struct Zipf(Vec<f64>);

impl Zipf {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn new(count: usize) -> Self {
        let weights = (1..=count).map(|rank| (rank as f64).powf(-ZIPF));
        let sums = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self(sums.collect())
    }

    fn pick(&self, chance: &mut Chance) -> usize {
        let at = chance.part() * self.0[self.0.len() - 1];
        self.0.partition_point(|sum| *sum <= at).min(self.0.len() - 1)
    }
}

struct Key {
    workspace: usize,
    key_id: KeyId,
    secret_id: SecretId,
    limit_window_s: u32,
}

/// What calls are made of.
pub(crate) struct Traffic {
    chance: Chance,
    workspaces: Vec<WorkspaceId>,
    keys: Vec<Key>,
    key_ranks: Zipf,
    route_ranks: Zipf,
    routes: Vec<(&'static str, String)>,
    is_traced: bool,
}

impl Traffic {
    /// With `is_traced` every call has a trace id, else none has.
    pub(crate) fn new(seed: u64, is_traced: bool) -> Self {
        let mut chance = Chance::new(seed);
        let born = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let workspaces: Vec<_> = (0..WORKSPACES).map(|_| WorkspaceId::from_uuid(chance.uuid(born))).collect();
        let keys = (0..KEYS).map(|rank| Key {
            workspace: rank % WORKSPACES,
            key_id: KeyId::from_uuid(chance.uuid(born)),
            secret_id: SecretId::from_uuid(chance.uuid(born)),
            limit_window_s: if chance.below(2) == 0 { 60 } else { 0 },
        });
        let keys = keys.collect();
        let routes = (0..ROUTES).map(|number| {
            let method = pick(METHODS.iter().map(|(method, weight)| (*method, *weight)), &mut chance);
            let tail = ["", "/{id}", "/{id}/items", "/{id}/status"][number % 4];
            (method, format!("/v1/resource-{}{tail}", number / 4))
        });
        let routes = routes.collect();
        let (key_ranks, route_ranks) = (Zipf::new(KEYS), Zipf::new(ROUTES));
        Self { chance, workspaces, keys, key_ranks, route_ranks, routes, is_traced }
    }

    /// A call that began then.
    pub(crate) fn call(&mut self, occurred_at: OffsetDateTime) -> RequestEvent {
        let key = self.key_ranks.pick(&mut self.chance);
        self.call_of(key, occurred_at)
    }

    /// A call of a workspace, with any of its keys.
    pub(crate) fn call_in(&mut self, workspace: usize, occurred_at: OffsetDateTime) -> RequestEvent {
        let of_workspace = usize::try_from(self.chance.below((KEYS / WORKSPACES) as u64)).unwrap_or(0);
        self.call_of(of_workspace * WORKSPACES + workspace, occurred_at)
    }

    /// A call with a key of a rank, the most called one being 0.
    fn call_of(&mut self, key: usize, occurred_at: OffsetDateTime) -> RequestEvent {
        let chance = &mut self.chance;
        let (rank, key) = (key as u64, &self.keys[key]);
        // Each workspace has its own favourites among the routes.
        let route = (self.route_ranks.pick(chance) + key.workspace * 7) % ROUTES;
        let (method, route) = &self.routes[route];
        let answers =
            ANSWERS.iter().map(|(status, origin, denial, weight)| ((*status, *origin, *denial), *weight));
        let (status_code, origin, denial) = pick(answers, chance);
        let resource_id =
            if route.contains("{id}") { chance.below(200_000).to_string() } else { String::new() };
        let is_limited = status_code == 429;
        let limit_window_s = if is_limited { 60 } else { key.limit_window_s };
        let octets = [10, (rank >> 8) as u8, rank as u8, chance.below(3) as u8];
        let upstream_us = if origin == Origin::Edge { 0 } else { 1_500 };
        let agent = (rank * 31 + chance.below(2)) % USER_AGENTS as u64;
        RequestEvent {
            workspace_id: self.workspaces[key.workspace],
            key_id: key.key_id,
            secret_id: key.secret_id,
            request_id: Id::from_uuid(chance.uuid(occurred_at)),
            client_request_id: String::new(),
            occurred_at,
            method: (*method).to_owned(),
            path: route.replace("{id}", &resource_id),
            route: route.clone(),
            resource_id,
            status_code,
            origin,
            denial,
            limit_name: if is_limited { "per-minute".to_owned() } else { String::new() },
            limit_window_s,
            limit_remaining: if limit_window_s > 0 && !is_limited { chance.below(1_000) } else { 0 },
            latency_us: spread(chance, 120) + spread(chance, upstream_us),
            request_bytes: if *method == "GET" { 0 } else { spread(chance, 300).into() },
            response_bytes: spread(chance, 700).into(),
            client_ip: Ipv4Addr::from(octets).to_ipv6_mapped(),
            user_agent: format!("Mozilla/5.0 (client {agent}; like many others) sdk/{}.{agent}", agent % 7),
            region: "eu-central-1".to_owned(),
            trace_id: if self.is_traced { *chance.uuid(occurred_at).as_bytes() } else { [0; 16] },
            span_id: [0; 8],
            interrupted: false,
        }
    }
}

/// One of the values, by weight.
fn pick<T>(mut of: impl Iterator<Item = (T, u64)> + Clone, chance: &mut Chance) -> T {
    let mut left = chance.below(of.clone().map(|(_, weight)| weight).sum());
    let found = of.find(|(_, weight)| match left.checked_sub(*weight) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    });
    found.expect("less than the sum is left").0
}

/// About `middle`, seldom much more.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
fn spread(chance: &mut Chance, middle: u32) -> u32 {
    (f64::from(middle) / 2.0 * (1.0 / (1.0 - chance.part())).min(50.0)) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_calls_and_they_are_uneven() {
        let at = OffsetDateTime::UNIX_EPOCH + Duration::days(20_500);
        let (mut one, mut two) = (Traffic::new(7, false), Traffic::new(7, false));
        let mut by_key = BTreeMap::<KeyId, usize>::new();
        for _ in 0..20_000 {
            let call = one.call(at);
            assert_eq!(call, two.call(at));
            *by_key.entry(call.key_id).or_default() += 1;
        }
        assert!(by_key.len() > 2_000 && by_key.values().any(|count| *count > 1_000), "{}", by_key.len());
        assert_ne!(Traffic::new(8, false).call(at), Traffic::new(7, false).call(at));
        assert_ne!(Traffic::new(7, true).call(at).trace_id, [0; 16]);
    }
}
