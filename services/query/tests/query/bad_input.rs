//! Every bad field is named in the answer, whichever RPC it was sent to.

use domain::{KeyId, RequestId, WorkspaceId};
use proto::{resource, usage as pb};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::stack::{Stack, filter, some_days_ago, timestamp};

const DAY_MS: i64 = 86_400_000;

#[track_caller]
fn assert_names(status: &Status, field: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status}");
    let details = status.get_error_details();
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_FIELD", "keymeter"));
    assert!(status.message().starts_with(&format!("{field}: ")), "{status}");
}

#[tokio::test]
async fn a_bad_filter_is_refused_by_every_rpc() {
    let stack = Stack::start().await;
    let (id, at) = (WorkspaceId::generate(), some_days_ago());
    let good = filter(at, at + DAY_MS);
    let with = |change: fn(&mut pb::UsageFilter)| {
        let mut filter = good.clone();
        change(&mut filter);
        filter
    };
    for (field, bad) in [
        ("filter.from", with(|f| f.from = None)),
        ("filter.to", with(|f| f.to = None)),
        ("filter.to", with(|f| f.to = f.from)),
        ("filter.to", with(|f| f.to = Some(timestamp(0)))),
        ("filter.to", filter(at, at + 400 * DAY_MS + 1)),
        ("filter.key_ids[0]", with(|f| f.key_ids = vec!["key_x".into()])),
        ("filter.key_ids", with(|f| f.key_ids = vec![KeyId::generate().to_string(); 101])),
        ("filter.outcomes[0]", with(|f| f.outcomes = vec![0])),
        ("filter.outcomes[1]", with(|f| f.outcomes = vec![1, 77])),
        ("filter.methods[0]", with(|f| f.methods = vec!["M".repeat(33)])),
        ("filter.routes", with(|f| f.routes = vec!["/".into(); 101])),
        ("filter.status_codes[1]", with(|f| f.status_codes = vec![200, 600])),
        ("filter.resource_ids", with(|f| f.resource_ids = vec!["1".into(); 101])),
        ("filter.status_classes[0]", with(|f| f.status_classes = vec![6])),
        ("filter.origins[0]", with(|f| f.origins = vec![9])),
        ("filter.client_ips[0]", with(|f| f.client_ips = vec!["localhost".into()])),
        ("filter.latency_us_to", with(|f| (f.latency_us_from, f.latency_us_to) = (Some(2), Some(1)))),
        ("filter.condition", with(|f| f.condition = Some(pb::Condition::default()))),
    ] {
        let summary = stack.summary(id, bad.clone()).await.unwrap_err();
        let breakdown = stack.breakdown(id, bad.clone(), pb::Dimension::Route, 0).await.unwrap_err();
        let series = stack.series(id, bad.clone(), pb::Granularity::Unspecified, "").await.unwrap_err();
        let page = stack.page(id, bad.clone(), 0, "").await.unwrap_err();
        let latency = stack.latency(id, bad.clone()).await.unwrap_err();
        let callers = stack.callers(id, bad.clone()).await.unwrap_err();
        let usage = stack.key_usage(id, bad.clone(), 0, 0).await.unwrap_err();
        let (parent, filter) = (resource::workspace_name(id), Some(bad));
        let export = pb::ExportRequestsRequest {
            parent: parent.clone(),
            filter: filter.clone(),
            format: 1,
            ..Default::default()
        };
        let export = stack.export_pieces(id, export).await.unwrap_err();
        let tail = pb::TailRequestsRequest { parent, filter, ..Default::default() };
        let tail = stack.client.clone().tail_requests(stack.keys.request(id, tail)).await.unwrap_err();
        for status in [summary, breakdown, series, page, latency, callers, usage, export, tail] {
            assert_names(&status, field);
        }
    }
}

#[tokio::test]
async fn a_bad_field_of_one_rpc_is_named() {
    let stack = Stack::start().await;
    let (id, at) = (WorkspaceId::generate(), some_days_ago());
    let good = || filter(at, at + DAY_MS);
    let refused = stack.breakdown(id, good(), pb::Dimension::Unspecified, 0).await.unwrap_err();
    assert_names(&refused, "dimension");
    let refused = stack.breakdown(id, good(), pb::Dimension::Method, -1).await.unwrap_err();
    assert_names(&refused, "limit");
    let refused =
        stack.series(id, filter(at, at + 2 * DAY_MS), pb::Granularity::Minute, "").await.unwrap_err();
    assert_names(&refused, "granularity");
    let twice = (pb::Dimension::Method, pb::Dimension::Method);
    assert_names(&stack.pairs(id, good(), twice, 0).await.unwrap_err(), "second_dimension");
    let pairs_with_p95 = pb::GetBreakdownRequest {
        parent: resource::workspace_name(id),
        filter: Some(good()),
        dimension: pb::Dimension::Method.into(),
        second_dimension: pb::Dimension::Route.into(),
        with_p95: true,
        ..Default::default()
    };
    let refused = stack.client.clone().get_breakdown(stack.keys.request(id, pairs_with_p95)).await;
    assert_names(&refused.unwrap_err(), "with_p95");
    let zone = stack.series(id, good(), pb::Granularity::Hour, "Mars/Olympus").await.unwrap_err();
    assert_names(&zone, "time_zone");
    assert_names(&stack.key_usage(id, good(), 0, -1).await.unwrap_err(), "limit");
    assert_names(&stack.key_usage(id, good(), 1, 0).await.unwrap_err(), "granularity");
    let export = pb::ExportRequestsRequest {
        parent: resource::workspace_name(id),
        filter: Some(good()),
        ..Default::default()
    };
    assert_names(&stack.export_pieces(id, export.clone()).await.unwrap_err(), "format");
    let export = pb::ExportRequestsRequest { format: 1, resume_token: "x".into(), ..export };
    assert_names(&stack.export_pieces(id, export).await.unwrap_err(), "resume_token");
    for (field, ingested_from, resume_token) in
        [("ingested_from", Some(timestamp(0)), ""), ("resume_token", None, "AAAA")]
    {
        let parent = resource::workspace_name(id);
        let resume_token = resume_token.to_owned();
        let tail = pb::TailRequestsRequest { parent, filter: Some(good()), ingested_from, resume_token };
        let refused = stack.client.clone().tail_requests(stack.keys.request(id, tail)).await.unwrap_err();
        assert_names(&refused, field);
    }
    let order = pb::ListRequestsRequest {
        parent: resource::workspace_name(id),
        filter: Some(good()),
        order: 3,
        ..Default::default()
    };
    let refused = stack.client.clone().list_requests(stack.keys.request(id, order)).await.unwrap_err();
    assert_names(&refused, "order");
    assert_names(&stack.page(id, good(), -1, "").await.unwrap_err(), "page_size");
    assert_names(&stack.page(id, good(), 0, "x").await.unwrap_err(), "page_token");
    let request = RequestId::generate();
    for name in ["", "requests/1", &format!("workspaces/{id}/requests/1"), &format!("{id}/{request}")] {
        assert_names(&stack.call(id, name).await.unwrap_err(), "name");
    }

    let mut client = stack.client.clone();
    let request =
        pb::GetSummaryRequest { parent: resource::workspace_name(id), filter: None, ..Default::default() };
    let refused = client.get_summary(stack.keys.request(id, request)).await.unwrap_err();
    assert_names(&refused, "filter");
    for parent in [String::new(), id.to_string(), format!("workspaces/{id}/keys")] {
        let request = pb::GetSummaryRequest { parent, filter: Some(good()), ..Default::default() };
        let refused = client.get_summary(stack.keys.request(id, request)).await.unwrap_err();
        assert_names(&refused, "parent");
    }
    let request = pb::GetTimeSeriesRequest {
        parent: resource::workspace_name(id),
        filter: Some(good()),
        granularity: 99,
        ..Default::default()
    };
    let refused = client.get_time_series(stack.keys.request(id, request)).await.unwrap_err();
    assert_names(&refused, "granularity");
}
