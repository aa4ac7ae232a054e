//! A plain hyper server behind Keymeter's layer, HTTP/1.1 and HTTP/2 on one port.
//!
//! cargo run -p edge-layer --example hyper -- nats://127.0.0.1:4222 /tmp/spool feed-keys
//!
//! The last one is a file with the output of `keys feed-keys`.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use edge_layer::{Caller, Edge, Peer, RequestBody, Settings};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tower::{Layer as _, ServiceExt as _, service_fn};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [nats_url, spool_dir, feed_keys] = arguments.as_slice() else {
        anyhow::bail!("usage: hyper NATS_URL SPOOL_DIR FEED_KEYS_FILE")
    };
    let feed_keys = std::fs::read_to_string(feed_keys)?.parse()?;
    let edge = Edge::start(Settings::new(nats_url, spool_dir, feed_keys)).await?;
    let service = edge.layer().layer(service_fn(hello));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    let serving = tokio_util::task::TaskTracker::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = tokio::signal::ctrl_c() => break,
        };
        let service = service.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            request
        });
        serving.spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            // A client that breaks off is no error of ours; its call is on record.
            drop(served.await);
        });
    }
    // Calls that take longer are cut, and say so on record.
    serving.close();
    if tokio::time::timeout(Duration::from_secs(10), serving.wait()).await.is_err() {
        edge.cut();
    }
    edge.close(Duration::from_secs(5)).await;
    Ok(())
}

/// Is asked for admitted calls alone.
async fn hello(request: Request<RequestBody<Incoming>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let caller = request.extensions().get::<Caller>().map(|caller| caller.key_id.to_string());
    Ok(Response::new(Full::from(format!("hello, {}\n", caller.unwrap_or_default()))))
}
