//! A whole Keymeter with a user of NATS for each of its parts: nothing that it does is refused.

use std::fs;

use nats_cluster::Servers;
use parts::eventually;
use proto::keys::{
    DeleteKeyRequest, DeleteWorkspaceRequest, SignInRequest, UpdateWorkspaceRequest, Workspace,
    keys_service_client::KeysServiceClient, sessions_service_client::SessionsServiceClient,
    workspaces_service_client::WorkspacesServiceClient,
};
use tonic::transport::Channel;

use crate::{
    compose::{container, place},
    site::{Made, Site, call, signed},
};

/// What edges never send, so that it becomes a dead letter.
async fn send_what_nobody_can_read(edge_url: &str) {
    let servers = Servers::parse(edge_url).unwrap();
    let client = servers.connect(servers.options()).await.unwrap();
    let stream = nats_cluster::context(client);
    stream.publish("request_events.0", "no events".into()).await.unwrap().await.unwrap();
}

/// Has the workspace keep calls for less long, deletes the key, and then the workspace.
async fn take_away(site: &Site, keys: Channel, edge: &str, made: Made, password: String) {
    let sign_in = SignInRequest { email: "admin@example.com".to_owned(), password };
    let session = SessionsServiceClient::new(keys.clone()).sign_in(sign_in).await.unwrap().into_inner();
    let token = session.access_token.unwrap().token;
    let mut workspaces = WorkspacesServiceClient::new(keys.clone());
    let shorter = Workspace { name: made.parent.clone(), request_retention_days: 40, ..Workspace::default() };
    let update = UpdateWorkspaceRequest { workspace: Some(shorter), update_mask: None };
    let workspace = workspaces.update_workspace(signed(update, &token)).await.unwrap().into_inner();

    let delete = DeleteKeyRequest { name: made.name, ..DeleteKeyRequest::default() };
    KeysServiceClient::new(keys).delete_key(signed(delete, &made.token)).await.unwrap();
    eventually("the edge refuses the key", async || call(edge, &made.secret).await == 401).await;

    let delete = DeleteWorkspaceRequest { name: made.parent, display_name: workspace.display_name };
    workspaces.delete_workspace(signed(delete, &token)).await.unwrap();
    eventually("its calls are erased", async || site.calls().await == "0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_refuses_nothing_that_keymeter_does() {
    let secrets = tempfile::tempdir().unwrap();
    let (mut site, file) = place(secrets.path()).await;
    let read = |name: &str| fs::read_to_string(secrets.path().join(name)).unwrap();
    for once in ["migrate", "bootstrap"] {
        site.run(&container(&file, once)).await;
    }
    let services = ["api", "keys", "ingest", "query", "edge", "ui"].map(|name| container(&file, name));
    site.keep(&services).await;
    let token = fs::read_to_string(site.here("/var/lib/keymeter/shared/service-token")).unwrap();
    let urls = ["http://keys:50051", "http://query:50052", "http://edge:8081"];
    let made = site.a_call_is_counted(token.trim(), urls).await;

    send_what_nobody_can_read(&read("nats-edge-url")).await;
    let ingest = &services[2];
    eventually("it is a dead letter", async || {
        let (is_well, said) = site.command(ingest, &["dead-letters", "list"]).await;
        assert!(is_well, "{said}");
        said.contains("REQUEST_EVENTS_0@")
    })
    .await;
    for command in [&["dead-letters", "show", "1"][..], &["dead-letters", "drop", "1", "--yes"], &["audit"]] {
        let (is_well, said) = site.command(ingest, command).await;
        assert!(is_well, "{command:?}: {said}");
    }

    site.restart(&services).await;
    let edge = site.here("http://edge:8081");
    eventually("the edge takes calls again", async || call(&edge, &made.secret).await == 200).await;
    eventually("they are counted", async || site.calls().await == "2").await;
    let keys = Channel::from_shared(site.here("http://keys:50051")).unwrap().connect().await.unwrap();
    take_away(&site, keys, &edge, made, read("admin-password")).await;
    let refused = site.refused_by_nats();
    assert!(refused.is_empty(), "{refused:#?}");
}
