//! The keys service: workspaces, accounts, sessions and keys in Postgres, and the key feed to every edge.
//! Never touches ClickHouse.

use std::{convert::Infallible, sync::Arc, time::Duration};

use access::Verifier;
use boot::{Health, Need};
use tls::Listener;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub mod acks;
pub mod activity;
pub mod audit;
pub mod bootstrap;
pub mod caller;
pub mod check_secret;
pub mod config;
pub mod edges;
pub mod erase_person;
pub mod erasure;
pub mod error;
pub mod export;
pub mod feed;
pub mod fields;
pub mod grpc;
pub mod invitations;
pub mod key;
pub mod leaks;
pub mod ledger;
pub mod lifecycle;
pub mod listing;
pub mod members;
pub mod metrics;
pub mod migrate;
pub mod nats;
pub mod oidc;
pub mod ownership;
pub mod page;
pub mod password;
pub mod rebuild;
pub mod receipts;
pub mod retention;
pub mod rewrap;
pub mod seal;
pub mod service_tokens;
pub mod sessions;
pub mod signing;
pub mod signing_pair;
pub mod store;
pub mod sweep;
pub mod throttle;
pub mod token;
pub mod told;
pub mod verify_chain;
pub mod workspaces;

use acks::Acks;
use config::Config;
use edges::Edges;
use feed::watches::Watches;
use lifecycle::Keys;
use metrics::Metrics;
use nats::Streams;
use nats_cluster::Servers;
use oidc::Provider;
use receipts::Receipts;
use seal::Kek;
use sessions::Sessions;
use signing::{Signing, SigningCell};
use store::{Store, StoreError};
use workspaces::Workspaces;

/// Between two looks at Postgres.
const PING_EVERY: Duration = Duration::from_secs(2);

/// Serves until `shutdown`, then lets running calls end. Postgres and NATS may come and go.
///
/// # Errors
/// A database URL that is none; an OpenID Connect provider that can be none; public keys of leak reporters that are none, or an address for their reports that
/// is taken; a Postgres that refuses for good; a key-encryption key that does not open what
/// Postgres holds.
pub async fn run(
    config: &Config,
    kek: Kek,
    listener: TcpListener,
    health: Health,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (identity, store) = (config.identity.identity()?, config.store()?);
    let servers = config.nats_url.clone().secured_by(identity.clone());
    let leak_reports = config.leak_reports()?;
    let provider = config.provider()?.map(Provider::new).transpose()?;
    let metrics = Metrics::new(&boot::meter());
    let (kek, signing, verifier) = (Arc::new(kek), Arc::new(SigningCell::new()), Verifier::default());
    let (postgres, nats) = (health.need("postgres"), health.need("nats"));

    let edges = Edges::default();
    let receipts = Receipts::new(store.clone(), edges.clone());
    let (acks, waiting_acks) = Acks::new(store.clone(), edges.clone());
    let watches = Watches::new(store.clone(), Arc::clone(&signing), shutdown.clone());
    let keys = Keys::new(store.clone(), Arc::clone(&kek));
    let routes = grpc::routes(grpc::Parts {
        receipts: receipts.clone(),
        watches: watches.clone(),
        acks: acks.clone(),
        keys: keys.clone(),
        workspaces: Workspaces::new(store.clone(), Arc::clone(&kek)),
        sessions: Sessions::new(store.clone(), Arc::clone(&signing), provider),
        store: store.clone(),
        signing: Arc::clone(&signing),
        metrics: metrics.clone(),
    });
    let serving = grpc_server::serve(
        Listener::of(listener, identity.as_ref())?,
        routes,
        verifier.clone(),
        proto::DESCRIPTORS,
        health,
        grpc::SERVICE_NAMES,
        shutdown.clone(),
    );
    let reports = async {
        if let Some((address, reporters)) = leak_reports {
            leaks::serve(address, reporters, keys.clone(), metrics.clone(), shutdown.clone()).await?;
        }
        // Nothing to take, or asked to stop: the others say when all has ended.
        std::future::pending::<anyhow::Result<()>>().await
    };
    let working = Box::pin(async {
        // Started calls may still need all of this while they drain, so it ends only after them.
        let never = CancellationToken::new();
        let opened = open(&store, &kek, &postgres, &never).await?;
        opened.teach(&verifier);
        let signing = signing.get_or_init(|| opened);
        tokio::join!(
            watch_postgres(&store, &postgres),
            follow_nats(
                (&store, &keys),
                signing,
                (servers, config.nats_replicas),
                &nats,
                &metrics,
                &edges,
                &never
            ),
            receipts.follow_numbers(),
            watches.follow(),
            acks.run(waiting_acks),
            sweep::run(store.clone(), never.clone()),
            erasure::delete_keys(&store, &keys),
        );
        Ok::<(), anyhow::Error>(())
    });
    tokio::select! {
        served = serving => served?,
        taken = reports => taken?,
        worked = working => worked?,
    }
    store.close().await;
    Ok(())
}

/// The signing keys, however long Postgres and its tables take to come.
async fn open(
    store: &Store,
    kek: &Kek,
    need: &Need,
    shutdown: &CancellationToken,
) -> anyhow::Result<Signing> {
    let attempt = async || {
        let opened = async {
            store.check_version().await?;
            let signing = Signing::open(store, kek).await?;
            if store.owns_its_tables().await? {
                tracing::warn!(
                    "the service owns its tables and could change what is recorded: give it a role of its own \
                     with `keys migrate --service-role`"
                );
            }
            Ok(signing)
        };
        match opened.await {
            Err(error) if is_passing(&error) => Err(error),
            done => Ok(done),
        }
    };
    match boot::retry("prepare Postgres", need, shutdown, attempt).await {
        Some(opened) => opened,
        None => anyhow::bail!("asked to stop before Postgres was there"),
    }
}

/// Whether it may pass: Postgres is away, or somebody has still to run `keys migrate`.
fn is_passing(error: &anyhow::Error) -> bool {
    bootstrap::is_away(error) || matches!(error.downcast_ref(), Some(StoreError::NotMigrated))
}

async fn follow_nats(
    (store, keys): (&Store, &Keys),
    signing: &Signing,
    (servers, replicas): (Servers, usize),
    need: &Need,
    metrics: &Metrics,
    edges: &Edges,
    shutdown: &CancellationToken,
) {
    let Some(connection) = nats::connect(servers, need, shutdown).await else { return };
    let nats::Connection { context, connected, servers } = connection;
    let streams = Streams { context: context.clone(), replicas };
    let parts = feed::Parts {
        store,
        keys,
        signing,
        streams: streams.clone(),
        nats: need.clone(),
        metrics: metrics.clone(),
    };
    tokio::join!(
        told::relay(store.clone(), streams.clone(), connected.clone(), shutdown.clone()),
        feed::run(parts, connected.clone(), shutdown.clone()),
        streams.spread(connected),
        servers.leave_deaf(&context),
        edges.follow(&context),
        activity::run(store.clone(), context.clone(), metrics.clone(), shutdown.clone()),
    );
}

/// Tells whether Postgres answers, for as long as it is polled.
async fn watch_postgres(store: &Store, need: &Need) -> Infallible {
    let mut away = false;
    loop {
        tokio::time::sleep(PING_EVERY).await;
        match store.ping().await {
            Ok(()) => {
                need.up();
                if std::mem::take(&mut away) {
                    tracing::info!("Postgres is back");
                }
            }
            Err(error) => {
                let reason = format!("{:#}", anyhow::Error::from(error));
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(reason, "Postgres is away: calls are answered with UNAVAILABLE");
                }
                need.down(reason);
            }
        }
    }
}
