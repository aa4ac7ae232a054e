//! A real edge beside the service of these tests. What it admits comes back as 502, since nothing is behind it.

use std::fs;

use parts::{Service, eventually, free_port};

use crate::harness::Running;

/// What a call is answered with that passes.
pub(crate) const ADMITTED: u16 = 502;
/// What a call is answered with that is refused for its key.
pub(crate) const REFUSED: u16 = 401;

/// An edge as a process.
pub(crate) struct Edge {
    pub(crate) service: Service,
    pub(crate) addr: String,
    health: String,
    folder: tempfile::TempDir,
}

impl Edge {
    /// Starts one; it may not be ready yet.
    pub(crate) async fn spawn(run: &Running) -> Self {
        Self::spawn_with(run, &[]).await
    }

    /// Starts one that asks a keys service too, and waits until it knows the keys and has them on its disk.
    pub(crate) async fn watch(run: &Running, keys_url: &str, more: &[(&str, &str)]) -> Self {
        let (made, token) = run.command(&["edge-token", "--days", "1"]).await;
        assert!(made, "{token}");
        let token_file = run.folder.path().join("edge-token");
        fs::write(&token_file, token).unwrap();
        let token_file = token_file.display().to_string();
        let watch = [("KEYMETER_EDGE_KEYS_URL", keys_url), ("KEYMETER_EDGE_KEYS_TOKEN_FILE", &token_file)];
        let mut edge = Self::spawn_with(run, &[&watch[..], more].concat()).await;
        edge.ready().await;
        let now = edge.kept("now");
        eventually("its snapshot", async || now.exists()).await;
        edge
    }

    /// A file of what it keeps of the feed.
    pub(crate) fn kept(&self, file: &str) -> std::path::PathBuf {
        self.folder.path().join("spool/feed").join(file)
    }

    /// What `/readyz` says.
    pub(crate) async fn state(&self) -> String {
        parts::get(&self.health, "/readyz").await.map(|answer| answer.body).unwrap_or_default()
    }

    /// Ends it as a crash does, and starts it again on the same folder.
    pub(crate) async fn crash(&mut self) {
        self.service.kill().await;
        self.service.restart();
        let addr = self.addr.clone();
        eventually("it listens", async || parts::get(&addr, "/.keymeter/healthz").await.is_ok()).await;
    }

    /// The status and what it says of a call.
    pub(crate) async fn problem(&self, secret: &str) -> (u16, String) {
        let answer = parts::request("GET", &self.addr, "/", &[("X-API-Key", secret)], "").await.unwrap();
        (answer.status, answer.body)
    }

    async fn spawn_with(run: &Running, more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("feed-keys"), run.feed_keys().await).unwrap();
        let addr = format!("127.0.0.1:{}", free_port());
        let health = format!("127.0.0.1:{}", free_port());
        let path = |name: &str| folder.path().join(name).display().to_string();
        let environment = [
            ("KEYMETER_EDGE_ADDR", addr.as_str()),
            ("KEYMETER_EDGE_HEALTH_ADDR", &health),
            ("KEYMETER_EDGE_UPSTREAM_URL", "http://127.0.0.1:1"),
            ("KEYMETER_EDGE_NATS_URL", &run.nats.url()),
            ("KEYMETER_EDGE_SPOOL_DIR", &path("spool")),
            ("KEYMETER_EDGE_FEED_KEYS_FILE", &path("feed-keys")),
        ];
        let environment = [&environment[..], more].concat();
        let service = Service::spawn("edge", &environment).await;
        Self { service, addr, health, folder }
    }

    /// Starts one and waits until it knows the keys.
    pub(crate) async fn start(run: &Running) -> Self {
        let mut edge = Self::spawn(run).await;
        edge.ready().await;
        edge
    }

    pub(crate) async fn ready(&mut self) {
        self.service.wait_ready(&self.health).await;
    }

    pub(crate) async fn is_ready(&self) -> bool {
        matches!(parts::get(&self.health, "/readyz").await, Ok(answer) if answer.status == 200)
    }

    /// `edge_…`, which it logs as it starts.
    pub(crate) fn id(&self) -> String {
        let log = self.service.log();
        let at = log.find("edge_").unwrap();
        log[at..].chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect()
    }

    /// Calls the API with a secret; the status.
    pub(crate) async fn call(&self, secret: &str) -> u16 {
        parts::request("GET", &self.addr, "/", &[("X-API-Key", secret)], "").await.unwrap().status
    }

    /// Waits until calls with the secret are answered so.
    pub(crate) async fn answers(&self, secret: &str, status: u16) {
        eventually(&format!("{status}"), async || {
            matches!(parts::request("GET", &self.addr, "/", &[("X-API-Key", secret)], "").await,
                Ok(answer) if answer.status == status)
        })
        .await;
    }
}
