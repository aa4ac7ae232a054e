//! Clients of two edges while something is away: steady load, keys that are made and deleted meanwhile, and all that they
//! were answered.

use std::{collections::BTreeSet, time::Duration};

use hyper::Method;
use parts::eventually;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{client::Client, cluster_stack::Twofold, load::Load, stack::MadeKey};

/// Of a client after each answer.
const PAUSE: Duration = Duration::from_millis(10);

/// Load on both edges, and deleted keys that go on calling.
pub(crate) struct Clients {
    loads: [Load; 2],
    /// Of calls with keys of their own.
    answered: BTreeSet<String>,
    refused: JoinSet<(BTreeSet<String>, u64)>,
    stop: CancellationToken,
}

impl Clients {
    /// Starts load with a key that both edges know.
    pub(crate) async fn start(twofold: &Twofold) -> Self {
        let mut answered = BTreeSet::new();
        let key = twofold.make_key(0, "Steady").await;
        let mut loads = Vec::new();
        for half in &twofold.halves {
            let client = half.client(&key.secret);
            answered.insert(accepted(&client).await);
            loads.push(Load::paced(&client, PAUSE));
        }
        let Ok(loads) = <[Load; 2]>::try_from(loads) else { unreachable!("there are two edges") };
        Self { loads, answered, refused: JoinSet::new(), stop: CancellationToken::new() }
    }

    /// Waits until more calls were answered by both edges.
    pub(crate) async fn go_on(&self) {
        for load in &self.loads {
            load.go_on().await;
        }
    }

    /// Makes a key by one keys service: both edges take it. Deletes another one: both refuse it, and never take it again.
    /// Returns the new one.
    pub(crate) async fn change_keys(&mut self, twofold: &Twofold, by: usize, old: &MadeKey) -> MadeKey {
        let new = twofold.make_key(by, "New").await;
        twofold.delete_key(by, old).await;
        for half in &twofold.halves {
            self.answered.insert(accepted(&half.client(&new.secret)).await);
            let client = half.client(&old.secret);
            eventually("the deleted key is refused", async || {
                let answer = client.call(Method::GET, "/v1/orders/17").await.ok()?;
                self.answered.insert(answer.request_id());
                (answer.status == 401).then_some(())
            })
            .await;
            self.refused.spawn(refused_for_ever(client, self.stop.clone()));
        }
        new
    }

    /// A key that both edges take.
    pub(crate) async fn known_key(&mut self, twofold: &Twofold) -> MadeKey {
        let key = twofold.make_key(0, "First").await;
        for half in &twofold.halves {
            self.answered.insert(accepted(&half.client(&key.secret)).await);
        }
        key
    }

    /// Ends, and asserts that each answered call was counted once.
    pub(crate) async fn assert_counted_once(mut self, twofold: &Twofold) -> usize {
        self.stop.cancel();
        let mut cut_off = 0;
        while let Some(ended) = self.refused.join_next().await {
            let (ids, errors) = ended.unwrap();
            self.answered.extend(ids);
            cut_off += errors;
        }
        for load in self.loads {
            let (ids, errors) = load.end().await;
            self.answered.extend(ids);
            cut_off += errors;
        }
        twofold.assert_counted_once(&self.answered, cut_off).await;
        self.answered.len()
    }
}

/// Calls until the edge takes the key; what it refuses before belongs to nobody and is not counted.
async fn accepted(client: &Client) -> String {
    eventually("the edge takes the key", async || {
        let answer = client.call(Method::GET, "/v1/orders/17").await.ok()?;
        (answer.status == 200).then(|| answer.request_id())
    })
    .await
}

/// Asserts that a deleted key is refused by each call; the ids of those, and how many calls were cut off.
async fn refused_for_ever(client: Client, stop: CancellationToken) -> (BTreeSet<String>, u64) {
    let (mut ids, mut errors) = (BTreeSet::new(), 0);
    while !stop.is_cancelled() {
        match client.call(Method::GET, "/v1/orders/17").await {
            // Of an edge that has just started and knows no keys: it is nobody's call.
            Ok(answer) if answer.status == 503 => {}
            Ok(answer) => {
                assert_eq!(answer.status, 401, "a deleted key is taken again");
                assert_eq!(answer.problem()["denial"], "deleted");
                ids.insert(answer.request_id());
            }
            Err(_) => errors += 1,
        }
        tokio::time::sleep(10 * PAUSE).await;
    }
    (ids, errors)
}
