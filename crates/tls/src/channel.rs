//! gRPC channels by address: plain, by the system's authorities, or with an identity.

use std::sync::Arc;

use anyhow::Context as _;
use http::{Uri, uri::Scheme};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::{Identity, identity::check};

/// A channel that connects on first use and again after each loss. With an identity it shows that and believes only its
/// authorities; without one an https address is checked with the system's.
///
/// `setting` is where the address comes from, for errors; `configure` sets time limits.
///
/// # Errors
/// If the address is plain although there is an identity, or cannot be used.
pub fn channel(
    setting: &str,
    url: &Uri,
    identity: Option<&Identity>,
    configure: impl FnOnce(Endpoint) -> Endpoint,
) -> anyhow::Result<Channel> {
    check(setting, url, identity)?;
    let Some(identity) = identity else {
        let mut endpoint = configure(Endpoint::from(url.clone()));
        if url.scheme() == Some(&Scheme::HTTPS) {
            endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots())?;
        }
        return Ok(endpoint.connect_lazy());
    };
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name =
        ServerName::try_from(host.clone()).with_context(|| format!("{setting} {url} names no host"))?;
    let port = url.port_u16().unwrap_or(443);
    let mut config = identity.client();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let connect = move |_| {
        let (connector, host, name) = (connector.clone(), host.clone(), name.clone());
        async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    };
    // The library's own TLS reads certificates once, so to it the connection is plain.
    let mut plain = url.clone().into_parts();
    plain.scheme = Some(Scheme::HTTP);
    let endpoint = configure(Endpoint::from(Uri::from_parts(plain)?)).origin(url.clone());
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(connect)))
}
