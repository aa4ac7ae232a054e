//! Our own proxy without verification, limits and capture: what these cost is the difference.

use std::net::SocketAddr;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;

/// Serves until it is killed.
pub(crate) async fn serve(addr: SocketAddr, upstream: &Uri) -> anyhow::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).set_host(false).build(connector);
    let builder = auto::Builder::new(TokioExecutor::new());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, upstream, builder) = (client.clone(), upstream.clone(), builder.clone());
        let service =
            hyper::service::service_fn(move |request| pass(client.clone(), upstream.clone(), request));
        tokio::spawn(async move { builder.serve_connection(TokioIo::new(stream), service).await.is_ok() });
    }
}

async fn pass(
    client: Client<HttpConnector, Incoming>,
    upstream: Uri,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
    let mut parts = upstream.into_parts();
    parts.path_and_query = request.uri().path_and_query().cloned();
    // An address that can not be put together is refused by the client.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    client.request(request).await
}
