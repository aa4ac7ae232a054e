//! Exactness: what the clients counted is what every answer says.

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method;
use parts::{ClickHouse, Nats, Postgres};
use proto::usage::{Dimension, Outcome, UsageFilter};

use crate::{
    client::Client,
    stack::Stack,
    usage::{last_day, request_id},
};

const CLIENTS: usize = 8;
const CALLS_EACH: usize = 1_250;
const ROUTES: [(&str, &str); 4] = [
    ("/v1/orders", "/v1/orders"),
    ("/v1/orders/{id}", "/v1/orders/{}"),
    ("/v1/invoices/{id}/lines", "/v1/invoices/{}/lines"),
    ("/v1/search", "/v1/search"),
];
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
const STATUSES: [u16; 9] = [200, 200, 201, 204, 302, 404, 422, 429, 503];

/// What one client knows of its calls.
#[derive(Default)]
struct Count {
    request_ids: BTreeSet<String>,
    by_method: BTreeMap<String, u64>,
    by_route: BTreeMap<String, u64>,
    by_status: BTreeMap<String, u64>,
    by_outcome: BTreeMap<String, u64>,
}

impl Count {
    fn add(&mut self, method: &Method, route: &str, status: u16, request_id: String) {
        let outcome = domain::Outcome::of(status).as_str();
        let fields = [
            (&mut self.by_method, method.to_string()),
            (&mut self.by_route, route.to_owned()),
            (&mut self.by_status, status.to_string()),
            (&mut self.by_outcome, outcome.to_owned()),
        ];
        for (counts, value) in fields {
            *counts.entry(value).or_default() += 1;
        }
        assert!(self.request_ids.insert(request_id), "the edge gave one id twice");
    }

    fn merge(&mut self, other: Self) {
        self.request_ids.extend(other.request_ids);
        for (mine, others) in [
            (&mut self.by_method, other.by_method),
            (&mut self.by_route, other.by_route),
            (&mut self.by_status, other.by_status),
            (&mut self.by_outcome, other.by_outcome),
        ] {
            for (value, calls) in others {
                *mine.entry(value).or_default() += calls;
            }
        }
    }
}

async fn call_many(client: Client, number: usize) -> Count {
    let mut count = Count::default();
    for call in 0..CALLS_EACH {
        let mixed = number * CALLS_EACH + call;
        let (route, path) = ROUTES[mixed % ROUTES.len()];
        let method = &METHODS[mixed / ROUTES.len() % METHODS.len()];
        let status = STATUSES[mixed / 7 % STATUSES.len()];
        let path = format!("{}?status={status}", path.replace("{}", &mixed.to_string()));
        let answer = client.call(method.clone(), &path).await.unwrap();
        assert_eq!(answer.status, status);
        count.add(method, route, status, answer.request_id());
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_agree_with_their_clients_to_the_call() {
    // Most calls are beyond the quota, and come another way.
    let quota = vec![("KEYMETER_EDGE_WORKSPACE_CALLS_PER_S", "50".to_owned())];
    let (nats, clickhouse) = (Nats::start().await, ClickHouse::start().await);
    let stack = Stack::start_with_edge(nats, Postgres::start().await, clickhouse, quota).await;
    let key = stack.make_key("Load").await;
    let other = stack.make_key("Bystander").await;
    let clients: Vec<_> =
        (0..CLIENTS).map(|number| tokio::spawn(call_many(stack.client(&key.secret), number))).collect();
    let mut count = Count::default();
    for client in clients {
        count.merge(client.await.unwrap());
    }
    let total = u64::try_from(CLIENTS * CALLS_EACH).unwrap();

    // The watermark promises that all are there: nothing below waits or asks twice.
    stack.complete().await;
    assert_eq!(stack.number("select count() from keymeter.request_events").await, total);
    let beyond = stack.number("select count() from keymeter.request_events where shard = 4").await;
    assert!(beyond > 0 && beyond < total, "{beyond} of {total} calls came by the bulk shard");
    let metrics =
        parts::get(&format!("127.0.0.1:{}", stack.ports.edge_health), "/metrics").await.unwrap().body;
    let counted = metrics.lines().find(|line| line.starts_with("keymeter_edge_beyond_quota_total"));
    assert!(counted.is_some_and(|line| line.ends_with(&format!(" {beyond}"))), "{counted:?}, not {beyond}");
    let filter = last_day(&[key.id()]);
    let (counts, _) = stack.summary(filter.clone()).await;
    assert_eq!(counts.total_count, total);
    assert_eq!(counts.completed_count, count.by_outcome["completed"]);
    assert_eq!(counts.failed_count, count.by_outcome["failed"]);
    assert_eq!(counts.rate_limited_count, count.by_outcome["rate_limited"]);
    assert_eq!(stack.totals(filter.clone(), Dimension::Method).await, count.by_method);
    assert_eq!(stack.totals(filter.clone(), Dimension::Route).await, count.by_route);
    assert_eq!(stack.totals(filter.clone(), Dimension::StatusCode).await, count.by_status);
    assert_eq!(stack.totals(filter.clone(), Dimension::Outcome).await, count.by_outcome);
    let logged: Vec<_> = stack.log(filter.clone()).await.iter().map(request_id).collect();
    assert_eq!(logged.len(), count.request_ids.len());
    assert_eq!(logged.into_iter().collect::<BTreeSet<_>>(), count.request_ids);

    // Each of the other filters, and all at once, against SQL by hand.
    let narrow = UsageFilter {
        outcomes: vec![Outcome::Failed.into()],
        methods: vec!["GET".into(), "PUT".into()],
        routes: vec!["/v1/orders/{id}".into()],
        status_codes: vec![404, 503],
        ..filter.clone()
    };
    let by_hand = "select count() from keymeter.request_events where method in ('GET', 'PUT') and \
                   route = '/v1/orders/{id}' and status_code in (404, 503)";
    let expected = stack.number(by_hand).await;
    assert!(expected > 0);
    assert_eq!(stack.total(narrow.clone()).await, expected);
    assert_eq!(u64::try_from(stack.log(narrow).await.len()).unwrap(), expected);
    let resource = UsageFilter { resource_ids: vec!["1".into()], ..filter };
    let expected = stack.number("select count() from keymeter.request_events where resource_id = '1'").await;
    assert_eq!((stack.total(resource).await, expected), (1, 1));

    // One key's calls are no other's.
    assert_eq!(stack.total(last_day(&[other.id()])).await, 0);
}
