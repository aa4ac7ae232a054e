//! The request log: its order, its pages, one call by its id, and every field of a call.

use domain::{KeyId, RequestId, WorkspaceId};
use proto::{resource, usage as pb};
use tonic::Code;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::{
    events::{self, Event, request_id_at},
    stack::{Stack, code, filter, some_days_ago, total},
};

const HOUR_MS: i64 = 3_600_000;

fn names(page: &pb::ListRequestsResponse) -> Vec<String> {
    page.requests.iter().map(|request| request.name.clone()).collect()
}

#[tokio::test]
async fn new_calls_do_not_shift_pages() {
    let stack = Stack::start().await;
    let (workspace_id, at) = (WorkspaceId::generate(), some_days_ago());
    let keys = [KeyId::generate(), KeyId::generate()];
    // Many in the same millisecond, over two keys.
    let calls: Vec<Event> = (0..120).map(|n| Event::new(keys[n % 2], at + n as i64 / 40)).collect();
    events::insert(&stack.clickhouse, workspace_id, &calls).await;
    let mut expected: Vec<&Event> = calls.iter().collect();
    expected.sort_by_key(|event| std::cmp::Reverse(event.place()));
    let expected: Vec<String> =
        expected.iter().map(|event| resource::request_name(workspace_id, event.request_id)).collect();
    let range = filter(at - HOUR_MS, at + HOUR_MS);

    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = stack.page(workspace_id, range.clone(), 7, &token).await.unwrap();
        seen.extend(names(&page));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        let newer = Event::new(keys[0], at + 1_000);
        events::insert(&stack.clickhouse, workspace_id, &[newer]).await;
    }
    assert_eq!(seen, expected);

    // The default size; a page that ends exactly at the end; one beyond the most.
    let first = stack.page(workspace_id, range.clone(), 0, "").await.unwrap();
    assert_eq!(first.requests.len(), 50);
    let all = stack.page(workspace_id, range.clone(), 120 + 17, "").await.unwrap();
    assert_eq!((all.requests.len(), all.next_page_token.as_str()), (137, ""));
    let all = stack.page(workspace_id, range, 5_000, "").await.unwrap();
    assert_eq!((all.requests.len(), all.next_page_token.as_str()), (137, ""));
}

#[tokio::test]
async fn the_log_is_read_both_ways() {
    let stack = Stack::start().await;
    let (workspace_id, key_id, at) = (WorkspaceId::generate(), KeyId::generate(), some_days_ago());
    // Few and far between, some in one millisecond.
    let calls: Vec<Event> = (0..30).map(|n| Event::new(key_id, at - n / 3 * 30 * HOUR_MS)).collect();
    events::insert(&stack.clickhouse, workspace_id, &calls).await;
    let mut newest: Vec<&Event> = calls.iter().collect();
    newest.sort_by_key(|event| std::cmp::Reverse(event.place()));
    let newest: Vec<String> =
        newest.iter().map(|event| resource::request_name(workspace_id, event.request_id)).collect();
    let page = async |order: pb::Order, token: &str| {
        let request = pb::ListRequestsRequest {
            parent: resource::workspace_name(workspace_id),
            filter: Some(filter(at - 600 * HOUR_MS, at + HOUR_MS)),
            page_size: 7,
            page_token: token.to_owned(),
            order: order.into(),
            ..Default::default()
        };
        let request = stack.keys.request(workspace_id, request);
        stack.client.clone().list_requests(request).await.unwrap().into_inner()
    };
    for order in [pb::Order::NewestFirst, pb::Order::OldestFirst] {
        let mut expected = newest.clone();
        if order == pb::Order::OldestFirst {
            expected.reverse();
        }
        let expected: Vec<_> = expected.chunks(7).collect();
        let mut found = page(order, "").await;
        for (number, part) in expected.iter().enumerate() {
            assert_eq!(names(&found), *part, "{order:?} {number}");
            if number + 1 < expected.len() {
                found = page(order, &found.next_page_token).await;
            }
        }
        assert_eq!(found.next_page_token, "");
        for part in expected.iter().rev().skip(1) {
            found = page(order, &found.previous_page_token).await;
            assert_eq!(names(&found), *part, "{order:?}");
            assert!(!found.next_page_token.is_empty());
        }
        assert_eq!(found.previous_page_token, "", "it is known that nothing comes before");
        assert_eq!(page(order, "").await.previous_page_token, "", "the first page is the first");
    }
}

#[tokio::test]
async fn a_summary_knows_the_range_before() {
    let stack = Stack::start().await;
    let (workspace_id, key_id, at) = (WorkspaceId::generate(), KeyId::generate(), some_days_ago());
    let calls: Vec<Event> = [-HOUR_MS - 1, -HOUR_MS, -1, 0, HOUR_MS - 1, HOUR_MS]
        .iter()
        .map(|offset| Event::new(key_id, at + offset))
        .collect();
    events::insert(&stack.clickhouse, workspace_id, &calls).await;
    let request = pb::GetSummaryRequest {
        parent: resource::workspace_name(workspace_id),
        filter: Some(filter(at, at + HOUR_MS)),
        with_previous: true,
    };
    let request = stack.keys.request(workspace_id, request);
    let summary = stack.client.clone().get_summary(request).await.unwrap().into_inner();
    assert_eq!((total(summary.counts), total(summary.previous_counts)), (2, 2));
    assert!(summary.freshness.unwrap().read_cost.unwrap().row_count >= 4);
}

#[tokio::test]
async fn a_token_of_another_question_is_refused() {
    let stack = Stack::start().await;
    let (workspace_id, other, at) = (WorkspaceId::generate(), WorkspaceId::generate(), some_days_ago());
    let key_id = KeyId::generate();
    let calls: Vec<Event> = (0..5).map(|n| Event::new(key_id, at + n)).collect();
    events::insert(&stack.clickhouse, workspace_id, &calls).await;
    let range = filter(at, at + HOUR_MS);
    let token = stack.page(workspace_id, range.clone(), 2, "").await.unwrap().next_page_token;
    let refused = async |workspace_id, filter, token: &str| {
        let status = stack.page(workspace_id, filter, 2, token).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "page_token");
    };
    refused(other, range.clone(), &token).await;
    refused(workspace_id, filter(at, at + HOUR_MS + 1), &token).await;
    refused(workspace_id, pb::UsageFilter { methods: vec!["GET".into()], ..range.clone() }, &token).await;
    refused(workspace_id, range.clone(), "garbage").await;
    refused(workspace_id, range.clone(), &token.to_uppercase()).await;
    // Another page size is the same question.
    assert_eq!(stack.page(workspace_id, range, 3, &token).await.unwrap().requests.len(), 3);
}

/// An id that is no UUIDv7.
const fn timeless_of(number: u128) -> RequestId {
    RequestId::from_uuid(Uuid::from_u128(number))
}

const fn latest() -> RequestId {
    RequestId::from_uuid(Uuid::from_u128((0xffff_ffff_ffff << 80) | (7 << 76) | (0b10 << 62)))
}

#[tokio::test]
async fn one_call_is_found_wherever_its_time_is() {
    let stack = Stack::start().await;
    let (workspace_id, at) = (WorkspaceId::generate(), some_days_ago());
    let on_time = Event::new(KeyId::generate(), at);
    // The edge's clock was wrong by weeks, and an id that holds no time.
    let skewed = Event { request_id: request_id_at(at - 600 * HOUR_MS), ..Event::new(on_time.key_id, at) };
    let timeless = Event { request_id: timeless_of(0x1234), ..Event::new(KeyId::generate(), at + 5) };
    let calls = [on_time, skewed, timeless];
    events::insert(&stack.clickhouse, workspace_id, &calls).await;
    for call in &calls {
        let name = resource::request_name(workspace_id, call.request_id);
        let found = stack.call(workspace_id, &name).await.unwrap();
        assert_eq!((found.name, found.key_id), (name, call.key_id.to_string()));
    }
    // The last has the latest time that an id can hold, in the year 10889.
    let nobodys = [RequestId::generate(), timeless_of(u128::MAX), timeless_of(0), latest()];
    for nobody in nobodys {
        let name = resource::request_name(workspace_id, nobody);
        assert_eq!(code(stack.call(workspace_id, &name).await), Code::NotFound, "{nobody}");
    }
}

#[tokio::test]
async fn the_ends_of_time_are_no_error() {
    let stack = Stack::start().await;
    let workspace_id = WorkspaceId::generate();
    let day = 24 * HOUR_MS;
    let (first, last) = (-62_135_596_800_000, 253_402_300_799_999);
    for range in [
        filter(first, first + 400 * day),
        filter(last - 400 * day, last),
        filter(first + 1, first + day),
        filter(last - 1, last),
        filter(-day, day),
        filter(4_294_967_295_000 - day, 4_294_967_295_000 + day),
    ] {
        let summary = stack.summary(workspace_id, range.clone()).await.unwrap();
        assert_eq!(total(summary.counts), 0, "{range:?}");
        let series =
            stack.series(workspace_id, range.clone(), pb::Granularity::Unspecified, "").await.unwrap();
        assert!(!series.points.is_empty());
        assert!(stack.log(workspace_id, &range, 10).await.is_empty());
    }
}

#[tokio::test]
async fn a_call_has_every_field() {
    let stack = Stack::start().await;
    let workspace_id = WorkspaceId::from_uuid(Uuid::from_u128(1));
    stack
        .clickhouse
        .query(&format!(
            "insert into keymeter.request_events (workspace_id, key_id, secret_id, request_id, client_request_id, \
             occurred_at, ingested_at, clock_skewed, interrupted, method, route, path, resource_id, status_code, \
             outcome, origin, denial, limit_name, latency_us, request_bytes, response_bytes, client_ip, user_agent, \
             region, trace_id, edge_id, limit_window_s, limit_remaining) values ('{0}', '{1}', '{2}', '{3}', 'theirs', now64(3) - 60, now64(3), true, \
             true, 'PATCH', '/v1/orders/{{id}}', '/v1/orders/7', '7', 429, 'rate_limited', 'edge', 'rate_limited', \
             'per-minute', 4294967295, 18446744073709551615, 3, '::ffff:192.0.2.7', 'curl/8', 'eu-1', \
             unhex('000102030405060708090a0b0c0d0e0f'), 'edge_x', 60, 18446744073709551614)",
            workspace_id.as_uuid(),
            Uuid::from_u128(2),
            Uuid::from_u128(3),
            Uuid::from_u128(4),
        ))
        .await;
    let name = resource::request_name(workspace_id, RequestId::from_uuid(Uuid::from_u128(4)));
    let mut found = stack.call(workspace_id, &name).await.unwrap();
    let occurred_at = found.occurred_at.take().unwrap();
    let ingested_at = found.ingested_at.take().unwrap();
    assert_eq!(ingested_at.seconds - occurred_at.seconds, 60);
    assert!(found.freshness.take().is_some_and(|freshness| freshness.read_cost.is_some()));
    insta::assert_debug_snapshot!(found);

    // Zeros stand for no trace, and an address may be IPv6.
    let calls = [Event::new(KeyId::generate(), some_days_ago())];
    events::insert(&stack.clickhouse, workspace_id, &calls).await;
    let name = resource::request_name(workspace_id, calls[0].request_id);
    let found = stack.call(workspace_id, &name).await.unwrap();
    assert_eq!((found.trace_id.as_str(), found.client_ip.as_str()), ("", "::"));
}

#[tokio::test]
async fn every_answer_says_how_complete_it_is() {
    let stack = Stack::start().await;
    let (workspace_id, at) = (WorkspaceId::generate(), some_days_ago());
    let range = filter(at, at + HOUR_MS);
    let all = async || {
        let summary = stack.summary(workspace_id, range.clone()).await.unwrap().freshness.unwrap();
        let breakdown = stack.breakdown(workspace_id, range.clone(), pb::Dimension::Route, 0).await.unwrap();
        let series = stack.series(workspace_id, range.clone(), pb::Granularity::Hour, "").await.unwrap();
        let page = stack.page(workspace_id, range.clone(), 0, "").await.unwrap();
        for other in [breakdown.freshness, series.freshness, page.freshness] {
            assert_eq!(other.as_ref(), Some(&summary));
        }
        summary
    };
    let nothing = pb::Freshness { read_cost: Some(pb::ReadCost::default()), ..Default::default() };
    assert_eq!(all().await, nothing, "nothing is known");
    let write = async |values: &str| {
        stack.clickhouse.query(&format!("insert into keymeter.watermarks values {values}")).await;
    };
    write("(0, '2026-11-20 10:00:00.250', [], now64(3)), (1, '1970-01-01 00:00:00', [], now64(3))").await;

    assert_eq!(all().await.complete_up_to, None, "one shard knows nothing yet");
    write("(1, '2026-11-20 11:00:00', [('edge_a', '2026-11-20 09:00:00.5')], now64(3) + 1)").await;
    // What is known is read again each second.
    let known = parts::eventually("it is told", async || {
        stack
            .summary(workspace_id, range.clone())
            .await
            .unwrap()
            .freshness
            .filter(|f| f.complete_up_to.is_some())
    })
    .await;
    assert_eq!(all().await, known);
    let complete_up_to = known.complete_up_to.unwrap();
    assert_eq!((complete_up_to.seconds, complete_up_to.nanos), (1_795_168_800, 250_000_000));
    let edge = &known.unaccounted_edges[..];
    assert_eq!((edge.len(), edge[0].edge_id.as_str()), (1, "edge_a"));
    assert_eq!(edge[0].since, Some(prost_types::Timestamp { seconds: 1_795_165_200, nanos: 500_000_000 }));
}

/// One call of which no field is empty.
async fn insert_full(stack: &Stack, workspace_id: WorkspaceId, at: i64) {
    let columns = "workspace_id, key_id, secret_id, request_id, client_request_id, occurred_at, ingested_at, \
                   clock_skewed, interrupted, method, route, path, resource_id, status_code, outcome, origin, denial, \
                   limit_name, latency_us, request_bytes, response_bytes, client_ip, user_agent, region, trace_id, \
                   edge_id, limit_window_s, limit_remaining, shard";
    let values = "generateUUIDv4(), generateUUIDv4(), generateUUIDv7(), 'mine', fromUnixTimestamp64Milli({at}), \
                  fromUnixTimestamp64Milli({at} + 500), true, true, 'GET', '/v1/orders/{id}', '/v1/orders/7', '7', 429, \
                  'rate_limited', 'edge', 'rate_limited', 'burst', 1200, 10, 20, toIPv6('192.0.2.7'), 'curl/8', 'eu', \
                  '0123456789abcdef', 'edge_a', 60, 5, 1";
    let values = values.replace("{at}", &at.to_string());
    let workspace_id = workspace_id.as_uuid();
    let insert = format!("insert into keymeter.request_events ({columns}) select '{workspace_id}', {values}");
    stack.clickhouse.query(&insert).await;
}

#[tokio::test]
async fn a_page_has_the_fields_that_were_asked_for() {
    let stack = Stack::start().await;
    let (workspace_id, at) = (WorkspaceId::generate(), some_days_ago());
    insert_full(&stack, workspace_id, at).await;
    let page = async |paths: &[&str]| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let request = pb::ListRequestsRequest {
            parent: resource::workspace_name(workspace_id),
            // What is not read is compared all the same.
            filter: Some(pb::UsageFilter {
                resource_ids: vec!["7".into()],
                denials: vec!["rate_limited".into()],
                ..filter(at, at + 1)
            }),
            read_mask: Some(prost_types::FieldMask { paths }),
            ..Default::default()
        };
        let request = stack.keys.request(workspace_id, request);
        stack.client.clone().list_requests(request).await.map(|page| page.into_inner().requests)
    };
    let full = page(&[]).await.unwrap().pop().unwrap();
    macro_rules! each_alone {
        ($($field:ident)*) => {
            $(
                let bare = pb::Request {
                    name: full.name.clone(),
                    occurred_at: full.occurred_at,
                    outcome: full.outcome,
                    ..Default::default()
                };
                assert_ne!(full.$field, pb::Request::default().$field, stringify!($field));
                let expected = pb::Request { $field: full.$field.clone(), ..bare };
                assert_eq!(page(&[stringify!($field)]).await.unwrap(), [expected]);
            )*
        };
    }
    each_alone!(name key_id secret_id client_request_id occurred_at ingested_at clock_skewed interrupted method route
        path resource_id status_code outcome origin denial limit_name latency_us request_bytes response_bytes client_ip
        user_agent region trace_id edge_id limit_window_s limit_remaining);
    for unknown in ["shard", "freshness", "outcome_name", "", "path, route"] {
        assert!(page(&[unknown]).await.unwrap_err().message().starts_with("read_mask: "), "{unknown}");
    }
}
