//! A NATS server with JetStream on disk, without authentication: alone, or one of a cluster.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{binary, free_port, http, process::Process};

/// Longest wait for one answer: a server may be cut off in the middle of it.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A running NATS with JetStream.
pub struct Nats {
    process: Process,
    url: String,
    health: String,
}

/// Where a server listens, and what more it is told.
pub(crate) struct Place {
    pub(crate) host: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) health: u16,
    /// Network namespace to run in; the test's own if there is none.
    pub(crate) namespace: Option<String>,
    /// More lines of its configuration.
    pub(crate) more: String,
}

impl Nats {
    /// Starts one and waits until JetStream is ready.
    ///
    /// # Panics
    /// If it does not get there.
    pub async fn start() -> Self {
        let (port, health) = (free_port(), free_port());
        let place = Place { host: Ipv4Addr::LOCALHOST, port, health, namespace: None, more: String::new() };
        let mut nats = Self::at(&place);
        nats.restart().await;
        nats
    }

    /// One that is not started yet.
    pub(crate) fn at(place: &Place) -> Self {
        let server = binary("nats-server");
        let process = match &place.namespace {
            None => Process::new("nats", server),
            Some(name) => Process::new("nats", "ip").arg("netns").arg("exec").arg(name).arg(server),
        };
        let config = process.folder().join("nats.conf");
        std::fs::write(&config, configuration(place, process.folder())).expect("own folder");
        let process = process.arg("--config").arg(config);
        let Place { host, port, health, .. } = place;
        Self { process, url: format!("nats://{host}:{port}"), health: format!("{host}:{health}") }
    }

    /// `nats://<host>:<port>`, the same over restarts.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// `host:port` of what it says of itself.
    pub(crate) fn health(&self) -> &str {
        &self.health
    }

    /// Its folder, with all that it stores.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.process.folder()
    }

    /// Ends it as a crash does.
    pub async fn kill(&mut self) {
        self.process.end(Signal::KILL).await;
    }

    /// Asks it to end, and waits.
    pub async fn stop(&mut self) {
        self.process.end(Signal::TERM).await;
    }

    /// Starts it again, on the same port and data, after [`Self::kill`] or [`Self::stop`].
    pub async fn restart(&mut self) {
        self.process.start();
        self.ready("/healthz?js-enabled-only=true").await;
    }

    /// Waits until it answers that question of its health with yes.
    pub(crate) async fn ready(&mut self, question: &str) {
        let health = &self.health;
        let asked = async || timeout(ANSWER_LIMIT, http::get(health, question)).await;
        self.process.ready(async || matches!(asked().await, Ok(Ok(answer)) if answer.status == 200)).await;
    }

    /// Forgets everything; only while it is stopped.
    ///
    /// # Panics
    /// If it is running.
    pub fn wipe(&mut self) {
        assert!(!self.process.is_running(), "stop NATS before its data is wiped");
        std::fs::remove_dir_all(self.process.folder().join("jetstream")).expect("its folder can be removed");
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A copy of its data as it is at one moment, for [`Self::put_back`]: as a snapshot of its disk would have it, with
    /// no file that is older than another or vanishes meanwhile.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn copy(&mut self) -> TempDir {
        let copy = tempfile::tempdir().expect("the system's temporary folder can be written");
        self.process.freeze();
        copy_folder(&self.process.folder().join("jetstream"), copy.path());
        self.process.thaw();
        copy
    }

    /// Goes back to a copy; only while it is stopped.
    ///
    /// # Panics
    /// If it is running.
    pub fn put_back(&mut self, copy: &TempDir) {
        self.wipe();
        copy_folder(copy.path(), &self.process.folder().join("jetstream"));
    }

    /// Freezes it: connections stay open and nothing answers.
    pub fn pause(&mut self) {
        self.process.freeze();
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&mut self) {
        self.process.thaw();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-rT").arg(from).arg(to).status();
    assert!(status.expect("cp runs").success(), "a folder can be copied");
}

/// The store's limit is stated, since by default it follows the free disk and streams may then not fit.
fn configuration(place: &Place, folder: &Path) -> String {
    let Place { host, port, health, more, .. } = place;
    let store = folder.join("jetstream");
    let store = store.display();
    format!(
        "listen: \"{host}:{port}\"\nhttp: \"{host}:{health}\"\n{more}\
         jetstream {{ store_dir: \"{store}\", max_file_store: 64GB }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;

    /// Says over the health port how many streams there are.
    async fn streams(nats: &Nats) -> String {
        let answer = http::get(&nats.health, "/jsz").await.unwrap().body;
        answer.lines().find(|line| line.contains("\"streams\"")).unwrap().trim().to_owned()
    }

    /// Makes a stream through the plain text protocol.
    async fn make_stream(nats: &Nats) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut connection =
            tokio::net::TcpStream::connect(nats.url.trim_start_matches("nats://")).await.unwrap();
        let body = r#"{"name":"S","subjects":["s"],"storage":"file","retention":"limits","num_replicas":1}"#;
        let publish = format!("PUB $JS.API.STREAM.CREATE.S {}\r\n{body}\r\nPING\r\n", body.len());
        connection.write_all(format!("CONNECT {{\"verbose\":false}}\r\n{publish}").as_bytes()).await.unwrap();
        let mut heard = [0; 4096];
        assert!(connection.read(&mut heard).await.unwrap() > 0);
        eventually("the stream is made", async || streams(nats).await.contains(": 1")).await;
    }

    #[tokio::test]
    async fn keeps_its_data_over_a_crash_and_forgets_it_when_wiped() {
        let mut nats = Nats::start().await;
        let url = nats.url();
        make_stream(&nats).await;
        nats.kill().await;
        nats.restart().await;
        assert!(streams(&nats).await.contains(": 1"));
        nats.stop().await;
        nats.wipe();
        nats.restart().await;
        assert!(streams(&nats).await.contains(": 0"));
        assert_eq!(nats.url(), url);
        nats.pause();
        nats.resume();
        assert!(streams(&nats).await.contains(": 0"));
    }
}
