//! https:// with an authority of our own and a certificate on both sides, in front of the real keys.

use std::{fs, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer, server::WebPkiClientVerifier};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::Keymeter;
use crate::stack::Stack;

/// An authority, which certifies names.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn certify(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// Speaks TLS as localhost to whoever has a certificate of ours, and passes on to `server`; the port.
    async fn serve(&self, server: String) -> u16 {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let (certificate, key) = self.certify("localhost");
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                tokio::spawn(async move {
                    let mut client = acceptor.accept(client).await?;
                    let mut server = TcpStream::connect(server).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        port
    }

    /// `ca.pem`, and `client.pem` and `client.key` of a client.
    fn write(&self, folder: &Path) {
        let (certificate, key) = self.certify("ci");
        fs::write(folder.join("ca.pem"), self.0.pem()).unwrap();
        fs::write(folder.join("client.pem"), certificate.pem()).unwrap();
        fs::write(folder.join("client.key"), key.serialize_pem()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_an_authority_and_certificates_of_our_own() {
    let stack = Stack::start().await;
    let authority = Authority::new();
    let port = authority.serve(format!("127.0.0.1:{}", stack.ports.keys)).await;
    let keymeter = Keymeter::program(&stack).with("KEYMETER_KEYS_URL", format!("https://localhost:{port}"));
    authority.write(keymeter.home.path());
    // Query speaks TLS too, where either does.
    let keymeter = keymeter.with("KEYMETER_QUERY_URL", "https://localhost:1");

    let ours = ["--client-cert-file", "client.pem", "--client-key-file", "client.key"];
    let list = ["keys", "list"];
    let both = [&list[..], &["--ca-file", "ca.pem"], &ours].concat();
    stack.make_key("Orders").await;
    assert!(keymeter.good(&both).await.contains("Orders"));

    keymeter.run(&[&list[..], &ours].concat()).await.failed(5, "UnknownIssuer");
    keymeter.run(&[&list[..], &["--ca-file", "ca.pem"]].concat()).await.failed(5, "can not be reached");
    keymeter
        .run(&[&both[..], &["--client-key-file", "ca.pem"]].concat())
        .await
        .failed(2, "--client-key-file");
    let half = [&list[..], &["--ca-file", "ca.pem", "--client-cert-file", "client.pem"]].concat();
    keymeter.run(&half).await.failed(2, "--client-key-file");
    keymeter.run(&[&list[..], &["--ca-file", "client.key"]].concat()).await.failed(2, "--ca-file");
    keymeter.run(&[&list[..], &["--ca-file", "absent.pem"]].concat()).await.failed(1, "absent.pem");
    // The name is checked, not only the authority.
    let by_address = format!("https://127.0.0.1:{port}");
    keymeter.run(&[&both[..], &["--keys-url", &by_address]].concat()).await.failed(5, "127.0.0.1");
    // What was asked to be safe does not go in the clear.
    let plain = format!("http://127.0.0.1:{}", stack.ports.keys);
    keymeter.run(&[&both[..], &["--keys-url", &plain]].concat()).await.failed(2, "https://");
}
