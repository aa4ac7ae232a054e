//! Everything that `deploy/local/up` starts, on ports and folders of its own: real NATS, Postgres and ClickHouse
//! engine, our five services as processes, and an API to stand behind the edge.

use std::{fs, path::Path};

use domain::SecretHash;
use futures_util::StreamExt as _;
use parts::{ClickHouse, Nats, Postgres, Service, free_port};
use prost::Message as _;
use proto::{
    events::{EdgeHeartbeat, KeyFeedEntry, SignedFeedMessage},
    keys::{
        CreateKeyRequest, DeleteKeyRequest, ExchangeTokenRequest, Key,
        keys_service_client::KeysServiceClient, sessions_service_client::SessionsServiceClient,
    },
};
use tempfile::TempDir;
use tonic::{Request, metadata::MetadataValue, transport::Channel};

use crate::{api::Api, client::Client};

pub(crate) const ADMIN_EMAIL: &str = "admin@keymeter.local";
pub(crate) const ADMIN_PASSWORD: &str = "correct horse battery staple";

/// The ports of one stack.
pub(crate) struct Ports {
    pub(crate) keys: u16,
    pub(crate) keys_health: u16,
    pub(crate) edge: u16,
    pub(crate) edge_health: u16,
    pub(crate) ingest_health: u16,
    pub(crate) query: u16,
    pub(crate) query_health: u16,
    pub(crate) ui: u16,
    pub(crate) ui_health: u16,
}

/// A running stack. Its services may not be ready yet: see [`Stack::ready`].
pub(crate) struct Stack {
    pub(crate) ports: Ports,
    pub(crate) keys: Service,
    pub(crate) edge: Service,
    pub(crate) ingest: Service,
    pub(crate) query: Service,
    pub(crate) ui: Service,
    pub(crate) nats: Nats,
    pub(crate) postgres: Postgres,
    pub(crate) clickhouse: ClickHouse,
    pub(crate) api: Api,
    pub(crate) workspace: String,
    service_token: String,
    folder: TempDir,
}

/// A key made for a test.
pub(crate) struct MadeKey {
    /// `workspaces/{workspace}/keys/{key}`.
    pub(crate) name: String,
    pub(crate) secret: String,
}

impl MadeKey {
    /// `key_…`
    pub(crate) fn id(&self) -> &str {
        self.name.rsplit('/').next().unwrap()
    }
}

impl Stack {
    /// A stack in which everything is ready.
    pub(crate) async fn start() -> Self {
        let (nats, postgres, clickhouse) =
            tokio::join!(Nats::start(), Postgres::start(), ClickHouse::start());
        let mut stack = Self::start_on(nats, postgres, clickhouse).await;
        stack.ready().await;
        stack
    }

    /// As [`Self::start`], with services that log all that they can.
    pub(crate) async fn start_talkative() -> Self {
        Self::start_in(vec![("RUST_LOG", "trace".to_owned())]).await
    }

    /// As [`Self::start`], with more settings of all services; the last one of a name counts.
    pub(crate) async fn start_in(all: Environment) -> Self {
        Self::start_before(ClickHouse::start().await, all).await
    }

    /// As [`Self::start_in`], with a ClickHouse that runs already.
    pub(crate) async fn start_before(clickhouse: ClickHouse, all: Environment) -> Self {
        let (nats, postgres) = tokio::join!(Nats::start(), Postgres::start());
        let mut stack = Self::start_with(nats, postgres, clickhouse, all, Vec::new()).await;
        stack.ready().await;
        stack
    }

    /// Starts the services on parts that may be stopped; Postgres must run.
    pub(crate) async fn start_on(nats: Nats, postgres: Postgres, clickhouse: ClickHouse) -> Self {
        Self::start_with(nats, postgres, clickhouse, Vec::new(), Vec::new()).await
    }

    /// A stack in which everything is ready, with more settings of the edge; the last one of a name counts.
    pub(crate) async fn start_with_edge(
        nats: Nats,
        postgres: Postgres,
        clickhouse: ClickHouse,
        edge: Environment,
    ) -> Self {
        let mut stack = Self::start_with(nats, postgres, clickhouse, Vec::new(), edge).await;
        stack.ready().await;
        stack
    }

    /// A stack in which everything is ready, with more settings of keys.
    pub(crate) async fn start_with_keys(keys: Environment) -> Self {
        let (nats, postgres, clickhouse) =
            tokio::join!(Nats::start(), Postgres::start(), ClickHouse::start());
        let mut stack = Self::start_with(nats, postgres, clickhouse, keys, Vec::new()).await;
        stack.ready().await;
        stack
    }

    async fn start_with(
        nats: Nats,
        postgres: Postgres,
        clickhouse: ClickHouse,
        all: Environment,
        edge: Environment,
    ) -> Self {
        let api = Api::start().await;
        let folder = tempfile::tempdir().unwrap();
        let ports = Ports::free();
        let service_url = postgres.url_as("keymeter_keys");
        let keys_environment = keys_environment(&ports, &service_url, &nats.url(), folder.path());
        migrate(&keys_environment, &postgres.url()).await;
        let (workspace, service_token) = bootstrap(&keys_environment, folder.path()).await;
        let feed_keys = run("keys", &["feed-keys"], &keys_environment).await;
        fs::write(folder.path().join("feed-keys"), feed_keys).unwrap();
        let spawn = async |name: &str, mut environment: Environment| {
            environment.extend(all.iter().cloned());
            spawn(name, &environment).await
        };
        let keys = spawn("keys", keys_environment).await;
        let mut edge_settings = edge_environment(&ports, &nats.url(), &api.url(), folder.path());
        edge_settings.extend(edge);
        let edge = spawn("edge", edge_settings).await;
        let ingest = spawn("ingest", ingest_environment(&ports, &nats.url(), &clickhouse.url())).await;
        let query = spawn("query", query_environment(&ports, &clickhouse.url())).await;
        let ui = spawn("ui", ui_environment(&ports)).await;
        Self {
            ports,
            keys,
            edge,
            ingest,
            query,
            ui,
            nats,
            postgres,
            clickhouse,
            api,
            workspace,
            service_token,
            folder,
        }
    }

    /// Waits until every service says that it misses nothing.
    pub(crate) async fn ready(&mut self) {
        let ports = &self.ports;
        for (service, port) in [
            (&mut self.keys, ports.keys_health),
            (&mut self.ingest, ports.ingest_health),
            (&mut self.edge, ports.edge_health),
            (&mut self.query, ports.query_health),
            (&mut self.ui, ports.ui_health),
        ] {
            service.wait_ready(&format!("127.0.0.1:{port}")).await;
        }
    }

    /// Where the services keep their files: the edge its spool.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All that the services wrote to their logs.
    pub(crate) fn logs(&self) -> [(&'static str, String); 5] {
        [
            ("keys", self.keys.log()),
            ("edge", self.edge.log()),
            ("ingest", self.ingest.log()),
            ("query", self.query.log()),
            ("ui", self.ui.log()),
        ]
    }

    /// Makes the tables of Postgres and the rights on them as they are to be, also after a restore.
    pub(crate) async fn migrate(&self) {
        let service_url = self.postgres.url_as("keymeter_keys");
        let environment = keys_environment(&self.ports, &service_url, &self.nats.url(), self.folder.path());
        migrate(&environment, &self.postgres.url()).await;
    }

    pub(crate) fn service_token(&self) -> &str {
        &self.service_token
    }

    pub(crate) fn edge_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.edge)
    }

    pub(crate) fn client(&self, secret: &str) -> Client {
        Client::new(&self.edge_url(), secret)
    }

    /// A message with a fresh access token of the workspace's service token.
    pub(crate) async fn signed<T>(&self, message: T) -> Request<T> {
        let mut sessions = SessionsServiceClient::new(self.keys_channel().await);
        let exchange = ExchangeTokenRequest { service_token: self.service_token.clone() };
        let token = sessions.exchange_token(exchange).await.unwrap().into_inner().access_token.unwrap().token;
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", MetadataValue::try_from(format!("Bearer {token}")).unwrap());
        request
    }

    pub(crate) async fn keys_channel(&self) -> Channel {
        channel(self.ports.keys).await
    }

    pub(crate) async fn query_channel(&self) -> Channel {
        channel(self.ports.query).await
    }

    /// Makes a key and waits until the edge takes it.
    pub(crate) async fn make_key(&self, display_name: &str) -> MadeKey {
        let key = Key { display_name: display_name.to_owned(), ..Key::default() };
        let create = CreateKeyRequest {
            parent: self.workspace.clone(),
            key: Some(key),
            ..CreateKeyRequest::default()
        };
        let request = self.signed(create).await;
        let made =
            KeysServiceClient::new(self.keys_channel().await).create_key(request).await.unwrap().into_inner();
        let made = MadeKey { name: made.key.unwrap().name, secret: made.secret };
        self.applied(&made, 1).await;
        made
    }

    /// Waits until the edge verifies with this version of the key. Asks NATS, since a call would be counted.
    pub(crate) async fn applied(&self, key: &MadeKey, version: u64) {
        let hash = SecretHash::of(&key.secret).to_string();
        let jetstream = async_nats::jetstream::new(async_nats::connect(self.nats.url()).await.unwrap());
        let feed = jetstream.get_key_value(proto::nats::KEYS_BY_HASH_BUCKET).await.unwrap();
        let edges = jetstream.get_key_value(proto::nats::EDGES_BUCKET).await.unwrap();
        parts::eventually("the edge has applied the key", async || {
            let signed = SignedFeedMessage::decode(feed.get(hash.as_str()).await.ok()??).unwrap();
            let entry = KeyFeedEntry::decode(signed.message.as_slice()).unwrap();
            let mut names = edges.keys().await.ok()?;
            let edge = names.next().await?.ok()?;
            let heartbeat = EdgeHeartbeat::decode(edges.get(edge).await.ok()??).unwrap();
            (entry.version >= version && heartbeat.feed_version >= entry.feed_version).then_some(())
        })
        .await;
    }

    /// Deletes a key and waits until the edge has heard of it.
    pub(crate) async fn delete_key(&self, key: &MadeKey) {
        let request =
            self.signed(DeleteKeyRequest { name: key.name.clone(), ..DeleteKeyRequest::default() }).await;
        let deleted = KeysServiceClient::new(self.keys_channel().await).delete_key(request).await.unwrap();
        self.applied(key, deleted.into_inner().version).await;
    }
}

impl Ports {
    pub(crate) fn free() -> Self {
        Self {
            keys: free_port(),
            keys_health: free_port(),
            edge: free_port(),
            edge_health: free_port(),
            ingest_health: free_port(),
            query: free_port(),
            query_health: free_port(),
            ui: free_port(),
            ui_health: free_port(),
        }
    }
}

pub(crate) type Environment = Vec<(&'static str, String)>;

pub(crate) fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

pub(crate) fn keys_environment(ports: &Ports, postgres: &str, nats: &str, folder: &Path) -> Environment {
    let kek = folder.join("kek");
    fs::write(&kek, "07".repeat(32)).unwrap();
    vec![
        ("KEYMETER_KEYS_GRPC_ADDR", local(ports.keys)),
        ("KEYMETER_KEYS_HEALTH_ADDR", local(ports.keys_health)),
        ("KEYMETER_KEYS_DATABASE_URL", postgres.to_owned()),
        ("KEYMETER_KEYS_NATS_URL", nats.to_owned()),
        ("KEYMETER_KEYS_KEK_FILE", kek.display().to_string()),
    ]
}

pub(crate) fn edge_environment(ports: &Ports, nats: &str, upstream: &str, folder: &Path) -> Environment {
    vec![
        ("KEYMETER_EDGE_ADDR", local(ports.edge)),
        ("KEYMETER_EDGE_HEALTH_ADDR", local(ports.edge_health)),
        ("KEYMETER_EDGE_UPSTREAM_URL", upstream.to_owned()),
        ("KEYMETER_EDGE_NATS_URL", nats.to_owned()),
        ("KEYMETER_EDGE_SPOOL_DIR", folder.join("spool").display().to_string()),
        ("KEYMETER_EDGE_FEED_KEYS_FILE", folder.join("feed-keys").display().to_string()),
    ]
}

pub(crate) fn ingest_environment(ports: &Ports, nats: &str, clickhouse: &str) -> Environment {
    vec![
        ("KEYMETER_INGEST_HEALTH_ADDR", local(ports.ingest_health)),
        ("KEYMETER_INGEST_NATS_URL", nats.to_owned()),
        ("KEYMETER_INGEST_CLICKHOUSE_URL", clickhouse.to_owned()),
    ]
}

pub(crate) fn query_environment(ports: &Ports, clickhouse: &str) -> Environment {
    vec![
        ("KEYMETER_QUERY_GRPC_ADDR", local(ports.query)),
        ("KEYMETER_QUERY_HEALTH_ADDR", local(ports.query_health)),
        ("KEYMETER_QUERY_CLICKHOUSE_URL", clickhouse.to_owned()),
        ("KEYMETER_QUERY_KEYS_URL", format!("http://{}", local(ports.keys))),
    ]
}

pub(crate) fn ui_environment(ports: &Ports) -> Environment {
    vec![
        ("KEYMETER_UI_ADDR", local(ports.ui)),
        ("KEYMETER_UI_HEALTH_ADDR", local(ports.ui_health)),
        ("KEYMETER_UI_KEYS_URL", format!("http://{}", local(ports.keys))),
        ("KEYMETER_UI_QUERY_URL", format!("http://{}", local(ports.query))),
        ("KEYMETER_UI_PUBLIC_URL", format!("http://{}", local(ports.ui))),
        ("KEYMETER_UI_EDGE_URL", format!("http://{}", local(ports.edge))),
    ]
}

pub(crate) async fn spawn(name: &str, environment: &Environment) -> Service {
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Service::spawn(name, &environment).await
}

/// Makes the tables, as their owner, and the role that the service runs as.
pub(crate) async fn migrate(environment: &Environment, owner_url: &str) {
    let mut environment = environment.clone();
    environment.push(("KEYMETER_KEYS_OWNER_DATABASE_URL", owner_url.to_owned()));
    run("keys", &["migrate"], &environment).await;
}

/// Runs a command to its end; what it printed.
pub(crate) async fn run(name: &str, arguments: &[&str], environment: &Environment) -> String {
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut command = Service::spawn_with(name, arguments, &environment);
    assert!(command.wait().await.success(), "{}", command.log());
    command.log()
}

/// Makes the administrator, the workspace and its service token; returns the workspace's name and the token.
pub(crate) async fn bootstrap(environment: &Environment, folder: &Path) -> (String, String) {
    let (password, token) = (folder.join("password"), folder.join("service-token"));
    fs::write(&password, ADMIN_PASSWORD).unwrap();
    let (password, token) = (password.display().to_string(), token.display().to_string());
    let arguments = [
        "bootstrap",
        "--email",
        ADMIN_EMAIL,
        "--password-file",
        &password,
        "--workspace-name",
        "Acme",
        "--service-token-file",
        &token,
    ];
    let log = run("keys", &arguments, environment).await;
    let line =
        log.lines().find(|line| line.contains("workspace_id")).expect("bootstrap prints one JSON line");
    let made: serde_json::Value = serde_json::from_str(line).unwrap();
    let workspace = format!("workspaces/{}", made["workspace_id"].as_str().unwrap());
    (workspace, fs::read_to_string(token).unwrap().trim().to_owned())
}

pub(crate) async fn channel(port: u16) -> Channel {
    Channel::from_shared(format!("http://{}", local(port))).unwrap().connect().await.unwrap()
}
