//! A tonic server behind Keymeter's layer. A call that is refused ends with a status of gRPC: UNAUTHENTICATED,
//! PERMISSION_DENIED, RESOURCE_EXHAUSTED or UNAVAILABLE, with what to do as its message.
//!
//! cargo run -p edge-layer --example tonic -- nats://127.0.0.1:4222 /tmp/spool feed-keys
//!
//! The last one is a file with the output of `keys feed-keys`.

use std::time::Duration;

use edge_layer::{Edge, Peer, Settings};
use tonic::transport::{Server, server::TcpConnectInfo};
use tower::ServiceBuilder;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [nats_url, spool_dir, feed_keys] = arguments.as_slice() else {
        anyhow::bail!("usage: tonic NATS_URL SPOOL_DIR FEED_KEYS_FILE")
    };
    let edge = Edge::start(Settings {
        // gRPC's paths are templates already; named, they always have their place.
        routes: "POST /grpc.health.v1.Health/Check".parse()?,
        ..Settings::new(nats_url, spool_dir, std::fs::read_to_string(feed_keys)?.parse()?)
    })
    .await?;

    // Any service will do; this one comes with tonic.
    let (_, health) = tonic_health::server::health_reporter();
    let layers = ServiceBuilder::new().map_request(peer).layer(edge.layer());
    Server::builder()
        .layer(layers)
        .add_service(health)
        .serve_with_shutdown("127.0.0.1:8080".parse()?, async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    edge.close(Duration::from_secs(5)).await;
    Ok(())
}

/// Tells the layer who is at the other end; tonic calls it otherwise.
fn peer<B>(mut request: http::Request<B>) -> http::Request<B> {
    let connected = request.extensions().get::<TcpConnectInfo>();
    if let Some(addr) = connected.and_then(TcpConnectInfo::remote_addr) {
        request.extensions_mut().insert(Peer(addr));
    }
    request
}
