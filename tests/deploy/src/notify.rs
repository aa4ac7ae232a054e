//! What a service tells systemd, over a real socket like systemd's own.

use std::os::unix::net::UnixDatagram;

use parts::{Nats, Postgres, Service, eventually, free_port};

/// Longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;

/// What came, a line each, until `wanted` is among it.
async fn heard(socket: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut lines = Vec::new();
    eventually(wanted, async || {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        while let Ok(bytes) = socket.recv(&mut buffer) {
            lines.extend(String::from_utf8_lossy(&buffer[..bytes]).lines().map(str::to_owned));
        }
        lines.iter().any(|line| line.contains(wanted))
    })
    .await;
    lines
}

#[tokio::test]
async fn systemd_hears_what_is_missing_then_ready_then_stopping() {
    let (postgres, nats, folder) =
        (Postgres::start().await, Nats::start().await, tempfile::tempdir().unwrap());
    let (path, kek) = (folder.path().join("notify"), folder.path().join("kek"));
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    std::fs::write(&kek, "5a".repeat(32)).unwrap();
    let (url, owner) = (postgres.url_as("keymeter_keys"), postgres.url());
    let (addr, health) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let environment = [
        ("KEYMETER_KEYS_DATABASE_URL", url.as_str()),
        ("KEYMETER_KEYS_OWNER_DATABASE_URL", &owner),
        ("KEYMETER_KEYS_NATS_URL", &nats.url()),
        ("KEYMETER_KEYS_KEK_FILE", kek.to_str().unwrap()),
        ("KEYMETER_KEYS_GRPC_ADDR", &addr),
        ("KEYMETER_KEYS_HEALTH_ADDR", &health),
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "100000"),
    ];
    let _ = postgres.query("create role keymeter_keys login");
    let mut keys = Service::spawn("keys", &environment).await;
    let lines = heard(&socket, "run `keys migrate`").await;
    assert!(lines.iter().any(|line| line.starts_with("STATUS=missing ") && line.contains("postgres: ")));
    assert!(lines.iter().any(|line| line == "WATCHDOG=1"), "alive, though not ready: {lines:?}");
    assert!(!lines.iter().any(|line| line == "READY=1"), "{lines:?}");

    let mut migrate = Service::spawn_with("keys", &["migrate"], &environment);
    assert!(migrate.wait().await.success(), "{}", migrate.log());
    let lines = heard(&socket, "STATUS=ready").await;
    assert_eq!(lines.iter().filter(|line| *line == "READY=1").count(), 1, "{lines:?}");
    assert!(keys.sigterm().await.success());
    let lines = heard(&socket, "STOPPING=1").await;
    assert!(lines.iter().any(|line| line == "STATUS=draining"), "{lines:?}");
    assert!(!lines.iter().any(|line| line == "READY=1"), "said once: {lines:?}");
}
