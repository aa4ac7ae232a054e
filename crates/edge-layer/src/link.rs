//! The connection to NATS, made and made again in the background, and work that lasts as long as one of them.

use std::{fmt, time::Duration};

use async_nats::{ConnectError, ConnectErrorKind, Event, jetstream};
use nats_cluster::Servers;
use tls::Identity;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// One connection after the other, numbered from 1.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) jetstream: jetstream::Context,
    /// Number of the newest connection, and whether it stands.
    connection: watch::Receiver<(u64, bool)>,
    servers: Servers,
}

impl Link {
    /// Starts to connect and returns at once.
    ///
    /// # Errors
    /// If `addresses` are none of NATS.
    pub(crate) async fn connect(
        addresses: &str,
        identity: Option<Identity>,
        name: String,
    ) -> Result<Self, ConnectError> {
        let (connections, connection) = watch::channel((0, false));
        let on_event = move |event| {
            match event {
                Event::Connected => {
                    connections.send_modify(|(number, up)| (*number, *up) = (*number + 1, true));
                }
                Event::Disconnected | Event::Closed => connections.send_modify(|(_, up)| *up = false),
                other => tracing::debug!(event = %other, "nats"),
            }
            std::future::ready(())
        };
        let servers = Servers::parse(addresses)
            .map_err(|error| ConnectError::with_source(ConnectErrorKind::ServerParse, error))?
            .secured_by(identity);
        let options = servers
            .options()
            .name(name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| backoff(u32::try_from(attempt).unwrap_or(u32::MAX)))
            .event_callback(on_event);
        let jetstream = nats_cluster::context(servers.connect(options).await?);
        Ok(Self { jetstream, connection, servers })
    }

    /// Leaves a server of NATS that can do nothing, until `stop` is cancelled.
    pub(crate) async fn keep_useful(&self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            never = self.servers.leave_deaf(&self.jetstream) => match never {},
        }
    }

    /// Whether there is a connection.
    pub(crate) fn is_up(&self) -> bool {
        self.connection.borrow().1
    }

    /// Runs `work` on each connection: from its start, again if it fails, until the connection is gone. Ends
    /// when `stop` is cancelled. A failure is logged once per change.
    pub(crate) async fn on_each_connection<F, E: fmt::Display>(
        &self,
        what: &str,
        stop: &CancellationToken,
        mut work: impl FnMut(jetstream::Context) -> F,
    ) where
        F: Future<Output = Result<(), E>>,
    {
        let mut connection = self.connection.clone();
        let mut said = String::new();
        let mut failures = 0;
        loop {
            let number = tokio::select! {
                () = stop.cancelled() => return,
                up = connection.wait_for(|(_, up)| *up) => match up {
                    Ok(up) => up.0,
                    Err(_) => return,
                },
            };
            let failed = tokio::select! {
                () = stop.cancelled() => return,
                _ = connection.wait_for(|newest| *newest != (number, true)) => None,
                result = work(self.jetstream.clone()) => result.err(),
            };
            let Some(error) = failed else {
                failures = 0;
                continue;
            };
            let reason = format!("{error:#}");
            if reason != said {
                tracing::warn!(reason, "{what}: trying again");
                said = reason;
            }
            failures += 1;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff(failures)) => {}
            }
        }
    }
}

/// From 100 ms, doubled at each attempt, to 5 s.
pub(crate) fn backoff(attempt: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(BACKOFF_MAX)
}
