//! An axum API behind Keymeter's layer: keys are verified, calls are on record, and handlers know who calls.
//!
//! cargo run -p edge-layer --example axum -- nats://127.0.0.1:4222 /tmp/spool feed-keys
//!
//! The last one is a file with the output of `keys feed-keys`.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Extension, Router,
    extract::{ConnectInfo, Path, Request},
    middleware::{Next, from_fn},
    response::IntoResponse,
    routing::get,
};
use edge_layer::{Caller, Edge, Peer, ResourceId, Settings};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [nats_url, spool_dir, feed_keys] = arguments.as_slice() else {
        anyhow::bail!("usage: axum NATS_URL SPOOL_DIR FEED_KEYS_FILE")
    };
    let edge = Edge::start(Settings {
        // Routes as the API knows them, so that usage is shown by them, and what some of them require.
        routes: "GET /v1/orders/{order_id}\nGET /v1/me".parse()?,
        required_scopes: "GET /v1/orders/{order_id} orders:read".parse()?,
        ..Settings::new(nats_url, spool_dir, std::fs::read_to_string(feed_keys)?.parse()?)
    })
    .await?;

    let api = Router::new()
        .route("/v1/me", get(me))
        .route("/v1/orders/{order_id}", get(order))
        .layer(edge.layer())
        // Around the layer: tells it who is at the other end.
        .layer(from_fn(peer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    axum::serve(listener, api.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    // No call runs any more: publish what is left. What is not stays in the spool for the next start.
    edge.close(Duration::from_secs(5)).await;
    Ok(())
}

async fn me(Extension(caller): Extension<Caller>) -> String {
    format!("key {} of workspace {}\n", caller.key_id, caller.workspace_id)
}

/// Puts its own idea of what the call was about on record, in the place of the path's.
async fn order(Path(order_id): Path<String>) -> impl IntoResponse {
    let canonical = order_id.to_uppercase();
    (Extension(ResourceId(canonical.clone())), format!("order {canonical}\n"))
}

async fn peer(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> impl IntoResponse {
    request.extensions_mut().insert(Peer(peer));
    next.run(request).await
}
