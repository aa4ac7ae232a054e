//! SIGTERM under load: each service drains, exits 0, and nothing is lost or counted twice.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::Method;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{client::Client, stack::Stack};

const CLIENTS: usize = 4;
/// Calls that must be answered before and after each signal.
const CALLS_BETWEEN: u64 = 200;

/// Between two tries while the edge is not there.
const PAUSE: Duration = Duration::from_millis(20);

/// Clients that call until they are told to stop.
struct Load {
    clients: JoinSet<(BTreeSet<String>, u64)>,
    answered: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Load {
    fn start(client: &Client) -> Self {
        let (answered, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(call_until(client.clone(), answered.clone(), stop.clone()));
        }
        Self { clients, answered, stop }
    }

    /// Waits until some more calls were answered.
    async fn go_on(&self) {
        let target = self.answered.load(Ordering::Relaxed) + CALLS_BETWEEN;
        parts::eventually("more calls are answered", async || {
            self.answered.load(Ordering::Relaxed) >= target
        })
        .await;
    }

    /// The ids of all answered calls, and how many calls were cut off.
    async fn end(mut self) -> (BTreeSet<String>, u64) {
        self.stop.cancel();
        let (mut answered, mut cut_off) = (BTreeSet::new(), 0);
        while let Some(client) = self.clients.join_next().await {
            let (ids, errors) = client.unwrap();
            answered.extend(ids);
            cut_off += errors;
        }
        (answered, cut_off)
    }
}

async fn call_until(
    client: Client,
    answered: Arc<AtomicU64>,
    stop: CancellationToken,
) -> (BTreeSet<String>, u64) {
    let (mut ids, mut errors) = (BTreeSet::new(), 0);
    while !stop.is_cancelled() {
        match client.call(Method::GET, "/v1/orders/17").await {
            // A new edge that has no list of keys yet knows nobody: no call of this key was taken.
            Ok(answer) if answer.status == 503 => {
                assert_eq!(answer.problem()["type"], "urn:keymeter:problem:keys_unavailable");
                tokio::time::sleep(PAUSE).await;
            }
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{:?}", answer.body);
                ids.insert(answer.request_id());
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                errors += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    (ids, errors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_drains_and_nothing_is_lost_or_doubled() {
    let mut stack = Stack::start().await;
    let key = stack.make_key("Under load").await;
    let load = Load::start(&stack.client(&key.secret));
    for name in ["ingest", "keys", "query", "ui", "edge", "ingest", "edge"] {
        load.go_on().await;
        let service = match name {
            "ingest" => &mut stack.ingest,
            "keys" => &mut stack.keys,
            "query" => &mut stack.query,
            "ui" => &mut stack.ui,
            _ => &mut stack.edge,
        };
        let status = service.sigterm().await;
        assert!(status.success(), "{name}: {status}");
        service.restart();
        stack.ready().await;
    }
    load.go_on().await;
    let (answered, cut_off) = load.end().await;
    stack.assert_counted_once(&answered, cut_off).await;
}
