//! `deploy/nats/users` on a real server: what each user is refused, how one is added, and how one is taken away.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use async_nats::{
    Client, Event,
    jetstream::{Context, kv, stream},
};
use nats_cluster::Servers;
use parts::{Service, eventually, free_port};
use serde_json::json;
use tempfile::TempDir;

/// Everything of this test that anybody might want to harm.
const STREAMS: [(&str, &str); 4] = [
    ("REQUEST_EVENTS_0", "request_events.0"),
    ("DEAD_LETTERS", "dead_letters.*"),
    ("KEY_ACTIVITY", "key_activity"),
    ("KEY_EVENTS", "key_events.>"),
];
const BUCKETS: [&str; 7] =
    ["keys_by_hash", "keys_snapshot", "edges", "edge_commits", "ingest_shards", "erasures", "retentions"];

fn script(folder: &Path, names: &[&str]) -> Output {
    let script = parts::root().join("deploy/nats/users");
    Command::new(script).arg(folder.join("secrets")).args(names).output().unwrap()
}

/// A server with these users.
struct Server {
    folder: TempDir,
    port: u16,
    nats: Service,
}

impl Server {
    fn start(names: &[&str]) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let configuration = folder.path().join("nats.conf");
        let store = folder.path().join("store");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\ninclude users.conf\njetstream {{ store_dir: {store:?}, max_file_store: 16GB }}\n"
        );
        fs::write(&configuration, text).unwrap();
        write_users(folder.path(), names);
        let nats = Service::spawn_with("nats-server", &["--config", configuration.to_str().unwrap()], &[]);
        Self { folder, port, nats }
    }

    /// Has it other users, as a person does.
    fn reload(&self, names: &[&str]) {
        write_users(self.folder.path(), names);
        let signal = format!("reload={}", self.nats.pid());
        let reloaded = Command::new(parts::binary("nats-server")).args(["--signal", &signal]).status();
        assert!(reloaded.unwrap().success());
    }

    fn url(&self, name: &str) -> String {
        let password = self.folder.path().join(format!("secrets/nats-{name}-password"));
        format!("nats://{name}:{}@127.0.0.1:{}", fs::read_to_string(password).unwrap(), self.port)
    }

    async fn is_let_in(&self, url: &str) -> bool {
        let servers = Servers::parse(url).unwrap();
        servers.connect(servers.options()).await.is_ok()
    }

    /// A client of that user, once the server answers.
    async fn user(&self, name: &str) -> User {
        let said = Arc::new(Mutex::new(Vec::new()));
        let servers = Servers::parse(&self.url(name)).unwrap();
        let client = eventually(&format!("{name} is let in"), async || {
            let said = Arc::clone(&said);
            let options = servers.options().event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    said.lock().unwrap().push(error.to_string().to_lowercase());
                }
                std::future::ready(())
            });
            servers.connect(options).await.ok()
        })
        .await;
        User { name: name.to_owned(), client, said }
    }

    /// A server with these users and all streams, a message in each, and its operator.
    async fn with_streams(names: &[&str]) -> (Self, User) {
        let server = Self::start(names);
        let operator = server.user("operator").await;
        let context = operator.context();
        for (name, subject) in STREAMS {
            let config = stream::Config {
                name: name.to_owned(),
                subjects: vec![subject.to_owned()],
                allow_direct: true,
                ..stream::Config::default()
            };
            context.create_stream(config).await.unwrap();
            let subject = subject.replace(['*', '>'], "0");
            context.publish(subject, "there".into()).await.unwrap().await.unwrap();
        }
        for bucket in BUCKETS {
            let config = kv::Config { bucket: bucket.to_owned(), ..kv::Config::default() };
            let bucket = context.create_key_value(config).await.unwrap();
            bucket.put("0", "there".into()).await.unwrap();
        }
        (server, operator)
    }
}

fn write_users(folder: &Path, names: &[&str]) {
    let printed = script(folder, names);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    fs::write(folder.join("users.conf"), printed.stdout).unwrap();
}

/// A connected user, and what the server said to it.
struct User {
    name: String,
    client: Client,
    said: Arc<Mutex<Vec<String>>>,
}

impl User {
    fn context(&self) -> Context {
        nats_cluster::context(self.client.clone())
    }

    /// Waits until the server has refused it to `verb` ("publish to" or "subscription to") the subject.
    async fn is_refused(&self, verb: &str, subject: &str) {
        let wanted = format!("permissions violation for {verb} \"{}\"", subject.to_lowercase());
        eventually(&format!("{} is refused: {wanted}", self.name), async || {
            self.said.lock().unwrap().iter().any(|said| said.contains(&wanted))
        })
        .await;
    }
}

/// The streams that are there, and how often each was written.
async fn all_there_is(operator: &User) -> Vec<(String, u64, u64)> {
    let names = STREAMS.map(|(name, _)| name.to_owned()).into_iter();
    let names = names.chain(BUCKETS.map(|bucket| format!("KV_{bucket}")));
    let (context, mut all) = (operator.context(), Vec::new());
    for name in names {
        let stream = context.get_stream(&name).await;
        let state = stream.map(|stream| stream.cached_info().state.clone());
        all.push((name, state.as_ref().map_or(0, |s| s.messages), state.map_or(0, |s| s.last_sequence)));
    }
    all
}

const SERVICES: [&str; 3] = ["keys", "ingest", "operator"];

#[tokio::test]
async fn nobody_may_do_what_others_are_for() {
    let names = [&SERVICES[..], &["edge", "edge-eu"]].concat();
    let (server, operator) = Server::with_streams(&names).await;
    let before = all_there_is(&operator).await;
    let publish = [
        ("edge", "$JS.API.CONSUMER.CREATE.REQUEST_EVENTS_0"),
        ("edge", "$JS.API.CONSUMER.CREATE.REQUEST_EVENTS_0.x.request_events.0"),
        ("edge", "$JS.API.STREAM.MSG.GET.REQUEST_EVENTS_0"),
        ("edge", "$JS.API.DIRECT.GET.REQUEST_EVENTS_0"),
        ("edge", "$JS.API.DIRECT.GET.DEAD_LETTERS.dead_letters.0"),
        ("edge", "$JS.API.DIRECT.GET.KV_ingest_shards.$KV.ingest_shards.0"),
        ("edge", "$JS.API.STREAM.PURGE.KV_keys_by_hash"),
        ("edge", "$JS.API.STREAM.DELETE.REQUEST_EVENTS_0"),
        ("edge", "$JS.API.STREAM.UPDATE.KV_edges"),
        ("edge", "$JS.API.STREAM.CREATE.MINE"),
        ("edge", "$JS.API.STREAM.NAMES"),
        ("edge", "$JS.API.CONSUMER.NAMES.KV_edge_commits"),
        ("edge", "$KV.keys_by_hash.0"),
        ("edge", "$KV.keys_snapshot.0"),
        ("edge", "$KV.ingest_shards.0"),
        ("edge", "$KV.edge_commits.0"),
        ("edge", "$KV.erasures.0"),
        ("edge", "$KV.retentions.0"),
        ("edge", "dead_letters.0"),
        ("edge", "key_activity"),
        ("edge", "key_events.0.created"),
        ("edge", "_INBOX_keys.0"),
        ("ingest", "$KV.keys_by_hash.0"),
        ("ingest", "$KV.erasures.0"),
        ("ingest", "$JS.API.STREAM.PURGE.KV_keys_by_hash"),
        ("ingest", "$JS.API.STREAM.DELETE.REQUEST_EVENTS_0"),
        ("ingest", "request_events.0"),
        ("ingest", "feed_acks"),
        ("keys", "$JS.API.STREAM.PURGE.REQUEST_EVENTS_0"),
        ("keys", "$JS.API.CONSUMER.CREATE.REQUEST_EVENTS_0"),
        ("keys", "$JS.API.STREAM.UPDATE.KV_ingest_shards"),
        ("keys", "$JS.API.STREAM.DELETE.KV_keys_by_hash"),
        ("keys", "$KV.ingest_shards.0"),
        ("keys", "$KV.edge_commits.0"),
        ("keys", "request_events.0"),
    ];
    let subscribe = [
        ("edge", ">"),
        ("edge", "request_events.*"),
        ("edge", "feed_acks"),
        ("edge", "$KV.keys_by_hash.>"),
        ("edge", "_INBOX.>"),
        ("edge", "_INBOX_edge-eu.>"),
        ("edge-eu", "_INBOX_edge.>"),
        ("edge", "_INBOX_keys.>"),
        ("ingest", ">"),
        ("ingest", "_INBOX_keys.>"),
        ("keys", ">"),
        ("keys", "_INBOX_ingest.>"),
        ("keys", "request_events.*"),
    ];
    for name in ["keys", "ingest", "edge", "edge-eu"] {
        let user = server.user(name).await;
        for (_, subject) in publish.iter().filter(|(who, _)| *who == name) {
            user.client.publish(*subject, "".into()).await.unwrap();
            user.is_refused("publish to", subject).await;
        }
        for (_, subject) in subscribe.iter().filter(|(who, _)| *who == name) {
            let _subscription = user.client.subscribe(*subject).await.unwrap();
            user.is_refused("subscription to", subject).await;
        }
    }
    assert_eq!(all_there_is(&operator).await, before);
}

#[tokio::test]
async fn no_answer_to_an_edge_does_what_the_edge_may_not() {
    let names = [&SERVICES[..], &["edge"]].concat();
    let (server, operator) = Server::with_streams(&names).await;
    let edge = server.user("edge").await;
    let context = edge.context();
    // What the edge wrote itself comes back as it was: an empty request, if it likes.
    let beat = context.publish("$KV.edges.mine", "".into()).await.unwrap();
    beat.await.unwrap();
    let before = all_there_is(&operator).await;
    let asks = [
        "$JS.API.DIRECT.GET.KV_edges.$KV.edges.mine",
        "$JS.API.STREAM.INFO.KV_edges",
        "$JS.API.STREAM.MSG.GET.KV_keys_by_hash",
        "$JS.API.INFO",
    ];
    let answers_to = [
        "$JS.API.STREAM.DELETE.REQUEST_EVENTS_0",
        "$JS.API.STREAM.PURGE.KV_keys_by_hash",
        "$KV.ingest_shards.0",
        "$KV.erasures.0",
        "dead_letters.0",
        "key_activity",
    ];
    for answer_to in answers_to {
        for ask in asks {
            edge.client.publish_with_reply(ask, answer_to, "".into()).await.unwrap();
        }
        // To a subject that a stream takes by just this name NATS delivers. What comes there is no words of the edge, and
        // keys drops it.
        if answer_to == "key_activity" {
            continue;
        }
        let config = json!({
            "deliver_subject": answer_to, "headers_only": true, "deliver_policy": "all", "ack_policy": "none",
            "replay_policy": "instant", "mem_storage": true, "num_replicas": 1,
        });
        let asked = json!({ "stream_name": "KV_keys_by_hash", "config": config }).to_string();
        let made =
            edge.client.request("$JS.API.CONSUMER.CREATE.KV_keys_by_hash", asked.into()).await.unwrap();
        assert!(String::from_utf8_lossy(&made.payload).contains("consumer_create_response"), "{made:?}");
    }
    // Whatever was to come has come once later questions are answered.
    for _ in 0..20 {
        context.query_account().await.unwrap();
        assert_eq!(all_there_is(&operator).await, before);
    }
}

#[tokio::test]
async fn users_come_and_go_with_a_reload() {
    let server = Server::start(&[&SERVICES[..], &["edge"]].concat());
    let edge = server.user("edge").await;
    let at = server.url("edge").rsplit('@').next().unwrap().to_owned();
    for stranger in [at.clone(), format!("edge:wrong@{at}"), format!("nobody:wrong@{at}")] {
        assert!(!server.is_let_in(&format!("nats://{stranger}")).await, "{stranger}");
    }
    server.reload(&[&SERVICES[..], &["edge", "edge-eu"]].concat());
    let another = server.user("edge-eu").await;
    eventually("it reaches what edges reach", async || another.context().query_account().await.is_ok()).await;
    assert!(edge.said.lock().unwrap().is_empty(), "the first one was not bothered");

    let url = server.url("edge");
    server.reload(&[&SERVICES[..], &["edge-eu"]].concat());
    eventually("the first one is not let in", async || !server.is_let_in(&url).await).await;
    eventually("its connection has ended", async || {
        edge.client.connection_state() != async_nats::connection::State::Connected
    })
    .await;
    another.context().query_account().await.unwrap();
}

#[test]
fn what_can_be_no_user_is_refused_with_a_remedy() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let said = |names: &[&str]| {
        let printed = script(folder.path(), names);
        assert!(!printed.status.success() && printed.stdout.is_empty(), "{names:?}");
        String::from_utf8(printed.stderr).unwrap()
    };
    for name in ["edge.eu", "edge eu", "edge>", "*", "", "é", "a\"b"] {
        assert!(said(&["keys", name]).contains("Use letters, digits, - and _"), "{name}");
    }
    assert!(said(&["edge", "edge"]).contains("named twice"));
    assert!(said(&[]).contains("As in: deploy/nats/users"));
    assert!(!folder.path().join("secrets").exists(), "nothing was made");

    let password = folder.path().join("secrets/nats-edge-password");
    let first = script(folder.path(), &["edge"]).stdout;
    assert_eq!(script(folder.path(), &["edge"]).stdout, first, "a password stays");
    assert_eq!(fs::metadata(&password).unwrap().permissions().mode() & 0o077, 0);
    fs::write(&password, "a \"b\"").unwrap();
    assert!(said(&["edge"]).contains("Remove the file"));
    let many = parts::root().join("deploy/nats/users");
    let many = Command::new(many).args(["--shards", "12"]).arg(folder.path()).arg("ingest").output().unwrap();
    let many = String::from_utf8(many.stdout).unwrap();
    assert!(many.contains("STREAM.PURGE.REQUEST_EVENTS_12\"") && !many.contains("REQUEST_EVENTS_13"));
}
