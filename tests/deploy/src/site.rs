//! A place where containers of a deployment run as processes: the entry command and the environment are those of the
//! deployment, only host names, ports and paths are other ones.

use std::{fs, path::Path};

use parts::{ClickHouse, Postgres, Service, eventually, free_port, request};
use proto::{
    keys::{
        CreateKeyRequest, ExchangeTokenRequest, Key, keys_service_client::KeysServiceClient,
        sessions_service_client::SessionsServiceClient,
    },
    timestamp,
    usage::{GetSummaryRequest, UsageFilter, usage_service_client::UsageServiceClient},
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use tonic::{Request, metadata::MetadataValue, transport::Channel};

use crate::users::Users;

/// What is started of a container.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    /// The binary that its image holds.
    pub(crate) binary: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

/// A key that a call was made with.
pub(crate) struct Made {
    /// workspaces/{workspace_id}.
    pub(crate) parent: String,
    /// Its own.
    pub(crate) name: String,
    pub(crate) secret: String,
    /// To go on asking with.
    pub(crate) token: String,
}

/// Real stores, and where what the deployment names is here.
pub(crate) struct Site {
    folder: TempDir,
    moved: Vec<(String, String)>,
    clickhouse: ClickHouse,
    /// Who signed in to ClickHouse.
    pub(crate) users: Users,
    /// Ended with the site, in this order.
    _parts: (Vec<Service>, Service, Postgres),
}

/// What the stores of a deployment are made with.
pub(crate) struct Stores {
    /// The NATS server's configuration, with the port 4222, the port 8222 and the folder /data.
    pub(crate) nats: String,
    /// What it includes as `users.conf`.
    pub(crate) nats_users: String,
    /// The users of ClickHouse.
    pub(crate) users: String,
}

impl Site {
    pub(crate) async fn start(stores: Stores) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (postgres, mut clickhouse) = tokio::join!(Postgres::start(), ClickHouse::start());
        clickhouse.restart_with_users(&beside_the_servers_own(&stores.users)).await;
        // As POSTGRES_USER and POSTGRES_DB do.
        let _ = postgres.query("create role keymeter superuser login");
        let _ = postgres.query("create database keymeter owner keymeter");
        let (nats_port, nats_health) = (free_port().to_string(), free_port().to_string());
        let configuration = stores
            .nats
            .replace("4222", &nats_port)
            .replace("8222", &nats_health)
            .replace("/data", folder.path().join("nats").to_str().unwrap());
        fs::write(folder.path().join("nats.conf"), configuration).unwrap();
        fs::write(folder.path().join("users.conf"), stores.nats_users).unwrap();
        let arguments = ["--config", folder.path().join("nats.conf").to_str().unwrap()].map(str::to_owned);
        let nats = Service::spawn_with("nats-server", &arguments.each_ref().map(String::as_str), &[]);
        let postgres_address =
            postgres.url().rsplit('@').next().unwrap().split('/').next().unwrap().to_owned();
        let users = Users::default();
        let moved = vec![
            ("postgres:5432".to_owned(), postgres_address),
            ("nats:4222".to_owned(), format!("127.0.0.1:{nats_port}")),
            ("http://clickhouse:8123".to_owned(), users.before(&clickhouse.url()).await),
        ];
        Self { folder, moved, clickhouse, users, _parts: (Vec::new(), nats, postgres) }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// From now on `there` is `here`, wherever it stands.
    pub(crate) fn move_to(&mut self, there: &str, here: impl Into<String>) {
        self.moved.push((there.to_owned(), here.into()));
    }

    /// A port of a service: where it listens, and as `host` where others find it.
    pub(crate) fn move_port(&mut self, host: &str, port: u16) {
        let here = format!("127.0.0.1:{}", free_port());
        self.move_to(&format!("0.0.0.0:{port}"), here.clone());
        self.move_to(&format!("http://{host}:{port}"), format!("http://{here}"));
    }

    /// What the deployment says, as it is here.
    pub(crate) fn here(&self, text: &str) -> String {
        self.moved.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    /// Starts the container.
    pub(crate) fn start_container(&self, container: &Container) -> Service {
        self.start_with(container, &container.arguments)
    }

    fn start_with(&self, container: &Container, arguments: &[String]) -> Service {
        let environment: Vec<_> =
            container.environment.iter().map(|(name, value)| (name.as_str(), self.here(value))).collect();
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let arguments: Vec<_> = arguments.iter().map(|argument| self.here(argument)).collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        Service::spawn_with(&container.binary, &arguments, &environment)
    }

    /// Starts it and waits until it has done its work.
    pub(crate) async fn run(&self, container: &Container) {
        let mut once = self.start_container(container);
        assert!(once.wait().await.success(), "{container:?}: {}", once.log());
    }

    /// What its health check says: whether it is healthy, and what it printed.
    pub(crate) async fn health(&self, container: &Container) -> (bool, String) {
        self.command(container, &["healthcheck"]).await
    }

    /// Runs a command of its binary: whether that went well, and what it printed.
    pub(crate) async fn command(&self, container: &Container, arguments: &[&str]) -> (bool, String) {
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut once = self.start_with(container, &arguments);
        (once.wait().await.success(), once.log())
    }

    /// What NATS refused, by its own log.
    pub(crate) fn refused_by_nats(&self) -> Vec<String> {
        let log = self._parts.1.log();
        log.lines().filter(|line| line.contains("Violation")).map(str::to_owned).collect()
    }

    /// Ends all that is kept and starts it again; `containers` are those that it was started from.
    pub(crate) async fn restart(&mut self, containers: &[Container]) {
        for service in self._parts.0.iter_mut().rev() {
            assert!(service.sigterm().await.success(), "{}", service.log());
        }
        self._parts.0.clear();
        self.keep(containers).await;
    }

    /// How many calls ClickHouse has.
    pub(crate) async fn calls(&self) -> String {
        self.clickhouse.query("select count() from keymeter.request_events").await.trim().to_owned()
    }

    /// Starts them all, waits until their own health checks are content, and keeps them.
    pub(crate) async fn keep(&mut self, containers: &[Container]) {
        for container in containers {
            let service = self.start_container(container);
            self._parts.0.push(service);
        }
        for (index, container) in containers.iter().enumerate().filter(|(_, one)| one.binary != "demo") {
            eventually(&format!("{} is healthy", container.binary), async || {
                let service = &mut self._parts.0[index];
                assert!(service.is_running(), "{container:?}: {}", service.log());
                self.health(container).await.0
            })
            .await;
        }
    }

    /// Makes a key with this service token, calls the API through the edge with it, and waits until query has counted
    /// that call.
    pub(crate) async fn a_call_is_counted(
        &self,
        service_token: &str,
        [keys, query, edge]: [&str; 3],
    ) -> Made {
        let [keys, query, edge] = [keys, query, edge].map(|url| self.here(url));
        let channel =
            async |url: &str| Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
        let exchange = ExchangeTokenRequest { service_token: service_token.to_owned() };
        let mut sessions = SessionsServiceClient::new(channel(&keys).await);
        let exchanged = sessions.exchange_token(exchange).await.unwrap().into_inner();
        let (parent, token) = (exchanged.workspace, exchanged.access_token.unwrap().token);
        let key = Key { display_name: "First".to_owned(), ..Key::default() };
        let create =
            CreateKeyRequest { parent: parent.clone(), key: Some(key), ..CreateKeyRequest::default() };
        let made = KeysServiceClient::new(channel(&keys).await).create_key(signed(create, &token)).await;
        let made = made.unwrap().into_inner();
        let (name, secret) = (made.key.unwrap().name, made.secret);
        // Until the edge has heard of the key its calls are on nobody's record.
        eventually("the edge takes the key", async || call(&edge, &secret).await == 200).await;
        let mut usage = UsageServiceClient::new(channel(&query).await);
        let now = OffsetDateTime::now_utc();
        let filter = UsageFilter {
            from: Some(timestamp::to_proto(now - Duration::HOUR)),
            to: Some(timestamp::to_proto(now + Duration::HOUR)),
            ..UsageFilter::default()
        };
        eventually("the call is counted", async || {
            let ask = GetSummaryRequest {
                parent: parent.clone(),
                filter: Some(filter.clone()),
                ..GetSummaryRequest::default()
            };
            let summary = usage.get_summary(signed(ask, &token)).await.ok()?.into_inner();
            (summary.counts?.completed_count == 1).then_some(())
        })
        .await;
        assert_eq!(self.calls().await, "1");
        Made { parent, name, secret, token }
    }
}

/// Calls the API through the edge; its status.
pub(crate) async fn call(edge: &str, secret: &str) -> u16 {
    let authorization = format!("Bearer {secret}");
    let headers = [("Authorization", authorization.as_str())];
    request("GET", edge.trim_start_matches("http://"), "/v1/orders", &headers, "").await.unwrap().status
}

/// A server reads a file of users.d over its own users.xml, the engine reads one file: this is what of the server's own
/// the other file relies on.
fn beside_the_servers_own(users: &str) -> String {
    let own = "<clickhouse><profiles><default/></profiles><quotas><default/></quotas>";
    let default = "<default><password></password><profile>default</profile><quota>default</quota>";
    let merged = users.replacen("<clickhouse>", own, 1).replacen(
        "<default><networks",
        &format!("{default}<networks"),
        1,
    );
    assert!(merged.contains(default), "{users}");
    merged
}

pub(crate) fn signed<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}
