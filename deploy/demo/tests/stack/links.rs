//! `deploy/local/up --tls`: every port of every part, and who gets an answer there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use parts::{Authority, eventually};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tls::{Files, Identity};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{Clone, call_over};

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Speaks {
    Http(&'static str),
    Grpc,
    Nats,
    Postgres,
}

/// What the parts listen at, before the offset; and whether only who shows a certificate is answered.
const PORTS: [(u16, Speaks, bool); 13] = [
    (8080, Speaks::Http("/sign-in"), false),
    (8081, Speaks::Http("/healthz"), false),
    (8082, Speaks::Http("/healthz"), true),
    (8123, Speaks::Http("/ping"), true),
    (4222, Speaks::Nats, true),
    (5432, Speaks::Postgres, true),
    (50051, Speaks::Grpc, true),
    (50052, Speaks::Grpc, true),
    (9101, Speaks::Http("/readyz"), true),
    (9102, Speaks::Http("/metrics"), true),
    (9103, Speaks::Http("/readyz"), true),
    (9104, Speaks::Http("/metrics"), true),
    (9105, Speaks::Http("/readyz"), true),
];

#[tokio::test]
async fn with_tls_every_port_refuses_who_is_nobody() {
    let mut clone = Clone::new();
    clone.up(&["--no-demo"]);
    assert_eq!(super::call(&clone.endpoints()).await, 200);
    super::counted(&clone.endpoints(), 1).await;
    let refused = clone.run("up", &["--no-demo", "--tls"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("deploy/local/down first"));
    assert!(clone.run("down", &[]).status.success());

    clone.up(&["--no-demo", "--tls"]);
    let known = PORTS.map(|(port, ..)| port + clone.offset).into_iter().collect();
    assert_eq!(listening(&clone), known, "each port is in the table above");
    let (who, files) = identities(&clone);
    let operator = fs::read_to_string(clone.path(".local/secrets/nats-operator-password")).unwrap();
    for (port, speaks, wants_certificate) in PORTS {
        let port = port + clone.offset;
        for (name, config) in &who {
            // Where no certificate is asked for, whose it would be is no matter.
            let expected = *name == "you" || *name != "plain" && !wants_certificate;
            let answered = ask(port, speaks, config.clone(), &operator).await.is_ok_and(|answer| answer);
            assert_eq!(answered, expected, "{name} at {port}, {speaks:?}");
        }
    }
    calls_are_counted(&clone, &files).await;
    clone.down();
    clone.up(&["--no-demo"]);
    super::counted(&clone.endpoints(), 2).await;
    assert!(clone.run("reset", &["--yes"]).status.success());
}

/// One call through the edge over TLS: it is the second one.
async fn calls_are_counted(clone: &Clone, you: &Identity) {
    let authorization = format!("Authorization: Bearer {}", clone.endpoints()["secret"].as_str().unwrap());
    let http = |port: u16| {
        let (config, port) = (you.client(), port + clone.offset);
        async move { connect(port, Some(config)).await.unwrap() }
    };
    let answer = call_over(http(8081).await, "GET /v1/orders/1001", &authorization, "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let sql = "select count() from keymeter.request_events where path = '/v1/orders/1001'";
    eventually("the call is counted", async || {
        call_over(http(8123).await, "POST /", "Accept: */*", sql).await.contains("\r\n2\n")
    })
    .await;
}

/// Who may come: each with what is shown; nothing is plain.
fn identities(clone: &Clone) -> (BTreeMap<&'static str, Option<ClientConfig>>, Identity) {
    let file = |name: &str| clone.path(".local/tls").join(name);
    let identity =
        |(cert, key): (PathBuf, PathBuf)| Identity::load(Files { cert, key }, file("ca.pem")).unwrap();
    let you = identity((file("you.pem"), file("you.key")));
    let foreign = Authority::new();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let nobody = builder.with_root_certificates(roots).with_no_client_auth();
    let who = [
        ("plain", None),
        ("nobody", Some(nobody)),
        ("foreign", Some(identity(foreign.certify("keys")).client())),
        ("you", Some(you.client())),
    ];
    (who.into(), you)
}

/// The ports at which processes of the stack listen.
fn listening(clone: &Clone) -> BTreeSet<u16> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let listeners: BTreeMap<_, _> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[3] == "0A")
        .map(|fields| {
            (fields[9].to_owned(), u16::from_str_radix(fields[1].split_once(':').unwrap().1, 16).unwrap())
        })
        .collect();
    let sockets = clone.pids().into_iter().flat_map(|pid| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        files.filter_map(|file| Some(fs::read_link(file.ok()?.path()).ok()?.to_string_lossy().into_owned()))
    });
    let inode = |socket: String| Some(socket.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned());
    sockets.filter_map(inode).filter_map(|inode| listeners.get(&inode).copied()).collect()
}

/// A connection, encrypted or plain.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn connect(port: u16, config: Option<ClientConfig>) -> io::Result<Box<dyn Stream>> {
    secure(TcpStream::connect(("127.0.0.1", port)).await?, config).await
}

async fn secure(stream: TcpStream, config: Option<ClientConfig>) -> io::Result<Box<dyn Stream>> {
    let Some(config) = config else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from("localhost").unwrap();
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

/// Whether who comes so gets an answer of the protocol; `operator` is the password of that user of NATS.
async fn ask(port: u16, speaks: Speaks, config: Option<ClientConfig>, operator: &str) -> io::Result<bool> {
    let answer = async {
        match speaks {
            Speaks::Http(path) => {
                let stream = connect(port, config).await?;
                Ok(exchange(stream, format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes(), 5)
                    .await?
                    == b"HTTP/")
            }
            Speaks::Grpc => {
                let mut config = config;
                if let Some(config) = &mut config {
                    config.alpn_protocols = vec![b"h2".to_vec()];
                }
                let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
                // The server's own settings: a frame of the fourth kind.
                Ok(exchange(connect(port, config).await?, hello, 4).await?[3] == 4)
            }
            Speaks::Nats => nats(port, config, operator).await,
            Speaks::Postgres => postgres(port, config).await,
        }
    };
    timeout(PATIENCE, answer).await?
}

/// Says it, and reads so many bytes.
async fn exchange(mut stream: Box<dyn Stream>, said: &[u8], bytes: usize) -> io::Result<Vec<u8>> {
    stream.write_all(said).await?;
    let mut heard = vec![0; bytes];
    stream.read_exact(&mut heard).await?;
    Ok(heard)
}

/// The server speaks first, in the clear; then TLS begins.
async fn nats(port: u16, config: Option<ClientConfig>, password: &str) -> io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    while stream.read_u8().await? != b'\n' {}
    let stream = secure(stream, config).await?;
    let user = serde_json::json!({ "verbose": false, "user": "operator", "pass": password });
    Ok(exchange(stream, format!("CONNECT {user}\r\nPING\r\n").as_bytes(), 4).await? == b"PONG")
}

/// TLS is asked for; then the first message is answered with a question for the password.
async fn postgres(port: u16, config: Option<ClientConfig>) -> io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    if config.is_some() {
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
        assert_eq!(stream.read_u8().await?, b'S', "Postgres takes up TLS");
    }
    let names = b"user\0keymeter\0database\0keymeter\0\0";
    let mut hello = (u32::try_from(names.len()).unwrap() + 8).to_be_bytes().to_vec();
    hello.extend([0, 3, 0, 0]);
    hello.extend(names);
    Ok(exchange(secure(stream, config).await?, &hello, 1).await? == b"R")
}
