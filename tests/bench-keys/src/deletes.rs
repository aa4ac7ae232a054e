//! Deletes under load: from the call of DeleteKey to the moment at which the last of three edges has refused the
//! key.

use std::time::{Duration, Instant};

use figures::{Figures, say};
use futures_util::future::try_join_all;
use http::StatusCode;
use parts::eventually;
use proto::keys::DeleteKeyRequest;

use crate::world::{Caller, Edge, World, signed};

const EDGES: usize = 3;
/// Callers with a good key, each at one edge, without a pause.
const CALLERS: usize = 6;
/// Pause between two calls that look whether a key is refused.
const LOOK_EVERY: Duration = Duration::from_millis(1);

pub(crate) async fn measure(world: &mut World, figures: &Figures, deletes: usize) -> anyhow::Result<()> {
    say(&format!("{deletes} deletes with {EDGES} edges and {CALLERS} callers without a pause"));
    let mut edges = Vec::new();
    for number in 0..EDGES {
        let mut edge = world.spawn_edge(&format!("edge {number}")).await;
        let health = edge.health.clone();
        edge.service.wait_ready(&health).await;
        edges.push(edge);
    }
    let (mut keys, token) = (world.keys().await?, world.token().await?);
    let caller = Caller::new();
    let good = world.create(&mut keys, &token).await?.secret;
    known(&edges, &caller, &good).await;
    let load = Load::start(&edges, &good);
    let (mut refused, mut receipts) = (Vec::new(), Vec::new());
    for number in 0..deletes {
        // Access tokens end after 5 minutes.
        let token = if number % 100 == 0 { world.token().await? } else { token.clone() };
        let made = world.create(&mut keys, &token).await?;
        known(&edges, &caller, &made.secret).await;
        let request = DeleteKeyRequest {
            name: made.key.map(|key| key.name).unwrap_or_default(),
            receipt_timeout: Some(Duration::from_secs(5).try_into()?),
            ..Default::default()
        };
        let began = Instant::now();
        let looks = edges.iter().map(|edge| until_refused(edge, &caller, &made.secret, began));
        let (deleted, looks) = tokio::join!(keys.delete_key(signed(&token, request)), try_join_all(looks));
        refused.push(looks?.into_iter().max().unwrap_or_default());
        let receipt = deleted?.into_inner().receipt.unwrap_or_default();
        receipts.push(receipt.elapsed.and_then(|elapsed| elapsed.try_into().ok()).unwrap_or_default());
        if (number + 1) % 200 == 0 {
            say(&format!("  {} of {deletes}", number + 1));
        }
    }
    figures.note_times("delete_refused", refused, &["p50", "p99", "max"]);
    figures.note_times("delete_receipt", receipts, &["p99"]);
    figures.note("delete_load_calls_per_s", load.stop());
    Ok(())
}

async fn known(edges: &[Edge], caller: &Caller, secret: &str) {
    for edge in edges {
        eventually("the key is known", async || {
            caller.call(&edge.addr, secret).await.is_ok_and(|status| status == StatusCode::OK)
        })
        .await;
    }
}

async fn until_refused(
    edge: &Edge,
    caller: &Caller,
    secret: &str,
    began: Instant,
) -> anyhow::Result<Duration> {
    while caller.call(&edge.addr, secret).await? != StatusCode::UNAUTHORIZED {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(began.elapsed())
}

/// Calls with a good key, until stopped.
struct Load {
    began: Instant,
    callers: Vec<tokio::task::JoinHandle<()>>,
    calls: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Load {
    fn start(edges: &[Edge], secret: &str) -> Self {
        let calls = std::sync::Arc::<std::sync::atomic::AtomicU64>::default();
        let callers = (0..CALLERS).map(|number| {
            let (edge, secret, calls) =
                (edges[number % edges.len()].addr.clone(), secret.to_owned(), calls.clone());
            tokio::spawn(async move {
                let caller = Caller::new();
                while caller.call(&edge, &secret).await.is_ok() {
                    calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            })
        });
        Self { began: Instant::now(), callers: callers.collect(), calls: calls.clone() }
    }

    /// Calls a second.
    fn stop(self) -> f64 {
        self.callers.iter().for_each(tokio::task::JoinHandle::abort);
        #[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
        let calls = self.calls.load(std::sync::atomic::Ordering::Relaxed) as f64;
        calls / self.began.elapsed().as_secs_f64()
    }
}
