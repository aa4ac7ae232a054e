//! TLS on both sides: certificates that are renewed, and names that are checked.

use std::{fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parts::eventually;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use crate::world::{EdgeProcess, Key, World, echo, get, json, send, serve};

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

    /// Writes a new pair for `localhost`.
    fn write(&self, folder: &Path) -> CertificateDer<'static> {
        let (certificate, key) = self.certify("localhost");
        fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        certificate.der().clone()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A connection through TLS, with one protocol offered.
async fn connect(edge: &EdgeProcess, authority: &Authority, protocol: &str) -> TlsStream<TcpStream> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(&edge.addr).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

fn request(key: &Key, target: &str) -> Request<Full<Bytes>> {
    let request = Request::get(target).header("host", "localhost").header("x-api-key", key.secret.reveal());
    request.body(Full::default()).unwrap()
}

#[tokio::test]
async fn clients_come_through_tls_with_either_version() {
    let world = World::start().await;
    let key = world.key().await;
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    authority.write(folder.path());
    let edge = secured(&world, folder.path()).await;

    let stream = connect(&edge, &authority, "http/1.1").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request(&key, "/one")).await.unwrap();
    let seen: serde_json::Value =
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(seen["headers"]["x-forwarded-proto"], "https");

    let stream = connect(&edge, &authority, "h2").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut two = request(&key, "https://localhost/two");
    two.headers_mut().remove("host");
    assert_eq!(sender.send_request(two).await.unwrap().status(), 200);
    assert_eq!(world.events_of(2).await.len(), 2);
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_and_a_bad_one_is_not() {
    let world = World::start().await;
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let first = authority.write(folder.path());
    let edge = secured(&world, folder.path()).await;
    assert_eq!(shown(&connect(&edge, &authority, "h2").await), first);
    let mut last = first;
    for round in 0..2 {
        // Files of the same second may bear the same time; those of two rounds do not.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let newer = authority.write(folder.path());
        eventually("the new certificate is shown", async || {
            shown(&connect(&edge, &authority, "h2").await) == newer
        })
        .await;
        last = newer;
        if round == 0 {
            fs::write(folder.path().join("cert.pem"), "no certificate").unwrap();
            // Longer than the edge takes to look.
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(shown(&connect(&edge, &authority, "h2").await), last, "the old one stays");
        }
    }
    let _ = last;
}

/// An edge that takes TLS alone.
async fn secured(world: &World, folder: &Path) -> EdgeProcess {
    let upstream = serve(echo()).await;
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let more = [
        ("KEYMETER_EDGE_TLS_CERT_FILE", cert.to_str().unwrap()),
        ("KEYMETER_EDGE_TLS_KEY_FILE", key.to_str().unwrap()),
    ];
    let mut edge = EdgeProcess::spawn(&world.nats.url(), &format!("http://{upstream}"), &more).await;
    edge.service.wait_ready(&edge.health).await;
    eventually("it listens", async || TcpStream::connect(&edge.addr).await.is_ok()).await;
    edge
}

/// An API behind TLS, certified for `name`.
async fn secured_api(authority: &Authority, name: &str, protocol: &str) -> std::net::SocketAddr {
    let (certificate, key) = authority.certify(name);
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let (acceptor, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper_util::service::TowerToHyperService::new(echo());
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    addr
}

#[tokio::test]
async fn an_api_behind_tls_is_reached_if_its_name_is_certified() {
    let world = World::start().await;
    let key = world.key().await;
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, authority.0.pem()).unwrap();
    for (protocol, alpn) in [("http1", "http/1.1"), ("http2", "h2")] {
        let right = secured_api(&authority, "localhost", alpn).await;
        let wrong = secured_api(&authority, "elsewhere.example", alpn).await;
        let stranger = secured_api(&Authority::new(), "localhost", alpn).await;
        for (addr, status) in [(right, 200), (wrong, 502), (stranger, 502)] {
            let more = [
                ("KEYMETER_EDGE_UPSTREAM_CA_FILE", ca.to_str().unwrap()),
                ("KEYMETER_EDGE_UPSTREAM_PROTOCOL", protocol),
            ];
            let url = format!("https://localhost:{}", addr.port());
            let mut edge = EdgeProcess::spawn(&world.nats.url(), &url, &more).await;
            edge.wait_ready().await;
            let response = send(get(&edge.url("/x"), &key)).await;
            assert_eq!(response.status(), status, "{protocol} {url} {:?}", response.body());
            if status == 200 {
                assert_eq!(json(&response)["headers"]["x-forwarded-proto"], "http");
            }
        }
    }
}
