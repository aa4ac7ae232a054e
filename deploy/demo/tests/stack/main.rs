//! `deploy/local/up`, `down` and `reset` as a person runs them, in a copy of their folder, so that they never meet
//! a stack of this clone. They start the binaries that were built for the tests.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use parts::{binary, eventually, free_port, get, request};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

mod links;

/// A folder with the scripts; what they started is stopped and deleted with it.
struct Clone {
    folder: TempDir,
    offset: u16,
}

impl Clone {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        // Postgres may run as another user, who has to get there.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (from, to) = (parts::root().join("deploy"), folder.path().join("deploy"));
        fs::create_dir_all(&to).unwrap();
        let copied = Command::new("cp")
            .arg("-r")
            .args(["local", "nats", "certify"].map(|part| from.join(part)))
            .arg(to)
            .status();
        assert!(copied.unwrap().success());
        Self { folder, offset: free_port() % 10_000 }
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join(path)
    }

    fn script(&self, name: &str, arguments: &[&str]) -> Command {
        let binaries = ["chdb-server", "keys", "ingest", "query", "edge", "ui", "demo"].map(binary);
        let mut command = Command::new(self.path("deploy/local").join(name));
        command.args(arguments).env("KEYMETER_BINARIES", binaries[0].parent().unwrap());
        for variable in ["DATABASE_URL", "NATS_URL", "CLICKHOUSE_URL"] {
            command.env_remove(variable);
        }
        command
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Output {
        self.script(name, arguments).output().unwrap()
    }

    /// Brings it up; says what it printed for people.
    fn up(&mut self, arguments: &[&str]) -> String {
        loop {
            let offset = self.offset.to_string();
            let output = self.run("up", &[arguments, &["--port-offset", &offset]].concat());
            let messages = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                return messages.into_owned();
            }
            // Seen before the start, or met by a part that was slower than another test.
            let is_taken = ["is taken by another program", "Address already in use"];
            assert!(is_taken.iter().any(|said| messages.contains(said)), "{messages}");
            self.offset = free_port() % 10_000;
        }
    }

    fn endpoints(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path(".local/endpoints.json")).unwrap()).unwrap()
    }

    /// Stops it; nothing that it did was refused by NATS.
    fn down(&self) {
        assert!(self.run("down", &[]).status.success());
        let logs = fs::read_dir(self.path(".local/log")).unwrap().map(|entry| entry.unwrap().path());
        let nats: Vec<_> =
            logs.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("nats")).collect();
        assert!(!nats.is_empty());
        for log in nats {
            let log = fs::read_to_string(log).unwrap();
            let refused: Vec<_> = log.lines().filter(|line| line.contains("Violation")).collect();
            assert!(refused.is_empty(), "{refused:#?}");
        }
    }

    /// The ids of the parts' processes that live.
    fn pids(&self) -> Vec<String> {
        let noted =
            fs::read_dir(self.path(".local/run")).into_iter().flatten().map(|entry| entry.unwrap().path());
        let noted = noted.filter(|path| path.extension().is_some_and(|extension| extension == "pid"));
        let pid =
            |path: std::path::PathBuf| Some(fs::read_to_string(path).ok()?.split(' ').next()?.to_owned());
        noted.filter_map(pid).filter(|pid| Path::new("/proc").join(pid).exists()).collect()
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = Command::new("sh")
                .arg("-c")
                .arg("tail -n 20 .local/log/*")
                .current_dir(&self.folder)
                .status();
        }
        let _ = self.run("reset", &["--yes"]);
    }
}

fn address<'a>(endpoints: &'a Value, name: &str) -> &'a str {
    endpoints[name].as_str().unwrap().trim_start_matches("http://")
}

/// Calls the API through the edge with the first key.
async fn call(endpoints: &Value) -> u16 {
    let authorization = format!("Bearer {}", endpoints["secret"].as_str().unwrap());
    let headers = [("Authorization", authorization.as_str())];
    request("GET", address(endpoints, "edge"), "/v1/orders/1001", &headers, "").await.unwrap().status
}

/// One request of HTTP over a connection that is open; all of the answer.
async fn call_over(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    line: &str,
    header: &str,
    body: &str,
) -> String {
    let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
    let length = body.len();
    let request = format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Waits until ClickHouse has that many calls of the first key.
async fn counted(endpoints: &Value, calls: u32) {
    let sql = "select count() from keymeter.request_events where path = '/v1/orders/1001'";
    let count = async || request("POST", address(endpoints, "clickhouse"), "/", &[], sql).await.unwrap().body;
    eventually("the calls are counted", async || count().await.trim() == calls.to_string()).await;
}

/// Ends a part as a crash does.
fn kill(clone: &Clone, part: &str) {
    let noted = fs::read_to_string(clone.path(&format!(".local/run/{part}.pid"))).unwrap();
    let pid = noted.split(' ').next().unwrap();
    assert!(Command::new("sh").args(["-c", "kill -9 $0", pid]).status().unwrap().success());
}

#[tokio::test]
async fn two_of_each_take_over_from_one_and_lose_half_of_themselves() {
    let mut clone = Clone::new();
    clone.up(&["--no-demo"]);
    assert_eq!(call(&clone.endpoints()).await, 200);
    counted(&clone.endpoints(), 1).await;
    let refused = clone.run("up", &["--no-demo", "--cluster"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("deploy/local/down first"));
    clone.down();

    let said = clone.up(&["--no-demo", "--cluster"]);
    for part in ["nats-3, port", "keys-2, port", "edge-2, port", "ingest-2", "query-2, port", "ui-2, port"] {
        assert!(said.contains(part), "{said}");
    }
    let endpoints = clone.endpoints();
    let nats = endpoints["nats"].as_str().unwrap();
    assert_eq!(nats.split(',').filter(|one| one.starts_with("nats://operator:")).count(), 3);
    assert_eq!(call(&endpoints).await, 200);
    counted(&endpoints, 2).await;
    for part in ["nats-1", "keys", "ingest", "query", "ui"] {
        kill(&clone, part);
    }
    assert_eq!(call(&endpoints).await, 200);
    counted(&endpoints, 3).await;
    assert!(clone.up(&["--no-demo", "--cluster"]).contains("is not running: starting what is missing"));

    clone.down();
    assert_eq!(clone.pids(), Vec::<String>::new());
    clone.up(&["--no-demo"]);
    assert_eq!(call(&clone.endpoints()).await, 200);
    counted(&clone.endpoints(), 4).await;
    assert!(clone.run("reset", &["--yes"]).status.success());
}

#[tokio::test]
async fn it_starts_again_on_what_it_left_and_ends_without_a_trace() {
    let mut clone = Clone::new();
    clone.up(&["--no-demo"]);
    let endpoints = clone.endpoints();
    let text = ["ui", "edge", "clickhouse", "keys_grpc", "query_grpc", "nats", "postgres", "workspace_id"];
    for name in text.into_iter().chain(["service_token", "key_id", "secret"]) {
        assert!(endpoints[name].as_str().is_some_and(|value| !value.is_empty()), "{name}: {endpoints}");
    }
    assert!(endpoints["admin"]["email"].is_string() && endpoints["admin"]["password"].is_string());
    for file in ["endpoints.json", "endpoints.txt", "secrets/kek", "secrets/service-token", "run/settings"] {
        let mode = fs::metadata(clone.path(".local").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} is for its owner only");
    }
    assert_eq!(get(address(&endpoints, "ui"), "/healthz").await.unwrap().status, 200);
    assert_eq!(call(&endpoints).await, 200);
    counted(&endpoints, 1).await;

    assert!(clone.up(&["--no-demo"]).contains("Already running"), "a second start says so");
    let edge = fs::read_to_string(clone.path(".local/run/edge.pid")).unwrap();
    let edge = edge.split(' ').next().unwrap();
    assert!(Command::new("sh").args(["-c", "kill -9 $0", edge]).status().unwrap().success());
    eventually("the edge is gone", async || get(address(&endpoints, "edge"), "/healthz").await.is_err())
        .await;
    assert!(clone.up(&["--no-demo"]).contains("edge is not running"), "a part that died is started again");
    assert_eq!(call(&endpoints).await, 200);
    counted(&endpoints, 2).await;

    clone.down();
    assert_eq!(clone.pids(), Vec::<String>::new());
    assert!(get(address(&endpoints, "ui"), "/healthz").await.is_err());
    clone.up(&["--no-demo"]);
    assert_eq!(clone.endpoints()["secret"], endpoints["secret"]);
    counted(&clone.endpoints(), 2).await;

    assert!(clone.run("reset", &["--yes"]).status.success());
    assert!(!clone.path(".local").exists());
}

#[tokio::test]
async fn an_interrupted_start_leaves_nothing_running_and_the_next_one_works() {
    let mut clone = Clone::new();
    let offset = clone.offset.to_string();
    let mut up = clone.script("up", &["--port-offset", &offset]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(up.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("  new Postgres cluster")), "it starts Postgres");
    assert!(!clone.pids().is_empty());
    assert!(
        Command::new("sh").args(["-c", "kill -TERM $0", &up.id().to_string()]).status().unwrap().success()
    );
    assert!(lines.any(|line| line.unwrap().contains("Stopping what was started")));
    lines.for_each(drop);
    assert_eq!(up.wait().unwrap().code(), Some(143));
    assert_eq!(clone.pids(), Vec::<String>::new());

    // With the past and the trickle this time; a second start does not add to the past.
    clone.up(&[]);
    let endpoints = clone.endpoints();
    // The border stays where it is, since the past goes on until shortly before the start.
    let border_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 600;
    let past = format!(
        "select count() from keymeter.request_events where toUnixTimestamp(occurred_at) < {border_s}"
    );
    let past =
        async || request("POST", address(&endpoints, "clickhouse"), "/", &[], &past).await.unwrap().body;
    let before = past().await;
    assert!(before.trim().parse::<u32>().unwrap() > 5_000, "{before}");
    let trickle = "select uniqExact(key_id) from keymeter.request_events where occurred_at > now() - 60";
    let trickle =
        async || request("POST", address(&endpoints, "clickhouse"), "/", &[], trickle).await.unwrap().body;
    eventually("several keys call", async || trickle().await.trim().parse::<u32>().unwrap() >= 2).await;
    clone.down();
    clone.up(&[]);
    assert_eq!(past().await, before);
}

#[tokio::test]
async fn a_taken_port_is_named_before_anything_is_started() {
    // Another program may have a port that is asked for earlier; then with other ports.
    for _ in 0..5 {
        let clone = Clone::new();
        let Ok(taken) = std::net::TcpListener::bind(("127.0.0.1", 8080 + clone.offset)) else { continue };
        let output = clone.run("up", &["--port-offset", &clone.offset.to_string()]);
        let messages = String::from_utf8_lossy(&output.stderr);
        let port = taken.local_addr().unwrap().port();
        assert_eq!(output.status.code(), Some(1));
        assert!(messages.contains("is taken by another program"), "{messages}");
        assert!(messages.contains("--port-offset"), "{messages}");
        assert_eq!(clone.pids(), Vec::<String>::new());
        if messages.contains(&format!("port {port}, wanted for ui,")) {
            return;
        }
    }
    panic!("the taken port was never the one that was named");
}
