//! Tails and exports: every call once, in whatever pieces, also after a break.

use std::collections::BTreeSet;

use domain::{KeyId, WorkspaceId};
use proto::{resource, usage as pb};
use tonic::{Code, Streaming};

use crate::{
    events::Event,
    stack::{Stack, filter, some_days_ago, timestamp},
};

const HOUR_MS: i64 = 3_600_000;

fn tail_of(id: WorkspaceId, filter: pb::UsageFilter) -> pb::TailRequestsRequest {
    pb::TailRequestsRequest {
        parent: resource::workspace_name(id),
        filter: Some(filter),
        ..Default::default()
    }
}

fn export_of(
    id: WorkspaceId,
    filter: pb::UsageFilter,
    format: pb::ExportFormat,
) -> pb::ExportRequestsRequest {
    pb::ExportRequestsRequest {
        parent: resource::workspace_name(id),
        filter: Some(filter),
        format: format.into(),
        resume_token: String::new(),
    }
}

async fn tail(
    stack: &Stack,
    id: WorkspaceId,
    request: pb::TailRequestsRequest,
) -> Streaming<pb::TailRequestsResponse> {
    let request = stack.keys.request(id, request);
    stack.client.clone().tail_requests(request).await.unwrap().into_inner()
}

/// As ingest does: one insert of a shard, with one `ingested_at`, a second before now and then later ones.
async fn write(stack: &Stack, id: WorkspaceId, shard: u16, calls: &[Event], later_ms: i64) {
    let rows: Vec<String> = calls
        .iter()
        .map(|call| {
            format!(
                "('{}', '{}', '{}', fromUnixTimestamp64Milli({}), now64(3) + toIntervalMillisecond({later_ms}), \
                 'GET', '{}', 200, 'completed', {shard})",
                id.as_uuid(),
                call.key_id.as_uuid(),
                call.request_id.as_uuid(),
                call.at_ms,
                call.route,
            )
        })
        .collect();
    let columns = "workspace_id, key_id, request_id, occurred_at, ingested_at, method, route, status_code, outcome, shard";
    stack
        .clickhouse
        .query(&format!("insert into keymeter.request_events ({columns}) values {}", rows.join(", ")))
        .await;
}

fn calls(count: i64, at_ms: i64) -> Vec<Event> {
    let key_id = KeyId::generate();
    (0..count).map(|n| Event::new(key_id, at_ms + n)).collect()
}

fn names(id: WorkspaceId, calls: &[Event]) -> BTreeSet<String> {
    calls.iter().map(|call| resource::request_name(id, call.request_id)).collect()
}

/// Reads answers until they have as many calls, dropped ones among them; no call may come twice.
async fn read(
    stream: &mut Streaming<pb::TailRequestsResponse>,
    count: u64,
) -> (BTreeSet<String>, u64, String) {
    let (mut found, mut dropped, mut token) = (BTreeSet::new(), 0, String::new());
    while found.len() as u64 + dropped < count {
        let answer = stream.message().await.unwrap().unwrap();
        assert!(answer.requests.len() <= 1_000 && answer.freshness.is_some());
        dropped += answer.dropped_count;
        token = answer.resume_token;
        for request in answer.requests {
            assert!(found.insert(request.name.clone()), "{} came twice", request.name);
        }
    }
    (found, dropped, token)
}

#[tokio::test]
async fn a_tail_has_every_call_once_as_it_is_written() {
    let stack = Stack::start().await;
    let (id, at) = (WorkspaceId::generate(), some_days_ago());
    let range = filter(at - HOUR_MS, at + HOUR_MS);
    let mut stream = tail(&stack, id, tail_of(id, range.clone())).await;
    let first = stream.message().await.unwrap().unwrap();
    assert!(first.requests.is_empty() && !first.resume_token.is_empty(), "it says at once that it runs");

    // Two shards, and what is not meant: another workspace, another time.
    let (one, other) = (calls(40, at), calls(30, at + 100));
    write(&stack, id, 1, &one, 10).await;
    write(&stack, id, 2, &other, 5).await;
    write(&stack, WorkspaceId::generate(), 1, &calls(7, at), 10).await;
    write(&stack, id, 1, &calls(5, at - 2 * HOUR_MS), 15).await;
    let (found, dropped, _) = read(&mut stream, 70).await;
    assert_eq!(found, &names(id, &one) | &names(id, &other));

    // The rest of an insert that shows in two pieces, and a later one that began earlier.
    let (rest, later) = (calls(3, at + 200), calls(2, at - 100));
    write(&stack, id, 1, &rest, 2_000).await;
    write(&stack, id, 1, &later, 2_500).await;
    let (found, more, token) = read(&mut stream, 5).await;
    assert_eq!((found, dropped + more), (&names(id, &rest) | &names(id, &later), 0));

    // After a break what was written meanwhile comes; those of each shard's last insert may come again.
    drop(stream);
    let meanwhile = calls(4, at + 300);
    write(&stack, id, 2, &meanwhile, 10_000).await;
    let request = pb::TailRequestsRequest { resume_token: token, ..tail_of(id, range.clone()) };
    let mut stream = tail(&stack, id, request).await;
    let missing = async {
        let mut found = BTreeSet::new();
        while !found.is_superset(&names(id, &meanwhile)) {
            found.extend(stream.message().await.unwrap().unwrap().requests.into_iter().map(|r| r.name));
        }
        found
    };
    let last: BTreeSet<_> =
        [&meanwhile, &later, &other].into_iter().flat_map(|calls| names(id, calls)).collect();
    assert!(missing.await.is_subset(&last));

    // A page of the log and a tail from before it have everything together.
    let request = pb::TailRequestsRequest {
        ingested_from: Some(timestamp(now_ms() - HOUR_MS / 2)),
        ..tail_of(id, range.clone())
    };
    let (found, ..) = read(&mut tail(&stack, id, request).await, 79).await;
    let log: BTreeSet<_> = stack.log(id, &range, 100).await.into_iter().map(|request| request.name).collect();
    assert_eq!(found, log);
}

#[tokio::test]
async fn what_a_tail_drops_is_counted() {
    let stack = Stack::start().await;
    let (id, at) = (WorkspaceId::generate(), some_days_ago());
    let mut stream = tail(&stack, id, tail_of(id, filter(at - HOUR_MS, at + HOUR_MS))).await;
    stream.message().await.unwrap();
    write(&stack, id, 3, &calls(6_500, at), 10).await;
    let (found, dropped, _) = read(&mut stream, 6_500).await;
    assert_eq!((found.len(), dropped), (5_000, 1_500));
    let after = calls(3, at);
    write(&stack, id, 3, &after, 5_000).await;
    assert_eq!(read(&mut stream, 3).await.0, names(id, &after));
}

fn now_ms() -> i64 {
    i64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap()
}

#[tokio::test]
async fn a_file_has_every_call_in_any_format_and_goes_on_after_a_break() {
    let stack = Stack::start().await;
    let (id, at) = (WorkspaceId::generate(), some_days_ago());
    // Three parts; the calls of two keys.
    let insert = "insert into keymeter.request_events (workspace_id, key_id, request_id, occurred_at, method, route, \
                  status_code, outcome, user_agent)";
    stack
        .clickhouse
        .query(&format!(
            "{insert} select '{}', if(number % 2 = 0, toUUID('{}'), toUUID('{}')), generateUUIDv4(), \
             fromUnixTimestamp64Milli({at} + intDiv(number, 3)), 'GET', '/a,\"b\"', 200, 'completed', 'it''s\nnew' \
             from numbers(450000)",
            id.as_uuid(),
            KeyId::generate().as_uuid(),
            KeyId::generate().as_uuid(),
        ))
        .await;
    let range = filter(at - HOUR_MS, at + HOUR_MS);
    let request = export_of(id, range.clone(), pb::ExportFormat::Csv);
    let pieces = stack.export_pieces(id, request.clone()).await.unwrap();
    assert!(pieces.iter().all(|piece| piece.data.len() <= 1 << 20));
    let ends: Vec<_> = pieces.iter().filter(|p| p.row_count > 0).map(|p| (p.part, p.row_count)).collect();
    assert_eq!(ends, [(0, 200_000), (1, 400_000), (2, 450_000)]);
    let last = pieces.last().unwrap();
    assert!(last.resume_token.is_empty());
    // To find where parts end, each call is read once, and some granules more; not again for each part behind it.
    let read = last.freshness.as_ref().unwrap().read_cost.as_ref().unwrap().row_count;
    assert!((450_000..900_000).contains(&read), "{read} rows");
    let whole: Vec<u8> = pieces.iter().flat_map(|piece| piece.data.clone()).collect();
    let header = whole.split(|byte| *byte == b'\n').next().unwrap();
    assert!(header.starts_with(b"\"request_id\",\"key_id\",\"secret_id\""));
    // Each call has a line end of its own, in quotes.
    assert_eq!(whole.iter().filter(|byte| **byte == b'\n').count(), 1 + 2 * 450_000);

    // From the end of the first part on: the same bytes. What was written since is not among them.
    write(&stack, id, 0, &calls(9, at), 600_000).await;
    let token = pieces.iter().find(|piece| !piece.resume_token.is_empty()).unwrap().resume_token.clone();
    let rest = stack
        .export_pieces(id, pb::ExportRequestsRequest { resume_token: token.clone(), ..request.clone() })
        .await;
    let rest: Vec<u8> = rest.unwrap().into_iter().flat_map(|piece| piece.data).collect();
    assert!(whole.ends_with(&rest) && rest.len() * 2 > whole.len());

    for (format, rows) in [(pb::ExportFormat::Parquet, "Parquet"), (pb::ExportFormat::Arrow, "ArrowStream")] {
        let parts = stack.export_pieces(id, export_of(id, range.clone(), format)).await.unwrap();
        let folder = stack.clickhouse.data().parent().unwrap().join("user_files");
        std::fs::create_dir_all(&folder).unwrap();
        let mut counted = 0;
        for part in 0..3 {
            let data: Vec<u8> =
                parts.iter().filter(|p| p.part == part).flat_map(|p| p.data.clone()).collect();
            let path = folder.join(format!("part-{part}"));
            std::fs::write(&path, data).unwrap();
            let count = format!("select count() from file('{}', '{rows}')", path.display());
            counted += stack.clickhouse.query(&count).await.trim().parse::<u64>().unwrap();
        }
        assert_eq!(counted, 450_000, "{rows}");
    }

    // A token of another question.
    for other in [
        pb::ExportRequestsRequest { format: pb::ExportFormat::Ndjson.into(), ..request.clone() },
        export_of(id, filter(at - HOUR_MS, at), pb::ExportFormat::Csv),
    ] {
        let refused =
            stack.export_pieces(id, pb::ExportRequestsRequest { resume_token: token.clone(), ..other }).await;
        assert!(refused.unwrap_err().message().starts_with("resume_token: "));
    }
}

#[tokio::test]
async fn streams_of_a_workspace_are_bounded_and_end_with_their_callers() {
    let stack = Stack::start().await;
    let (id, at) = (WorkspaceId::generate(), some_days_ago());
    let range = filter(at, at + HOUR_MS);
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(tail(&stack, id, tail_of(id, range.clone())).await);
    }
    let request = stack.keys.request(id, tail_of(id, range.clone()));
    let refused = stack.client.clone().tail_requests(request).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("too many")), (Code::ResourceExhausted, true));
    let other = WorkspaceId::generate();
    drop(tail(&stack, other, tail_of(other, range.clone())).await);
    drop(open);
    parts::eventually("there is room again", async || {
        let request = stack.keys.request(id, tail_of(id, range.clone()));
        stack.client.clone().tail_requests(request).await.is_ok()
    })
    .await;
}
