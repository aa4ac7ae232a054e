//! Two of every service behind a cluster of three NATS servers, whose streams and buckets all three hold, on one Postgres
//! and one ClickHouse.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use domain::RequestId;
use parts::{ClickHouse, NatsCluster, Postgres, Service, eventually};
use proto::{
    keys::{
        CreateKeyRequest, DeleteKeyRequest, ExchangeTokenRequest, Key,
        keys_service_client::KeysServiceClient, sessions_service_client::SessionsServiceClient,
    },
    timestamp,
    usage::{GetSummaryRequest, usage_service_client::UsageServiceClient},
};
use tempfile::TempDir;
use time::OffsetDateTime;
use tonic::{Request, metadata::MetadataValue};

use crate::{
    api::Api,
    client::Client,
    stack::{
        self, Environment, MadeKey, Ports, channel, edge_environment, ingest_environment, keys_environment,
        local, query_environment, ui_environment,
    },
    usage::last_day,
};

/// One of each service; each knows only those of the same half.
pub(crate) struct Half {
    pub(crate) ports: Ports,
    pub(crate) keys: Service,
    pub(crate) edge: Service,
    pub(crate) ingest: Service,
    pub(crate) query: Service,
    pub(crate) ui: Service,
}

/// Two halves and what both share.
pub(crate) struct Twofold {
    pub(crate) halves: [Half; 2],
    pub(crate) nats: NatsCluster,
    pub(crate) clickhouse: ClickHouse,
    _postgres: Postgres,
    _api: Api,
    workspace: String,
    service_token: String,
    _folder: TempDir,
}

impl Half {
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
            service.wait_ready(&local(port)).await;
        }
    }

    pub(crate) fn client(&self, secret: &str) -> Client {
        Client::new(&format!("http://{}", local(self.ports.edge)), secret)
    }
}

impl Twofold {
    /// Both halves, ready.
    pub(crate) async fn start(nats: NatsCluster) -> Self {
        let (postgres, clickhouse) = tokio::join!(Postgres::start(), ClickHouse::start());
        let api = Api::start().await;
        let folder = tempfile::tempdir().unwrap();
        let places = [Place::new(folder.path(), "a"), Place::new(folder.path(), "b")];
        let service_url = postgres.url_as("keymeter_keys");
        let keys = places.each_ref().map(|place| {
            replicated("KEYS", keys_environment(&place.ports, &service_url, &nats.url(), &place.folder))
        });
        stack::migrate(&keys[0], &postgres.url()).await;
        let (workspace, service_token) = stack::bootstrap(&keys[0], folder.path()).await;
        let feed_keys = stack::run("keys", &["feed-keys"], &keys[0]).await;
        let public_url = format!("http://{}", local(places[0].ports.ui));
        let mut halves = Vec::new();
        for (Place { ports, folder }, keys) in places.into_iter().zip(keys) {
            fs::write(folder.join("feed-keys"), &feed_keys).unwrap();
            let ingest = replicated("INGEST", ingest_environment(&ports, &nats.url(), &clickhouse.url()));
            let mut ui = ui_environment(&ports);
            ui.push(("KEYMETER_UI_PUBLIC_URL", public_url.clone()));
            halves.push(Half {
                keys: stack::spawn("keys", &keys).await,
                edge: stack::spawn("edge", &edge_environment(&ports, &nats.url(), &api.url(), &folder)).await,
                ingest: stack::spawn("ingest", &ingest).await,
                query: stack::spawn("query", &query_environment(&ports, &clickhouse.url())).await,
                ui: stack::spawn("ui", &ui).await,
                ports,
            });
        }
        let Ok(halves) = <[Half; 2]>::try_from(halves) else { unreachable!("there are two places") };
        let (_postgres, _api, _folder) = (postgres, api, folder);
        let mut twofold =
            Self { halves, nats, clickhouse, _postgres, _api, workspace, service_token, _folder };
        twofold.ready().await;
        twofold
    }

    pub(crate) async fn ready(&mut self) {
        for half in &mut self.halves {
            half.ready().await;
        }
    }

    /// Which server of NATS leads a stream now.
    pub(crate) async fn leader_of(&self, stream: &str) -> usize {
        let addresses = self.nats.url();
        let servers: Vec<_> = addresses.split(',').collect();
        let jetstream = async_nats::jetstream::new(async_nats::connect(servers.as_slice()).await.unwrap());
        let leader = eventually("the stream has a leader", async || {
            jetstream.get_stream(stream).await.ok()?.cached_info().cluster.clone()?.leader
        });
        self.nats.named(&leader.await)
    }

    /// A message with a fresh access token, given by the keys service of a half.
    async fn signed<T>(&self, half: usize, message: T) -> Request<T> {
        let mut sessions = SessionsServiceClient::new(channel(self.halves[half].ports.keys).await);
        let exchange = ExchangeTokenRequest { service_token: self.service_token.clone() };
        let token = sessions.exchange_token(exchange).await.unwrap().into_inner().access_token.unwrap().token;
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", MetadataValue::try_from(format!("Bearer {token}")).unwrap());
        request
    }

    /// Makes a key by the keys service of a half; no edge may know it yet.
    pub(crate) async fn make_key(&self, half: usize, display_name: &str) -> MadeKey {
        let key = Key { display_name: display_name.to_owned(), ..Key::default() };
        let create = CreateKeyRequest {
            parent: self.workspace.clone(),
            key: Some(key),
            ..CreateKeyRequest::default()
        };
        let request = self.signed(half, create).await;
        let mut keys = KeysServiceClient::new(channel(self.halves[half].ports.keys).await);
        let made = keys.create_key(request).await.unwrap().into_inner();
        MadeKey { name: made.key.unwrap().name, secret: made.secret }
    }

    /// Deletes a key by the keys service of a half; no edge may have heard of it yet.
    pub(crate) async fn delete_key(&self, half: usize, key: &MadeKey) {
        let delete = DeleteKeyRequest { name: key.name.clone(), ..DeleteKeyRequest::default() };
        let request = self.signed(half, delete).await;
        let mut keys = KeysServiceClient::new(channel(self.halves[half].ports.keys).await);
        keys.delete_key(request).await.unwrap();
    }

    /// All calls, as the query service of a half counts them, once it says that it holds every call of before now.
    pub(crate) async fn total(&self, half: usize) -> u64 {
        let now = OffsetDateTime::now_utc();
        eventually("usage is complete up to now", async || {
            let ask = GetSummaryRequest {
                parent: self.workspace.clone(),
                filter: Some(last_day(&[])),
                ..Default::default()
            };
            let request = self.signed(half, ask).await;
            let mut usage = UsageServiceClient::new(channel(self.halves[half].ports.query).await);
            let summary = usage.get_summary(request).await.unwrap().into_inner();
            let complete = summary.freshness?.complete_up_to.as_ref().and_then(timestamp::from_proto)?;
            (complete >= now).then(|| summary.counts.unwrap().total_count)
        })
        .await
    }

    /// Asserts that these calls, and no others but at most `unanswered`, are in ClickHouse, each once, and that both
    /// query services say so.
    pub(crate) async fn assert_counted_once(&self, answered: &BTreeSet<String>, unanswered: u64) {
        let totals = [self.total(0).await, self.total(1).await];
        let rows = "select replaceAll(toString(request_id), '-', '') from keymeter.request_events";
        let rows = self.clickhouse.query(rows).await;
        let count = rows.lines().count();
        let counted: BTreeSet<_> = rows.lines().collect();
        assert_eq!(count, counted.len(), "a call is counted twice");
        let answered: BTreeSet<_> = answered.iter().map(|id| in_hexadecimal(id)).collect();
        let lost: Vec<_> = answered.iter().filter(|id| !counted.contains(id.as_str())).collect();
        assert!(lost.is_empty(), "{} of {} answered calls are lost: {lost:?}", lost.len(), answered.len());
        let extra = count - answered.len();
        assert!(
            u64::try_from(extra).unwrap() <= unanswered,
            "{extra} calls were never answered, {unanswered} were cut off"
        );
        assert_eq!(totals, [u64::try_from(count).unwrap(); 2]);
    }
}

/// Where one half is.
struct Place {
    ports: Ports,
    folder: PathBuf,
}

impl Place {
    fn new(folder: &Path, name: &str) -> Self {
        let folder = folder.join(name);
        fs::create_dir(&folder).unwrap();
        Self { ports: Ports::free(), folder }
    }
}

/// With streams and buckets on all servers of NATS.
fn replicated(service: &str, mut environment: Environment) -> Environment {
    let name = match service {
        "KEYS" => "KEYMETER_KEYS_NATS_REPLICAS",
        _ => "KEYMETER_INGEST_NATS_REPLICAS",
    };
    environment.push((name, "3".to_owned()));
    environment
}

fn in_hexadecimal(request_id: &str) -> String {
    let id: RequestId = request_id.parse().unwrap();
    id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
