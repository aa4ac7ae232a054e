//! Random events and filters that mostly find some of them.

use domain::{KeyId, Origin, SecretId, WorkspaceId};
use proptest::{
    prelude::*,
    sample::{select, subsequence},
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use proto::usage as pb;

use crate::{
    events::{self, Event},
    stack::{filter, timestamp},
};

pub(crate) const QUARTER_MS: i64 = 900_000;
pub(crate) const DAY_MS: i64 = 86_400_000;
const EVENTS: usize = 250;
const METHODS: [&str; 4] = ["GET", "POST", "DELETE", "PATCH"];
const ROUTES: [&str; 6] = ["/", "/v1/orders", "/v1/orders/{id}", "/v1/été", "/v1/it's", "/v1/a\tb"];
const STATUS_CODES: [u16; 8] = [200, 201, 304, 400, 404, 429, 500, 503];
const RESOURCE_IDS: [&str; 4] = ["", "1", "2", "it's"];
const DENIALS: [&str; 3] = ["", "deleted", "ip_not_allowed"];
const CLIENT_IPS: [&str; 5] = ["127.0.0.1", "10.0.0.9", "2001:db8::1", "::", "::ffff:0:0:1"];
const LATENCIES_US: [u32; 7] = [0, 1, 17, 950, 1_000, 65_000, u32::MAX];

/// What the pairs of one data set are made of.
pub(crate) struct DataSet {
    pub(crate) workspace_id: WorkspaceId,
    keys: Vec<KeyId>,
    secrets: Vec<SecretId>,
    pub(crate) events: Vec<Event>,
    /// The time of the first event at the earliest, and the span of all, in milliseconds.
    base_ms: i64,
    pub(crate) span_ms: i64,
    /// Calls before have expired.
    calls_from_ms: i64,
}

impl DataSet {
    /// Calls that only the archive counts.
    pub(crate) fn archived(&self) -> Vec<&Event> {
        self.events.iter().filter(|event| event.at_ms < self.calls_from_ms).collect()
    }

    /// Calls that can be read one by one.
    pub(crate) fn live(&self, filter: &pb::UsageFilter) -> Vec<&Event> {
        self.events.iter().filter(|event| event.at_ms >= self.calls_from_ms && event.fits(filter)).collect()
    }

    /// Calls that are in an answer by a dimension.
    pub(crate) fn counted(&self, filter: &pb::UsageFilter, dimension: pb::Dimension) -> Vec<&Event> {
        self.events
            .iter()
            .filter(|event| event.fits(filter) && self.is_counted(event, filter, dimension))
            .collect()
    }

    /// Of those that fit: whether it has not expired, or its whole day is in the range and its totals tell enough.
    pub(crate) fn is_counted(
        &self,
        event: &Event,
        filter: &pb::UsageFilter,
        dimension: pb::Dimension,
    ) -> bool {
        let (from, to) = events::span_ms(filter);
        let day = event.at_ms.div_euclid(DAY_MS) * DAY_MS;
        let is_of_calls =
            matches!(dimension, pb::Dimension::Secret | pb::Dimension::ClientIp | pb::Dimension::Resource);
        event.at_ms >= self.calls_from_ms
            || (!is_of_calls && !events::needs_calls(filter) && from <= day && day + DAY_MS <= to)
    }

    /// When a call counts in a series.
    pub(crate) fn time_counted(&self, event: &Event) -> i64 {
        if event.at_ms >= self.calls_from_ms { event.at_ms } else { event.at_ms.div_euclid(DAY_MS) * DAY_MS }
    }
}

/// Times within the span, most of them at or beside the border of a quarter hour, and many of them equal.
fn times(base_ms: i64, span_ms: i64) -> impl Strategy<Value = i64> + Clone {
    let quarter = 0..(span_ms / QUARTER_MS);
    prop_oneof![
        (0..span_ms).prop_map(move |at| base_ms + at),
        (quarter, -1..=1i64).prop_map(move |(quarter, beside)| base_ms + quarter * QUARTER_MS + beside),
    ]
}

/// Events of a span that ends then.
pub(crate) fn data_set(runner: &mut TestRunner, end_ms: i64, span_ms: i64, calls_from_ms: i64) -> DataSet {
    let base_ms = end_ms - span_ms;
    let keys: Vec<KeyId> = (0..3).map(|_| KeyId::generate()).collect();
    let secrets: Vec<SecretId> = (0..4).map(|_| SecretId::generate()).collect();
    let event = (
        (select(keys.clone()), times(base_ms, span_ms), select(&METHODS), select(&ROUTES)),
        (select(&STATUS_CODES), select(&RESOURCE_IDS), select(secrets.clone()), select(&DENIALS)),
        (select(&CLIENT_IPS), any::<bool>(), prop_oneof![select(&LATENCIES_US), any::<u32>()]),
    );
    let event = event.prop_map(
        |((key_id, at_ms, method, route), (status_code, resource_id, secret_id, denial), rest)| Event {
            secret_id,
            denial: denial.into(),
            client_ip: rest.0.parse::<std::net::IpAddr>().unwrap().to_canonical(),
            method: method.into(),
            route: route.into(),
            status_code,
            resource_id: resource_id.into(),
            origin: if rest.1 { Origin::Edge } else { Origin::Upstream },
            latency_us: rest.2,
            ..Event::new(key_id, at_ms)
        },
    );
    let events = prop::collection::vec(event, EVENTS).new_tree(runner).unwrap().current();
    DataSet { workspace_id: WorkspaceId::generate(), keys, secrets, events, base_ms, span_ms, calls_from_ms }
}

/// A list that is empty `often` times as often as not.
fn some<T: Clone + std::fmt::Debug + 'static>(often: u32, values: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    let most = values.len();
    prop_oneof![often => Just(vec![]), 1 => subsequence(values, 1..=most)]
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// Lists, each of them empty `often` times as often as not; those that need single calls four times as often.
fn lists(data: &DataSet, often: u32) -> impl Strategy<Value = pb::Match> + use<> {
    let codes = STATUS_CODES.iter().map(|code| u32::from(*code)).collect::<Vec<_>>();
    let ids = data.events.iter().take(5).map(|event| event.request_id.to_string()).collect::<Vec<_>>();
    let secrets: Vec<String> = data.secrets.iter().map(ToString::to_string).collect();
    let latency = || prop_oneof![(12 * often) => Just(None), 1 => select(&LATENCIES_US).prop_map(Some)];
    let answers = (
        some(often, data.keys.iter().map(ToString::to_string).collect()),
        some(often, vec![1, 2, 3]),
        some(often, texts(&["get", "POST", "Patch", "PUT"])),
        some(2 * often, texts(&ROUTES)),
        some(often, codes),
        some(2 * often, vec![2, 3, 4, 5]),
        some(2 * often, vec![1, 2]),
        some(2 * often, texts(&DENIALS)),
    );
    let calls = (
        some(6 * often, texts(&RESOURCE_IDS)),
        some(12 * often, ids),
        some(6 * often, secrets),
        some(12 * often, texts(&CLIENT_IPS)),
        (latency(), latency()),
    );
    (answers, calls).prop_map(|(answers, calls)| {
        let (key_ids, outcomes, methods, routes, status_codes, status_classes, origins, denials) = answers;
        let (resource_ids, request_ids, secret_ids, client_ips, (one, other)) = calls;
        let (latency_us_from, latency_us_to) = match (one, other) {
            (Some(from), Some(to)) if from >= to => (Some(from), None),
            both => both,
        };
        pb::Match {
            key_ids,
            outcomes,
            methods,
            routes,
            status_codes,
            status_classes,
            origins,
            denials,
            resource_ids,
            request_ids,
            secret_ids,
            client_ips,
            latency_us_from,
            latency_us_to,
        }
    })
}

/// Three levels of and, or and not.
fn conditions(data: &DataSet) -> impl Strategy<Value = pb::Condition> + use<> {
    use pb::condition::Kind;
    let of = |kind| pb::Condition { kind: Some(kind) };
    let leaf = lists(data, 6).prop_map(move |lists| of(Kind::Match(Box::new(lists))));
    leaf.prop_recursive(3, 8, 3, move |inner| {
        let several = prop::collection::vec(inner.clone(), 0..3);
        prop_oneof![
            several.clone().prop_map(move |conditions| of(Kind::AllOf(pb::Conditions { conditions }))),
            several.prop_map(move |conditions| of(Kind::AnyOf(pb::Conditions { conditions }))),
            inner.prop_map(move |one| of(Kind::Not(Box::new(one)))),
        ]
    })
}

/// Filters that mostly find something.
pub(crate) fn filters(data: &DataSet) -> impl Strategy<Value = pb::UsageFilter> + use<> {
    let at = times(data.base_ms, data.span_ms);
    let fine = || 0..1_000_000i32;
    let condition = prop_oneof![1 => Just(None), 1 => conditions(data).prop_map(Some)];
    ((at.clone(), at, fine(), fine()), lists(data, 3), condition).prop_map(
        |((a, b, fine_a, fine_b), lists, condition)| {
            let mut wire = filter(a.min(b), a.max(b) + 1);
            // Finer than a millisecond: the border must still be exact.
            wire.from.as_mut().unwrap().nanos += fine_a * i32::from(fine_a % 2 == 0);
            wire.to = Some(timestamp(a.max(b) + 2));
            wire.to.as_mut().unwrap().nanos += fine_b * i32::from(fine_b % 2 == 0);
            pb::UsageFilter {
                key_ids: lists.key_ids,
                outcomes: lists.outcomes,
                methods: lists.methods,
                routes: lists.routes,
                status_codes: lists.status_codes,
                status_classes: lists.status_classes,
                origins: lists.origins,
                denials: lists.denials,
                resource_ids: lists.resource_ids,
                request_ids: lists.request_ids,
                secret_ids: lists.secret_ids,
                client_ips: lists.client_ips,
                latency_us_from: lists.latency_us_from,
                latency_us_to: lists.latency_us_to,
                condition,
                ..wire
            }
        },
    )
}
