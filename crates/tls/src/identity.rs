//! The identity of a process: how it is set, and what servers and clients are made of it.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, ensure};
use clap::Args;
use http::Uri;
use http_body::Body;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, ServerConfig, server::WebPkiClientVerifier};

use crate::pair::{Files, Pair, certificates, provider};

/// Where the identity is; the same names for every service.
#[derive(Debug, Clone, Default, Args)]
pub struct Settings {
    /// File with this process's own certificate chain, PEM. With it every link to and from other processes is TLS, and
    /// both sides show a certificate; see docs/tls.md.
    #[arg(long, global = true, env = "KEYMETER_IDENTITY_CERT_FILE", requires_all = ["identity_key_file", "identity_ca_file"])]
    pub identity_cert_file: Option<PathBuf>,
    /// File with the key of that certificate, PEM.
    #[arg(long, global = true, env = "KEYMETER_IDENTITY_KEY_FILE", requires = "identity_cert_file")]
    pub identity_key_file: Option<PathBuf>,
    /// File with the authorities that certify the other processes, PEM.
    #[arg(long, global = true, env = "KEYMETER_IDENTITY_CA_FILE", requires = "identity_cert_file")]
    pub identity_ca_file: Option<PathBuf>,
}

impl Settings {
    /// Reads the files; `None` if none are set.
    ///
    /// # Errors
    /// If one cannot be used.
    pub fn identity(&self) -> anyhow::Result<Option<Identity>> {
        let (Some(cert), Some(key), Some(ca)) =
            (&self.identity_cert_file, &self.identity_key_file, &self.identity_ca_file)
        else {
            return Ok(None);
        };
        let identity = Identity::load(Files { cert: cert.clone(), key: key.clone() }, ca.clone());
        identity.map(Some).context("the identity of this process (KEYMETER_IDENTITY_*_FILE)")
    }
}

/// An HTTP/1.1 client that shows who it is.
pub type HttpsClient<B> = Client<HttpsConnector<HttpConnector>, B>;

/// Who this process is, and whom it believes.
#[derive(Debug, Clone)]
pub struct Identity {
    /// For those who read the files themselves.
    pub files: Files,
    /// The authorities, PEM.
    pub ca: PathBuf,
    pair: Arc<Pair>,
    roots: Arc<RootCertStore>,
}

impl Identity {
    /// Reads the files.
    ///
    /// # Errors
    /// If one cannot be used.
    pub fn load(files: Files, ca: PathBuf) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&ca)? {
            roots.add(certificate).with_context(|| format!("{} cannot be used", ca.display()))?;
        }
        let pair = Arc::new(Pair::load(files.clone())?);
        Ok(Self { files, ca, pair, roots: Arc::new(roots) })
    }

    /// A server that takes only callers that show a certificate of the authorities, and with nobody else.
    ///
    /// # Errors
    /// If the authorities cannot be used.
    pub fn server(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider()).build()?;
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(self.pair.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// What clients are made with: shows the certificate, takes only servers that the authorities certified. Names no
    /// protocol.
    #[must_use]
    pub fn client(&self) -> ClientConfig {
        self.client_believing(self.roots.clone())
    }

    /// As [`Self::client`], for a server that others certified.
    #[must_use]
    pub fn client_believing(&self, roots: impl Into<Arc<RootCertStore>>) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.expect("the crypto library knows TLS 1.2 and 1.3");
        builder.with_root_certificates(roots).with_client_cert_resolver(self.pair.clone())
    }

    /// An HTTP/1.1 client for the address `url` of `setting`.
    ///
    /// # Errors
    /// If the address is plain.
    pub fn http_client<B>(&self, setting: &str, url: &str) -> anyhow::Result<HttpsClient<B>>
    where
        B: Body<Data: Send> + Send,
    {
        check(setting, &url.parse().with_context(|| format!("{setting} is no address"))?, Some(self))?;
        let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(self.client());
        Ok(Client::builder(TokioExecutor::new()).build(connector.https_only().enable_http1().build()))
    }
}

/// With an identity nothing may go in the clear.
///
/// # Errors
/// If the address does; `setting` is named.
pub(crate) fn check(setting: &str, url: &Uri, identity: Option<&Identity>) -> anyhow::Result<()> {
    ensure!(
        identity.is_none() || url.scheme_str() == Some("https"),
        "{setting} is {url}, and this process has an identity, with which nothing goes in the clear: write https://, or \
         set no KEYMETER_IDENTITY_*_FILE"
    );
    Ok(())
}
