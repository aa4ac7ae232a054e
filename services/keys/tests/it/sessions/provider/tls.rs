//! The provider over HTTPS: its certificate is checked by what the system trusts.

use std::sync::Arc;

use parts::{Service, eventually, free_port};
use proto::keys::{
    BeginProviderSignInRequest, BeginProviderSignInResponse, sessions_service_client::SessionsServiceClient,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status};

use super::liar::{CLIENT_ID, REDIRECT_URI};
use crate::team::refused;

/// Describes itself over TLS, whatever is asked.
async fn serve(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let endpoint = |path: &str| format!("{issuer}/{path}");
    let document = json!({
        "issuer": issuer,
        "authorization_endpoint": endpoint("auth"),
        "token_endpoint": endpoint("token"),
        "jwks_uri": endpoint("keys"),
    })
    .to_string();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{document}", document.len());
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust us ends here.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    issuer
}

#[tokio::test]
async fn only_who_the_system_trusts_is_the_provider() {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let trusted = write("trusted.pem", &authority.pem());
    let other =
        CertifiedIssuer::self_signed(CertificateParams::new([]).unwrap(), KeyPair::generate().unwrap());
    let others = write("others.pem", &other.unwrap().pem());
    let (secret, kek) = (write("secret", "hunter2"), write("kek", &"5a".repeat(32)));
    let good = serve(&authority, "localhost").await;
    let misnamed = serve(&authority, "id.example.com").await;

    let begin = async |issuer: &str, roots: &str| {
        let (grpc, nowhere) = (format!("127.0.0.1:{}", free_port()), free_port());
        let health = format!("127.0.0.1:{}", free_port());
        let environment = [
            ("SSL_CERT_FILE", roots),
            ("KEYMETER_KEYS_GRPC_ADDR", &grpc),
            ("KEYMETER_KEYS_HEALTH_ADDR", &health),
            ("KEYMETER_KEYS_DATABASE_URL", &format!("postgres://nobody@127.0.0.1:{nowhere}/none")),
            ("KEYMETER_KEYS_NATS_URL", &format!("nats://127.0.0.1:{nowhere}")),
            ("KEYMETER_KEYS_KEK_FILE", &kek),
            ("KEYMETER_KEYS_OIDC_ISSUER", issuer),
            ("KEYMETER_KEYS_OIDC_CLIENT_ID", CLIENT_ID),
            ("KEYMETER_KEYS_OIDC_CLIENT_SECRET_FILE", &secret),
        ];
        let _service = Service::spawn("keys", &environment).await;
        let url = format!("http://{grpc}");
        let connected = async || SessionsServiceClient::connect(url.clone()).await.ok();
        let mut sessions = eventually("it serves", connected).await;
        let request = BeginProviderSignInRequest { redirect_uri: REDIRECT_URI.into(), reauthenticate: false };
        let begun = sessions.begin_provider_sign_in(request).await?.into_inner();
        Ok::<BeginProviderSignInResponse, Status>(begun)
    };
    let begun = begin(&good, &trusted).await.unwrap();
    assert!(begun.authorization_url.starts_with(&format!("{good}/auth?")), "{}", begun.authorization_url);
    refused(begin(&good, &others).await, Code::Unavailable, "PROVIDER_AWAY");
    refused(begin(&misnamed, &trusted).await, Code::Unavailable, "PROVIDER_AWAY");
}
