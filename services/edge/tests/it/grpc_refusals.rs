//! What clients of gRPC see of refusals, with tonic on both sides: before the edge and before a server that mounts the layer.

use std::net::SocketAddr;

use domain::{Environment, Secret};
use parts::eventually;
use proto::events as pb;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint, Server},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::world::{EdgeProcess, World, echo, get, send, serve};

async fn connect(addr: &str) -> HealthClient<Channel> {
    HealthClient::new(Endpoint::try_from(format!("http://{addr}")).unwrap().connect().await.unwrap())
}

async fn check(client: &mut HealthClient<Channel>, secret: Option<&str>) -> Result<(), Status> {
    let mut request = Request::new(HealthCheckRequest { service: String::new() });
    if let Some(secret) = secret {
        request.metadata_mut().insert("authorization", format!("Bearer {secret}").parse().unwrap());
    }
    client.check(request).await.map(drop)
}

/// A tonic server with the layer before it.
async fn tonic_behind(edge: &edge_layer::Edge) -> SocketAddr {
    let (_, health) = tonic_health::server::health_reporter();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = Server::builder().layer(edge.layer()).add_service(health);
    tokio::spawn(server.serve_with_incoming(incoming));
    addr
}

#[tokio::test]
async fn the_layer_works_before_tonic_and_refuses_in_its_terms() {
    let world = World::start().await;
    let (key, spool) = (world.key().await, tempfile::tempdir().unwrap());
    let edge = world.layer(spool.path()).await;
    let addr = tonic_behind(&edge).await;
    let mut client = connect(&addr.to_string()).await;
    assert!(check(&mut client, Some(key.secret.reveal())).await.is_ok());

    let unknown = Secret::generate(Environment::Live);
    for secret in [None, Some("km_live_short"), Some(unknown.reveal())] {
        let status = check(&mut client, secret).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(status.message().contains("key"), "{status:?}");
        assert!(status.metadata().get("x-request-id").is_some(), "{status:?}");
    }
    let elsewhere = pb::KeyFeedEntry {
        version: 2,
        allowed_networks: vec!["198.51.100.0/24".into()],
        ..key.entry(pb::KeyState::Active)
    };
    world.feed_entry(&key, elsewhere).await;
    let status = eventually("the network is applied", async || {
        check(&mut client, Some(key.secret.reveal())).await.err()
    })
    .await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(
        status.message(),
        "Address not allowed: This key may not be used from your address; ask its owner."
    );

    let events = world.events_of(2).await;
    assert!(
        events.iter().all(|event| event.path == "/grpc.health.v1.Health/Check" && event.method == "POST")
    );
    let of = |status_code: u16| events.iter().filter(|event| event.status_code == status_code).count();
    assert!(of(200) >= 1 && of(403) == 1, "{events:?}");
    // Nobody commits here, so there is nothing to wait for.
    edge.close(std::time::Duration::from_secs(1)).await;
}

#[tokio::test]
async fn the_proxy_refuses_grpc_in_its_terms() {
    let world = World::start().await;
    let key = world.key().await;
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    let mut client = connect(&edge.addr).await;
    assert_eq!(check(&mut client, None).await.unwrap_err().code(), Code::Unauthenticated);
    world.feed(&key, 2, pb::KeyState::Deleted, None).await;
    eventually("the deletion arrives", async || {
        let status = check(&mut client, Some(key.secret.reveal())).await.err();
        status.is_some_and(|status| status.message().starts_with("Deleted API key"))
    })
    .await;

    // Clients that read the status of HTTP first, and headers only if it is good, hear of it too.
    let mut request = get(&edge.url("/grpc.health.v1.Health/Check"), &key);
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let response = send(request).await;
    assert_eq!((response.status().as_u16(), response.headers()["grpc-status"].as_bytes()), (200, &b"16"[..]));
    assert!(response.body().is_empty());
    let id = response.headers()["x-request-id"].to_str().unwrap();
    let event = eventually("the call is on record", async || {
        world.events().await.into_values().find(|event| event.request_id.to_string() == id)
    })
    .await;
    assert_eq!(event.status_code, 401);

    // Nobody behind it: the edge answers itself.
    let nobody = SocketAddr::from(([127, 0, 0, 1], parts::free_port()));
    let alone = world.key().await;
    let edge = EdgeProcess::start(&world, nobody, &[]).await;
    let mut client = connect(&edge.addr).await;
    let status = check(&mut client, Some(alone.secret.reveal())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("The API cannot be reached"), "{status:?}");
}
