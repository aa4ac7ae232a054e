//! Postgres, NATS, the keys service and edges, as processes of their own, and an API that answers everything.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, ensure};
use async_nats::jetstream::{self, kv, stream};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use parts::{Nats, Postgres, Service, free_port};
use proto::{
    keys::{
        CreateKeyRequest, CreateKeyResponse, ExchangeTokenRequest, Key,
        keys_service_client::KeysServiceClient, sessions_service_client::SessionsServiceClient,
    },
    nats,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tonic::{metadata::MetadataValue, transport::Channel};

/// Shards that edges are started with by default.
const SHARDS: u16 = 4;

/// What all measurements share.
pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) nats: Nats,
    pub(crate) workspace: String,
    keys_addr: String,
    service_token: String,
    api: SocketAddr,
    folder: tempfile::TempDir,
    _keys: Service,
}

/// An edge as a process.
pub(crate) struct Edge {
    pub(crate) service: Service,
    pub(crate) addr: String,
    pub(crate) health: String,
}

impl World {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let (postgres, nats) = tokio::join!(Postgres::start(), Nats::start());
        make_streams(&nats).await?;
        let folder = tempfile::tempdir()?;
        let file = |name: &str| folder.path().join(name);
        fs::write(file("kek"), "07".repeat(32))?;
        fs::write(file("password"), "correct horse battery staple")?;
        let (grpc, health) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let kek = file("kek").display().to_string();
        let (owner_url, service_url) = (postgres.url(), postgres.url_as("keymeter_keys"));
        let environment = [
            ("KEYMETER_KEYS_GRPC_ADDR", grpc.as_str()),
            ("KEYMETER_KEYS_HEALTH_ADDR", &health),
            ("KEYMETER_KEYS_DATABASE_URL", &service_url),
            ("KEYMETER_KEYS_OWNER_DATABASE_URL", &owner_url),
            ("KEYMETER_KEYS_NATS_URL", &nats.url()),
            ("KEYMETER_KEYS_KEK_FILE", &kek),
        ];
        let (password, token) = (file("password").display().to_string(), file("token").display().to_string());
        let bootstrap = [
            "bootstrap",
            "--email",
            "admin@keymeter.local",
            "--password-file",
            &password,
            "--workspace-name",
            "Bench",
            "--service-token-file",
            &token,
        ];
        run(&["migrate"], &environment).await?;
        let made = run(&bootstrap, &environment).await?;
        let made =
            made.lines().find(|line| line.contains("workspace_id")).context("bootstrap prints a line")?;
        let made: serde_json::Value = serde_json::from_str(made)?;
        fs::write(file("feed-keys"), run(&["feed-keys"], &environment).await?)?;
        let mut keys = Service::spawn("keys", &environment).await;
        keys.wait_ready(&health).await;
        Ok(Self {
            workspace: format!("workspaces/{}", made["workspace_id"].as_str().context("an id")?),
            service_token: fs::read_to_string(file("token"))?.trim().to_owned(),
            keys_addr: format!("http://{grpc}"),
            api: serve_api().await?,
            postgres,
            nats,
            folder,
            _keys: keys,
        })
    }

    /// Starts an edge; it may not be ready yet.
    pub(crate) async fn spawn_edge(&self, name: &str) -> Edge {
        let path = |name: &str| -> PathBuf { self.folder.path().join(name) };
        let (addr, health) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let environment = [
            ("KEYMETER_EDGE_ADDR", addr.as_str()),
            ("KEYMETER_EDGE_HEALTH_ADDR", &health),
            ("KEYMETER_EDGE_UPSTREAM_URL", &format!("http://{}", self.api)),
            ("KEYMETER_EDGE_NATS_URL", &self.nats.url()),
            ("KEYMETER_EDGE_SPOOL_DIR", &path(name).display().to_string()),
            ("KEYMETER_EDGE_FEED_KEYS_FILE", &path("feed-keys").display().to_string()),
        ];
        let service = Service::spawn("edge", &environment).await;
        Edge { service, addr, health }
    }

    pub(crate) async fn keys(&self) -> anyhow::Result<KeysServiceClient<Channel>> {
        Ok(KeysServiceClient::connect(self.keys_addr.clone()).await?)
    }

    /// An access token of the workspace's service token; good for 5 minutes.
    pub(crate) async fn token(&self) -> anyhow::Result<MetadataValue<tonic::metadata::Ascii>> {
        let mut sessions = SessionsServiceClient::connect(self.keys_addr.clone()).await?;
        let asked = ExchangeTokenRequest { service_token: self.service_token.clone() };
        let token = sessions.exchange_token(asked).await?.into_inner().access_token.context("a token")?;
        Ok(format!("Bearer {}", token.token).parse()?)
    }

    pub(crate) async fn create(
        &self,
        keys: &mut KeysServiceClient<Channel>,
        token: &MetadataValue<tonic::metadata::Ascii>,
    ) -> anyhow::Result<CreateKeyResponse> {
        let key = Key { display_name: "measured".into(), ..Key::default() };
        let request =
            CreateKeyRequest { parent: self.workspace.clone(), key: Some(key), ..Default::default() };
        Ok(keys.create_key(signed(token, request)).await?.into_inner())
    }
}

/// A caller of APIs that keeps its connections.
#[derive(Clone)]
pub(crate) struct Caller(Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>);

impl Caller {
    pub(crate) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// Calls the API behind an edge.
    pub(crate) async fn call(&self, edge: &str, secret: &str) -> anyhow::Result<StatusCode> {
        let request = Request::get(format!("http://{edge}/v1/orders/17")).header("x-api-key", secret);
        let response = self.0.request(request.body(Full::default())?).await?;
        let status = response.status();
        response.into_body().collect().await?;
        Ok(status)
    }
}

/// A request with an access token.
pub(crate) fn signed<T>(token: &MetadataValue<tonic::metadata::Ascii>, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", token.clone());
    request
}

/// Runs a command of keys to its end; what it printed.
async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<String> {
    let mut command = Service::spawn_with("keys", arguments, environment);
    ensure!(command.wait().await.success(), "{}", command.log());
    Ok(command.log())
}

/// What ingest makes. Events are thrown away once there are many.
async fn make_streams(nats: &Nats) -> anyhow::Result<()> {
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    for shard in nats::all_shards(SHARDS) {
        let config = stream::Config {
            name: nats::request_events_stream(shard),
            subjects: vec![nats::request_events_subject(shard)],
            max_bytes: 64 << 20,
            ..Default::default()
        };
        context.create_stream(config).await?;
    }
    for bucket in [nats::EDGES_BUCKET, nats::EDGE_COMMITS_BUCKET] {
        context.create_key_value(kv::Config { bucket: bucket.into(), ..Default::default() }).await?;
    }
    Ok(())
}

/// An API that answers every request without a body with 200.
async fn serve_api() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = connection.set_nodelay(true);
                let mut heard = Vec::new();
                while connection.read_buf(&mut heard).await.is_ok_and(|bytes| bytes > 0) {
                    if heard.ends_with(b"\r\n\r\n") {
                        heard.clear();
                        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                    }
                }
            });
        }
    });
    Ok(addr)
}
