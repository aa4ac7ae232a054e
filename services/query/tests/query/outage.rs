//! What callers are told while something is away, and that the service gets over it by itself.

use std::time::Duration;

use domain::WorkspaceId;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::stack::{Keys, Stack, question, serve};

#[track_caller]
fn assert_unavailable(status: &Status, mention: &str) {
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains(mention), "{status}");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    for internal in ["127.0.0.1", "DB::", "request_events ", "select", "refused"] {
        assert!(!status.message().contains(internal), "{status}");
    }
}

#[tokio::test]
async fn an_outage_of_clickhouse_is_told_and_ends() {
    let mut stack = Stack::start().await;
    let id = WorkspaceId::generate();
    let ask =
        async |stack: &Stack| stack.client.clone().get_summary(stack.keys.request(id, question(id))).await;
    stack.clickhouse.kill().await;
    assert_unavailable(&ask(&stack).await.unwrap_err(), "away");
    stack.clickhouse.restart().await;
    parts::eventually("answers come again", async || ask(&stack).await.is_ok()).await;
}

#[tokio::test]
async fn a_missing_schema_is_told() {
    let clickhouse = parts::ClickHouse::start().await;
    let keys = Keys::start().await;
    let client = serve(&["--clickhouse-url", &clickhouse.url(), "--keys-url", &keys.url]).await;
    let id = WorkspaceId::generate();
    let ask = async || client.clone().get_summary(keys.request(id, question(id))).await;
    let status = parts::eventually("the signing keys are there", async || {
        ask().await.err().filter(|status| !status.message().contains("signing keys"))
    })
    .await;
    assert_unavailable(&status, "ingest has not made");
    clickhouse.create_tables().await;
    parts::eventually("answers come", async || ask().await.is_ok()).await;
}

#[tokio::test]
async fn missing_signing_keys_are_told() {
    let clickhouse = parts::ClickHouse::start().await;
    let keys = Keys::start().await;
    let nobody = format!("http://127.0.0.1:{}", parts::free_port());
    let mut client = serve(&["--clickhouse-url", &clickhouse.url(), "--keys-url", &nobody]).await;
    let id = WorkspaceId::generate();
    let status = client.get_summary(keys.request(id, question(id))).await.unwrap_err();
    assert_unavailable(&status, "signing keys");
}

#[tokio::test]
async fn a_deadline_is_kept_while_clickhouse_hangs() {
    let mut stack = Stack::start().await;
    let id = WorkspaceId::generate();
    stack.clickhouse.pause();
    let mut request = stack.keys.request(id, question(id));
    request.set_timeout(Duration::from_secs(1));
    let status = stack.client.clone().get_summary(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    // Said by the service, not by the client's own clock.
    assert_eq!(status.get_details_error_info().unwrap().reason, "QUERY_TIME");
    stack.clickhouse.resume();
    let request = stack.keys.request(id, question(id));
    stack.client.clone().get_summary(request).await.unwrap();
}
