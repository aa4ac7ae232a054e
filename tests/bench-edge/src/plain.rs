//! Our own proxy without verification, limits and capture: what these cost is the difference.

use std::net::SocketAddr;

use http::Uri;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves until it is killed.
pub(crate) async fn serve(addr: SocketAddr, upstream: &Uri) -> anyhow::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    edge::plain::run(upstream, listener, &CancellationToken::new()).await
}
