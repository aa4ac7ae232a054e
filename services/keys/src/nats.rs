//! The connection to NATS.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::{Client, ConnectOptions, Event, jetstream};
use boot::Need;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause before a lost connection is tried again.
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// A connection that mends itself.
pub struct Connection {
    /// For streams and buckets.
    pub context: jetstream::Context,
    /// Whether it stands; changes at each loss and return.
    pub connected: watch::Receiver<bool>,
}

/// Connects, however long it takes; `None` if the process is asked to stop first.
pub async fn connect(url: &str, need: &Need, shutdown: &CancellationToken) -> Option<Connection> {
    let (tell, connected) = watch::channel(true);
    let options = || {
        let (tell, need) = (tell.clone(), need.clone());
        signed_in(url)
            .name("keymeter-keys")
            .reconnect_delay_callback(|attempts| {
                RECONNECT_MAX.min(
                    Duration::from_millis(50).saturating_mul(u32::try_from(attempts).unwrap_or(u32::MAX)),
                )
            })
            .event_callback(move |event| {
                match event {
                    Event::Connected => {
                        tracing::info!("connected to NATS");
                        tell.send_replace(true);
                    }
                    Event::Disconnected => {
                        tracing::warn!("NATS is away: keys go on, the feed waits");
                        need.down("disconnected");
                        tell.send_replace(false);
                    }
                    _ => {}
                }
                std::future::ready(())
            })
    };
    let connect = async || -> anyhow::Result<Client> {
        options().connect(url).await.with_context(|| format!("no NATS at {}", without_password(url)))
    };
    let client = boot::retry("connect to NATS", need, shutdown, connect).await?;
    // Up is said by the feed, once it has seen its bucket.
    need.down("the key feed has not been looked at yet");
    let mut context = jetstream::new(client);
    context.set_timeout(ANSWER_TIMEOUT);
    Some(Connection { context, connected })
}

/// Signs in as the address says.
fn signed_in(url: &str) -> ConnectOptions {
    proto::nats::credentials(url).map_or_else(ConnectOptions::new, |(user, password)| {
        ConnectOptions::with_user_and_password(user, password)
    })
}

/// A URL without what stands before its `@`.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(without_password("nats://127.0.0.1:4222"), "nats://127.0.0.1:4222");
        assert_eq!(without_password("nats://ada:p@ss@host:4222"), "nats://host:4222");
        assert_eq!(without_password("ada:pass@host"), "host");
    }
}
