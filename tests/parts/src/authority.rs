//! An authority that certifies names, as an operator's own would.

use std::{fs, path::PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// Certifies names; its files are in a folder of its own.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    /// A new one, whom nobody believes yet.
    ///
    /// # Panics
    /// If there is no randomness or no disk.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each is another")]
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no name is no wrong name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("there is randomness");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("it signs itself");
        let folder = tempfile::tempdir().expect("there is a disk");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("there is a disk");
        Self { issuer, folder }
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A new certificate for `name`, which is `localhost` as well, and its key; asked again, in the same files.
    ///
    /// # Panics
    /// If `name` is none.
    #[must_use]
    pub fn certify(&self, name: &str) -> (PathBuf, PathBuf) {
        self.issue(name, name, |_| ())
    }

    /// As [`Self::certify`], of one that has ended.
    ///
    /// # Panics
    /// As [`Self::certify`].
    #[must_use]
    pub fn certify_expired(&self, name: &str) -> (PathBuf, PathBuf) {
        self.issue(name, &format!("{name}-expired"), |params| params.not_after = date_time_ymd(2001, 1, 1))
    }

    fn issue(
        &self,
        name: &str,
        file: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (PathBuf, PathBuf) {
        let names = [name, "localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).expect("names are names");
        params.not_before = date_time_ymd(2000, 1, 1);
        change(&mut params);
        let key = KeyPair::generate().expect("there is randomness");
        let certificate = params.signed_by(&key, &self.issuer).expect("it signs");
        let path = |ending: &str| self.folder.path().join(format!("{file}.{ending}"));
        let (cert_file, key_file) = (path("pem"), path("key"));
        fs::write(&key_file, key.serialize_pem()).expect("there is a disk");
        fs::write(&cert_file, certificate.pem()).expect("there is a disk");
        (cert_file, key_file)
    }
}
