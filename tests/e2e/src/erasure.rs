//! The end of a workspace: from one call to no row in ClickHouse.

use proto::keys::{
    DeleteWorkspaceRequest, SignInRequest, sessions_service_client::SessionsServiceClient,
    workspaces_service_client::WorkspacesServiceClient,
};
use tonic::Request;

use crate::stack::{ADMIN_EMAIL, ADMIN_PASSWORD, Stack};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_workspace_leaves_no_row_and_gets_none() {
    let stack = Stack::start().await;
    let key = stack.make_key("Old partner").await;
    let client = stack.client(&key.secret);
    for _ in 0..20 {
        assert_eq!(client.get("/v1/orders").await.status, 200);
    }
    stack.complete().await;
    let count = "select count() from keymeter.request_events";
    assert_eq!(stack.number(count).await, 20);

    let sign_in = SignInRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
    let channel = stack.keys_channel().await;
    let signed_in = SessionsServiceClient::new(channel.clone()).sign_in(sign_in).await.unwrap();
    let token = signed_in.into_inner().access_token.unwrap().token;
    let delete = DeleteWorkspaceRequest { name: stack.workspace.clone(), display_name: "Acme".into() };
    let mut delete = Request::new(delete);
    delete.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    WorkspacesServiceClient::new(channel).delete_workspace(delete).await.unwrap();

    parts::eventually("the key is refused", async || client.get("/v1/orders").await.status == 401).await;
    parts::eventually("no row is left", async || stack.number(count).await == 0).await;
    for _ in 0..5 {
        assert_eq!(client.get("/v1/orders").await.problem()["denial"], "deleted");
    }
    // Those calls have come to ingest as well, and are dropped there.
    let health = format!("127.0.0.1:{}", stack.ports.ingest_health);
    parts::eventually("late calls are dropped", async || {
        let text = parts::get(&health, "/metrics").await.map(|answer| answer.body).unwrap_or_default();
        let lines =
            text.lines().filter(|line| line.starts_with("keymeter_ingest_events_total{fate=\"erased\""));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() >= 5.0
    })
    .await;
    assert_eq!(stack.number(count).await, 0);
}
