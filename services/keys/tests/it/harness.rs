//! The service in this process, with a Postgres and a NATS of its own.

use std::path::PathBuf;

use async_nats::jetstream::{self, kv};
use boot::Health;
use clap::Parser as _;
use domain::{KeyId, SecretHash, WorkspaceId};
use keys::{
    bootstrap,
    config::{Bootstrap, Config, Migrate},
    migrate,
    seal::Kek,
    signing::Signing,
    store::Store,
};
use parts::{Nats, Postgres, Service, eventually};
use prost::Message as _;
use proto::{
    events::{KeyFeedEntry, SignedFeedMessage},
    keys::{
        CreateKeyRequest, CreateKeyResponse, ExchangeTokenRequest, Key, SignInRequest,
        keys_service_client::KeysServiceClient, sessions_service_client::SessionsServiceClient,
        workspaces_service_client::WorkspacesServiceClient,
    },
    nats::{self, KEYS_BY_HASH_BUCKET},
    resource::{parse_key_name, workspace_name},
};
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Status, transport::Channel};
use tonic_types::StatusExt as _;

pub(crate) const EMAIL: &str = "ada@example.org";
pub(crate) const PASSWORD: &str = "correct horse battery";
/// Whom the service runs as.
pub(crate) const ROLE: &str = "keymeter_keys";

/// A running service with one person, one workspace and one service token.
pub(crate) struct Running {
    pub(crate) postgres: Postgres,
    pub(crate) nats: Nats,
    pub(crate) service: Served,
    pub(crate) folder: tempfile::TempDir,
    /// `workspaces/…`
    pub(crate) workspace: String,
    /// Of the person.
    pub(crate) admin: String,
    /// Of the service.
    pub(crate) machine: String,
    store: Store,
}

/// One keys service; dropped, it is gone as if killed.
pub(crate) struct Served {
    /// `http://127.0.0.1:…`
    pub(crate) url: String,
    pub(crate) channel: Channel,
    pub(crate) health: Health,
    pub(crate) shutdown: CancellationToken,
    /// What it ended with.
    pub(crate) task: oneshot::Receiver<anyhow::Result<()>>,
    _killed_on_drop: DropGuard,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more settings.
    pub(crate) async fn start_with(settings: &[&str]) -> Self {
        let (postgres, nats) = tokio::join!(Postgres::start(), Nats::start());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kek"), "5a".repeat(32)).unwrap();
        let workspace_id = add_person(&postgres, &folder, EMAIL, "Analytical Engines").await;
        let service = serve_with(&postgres.url_as(ROLE), &nats.url(), &folder, settings).await;
        eventually("the service is ready", async || *service.health.ready().borrow()).await;
        let mut sessions = SessionsServiceClient::new(service.channel.clone());
        let admin = sign_in(&mut sessions, EMAIL).await.unwrap().access_token.unwrap().token;
        let service_token = std::fs::read_to_string(token_file(&folder, EMAIL)).unwrap();
        let exchanged = sessions.exchange_token(ExchangeTokenRequest { service_token }).await.unwrap();
        let machine = exchanged.into_inner().access_token.unwrap().token;
        let workspace = workspace_name(workspace_id);
        let store = Store::new(&postgres.url_as(ROLE).into(), None).unwrap();
        Signing::open(&store, &kek(&folder)).await.unwrap();
        Self { postgres, nats, service, folder, workspace, admin, machine, store }
    }

    pub(crate) fn keys(&self) -> KeysServiceClient<Channel> {
        KeysServiceClient::new(self.service.channel.clone())
    }

    pub(crate) fn workspaces(&self) -> WorkspacesServiceClient<Channel> {
        WorkspacesServiceClient::new(self.service.channel.clone())
    }

    pub(crate) fn sessions(&self) -> SessionsServiceClient<Channel> {
        SessionsServiceClient::new(self.service.channel.clone())
    }

    /// A request of the person.
    pub(crate) fn ask<T>(&self, message: T) -> Request<T> {
        bearer(&self.admin, message)
    }

    /// Makes a key of that name.
    pub(crate) async fn make(&self, display_name: &str) -> CreateKeyResponse {
        let key = Key { display_name: display_name.into(), ..Key::default() };
        let request =
            CreateKeyRequest { parent: self.workspace.clone(), key: Some(key), ..Default::default() };
        self.keys().create_key(self.ask(request)).await.unwrap().into_inner()
    }

    /// Another person in a workspace of their own: its name and an access token.
    pub(crate) async fn add_tenant(&self, email: &str) -> (String, String) {
        let workspace_id = add_person(&self.postgres, &self.folder, email, "Elsewhere").await;
        let signed_in = sign_in(&mut self.sessions(), email).await.unwrap();
        (workspace_name(workspace_id), signed_in.access_token.unwrap().token)
    }

    pub(crate) async fn bucket(&self) -> kv::Store {
        let context = jetstream::new(async_nats::connect(self.nats.url()).await.unwrap());
        eventually("the bucket", async || context.get_key_value(KEYS_BY_HASH_BUCKET).await.ok()).await
    }

    /// What edges know of a secret, once it is what is wanted.
    pub(crate) async fn fed(&self, secret: &str, wanted: impl Fn(&KeyFeedEntry) -> bool) -> KeyFeedEntry {
        let bucket = self.bucket().await;
        let hash = SecretHash::of(secret).to_string();
        eventually("the feed's entry", async || {
            let value = bucket.get(hash.clone()).await.ok().flatten()?;
            let signed = SignedFeedMessage::decode(value).ok()?;
            KeyFeedEntry::decode(signed.message.as_slice()).ok().filter(&wanted)
        })
        .await
    }

    /// What `keys feed-keys` prints.
    pub(crate) async fn feed_keys(&self) -> String {
        let environment = [
            ("KEYMETER_KEYS_DATABASE_URL", self.postgres.url()),
            ("KEYMETER_KEYS_KEK_FILE", self.folder.path().join("kek").display().to_string()),
        ];
        let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
        let mut command = Service::spawn_with("keys", &["feed-keys"], &environment);
        assert!(command.wait().await.success(), "{}", command.log());
        command.log()
    }

    /// The service's own signing key.
    pub(crate) async fn signing(&self) -> Signing {
        Signing::open(&self.store(), &kek(&self.folder)).await.unwrap()
    }

    /// A value of the bucket as the service signs it.
    pub(crate) async fn sign_entry(&self, secret: &str, entry: &KeyFeedEntry) -> Vec<u8> {
        let purpose = nats::feed_entry_purpose(&SecretHash::of(secret).to_string());
        let message = entry.encode_to_vec();
        let signature = self.signing().await.sign(&purpose, &message);
        SignedFeedMessage { kid: signature.kid, signature: signature.bytes, message }.encode_to_vec()
    }

    /// Writes to the bucket as nobody but the service should.
    pub(crate) async fn plant(&self, secret: &str, value: Vec<u8>) {
        let hash = SecretHash::of(secret).to_string();
        self.bucket().await.put(hash, value.into()).await.unwrap();
    }

    /// Postgres as the service sees it; can record.
    pub(crate) fn store(&self) -> Store {
        self.store.clone()
    }

    /// Runs the program with the service's settings: whether it succeeded, and what it wrote.
    pub(crate) async fn command(&self, arguments: &[&str]) -> (bool, String) {
        let kek = self.folder.path().join("kek").to_string_lossy().into_owned();
        let url = self.postgres.url_as(ROLE);
        let environment = [("KEYMETER_KEYS_DATABASE_URL", url.as_str()), ("KEYMETER_KEYS_KEK_FILE", &kek)];
        let mut program = Service::spawn_with("keys", arguments, &environment);
        (program.wait().await.success(), program.log())
    }
}

/// What is in the folder now.
pub(crate) fn kek(folder: &tempfile::TempDir) -> Kek {
    Kek::read(&folder.path().join("kek")).unwrap()
}

/// Makes the tables and the role.
pub(crate) async fn migrate(postgres: &Postgres) {
    let (service, owner) = (postgres.url_as(ROLE), postgres.url());
    let settings = ["keys", "--database-url", &service, "--owner-database-url", &owner];
    let config = Config::try_parse_from(settings).unwrap();
    migrate::run(&config, &Migrate { service_role: None, service_password_file: None }).await.unwrap();
}

/// The service, on a port that the system chooses; ready or not.
pub(crate) async fn serve(database_url: &str, nats_url: &str, folder: &tempfile::TempDir) -> Served {
    serve_with(database_url, nats_url, folder, &[]).await
}

/// The same with more settings.
pub(crate) async fn serve_with(
    database_url: &str,
    nats_url: &str,
    folder: &tempfile::TempDir,
    settings: &[&str],
) -> Served {
    let given = ["keys", "--database-url", database_url, "--nats-url", nats_url];
    let config = Config::try_parse_from(given.iter().chain(settings)).unwrap();
    let kek = kek(folder);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let channel = Channel::from_shared(url.clone()).unwrap().connect_lazy();
    let (health, shutdown, kill) = (Health::default(), CancellationToken::new(), CancellationToken::new());
    // Not ready until the service, which starts on another thread, says so.
    for part in ["postgres", "nats"] {
        let _ = health.need(part);
    }
    let (its_health, its_shutdown, killed) = (health.clone(), shutdown.clone(), kill.clone());
    let (tell, task) = oneshot::channel();
    // A runtime of its own, as in a process of its own.
    std::thread::spawn(move || {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let ended = runtime.block_on(killed.run_until_cancelled(async {
            let listener = TcpListener::from_std(listener).unwrap();
            keys::run(&config, kek, listener, its_health, its_shutdown).await
        }));
        runtime.shutdown_background();
        if let Some(ended) = ended {
            let _ = tell.send(ended);
        }
    });
    Served { url, channel, health, shutdown, task, _killed_on_drop: kill.drop_guard() }
}

/// Runs bootstrap.
pub(crate) async fn add_person(
    postgres: &Postgres,
    folder: &tempfile::TempDir,
    email: &str,
    workspace: &str,
) -> WorkspaceId {
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, format!("{PASSWORD}\n")).unwrap();
    let asked = Bootstrap {
        email: email.into(),
        password_file,
        workspace_name: workspace.into(),
        service_token_file: token_file(folder, email),
        feed_keys_file: None,
        edge_token_file: None,
    };
    migrate(postgres).await;
    let store = Store::new(&postgres.url_as(ROLE).into(), None).unwrap();
    let done = bootstrap::run(&store, &kek(folder), &asked).await.unwrap();
    done.workspace_id.parse().unwrap()
}

pub(crate) fn token_file(folder: &tempfile::TempDir, email: &str) -> PathBuf {
    folder.path().join(format!("token of {email}"))
}

pub(crate) async fn sign_in(
    sessions: &mut SessionsServiceClient<Channel>,
    email: &str,
) -> Result<proto::keys::SignInResponse, Status> {
    let request = SignInRequest { email: email.into(), password: PASSWORD.into() };
    Ok(sessions.sign_in(request).await?.into_inner())
}

/// A request with an access token.
pub(crate) fn bearer<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// The id in a key's name.
pub(crate) fn key_id(key: &Key) -> KeyId {
    parse_key_name(&key.name).unwrap().1
}

/// The reason of an error; each has exactly one.
pub(crate) fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "keymeter");
    info.reason
}

/// The field that an error names.
pub(crate) fn field(status: &Status) -> String {
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    assert_eq!(reason(status), "INVALID_FIELD");
    status.get_details_bad_request().unwrap().field_violations[0].field.clone()
}
