//! Who is let in, who is believed, and certificates that are renewed.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use parts::{Authority, eventually};
use rstest::rstest;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tls::{Files, Identity, Listener};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

fn identity(of: &Authority, (cert, key): (PathBuf, PathBuf)) -> Identity {
    Identity::load(Files { cert, key }, of.ca()).unwrap()
}

/// Says back what it hears, to those who get in.
async fn serve(identity: &Identity) -> u16 {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let mut listener = Listener::of(tcp, Some(identity)).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await;
            tokio::spawn(async move {
                let mut heard = [0; 4];
                stream.read_exact(&mut heard).await?;
                stream.write_all(&heard).await
            });
        }
    });
    port
}

async fn speak(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut heard = [0; 4];
    stream.write_all(b"ping").await?;
    timeout(Duration::from_secs(5), stream.read_exact(&mut heard)).await??;
    if &heard == b"ping" { Ok(()) } else { Err(io::Error::other("not what was said: an alert, say")) }
}

async fn call(port: u16, config: ClientConfig) -> io::Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    speak(TlsConnector::from(Arc::new(config)).connect(name, stream).await?).await
}

/// Believes the authority, and shows nothing.
fn nobody(authority: &Authority) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.ca()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

#[tokio::test]
async fn only_who_shows_a_certificate_of_the_authority_is_let_in() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let port = serve(&identity(&ours, ours.certify("server"))).await;
    assert!(call(port, identity(&ours, ours.certify("client")).client()).await.is_ok());

    assert!(speak(TcpStream::connect(("127.0.0.1", port)).await.unwrap()).await.is_err(), "plain");
    assert!(call(port, nobody(&ours)).await.is_err(), "no certificate");
    assert!(call(port, identity(&ours, theirs.certify("client")).client()).await.is_err(), "foreign");
    assert!(call(port, identity(&ours, ours.certify_expired("client")).client()).await.is_err(), "ended");
    assert!(call(port, identity(&ours, ours.certify("client")).client()).await.is_ok(), "and goes on");
}

#[tokio::test]
async fn only_a_server_of_the_authority_is_believed() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    // It would let anybody of ours in.
    let port = serve(&identity(&ours, theirs.certify("server"))).await;
    let client = identity(&ours, ours.certify("client")).client();
    assert!(call(port, client.clone()).await.unwrap_err().to_string().contains("invalid peer certificate"));
    let port = serve(&identity(&ours, ours.certify_expired("server"))).await;
    assert!(call(port, client).await.unwrap_err().to_string().contains("expired"));
}

#[tokio::test]
async fn who_does_not_go_on_holds_up_nobody() {
    let ours = Authority::new();
    let port = serve(&identity(&ours, ours.certify("server"))).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    assert!(call(port, identity(&ours, ours.certify("client")).client()).await.is_ok());
}

#[tokio::test]
async fn both_sides_show_their_newest_certificate() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (cert, key) = ours.certify_expired("either");
    let either = identity(&ours, (cert.clone(), key.clone()));
    let port = serve(&either).await;
    let other = identity(&ours, ours.certify("other"));
    let other_port = serve(&other).await;
    assert!(call(port, other.client()).await.is_err(), "its server has ended");
    assert!(call(other_port, either.client()).await.is_err(), "and so its client");
    let (newer_cert, newer_key) = ours.certify("either");
    std::fs::copy(newer_key, &key).unwrap();
    std::fs::copy(newer_cert, &cert).unwrap();
    eventually("both are renewed", async || {
        call(port, other.client()).await.is_ok() && call(other_port, either.client()).await.is_ok()
    })
    .await;
    // A pair that is none does not take its place.
    std::fs::copy(theirs.ca(), &cert).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(call(port, other.client()).await.is_ok() && call(other_port, either.client()).await.is_ok());
}

#[rstest]
#[case::no_certificate("cert", "no certificate", "cert.pem cannot be used: no certificate is there")]
#[case::no_key("key", "no key", "key.pem cannot be used")]
#[case::no_authority("ca", "", "ca.pem cannot be used: no certificate is there")]
fn files_that_are_none_are_named(#[case] wrong: &str, #[case] content: &str, #[case] said: &str) {
    let ours = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = ours.certify("a");
    let put = |name: &str, from: PathBuf| {
        let to = folder.path().join(format!("{name}.pem"));
        if name == wrong {
            std::fs::write(&to, content).unwrap();
        } else {
            std::fs::copy(from, &to).unwrap();
        }
        to
    };
    let files = Files { cert: put("cert", cert), key: put("key", key) };
    let error = format!("{:#}", Identity::load(files, put("ca", ours.ca())).unwrap_err());
    assert!(error.contains(said), "{error}");
}

#[test]
fn nothing_goes_in_the_clear_with_an_identity() {
    let ours = Authority::new();
    let ours = identity(&ours, ours.certify("a"));
    let plain = tls::channel("KEYMETER_X_URL", &"http://127.0.0.1:1".parse().unwrap(), Some(&ours), |e| e);
    let error = plain.unwrap_err().to_string();
    assert!(error.contains("KEYMETER_X_URL") && error.contains("https://"), "{error}");
}
