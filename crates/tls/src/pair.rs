//! A certificate and its key from files, read anew when they change. A pair that does not work never takes the place of
//! one that does.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, ensure};
use arc_swap::ArcSwap;
use rustls::{
    ServerConfig, SignatureScheme,
    client::ResolvesClientCert,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// How often the files are looked at, at most: when a connection begins.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where a certificate and its key are.
#[derive(Debug, Clone)]
pub struct Files {
    /// The chain, PEM, the process's own certificate first.
    pub cert: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
}

/// When each file was changed last.
type Changed = [Option<SystemTime>; 2];

/// The newest pair that works.
#[derive(Debug)]
pub(crate) struct Pair {
    files: Files,
    current: ArcSwap<CertifiedKey>,
    looked: Mutex<(Instant, Changed)>,
}

impl Pair {
    /// Reads the files.
    ///
    /// # Errors
    /// If they are no pair.
    pub(crate) fn load(files: Files) -> anyhow::Result<Self> {
        let looked = Mutex::new((Instant::now(), changed(&files)));
        let current = ArcSwap::from_pointee(load(&files)?);
        Ok(Self { files, current, looked })
    }

    /// For a connection that begins now.
    fn newest(&self) -> Arc<CertifiedKey> {
        self.look();
        self.current.load_full()
    }

    fn look(&self) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.0.elapsed() < LOOK_EVERY {
            return;
        }
        let now = changed(&self.files);
        looked.0 = Instant::now();
        if now == looked.1 {
            return;
        }
        looked.1 = now;
        match load(&self.files) {
            Ok(pair) => {
                self.current.store(Arc::new(pair));
                tracing::info!(file = %self.files.cert.display(), "the TLS certificate is renewed");
            }
            // Written one after the other, they fit again at the next look.
            Err(error) => tracing::error!(
                error = &*error,
                "the new TLS certificate or key cannot be used: the old ones stay in use"
            ),
        }
    }
}

impl ResolvesServerCert for Pair {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.newest())
    }
}

impl ResolvesClientCert for Pair {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.newest())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A server whose clients need no certificate of their own, over HTTP/2 and HTTP/1.1.
///
/// # Errors
/// If the files are no pair.
pub fn server(files: Files) -> anyhow::Result<Arc<ServerConfig>> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(Pair::load(files)?));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The certificates of a file, at least one.
pub(crate) fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let named = || format!("{} cannot be used", file.display());
    let found = CertificateDer::pem_file_iter(file).with_context(named)?;
    let found = found.collect::<Result<Vec<_>, _>>().with_context(named)?;
    ensure!(!found.is_empty(), "{}: no certificate is there", named());
    Ok(found)
}

fn changed(files: &Files) -> Changed {
    let modified = |file: &Path| fs::metadata(file).and_then(|data| data.modified()).ok();
    [modified(&files.cert), modified(&files.key)]
}

fn load(files: &Files) -> anyhow::Result<CertifiedKey> {
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("{} cannot be used", files.key.display()))?;
    CertifiedKey::from_der(chain, key, &provider()).context("certificate and key do not belong together")
}
