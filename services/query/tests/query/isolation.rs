//! No answer shows a row or a count of another workspace, whatever is asked.

use domain::{KeyId, WorkspaceId};
use proto::{resource, usage as pb};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    events::{self, Event},
    stack::{Stack, code, filter, some_days_ago, total},
};

const DAY_MS: i64 = 86_400_000;

fn any_of(conditions: Vec<pb::Condition>) -> pb::Condition {
    pb::Condition { kind: Some(pb::condition::Kind::AnyOf(pb::Conditions { conditions })) }
}

fn not(condition: pb::Condition) -> pb::Condition {
    pb::Condition { kind: Some(pb::condition::Kind::Not(Box::new(condition))) }
}

#[tokio::test]
async fn two_workspaces_never_see_each_other() {
    let stack = Stack::start().await;
    let (ours, theirs, at) = (WorkspaceId::generate(), WorkspaceId::generate(), some_days_ago());
    let (our_key, their_key) = (KeyId::generate(), KeyId::generate());
    let our_calls: Vec<Event> = (0..40).map(|n| Event::new(our_key, at + n * 60_000)).collect();
    let their_calls: Vec<Event> = (0..90).map(|n| Event::new(their_key, at + n * 30_000)).collect();
    // Even a key and a request that both claim.
    let shared = [Event { resource_id: "theirs".into(), ..our_calls[0].clone() }];
    events::insert(&stack.clickhouse, ours, &our_calls).await;
    events::insert(&stack.clickhouse, theirs, &their_calls).await;
    events::insert(&stack.clickhouse, theirs, &shared).await;

    let range = filter(at - DAY_MS, at + DAY_MS);
    let of = |keys: &[KeyId]| pb::UsageFilter {
        key_ids: keys.iter().map(ToString::to_string).collect(),
        ..range.clone()
    };
    for (question, expected) in [
        (of(&[]), 40),
        (of(&[our_key]), 40),
        (of(&[their_key]), 0),
        (of(&[our_key, their_key]), 40),
        (pb::UsageFilter { resource_ids: vec!["theirs".into()], ..of(&[]) }, 0),
        (pb::UsageFilter { resource_ids: vec![String::new()], ..of(&[our_key, their_key]) }, 40),
        // Whatever a condition says, the workspace comes on top of it.
        (pb::UsageFilter { condition: Some(not(any_of(vec![]))), ..of(&[]) }, 40),
        (
            pb::UsageFilter { condition: Some(any_of(vec![not(any_of(vec![])), any_of(vec![])])), ..of(&[]) },
            40,
        ),
    ] {
        let summary = stack.summary(ours, question.clone()).await.unwrap();
        assert_eq!(total(summary.counts), expected, "{question:?}");
        let breakdown = stack.breakdown(ours, question.clone(), pb::Dimension::Method, 0).await.unwrap();
        assert_eq!(breakdown.rows.into_iter().map(|row| total(row.counts)).sum::<u64>(), expected);
        let series = stack.series(ours, question.clone(), pb::Granularity::QuarterHour, "").await.unwrap();
        assert_eq!(series.points.into_iter().map(|point| total(point.counts)).sum::<u64>(), expected);
        let log = stack.log(ours, &question, 16).await;
        assert_eq!(log.len() as u64, expected);
        assert_eq!(stack.latency(ours, question.clone()).await.unwrap().call_count, expected);
        let callers = stack.callers(ours, question.clone()).await.unwrap();
        assert_eq!(callers.key_count, u64::from(expected > 0));
        let usage = stack.key_usage(ours, question.clone(), 0, 0).await.unwrap();
        assert_eq!(usage.keys.iter().map(|key| total(key.counts)).sum::<u64>(), expected);
        let (_, row_count) = stack.export(ours, question.clone(), pb::ExportFormat::Ndjson).await;
        assert_eq!(row_count, expected);
        assert!(
            log.iter().all(|request| request.key_id == our_key.to_string() && request.resource_id.is_empty())
        );
    }
    assert_eq!(total(stack.summary(theirs, of(&[])).await.unwrap().counts), 91);

    // By its id: under our name, under theirs, and with a token for theirs under our name.
    let their_request = their_calls[0].request_id;
    for (token_for, name) in [
        (ours, resource::request_name(ours, their_request)),
        (ours, resource::request_name(theirs, their_request)),
        (theirs, resource::request_name(ours, our_calls[1].request_id)),
    ] {
        assert_eq!(code(stack.call(token_for, &name).await), Code::NotFound);
    }
    let shared_name = resource::request_name(ours, our_calls[0].request_id);
    assert_eq!(stack.call(ours, &shared_name).await.unwrap().resource_id, "");
}

#[tokio::test]
async fn another_workspace_is_not_found_as_one_that_never_was() {
    let stack = Stack::start().await;
    let (ours, theirs, at) = (WorkspaceId::generate(), WorkspaceId::generate(), some_days_ago());
    events::insert(&stack.clickhouse, theirs, &[Event::new(KeyId::generate(), at)]).await;
    let (parent, filter) = (resource::workspace_name(theirs), Some(filter(at, at + 1)));
    let mut client = stack.client.clone();
    let summary =
        pb::GetSummaryRequest { parent: parent.clone(), filter: filter.clone(), ..Default::default() };
    let breakdown = pb::GetBreakdownRequest {
        parent: parent.clone(),
        filter: filter.clone(),
        dimension: pb::Dimension::Route.into(),
        limit: 0,
        ..Default::default()
    };
    let series = pb::GetTimeSeriesRequest {
        parent: parent.clone(),
        filter: filter.clone(),
        granularity: 0,
        ..Default::default()
    };
    let overview =
        pb::GetOverviewRequest { parent: parent.clone(), filter: filter.clone(), ..Default::default() };
    let list =
        pb::ListRequestsRequest { parent: parent.clone(), filter: filter.clone(), ..Default::default() };
    let latency = pb::GetLatencyRequest { parent: parent.clone(), filter: filter.clone() };
    let callers = pb::GetCallersRequest { parent: parent.clone(), filter: filter.clone() };
    let usage =
        pb::ListKeyUsageRequest { parent: parent.clone(), filter: filter.clone(), ..Default::default() };
    let tail =
        pb::TailRequestsRequest { parent: parent.clone(), filter: filter.clone(), ..Default::default() };
    let export = pb::ExportRequestsRequest { parent, filter, format: 1, ..Default::default() };
    let keys = &stack.keys;
    let refused = [
        client.get_summary(keys.request(ours, summary.clone())).await.unwrap_err(),
        client.get_breakdown(keys.request(ours, breakdown)).await.unwrap_err(),
        client.get_time_series(keys.request(ours, series)).await.unwrap_err(),
        client.get_overview(keys.request(ours, overview)).await.unwrap_err(),
        client.list_requests(keys.request(ours, list)).await.unwrap_err(),
        client.get_latency(keys.request(ours, latency)).await.unwrap_err(),
        client.get_callers(keys.request(ours, callers)).await.unwrap_err(),
        client.list_key_usage(keys.request(ours, usage)).await.unwrap_err(),
        client.tail_requests(keys.request(ours, tail)).await.unwrap_err(),
        client.export_requests(keys.request(ours, export)).await.unwrap_err(),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.get_details_error_info().unwrap().domain, "keymeter");
    }
    // Without a token nobody learns anything.
    let status = client.get_summary(summary).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_gap_is_told_to_those_whom_it_may_concern() {
    let stack = Stack::start().await;
    let (ours, theirs, at) = (WorkspaceId::generate(), WorkspaceId::generate(), some_days_ago());
    let nobody = "00000000-0000-0000-0000-000000000000";
    let gap = |seq: u64, reason: &str, of: &str, from: i64| {
        format!(
            "(1, 'edge_a', 1, {seq}, {}, '{reason}', '{of}', fromUnixTimestamp64Milli({from}), \
             fromUnixTimestamp64Milli({from} + 1000))",
            seq + 4
        )
    };
    let (own, other) = (ours.as_uuid().to_string(), theirs.as_uuid().to_string());
    let gaps = [
        gap(1, "dead_letter", &own, at),
        gap(11, "dead_letter", &other, at),
        gap(21, "lost", nobody, at),
        gap(31, "erased", nobody, at),
        gap(41, "missing", &own, at + 86_400_000),
    ];
    let columns = "shard, edge_id, boot_epoch, first_seq, last_seq, reason, workspace_id, from_at, to_at";
    stack
        .clickhouse
        .query(&format!("insert into keymeter.gaps ({columns}) values {}", gaps.join(", ")))
        .await;
    let told = async |workspace_id| {
        let parent = resource::workspace_name(workspace_id);
        let request =
            pb::GetSummaryRequest { parent, filter: Some(filter(at, at + 3_600_000)), ..Default::default() };
        let mut client = stack.client.clone();
        let summary =
            client.get_summary(stack.keys.request(workspace_id, request)).await.unwrap().into_inner();
        let mut gaps: Vec<_> = summary
            .freshness
            .unwrap()
            .known_gaps
            .into_iter()
            .map(|gap| (gap.reason(), gap.call_count, gap.edge_id))
            .collect();
        gaps.sort_by_key(|gap| gap.0 as i32);
        gaps
    };
    let edge = || "edge_a".to_owned();
    let both = [(pb::GapReason::Lost, 0, edge()), (pb::GapReason::Unreadable, 5, edge())];
    parts::eventually("it is told", async || (told(ours).await == both).then_some(())).await;
    assert_eq!(told(theirs).await, both, "their own five, not ours");
}
