//! Clients that call without end, and what they know of their calls: which were answered, how many were cut off, how
//! long they took.

use std::{
    collections::BTreeSet,
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::Method;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{client::Client, stack::Stack};

const CLIENTS: usize = 4;
/// Calls that must be answered before and after each event.
const CALLS_BETWEEN: u64 = 200;
/// Between two tries while the edge is not there.
const PAUSE: Duration = Duration::from_millis(20);

/// Clients that call until they are told to stop.
pub(crate) struct Load {
    clients: JoinSet<(BTreeSet<String>, u64)>,
    shared: Arc<Shared>,
}

struct Shared {
    /// Between a client's answer and its next call.
    pause: Duration,
    answered: AtomicU64,
    times: Mutex<Vec<Duration>>,
    stop: CancellationToken,
}

impl Load {
    /// Clients that call without a pause.
    pub(crate) fn start(client: &Client) -> Self {
        Self::paced(client, Duration::ZERO)
    }

    /// Clients that each pause after an answer.
    pub(crate) fn paced(client: &Client, pause: Duration) -> Self {
        let (answered, times, stop) = (AtomicU64::new(0), Mutex::default(), CancellationToken::new());
        let shared = Arc::new(Shared { pause, answered, times, stop });
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(call_until(client.clone(), shared.clone()));
        }
        Self { clients, shared }
    }

    /// Waits until some more calls were answered.
    pub(crate) async fn go_on(&self) {
        self.more(CALLS_BETWEEN).await;
    }

    /// Waits until another call was answered.
    pub(crate) async fn one_more(&self) {
        self.more(1).await;
    }

    async fn more(&self, calls: u64) {
        let target = self.shared.answered.load(Ordering::Relaxed) + calls;
        parts::eventually("more calls are answered", async || {
            self.shared.answered.load(Ordering::Relaxed) >= target
        })
        .await;
    }

    /// How long the answered calls since the last time took, sorted.
    pub(crate) fn times(&self) -> Vec<Duration> {
        let mut times = mem::take(&mut *self.shared.times.lock().unwrap());
        times.sort_unstable();
        times
    }

    /// The ids of all answered calls, and how many calls were cut off.
    pub(crate) async fn end(mut self) -> (BTreeSet<String>, u64) {
        self.shared.stop.cancel();
        let (mut answered, mut cut_off) = (BTreeSet::new(), 0);
        while let Some(client) = self.clients.join_next().await {
            let (ids, errors) = client.unwrap();
            answered.extend(ids);
            cut_off += errors;
        }
        (answered, cut_off)
    }

    /// Ends, and asserts that ClickHouse has each answered call once.
    pub(crate) async fn assert_counted_once(self, stack: &Stack) -> usize {
        let (answered, cut_off) = self.end().await;
        stack.assert_counted_once(&answered, cut_off).await;
        answered.len()
    }
}

async fn call_until(client: Client, shared: Arc<Shared>) -> (BTreeSet<String>, u64) {
    let (mut ids, mut errors) = (BTreeSet::new(), 0);
    while !shared.stop.is_cancelled() {
        let began = Instant::now();
        match client.call(Method::GET, "/v1/orders/17").await {
            // A new edge that has no list of keys yet knows nobody: no call of this key was taken.
            Ok(answer) if answer.status == 503 => {
                assert_eq!(answer.problem()["type"], "urn:keymeter:problem:keys_unavailable");
                tokio::time::sleep(PAUSE).await;
            }
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{:?}", answer.body);
                ids.insert(answer.request_id());
                shared.times.lock().unwrap().push(began.elapsed());
                shared.answered.fetch_add(1, Ordering::Relaxed);
                if !shared.pause.is_zero() {
                    tokio::time::sleep(shared.pause).await;
                }
            }
            Err(_) => {
                errors += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    (ids, errors)
}
