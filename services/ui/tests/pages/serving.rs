//! What the process itself does: it serves at once, says what is missing, drains.

use std::time::Duration;

use boot::Health;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{fakes::Fakes, site::config};

/// Generous, since a machine may be loaded.
const DEADLINE: Duration = Duration::from_secs(60);

async fn get(address: &str) -> (u16, String) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
    let response = client.get(address.parse().unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn pages_are_served_before_the_services_are_there_and_readiness_follows_them() {
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let services = reserved.local_addr().unwrap();
    drop(reserved);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = format!("http://{}", listener.local_addr().unwrap());
    let (health, shutdown) = (Health::default(), CancellationToken::new());
    let (own_health, own_shutdown) = (health.clone(), shutdown.clone());
    let config = config(&format!("http://{services}"));
    let served = tokio::spawn(async move { ui::run(config, listener, &own_health, own_shutdown).await });

    assert_eq!(get(&format!("{site}/healthz")).await.0, 200);
    assert_eq!(get(&format!("{site}/sign-in")).await.0, 200);
    let (status, missing) = get(&format!("{site}/readyz")).await;
    assert_eq!(status, 503);
    assert!(missing.contains("\"keys\"") && missing.contains("\"query\""), "{missing}");

    let fakes = Fakes::new();
    fakes.serve_on(TcpListener::bind(services).await.unwrap());
    let mut ready = health.ready();
    tokio::time::timeout(DEADLINE, ready.wait_for(|ready| *ready)).await.unwrap().unwrap();
    assert_eq!(get(&format!("{site}/readyz")).await.0, 200);

    shutdown.cancel();
    tokio::time::timeout(DEADLINE, served).await.unwrap().unwrap().unwrap();
}
