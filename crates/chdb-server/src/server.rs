//! What all requests share, and the life of the server: open the engine, accept, drain, close. Runs no statement.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tls::Listener;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    engine::Engine,
    exception::Exception,
    router, sql,
    statement::{self, ID_SETTING},
};

/// Open connections of clients; more wait to be accepted. Each may hold a thread, see [`THREADS_MAX`].
const CLIENTS_MAX: usize = 256;
/// Threads that run statements, end them and close the engine.
pub const THREADS_MAX: usize = 2 * CLIENTS_MAX + 64;
/// A client must send the head of its request within this time.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long cancelled statements may take to end, and after that the engine to close.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);

/// What all requests share.
pub(crate) struct Server {
    pub(crate) engine: Engine,
    pub(crate) identity: Identity,
    /// Places for statements that run at once.
    pub(crate) slots: Arc<Semaphore>,
    /// By id, those that run or wait for a place.
    running: Mutex<HashMap<String, CancellationToken>>,
}

/// What answers say of the server.
pub(crate) struct Identity {
    pub(crate) version: String,
    pub(crate) timezone: String,
    pub(crate) name: String,
}

/// Serves on `listener` until `shutdown`, then lets statements end, cancels those that do not, and closes the engine.
///
/// # Errors
/// If the settings are wrong or the engine can not be opened.
pub async fn run(config: Config, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
    config.validate()?;
    let mut tls = config.identity.identity()?.map(|identity| identity.server()).transpose()?;
    if let Some(tls) = &mut tls {
        Arc::make_mut(tls).alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    let drain_limit = Duration::from_secs(config.drain_s);
    let server = Arc::new(tokio::task::spawn_blocking(move || Server::open(&config)).await??);
    tracing::info!(listen.addr = %listener.local_addr()?, engine.version = server.identity.version, "ready");
    let clients = GracefulShutdown::new();
    accept(&server, Listener::new(listener, tls), &clients, &shutdown).await;
    tracing::info!(statements = server.lock().len(), "stopping: no new requests");
    if timeout(drain_limit, clients.shutdown()).await.is_err() {
        tracing::warn!(statements = server.lock().len(), "cancelling what still runs");
        server.lock().values().for_each(CancellationToken::cancel);
    }
    close(server).await;
    Ok(())
}

async fn accept(
    server: &Arc<Server>,
    mut listener: Listener,
    clients: &GracefulShutdown,
    shutdown: &CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let Some((place, (stream, _))) = shutdown.run_until_cancelled(next).await else { return };
        let server = server.clone();
        let service = service_fn(move |request| router::answer(server.clone(), request));
        let client = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .serve_connection(TokioIo::new(stream), service);
        let client = clients.watch(client);
        tokio::spawn(async move {
            if let Err(error) = client.await {
                tracing::debug!(%error, "a connection broke");
            }
            drop(place);
        });
    }
}

/// Closes the engine when the last statement has ended. Gives up after a while: what was acknowledged is on disk.
async fn close(mut server: Arc<Server>) {
    let closed = timeout(2 * CANCEL_LIMIT, async {
        let server = loop {
            match Arc::try_unwrap(server) {
                Ok(server) => break server,
                Err(shared) => server = shared,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        tokio::task::spawn_blocking(|| server.engine.close()).await
    });
    match closed.await {
        Ok(Ok(())) => tracing::info!("stopped"),
        Ok(Err(error)) => tracing::warn!(%error, "the engine did not close"),
        Err(_) => tracing::warn!("stopped before all statements had ended"),
    }
}

impl Server {
    fn open(config: &Config) -> anyhow::Result<Self> {
        let engine = Engine::open(&config.library, &config.path, config.config_file.as_deref())?;
        let connection = engine.connect(&[])?;
        match connection.query(&processes_view(), "Null", &[]) {
            // Whoever may not make it may not see processes either.
            Err(exception) if config.config_file.is_some() && exception.is_about_rights() => {
                tracing::warn!(%exception, "clients can not see or kill statements by their ids");
            }
            made => drop(made.context("the view of processes")?),
        }
        let identity = connection.query("select version(), timezone(), displayName()", "TSVRaw", &[])?;
        let identity = String::from_utf8_lossy(identity.bytes()).into_owned();
        let mut fields = identity.trim_end().split('\t').map(str::to_owned);
        let mut field = || fields.next().context("the engine says three things of itself");
        let identity = Identity { version: field()?, timezone: field()?, name: field()? };
        drop(connection);
        Ok(Self {
            engine,
            identity,
            slots: Arc::new(Semaphore::new(usize::from(config.connections))),
            running: Mutex::default(),
        })
    }

    /// Names a statement among the running ones until the registration is dropped.
    ///
    /// # Errors
    /// If another one has the id.
    pub(crate) fn register(self: &Arc<Self>, id: &str) -> Result<Registration, Exception> {
        let cancelled = CancellationToken::new();
        let mut running = self.lock();
        if running.contains_key(id) {
            return Err(Exception::new(216, format!("Query with id = {id} is already running")));
        }
        running.insert(id.to_owned(), cancelled.clone());
        Ok(Registration { server: self.clone(), id: id.to_owned(), cancelled })
    }

    /// Tells a running statement to end; does nothing if there is none.
    pub(crate) fn cancel(&self, id: &str) {
        if let Some(cancelled) = self.lock().get(id) {
            cancelled.cancel();
        }
    }

    /// Ends the engine's query of this id if it has one now. Blocks.
    pub(crate) fn kill(&self, id: &str) -> Result<(), Exception> {
        let params = [("id".to_owned(), id.to_owned())];
        let chosen = format!("select engine_query_id from {} where query_id = {{id:String}}", sql::PROCESSES);
        let connection = self.engine.connect(&[])?;
        connection.query(&format!("kill query where query_id in ({chosen}) async"), "Null", &params)?;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a statement among the running ones.
pub(crate) struct Registration {
    pub(crate) server: Arc<Server>,
    pub(crate) id: String,
    pub(crate) cancelled: CancellationToken,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.server.lock().remove(&self.id);
    }
}

/// In the engine's own database `system`, which is in memory only. Shows the ids that clients gave, and the text that
/// they sent.
fn processes_view() -> String {
    format!(
        "create view if not exists {view} as select processes.query_id as engine_query_id, \
         if(processes.Settings['{ID_SETTING}'] != '', processes.Settings['{ID_SETTING}'], processes.query_id) as query_id, \
         replaceRegexpOne(processes.query, '{outfile}', '') as query, \
         * except (query_id, query) from system.processes as processes",
        view = sql::PROCESSES,
        outfile = statement::OUTPUT_PATTERN,
    )
}
