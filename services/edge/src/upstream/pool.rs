//! Which address of the API a call goes to, and the idle connections of one thread. Nothing here is shared with
//! another thread but health.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use hyper::client::conn::http2;
use tokio::io::{AsyncRead as _, ReadBuf};

use super::{
    connect::{ConnectError, Connector, Io},
    health::Health,
};
use crate::{clock, metrics::Metrics};

/// Below the 5 s after which common servers close an idle connection themselves.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Most idle connections to one address.
const IDLE_MAX: usize = 512;

/// The addresses of the API, as one thread sees them; `B` is what requests carry.
pub(crate) struct Upstreams<B> {
    all: Vec<Rc<Upstream<B>>>,
    next: Cell<usize>,
    metrics: Arc<Metrics>,
}

/// One address of the API.
pub(crate) struct Upstream<B> {
    pub(crate) connector: Connector,
    health: Arc<Health>,
    /// Calls that are under way.
    running: Cell<usize>,
    /// The latest last.
    #[expect(clippy::vec_box, reason = "each call moves one out and in")]
    idle: RefCell<Vec<Box<Connection>>>,
    /// Connections for HTTP/2, which calls share. The lock is held while one is made, so that calls that come at
    /// once wait for one connection and do not make one each.
    pub(crate) shared: tokio::sync::Mutex<Vec<Shared<B>>>,
}

/// A connection for HTTP/1.1 between two calls.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) io: Io,
    /// Read and not yet taken.
    pub(crate) read: BytesMut,
    /// Kept from call to call for its memory.
    pub(crate) out: Vec<u8>,
    /// Whether it had a call before.
    pub(crate) is_used: bool,
    idle_since: Instant,
}

/// A connection for HTTP/2; it has as many calls as this has clones.
pub(crate) struct Shared<B> {
    pub(crate) sender: http2::SendRequest<B>,
    pub(crate) calls: Rc<()>,
}

/// The addresses that a call has been to.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tried(u64);

/// An address with a call under way.
pub(crate) struct Turn<B>(pub(crate) Rc<Upstream<B>>);

impl<B> Upstreams<B> {
    /// The addresses behind `connectors`, each with its health: at least one.
    pub(crate) fn new(
        connectors: impl IntoIterator<Item = (Connector, Arc<Health>)>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let all = connectors.into_iter().map(|(connector, health)| {
            let (running, idle, shared) = (Cell::new(0), RefCell::default(), tokio::sync::Mutex::default());
            Rc::new(Upstream { connector, health, running, idle, shared })
        });
        Self { all: all.collect(), next: Cell::new(0), metrics }
    }

    /// An address that was not tried: of those that work the one with the fewest calls, in turn.
    pub(crate) fn choose(&self, tried: &mut Tried) -> Option<Turn<B>> {
        let (count, now) = (self.all.len(), clock::now());
        let first = self.next.get();
        self.next.set((first + 1) % count);
        let order = (first..first + count).map(|place| place % count);
        let place = order
            .filter(|place| tried.0 & 1 << place == 0)
            // The first of equals.
            .min_by_key(|place| {
                (count > 1 && !self.all[*place].health.is_up(now), self.all[*place].running.get())
            })?;
        tried.0 |= 1 << place;
        let upstream = self.all[place].clone();
        upstream.running.update(|running| running + 1);
        Some(Turn(upstream))
    }

    /// A connection, idle or new, to an address that was not tried, or to the next after it.
    pub(crate) async fn connection(
        &self,
        tried: &mut Tried,
        is_fresh: bool,
    ) -> Result<(Turn<B>, Box<Connection>), ConnectError> {
        let mut turn = self.choose(tried).expect("there is an address");
        loop {
            if !is_fresh && let Some(connection) = turn.0.take_idle() {
                return Ok((turn, connection));
            }
            // Boxed, so that calls on idle connections carry no room for it.
            let error = match Box::pin(self.open(&turn)).await {
                Ok(io) => return Ok((turn, Box::new(Connection::new(io)))),
                Err(error) => error,
            };
            turn = self.choose(tried).ok_or(error)?;
        }
    }

    /// A new connection to this address.
    pub(crate) async fn open(&self, turn: &Turn<B>) -> Result<Io, ConnectError> {
        let opened = turn.0.connector.connect().await;
        match &opened {
            Ok(_) => turn.0.health.worked(),
            Err(error) => {
                self.metrics.connect_failed(turn.0.health.name());
                tracing::debug!(upstream = turn.0.health.name(), %error, "no connection to the API");
                turn.0.health.failed(clock::now(), error);
            }
        }
        opened
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        for upstream in &self.all {
            upstream.idle.borrow_mut().retain(|connection| connection.idle_since + IDLE_TIMEOUT > now);
        }
    }
}

impl<B> Upstream<B> {
    /// Keeps a connection for the next call.
    pub(crate) fn put_idle(&self, mut connection: Box<Connection>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX {
            connection.idle_since = clock::now();
            connection.is_used = true;
            idle.push(connection);
        }
    }

    fn take_idle(&self) -> Option<Box<Connection>> {
        let now = clock::now();
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            if connection.idle_since + IDLE_TIMEOUT > now && connection.is_quiet() {
                return Some(connection);
            }
        }
    }
}

impl Connection {
    fn new(io: Io) -> Self {
        Self { io, read: BytesMut::new(), out: Vec::new(), is_used: false, idle_since: clock::now() }
    }

    /// Whether nothing came in since the last call: neither its end, nor bytes that nobody asked for.
    fn is_quiet(&mut self) -> bool {
        let mut bytes = [0; 1];
        let mut cx = Context::from_waker(Waker::noop());
        matches!(Pin::new(&mut self.io).poll_read(&mut cx, &mut ReadBuf::new(&mut bytes)), Poll::Pending)
    }
}

impl<B> Drop for Turn<B> {
    fn drop(&mut self) {
        self.0.running.update(|running| running - 1);
    }
}
