//! A connection to the API: TCP, and TLS over it with the name checked. Sends no HTTP.

use std::{
    io::{self, IoSlice},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tls::Identity;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::address::{Address, Protocol};

/// Whom an API that is spoken to through TLS may be certified by.
#[derive(Debug, Clone)]
pub struct Trust(Arc<RootCertStore>);

impl Trust {
    /// The certificates in a file, or those of the system.
    ///
    /// # Errors
    /// If there are none.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        match file {
            Some(file) => {
                for certificate in CertificateDer::pem_file_iter(file).context("it cannot be read")? {
                    roots.add(certificate.context("it is not PEM")?).context("a certificate is malformed")?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        ensure!(!roots.is_empty(), "no certificate is there");
        Ok(Self(Arc::new(roots)))
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// It took too long.
    #[error("no connection in time")]
    Timeout,
    /// The name is unknown, nobody listens, or TLS failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes connections to one address.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    protocol: Protocol,
    timeout: Duration,
}

impl Connector {
    /// Connections to `address`; a `timeout` of nothing is none.
    pub(crate) fn new(
        address: Address,
        protocol: Protocol,
        (trust, identity): (Option<&Trust>, Option<&Identity>),
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let tls = match trust.filter(|_| address.is_tls()) {
            Some(trust) => Some(tls(&address, protocol, trust, identity)?),
            None => None,
        };
        ensure!(tls.is_some() == address.is_tls(), "no certificates to check {} with", address.authority());
        Ok(Self { address, tls, protocol, timeout })
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> Result<Io, ConnectError> {
        if self.timeout.is_zero() {
            return Ok(self.open().await?);
        }
        Ok(timeout(self.timeout, self.open()).await.map_err(|_| ConnectError::Timeout)??)
    }

    async fn open(&self) -> io::Result<Io> {
        let stream = TcpStream::connect((self.address.host(), self.address.port())).await?;
        // Without it the end of a request can wait for an acknowledgement of its beginning.
        stream.set_nodelay(true)?;
        let Some((tls, name)) = &self.tls else { return Ok(Io::Plain(stream)) };
        let stream = tls.connect(name.clone(), stream).await?;
        if self.protocol == Protocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("the API does not speak HTTP/2"));
        }
        Ok(Io::Tls(Box::new(stream)))
    }
}

fn tls(
    address: &Address,
    protocol: Protocol,
    trust: &Trust,
    identity: Option<&Identity>,
) -> anyhow::Result<(TlsConnector, ServerName<'static>)> {
    let mut config = match identity {
        Some(identity) => identity.client_believing(trust.0.clone()),
        None => {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder =
                ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            builder.with_root_certificates(trust.0.clone()).with_no_client_auth()
        }
    };
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    let name = ServerName::try_from(address.host().to_owned()).context("its host is no name of a server")?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// A connection, with or without TLS.
#[derive(Debug)]
pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
