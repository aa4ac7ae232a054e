//! Every column of a row, read back as text.

use proto::events as pb;

use crate::support::{Edge, Stage, example};

const COLUMNS: &str = "workspace_id, key_id, secret_id, request_id, client_request_id, \
    toUnixTimestamp64Milli(occurred_at), clock_skewed, interrupted, method, route, path, resource_id, status_code, \
    outcome, origin, denial, limit_name, limit_window_s, limit_remaining, latency_us, request_bytes, response_bytes, \
    client_ip, user_agent, region, lower(hex(trace_id)), edge_id, boot_epoch, shard, edge_seq, writer_epoch";

/// The row that `event` must become, as ClickHouse prints it.
fn row(event: &domain::RequestEvent, edge_seq: u64) -> String {
    let millis = event.occurred_at.unix_timestamp_nanos() / 1_000_000;
    let trace_id: String = event.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let columns = [
        event.workspace_id.as_uuid().to_string(),
        event.key_id.as_uuid().to_string(),
        event.secret_id.as_uuid().to_string(),
        event.request_id.as_uuid().to_string(),
        event.client_request_id.clone(),
        millis.to_string(),
        "false".to_owned(),
        event.interrupted.to_string(),
        event.method.clone(),
        event.route.clone(),
        event.path.clone(),
        event.resource_id.clone(),
        event.status_code.to_string(),
        event.outcome().as_str().to_owned(),
        event.origin.as_str().to_owned(),
        event.denial.map_or("", domain::Denial::as_str).to_owned(),
        event.limit_name.clone(),
        event.limit_window_s.to_string(),
        event.limit_remaining.to_string(),
        event.latency_us.to_string(),
        event.request_bytes.to_string(),
        event.response_bytes.to_string(),
        event.client_ip.to_string(),
        event.user_agent.clone(),
        event.region.clone(),
        trace_id,
        "edge_a".to_owned(),
        "1".to_owned(),
        example::SHARD.to_string(),
        edge_seq.to_string(),
        "1".to_owned(),
    ];
    columns.join("\t")
}

#[tokio::test]
async fn every_column_arrives_as_it_was_sent() {
    let stage = Stage::start().await;
    let mut edge = Edge::new("edge_a", stage.jetstream().await);
    // More than 128 and more than 255 distinct values, so that lengths and dictionaries outgrow one byte.
    let mut batch = edge.spool(400);
    let mut long = domain::RequestEvent::try_from(batch.events[7].clone()).unwrap();
    long.path = format!("/é{}", "x".repeat(1_000));
    long.user_agent = "ü".repeat(128);
    batch.events[7] = pb::RequestEvent::from(&long);
    for (at, event) in batch.events.iter_mut().enumerate() {
        event.region = format!("region-{at}");
    }
    assert!(edge.publish(&batch).await);
    stage.wait_for_rows(400).await;
    let sql = format!("select {COLUMNS} from keymeter.request_events order by edge_seq");
    let found = stage.clickhouse.query(&sql).await;
    let events = batch.events.iter().map(|event| domain::RequestEvent::try_from(event.clone()).unwrap());
    let expected: Vec<String> = events.zip(1..).map(|(event, edge_seq)| row(&event, edge_seq)).collect();
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    let distinct = "select uniqExact(ingested_at), min(abs(dateDiff('second', ingested_at, now()))) < 600 from keymeter.request_events";
    assert_eq!(stage.clickhouse.query(distinct).await, "1\t1\n");
}
