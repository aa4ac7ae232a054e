//! TLS towards clients: a certificate and its key from files, read anew when they change. A pair that does not
//! work never takes the place of one that does.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, ensure};
use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(2);

/// Where a certificate and its key are.
#[derive(Debug, Clone)]
pub struct Files {
    /// The chain, PEM, the server's own certificate first.
    pub cert: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
}

/// Takes up TLS with the newest pair that works.
#[derive(Debug, Clone)]
pub struct Acceptor {
    files: Files,
    current: Arc<ArcSwap<ServerConfig>>,
    /// When the files were changed that were read last.
    read: Changed,
}

type Changed = [Option<SystemTime>; 2];

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    /// If they are no pair.
    pub fn load(files: Files) -> anyhow::Result<Self> {
        let read = changed(&files);
        let current = Arc::new(ArcSwap::from_pointee(load(&files)?));
        Ok(Self { files, current, read })
    }

    /// For a connection that begins now.
    pub(crate) fn current(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Reads the files again when they change, for ever.
    pub(crate) async fn follow(mut self) {
        loop {
            sleep(POLL).await;
            self.refresh();
        }
    }

    fn refresh(&mut self) {
        let changed = changed(&self.files);
        if changed == self.read {
            return;
        }
        self.read = changed;
        match load(&self.files) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!("the TLS certificate is renewed");
            }
            // Written one after the other, they fit again at the next look.
            Err(error) => {
                tracing::error!(
                    error = &*error,
                    "the new TLS certificate or key cannot be used: the old ones stay in use"
                );
            }
        }
    }
}

fn changed(files: &Files) -> Changed {
    let modified = |file: &Path| fs::metadata(file).and_then(|data| data.modified()).ok();
    [modified(&files.cert), modified(&files.key)]
}

fn load(files: &Files) -> anyhow::Result<ServerConfig> {
    let named = |file: &Path| format!("{} cannot be used", file.display());
    let chain = CertificateDer::pem_file_iter(&files.cert).with_context(|| named(&files.cert))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().with_context(|| named(&files.cert))?;
    ensure!(!chain.is_empty(), "{}: no certificate is there", named(&files.cert));
    let key = PrivateKeyDer::from_pem_file(&files.key).with_context(|| named(&files.key))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("certificate and key do not belong together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
