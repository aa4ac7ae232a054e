//! The connection to NATS, and how what keys makes there lies on its servers.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::{
    Client, Event,
    jetstream::{self, context::CreateKeyValueError, kv, stream::StorageType},
};
use boot::Need;
use nats_cluster::Servers;
use proto::nats::{
    ERASURES_BUCKET, KEY_EVENTS_STREAM, KEYS_BY_HASH_BUCKET, KEYS_SNAPSHOT_BUCKET, RETENTIONS_BUCKET,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Before what could not be put on more servers is tried again.
const SPREAD_AGAIN: Duration = Duration::from_secs(5);
/// Longest pause before a lost connection is tried again.
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// JetStream, and how many servers hold what keys makes there.
#[derive(Clone)]
pub struct Streams {
    /// For streams and buckets.
    pub context: jetstream::Context,
    /// 1, 3 or 5.
    pub replicas: usize,
}

impl Streams {
    /// A bucket with one value for each of its keys, made where there is none.
    ///
    /// # Errors
    /// If NATS is away or refuses.
    pub async fn bucket(&self, name: &str, description: &str) -> Result<kv::Store, CreateKeyValueError> {
        if let Ok(bucket) = self.context.get_key_value(name).await {
            return Ok(bucket);
        }
        let config = kv::Config {
            bucket: name.to_owned(),
            description: description.to_owned(),
            history: 1,
            storage: StorageType::File,
            num_replicas: self.replicas,
            ..kv::Config::default()
        };
        self.context.create_key_value(config).await
    }

    /// Has as many servers as are asked for hold what is there already: with each new connection, until it is so.
    pub async fn spread(&self, mut connected: watch::Receiver<bool>) {
        let buckets = [KEYS_BY_HASH_BUCKET, KEYS_SNAPSHOT_BUCKET, ERASURES_BUCKET, RETENTIONS_BUCKET];
        let streams =
            buckets.map(|bucket| format!("KV_{bucket}")).into_iter().chain([KEY_EVENTS_STREAM.to_owned()]);
        let streams: Vec<_> = streams.collect();
        let mut said = false;
        loop {
            let mut is_done = true;
            for stream in &streams {
                if let Err(error) = nats_cluster::spread(&self.context, stream, self.replicas).await {
                    is_done = false;
                    if !std::mem::replace(&mut said, true) {
                        let reason = error.to_string();
                        tracing::warn!(
                            stream,
                            self.replicas,
                            reason,
                            "not so many servers of NATS hold the stream yet"
                        );
                    }
                }
            }
            let again = async {
                if is_done { std::future::pending().await } else { tokio::time::sleep(SPREAD_AGAIN).await }
            };
            tokio::select! {
                changed = connected.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }
}

/// A connection that mends itself.
pub struct Connection {
    /// For streams and buckets.
    pub context: jetstream::Context,
    /// Whether it stands; changes at each loss and return.
    pub connected: watch::Receiver<bool>,
    /// Where it goes.
    pub servers: Servers,
}

/// Connects, however long it takes; `None` if the process is asked to stop first.
pub async fn connect(servers: Servers, need: &Need, shutdown: &CancellationToken) -> Option<Connection> {
    let (tell, connected) = watch::channel(true);
    let options = || {
        let (tell, need) = (tell.clone(), need.clone());
        servers
            .options()
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
        servers.connect(options()).await.with_context(|| format!("no NATS at {servers}"))
    };
    let client = boot::retry("connect to NATS", need, shutdown, connect).await?;
    // Up is said by the feed, once it has seen its bucket.
    need.down("the key feed has not been looked at yet");
    Some(Connection { context: nats_cluster::context(client), connected, servers })
}
