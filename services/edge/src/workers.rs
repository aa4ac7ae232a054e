//! The threads that serve, one for each core: each has its own runtime, connections and pool, so that calls share
//! no lock. Connections are handed to the thread with the fewest: a listener for each thread (`SO_REUSEPORT`)
//! leaves a core idle when few clients with long connections meet on another.

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{self, LocalOptions, LocalRuntime},
    sync::mpsc::{self, error::TrySendError},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{self, Handler},
    worker::{Stop, Worker},
};

/// Connections that wait for their thread to take them up.
const HANDED_MAX: usize = 1024;
/// Pause after an error of accept, such as too many open files, and while there are too many connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All threads that serve.
pub(crate) struct Workers {
    threads: Vec<Thread>,
    connections_max: usize,
    pub(crate) stop: Stop,
}

struct Thread {
    connections: mpsc::Sender<Handed>,
    open: Arc<AtomicUsize>,
    ended: CancellationToken,
}

/// A connection on its way to its thread.
struct Handed {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    counted: Counted,
}

impl Workers {
    /// Starts `count` threads, each with what `make` makes on it.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub(crate) fn start<H: Handler>(
        count: usize,
        connections_max: usize,
        tls: Option<&Arc<ServerConfig>>,
        make: &(impl Fn(Rc<Worker>) -> H + Clone + Send + 'static),
    ) -> anyhow::Result<Self> {
        let stop = Stop::default();
        let threads = (0..count).map(|number| {
            let (connections, handed) = mpsc::channel(HANDED_MAX);
            let ended = CancellationToken::new();
            let end = ended.clone().drop_guard();
            let (make, tls, stop) = (make.clone(), tls.cloned(), stop.clone());
            let work = move || {
                let _end = end;
                match runtime() {
                    Ok(runtime) => runtime.block_on(work(handed, tls, stop, make)),
                    Err(error) => tracing::error!(%error, "a thread that serves cannot start"),
                }
            };
            thread::Builder::new().name(format!("serve-{number}")).spawn(work)?;
            Ok(Thread { connections, open: Arc::default(), ended })
        });
        let threads = threads.collect::<io::Result<_>>().context("a thread that serves cannot start")?;
        Ok(Self { threads, connections_max, stop })
    }

    /// Accepts connections and hands them out, for ever.
    ///
    /// # Errors
    /// If a thread is gone.
    pub(crate) async fn accept(&self, listener: &TcpListener) -> anyhow::Result<()> {
        loop {
            if self.threads.iter().map(Thread::open).sum::<usize>() >= self.connections_max {
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
            let accepted = match listener.accept().await {
                Ok((stream, peer)) => stream.into_std().map(|stream| (stream, peer)),
                Err(error) => Err(error),
            };
            match accepted {
                Ok((stream, peer)) => self.hand(stream, peer)?,
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Returns once all threads have ended; after [`Stop::drain`] they do when their last connection has.
    pub(crate) async fn ended(&self) {
        for thread in &self.threads {
            thread.ended.cancelled().await;
        }
    }

    fn hand(&self, stream: std::net::TcpStream, peer: SocketAddr) -> anyhow::Result<()> {
        let fewest = self.threads.iter().min_by_key(|thread| thread.open());
        let thread = fewest.context("no thread serves")?;
        let counted = Counted::new(&thread.open);
        match thread.connections.try_send(Handed { stream, peer, counted }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(handed)) => {
                tracing::warn!("a connection is closed: a thousand wait to be served");
                drop(handed);
                Ok(())
            }
            Err(TrySendError::Closed(_)) => bail!("a thread that serves has ended"),
        }
    }
}

impl Thread {
    fn open(&self) -> usize {
        self.open.load(Relaxed)
    }
}

fn runtime() -> io::Result<LocalRuntime> {
    runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

/// What a thread does: serves what it is handed until it is to drain, then waits for what runs.
async fn work<H: Handler>(
    mut handed: mpsc::Receiver<Handed>,
    tls: Option<Arc<ServerConfig>>,
    stop: Stop,
    make: impl Fn(Rc<Worker>) -> H,
) {
    let drain = stop.drain.clone();
    let worker = Worker::new(stop);
    let handler = Rc::new(make(worker.clone()));
    loop {
        let next = tokio::select! {
            next = handed.recv() => next,
            () = drain.cancelled() => None,
        };
        let Some(Handed { stream, peer, counted }) = next else { break };
        let (tls, handler, this) = (tls.clone().map(TlsAcceptor::from), handler.clone(), worker.clone());
        worker.spawn(async move {
            let _counted = counted;
            match TcpStream::from_std(stream) {
                Ok(stream) => client::serve(stream, peer, tls, handler, &this).await,
                Err(error) => tracing::warn!(%error, "a connection cannot be served"),
            }
        });
    }
    worker.ended().await;
}

/// A connection that is open.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Relaxed);
        Self(open.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
