//! The binary as a process: how calls under way end with it or before it, what it says of itself, and how it
//! refuses settings.

use std::process::Command;

use domain::WorkspaceId;
use proto::usage::{self as pb, usage_service_client::UsageServiceClient};
use tokio::task::JoinHandle;
use tonic::{Response, Status, transport::Channel};

use crate::stack::{Keys, connect, question};

/// The binary before a real ClickHouse.
struct Running {
    service: parts::Service,
    health: String,
    clickhouse: parts::ClickHouse,
    keys: Keys,
    client: UsageServiceClient<Channel>,
}

impl Running {
    /// Not ready: the schema is not there.
    async fn start() -> Self {
        let clickhouse = parts::ClickHouse::start().await;
        let keys = Keys::start().await;
        let addr = |port: u16| format!("127.0.0.1:{port}");
        let (grpc, health) = (addr(parts::free_port()), addr(parts::free_port()));
        let environment = [
            ("KEYMETER_QUERY_GRPC_ADDR", grpc.as_str()),
            ("KEYMETER_QUERY_HEALTH_ADDR", &health),
            ("KEYMETER_QUERY_CLICKHOUSE_URL", &clickhouse.url()),
            ("KEYMETER_QUERY_KEYS_URL", &keys.url),
        ];
        let service = parts::Service::spawn("query", &environment).await;
        let client = connect(&format!("http://{grpc}")).await;
        Self { service, health, clickhouse, keys, client }
    }

    async fn ready() -> Self {
        let mut running = Self::start().await;
        running.clickhouse.create_tables().await;
        running.service.wait_ready(&running.health).await;
        running
    }

    fn ask(&self) -> JoinHandle<Result<Response<pb::Summary>, Status>> {
        let workspace_id = WorkspaceId::generate();
        let request = self.keys.request(workspace_id, question(workspace_id));
        let mut client = self.client.clone();
        tokio::spawn(async move { client.get_summary(request).await })
    }

    async fn metric(&self, line: &str) {
        parts::eventually(line, async || {
            let metrics = parts::get(&self.health, "/metrics").await.unwrap().body;
            metrics.lines().any(|found| found == line)
        })
        .await;
    }
}

#[tokio::test]
async fn sigterm_lets_a_running_call_end() {
    let mut running = Running::ready().await;
    // ClickHouse hangs, so the call is under way when the signal comes.
    running.clickhouse.pause();
    let call = running.ask();
    running.metric("keymeter_rpc_running{rpc=\"keymeter.usage.v1.UsageService/GetSummary\"} 1").await;
    let kill = Command::new("kill").arg("-TERM").arg(running.service.pid().to_string()).status().unwrap();
    assert!(kill.success());
    parts::eventually("it drains", async || running.service.log().contains("draining")).await;
    assert!(running.service.is_running() && !call.is_finished());
    running.clickhouse.resume();
    call.await.unwrap().unwrap();
    let status = running.service.wait().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_cancelled_call_is_given_up() {
    let mut running = Running::ready().await;
    running.clickhouse.pause();
    let call = running.ask();
    running.metric("keymeter_rpc_running{rpc=\"keymeter.usage.v1.UsageService/GetSummary\"} 1").await;
    call.abort();
    // ClickHouse still hangs: nothing but the cancellation can have ended it.
    running.metric("keymeter_rpc_running{rpc=\"keymeter.usage.v1.UsageService/GetSummary\"} 0").await;
}

#[tokio::test]
async fn readiness_says_what_is_missing_and_since_when() {
    let mut running = Running::start().await;
    let health = running.health.clone();
    let missing = async || {
        let answer = parts::get(&health, "/readyz").await.ok()?;
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        (answer.status == 503).then(|| body["missing"]["clickhouse"].clone())
    };
    parts::eventually("the schema is missed", async || {
        missing().await.is_some_and(|need| need["reason"] == "ingest has not made the schema yet")
    })
    .await;
    running.clickhouse.create_tables().await;
    running.service.wait_ready(&health).await;
    running.ask().await.unwrap().unwrap();
    running.metric("keymeter_rpc_duration_seconds_count{code=\"Ok\",rpc=\"keymeter.usage.v1.UsageService/GetSummary\"} 1").await;

    running.clickhouse.kill().await;
    let need = parts::eventually("ClickHouse is missed", missing).await;
    assert!(need["since"].as_str().unwrap().starts_with("20"), "{need}");
    running.clickhouse.restart().await;
    running.service.wait_ready(&health).await;
}

#[tokio::test]
async fn a_bad_setting_ends_it_before_a_port_is_bound() {
    for (name, value) in [
        ("KEYMETER_QUERY_CLICKHOUSE_URL", "nonsense"),
        ("KEYMETER_QUERY_QUERIES_MAX", "0"),
        ("KEYMETER_QUERY_GRPC_ADR", "127.0.0.1:1"),
    ] {
        let mut service = parts::Service::spawn("query", &[(name, value)]).await;
        let status = service.wait().await;
        assert!(!status.success());
        let log = service.log();
        let flag = name.trim_start_matches("KEYMETER_QUERY_").to_lowercase().replace('_', "-");
        assert!(log.contains(name) || log.contains(&flag), "{log}");
    }
}
