//! Receipts: which edges refuse what was just withdrawn. Waits for edges, never for the relay of its own process:
//! any keys service may be the relay.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use domain::{KeyId, WorkspaceId};
use proto::resource::key_name;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    caller::Caller,
    edges::{Edge, Edges, SILENT_AFTER},
    error::Error,
    fields::to_micros,
    store::{Store, audit::Change},
};

/// Longest wait that a caller may ask for.
const WITHIN_MAX: Duration = Duration::from_secs(10);
/// Between two looks where nothing wakes a waiting call.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Before the notices of numbers are listened to again after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Gives receipts. Clones share everything.
#[derive(Clone)]
pub struct Receipts {
    store: Store,
    edges: Edges,
    numbered: Arc<watch::Sender<()>>,
}

/// Which edges refuse something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// How it stands.
    pub state: State,
    /// How many refuse it.
    pub edges_refusing: usize,
    /// Of how many that may serve calls.
    pub edges: usize,
    /// From the commit to the last answer that counts.
    pub elapsed: Duration,
    /// Those that gave no answer.
    pub silent_edges: Vec<SilentEdge>,
}

/// How a receipt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Every edge refuses it.
    Complete,
    /// Some edge gave no answer in time.
    Partial,
    /// Nobody asked to wait.
    NotAwaited,
}

/// An edge that gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SilentEdge {
    /// `edge_…`
    pub edge_id: String,
    /// Its last sign of life.
    pub last_seen: OffsetDateTime,
    /// By when it refuses every call, if it hears nothing; `None` if it never does by itself.
    pub fails_closed: Option<OffsetDateTime>,
}

impl Receipt {
    /// For the audit trail.
    fn to_json(&self) -> Value {
        let state = match self.state {
            State::Complete => "complete",
            State::Partial => "partial",
            State::NotAwaited => "not_awaited",
        };
        json!({
            "state": state,
            "edges_refusing": self.edges_refusing,
            "edges": self.edges,
            "elapsed_us": u64::try_from(self.elapsed.as_micros()).unwrap_or(u64::MAX),
            "silent_edges": self.silent_edges.iter().map(|edge| &edge.edge_id).collect::<Vec<_>>(),
        })
    }
}

impl Receipts {
    /// Receipts by what `edges` say.
    #[must_use]
    pub fn new(store: Store, edges: Edges) -> Self {
        Self { store, edges, numbered: Arc::new(watch::Sender::new(())) }
    }

    /// Waits at most `within` until all edges know what was just committed of a key, and leaves the receipt in the
    /// audit trail. `None` does neither.
    ///
    /// # Errors
    /// Postgres does not take the entry.
    pub async fn give(
        &self,
        (workspace_id, key_id): (WorkspaceId, KeyId),
        within: Option<Duration>,
        caller: &Caller,
    ) -> Result<Receipt, Error> {
        let Some(within) = within else { return Ok(Receipt::not_awaited()) };
        let receipt = self.wait(key_id, within).await;
        let mut tx = self.store.begin().await?;
        let now = to_micros(OffsetDateTime::now_utc());
        let (name, change) = (key_name(workspace_id, key_id), Change::made(receipt.to_json()));
        tx.audit_change(workspace_id, "receipt", &name, change, caller, now).await?;
        tx.commit().await?;
        tracing::info!(
            key.id = %key_id,
            receipt.state = ?receipt.state,
            receipt.edges_refusing = receipt.edges_refusing,
            receipt.edges = receipt.edges,
            receipt.elapsed_ms = receipt.elapsed.as_millis(),
            "receipt given"
        );
        Ok(receipt)
    }

    /// Waits at most `within` until all edges know what was just committed of a key, or those that do not are
    /// silent.
    pub async fn wait(&self, key_id: KeyId, within: Duration) -> Receipt {
        let committed = Instant::now();
        let deadline = committed + within;
        let mut edges = self.edges.subscribe();
        let place = self.place(key_id, deadline).await;
        let placed = OffsetDateTime::now_utc();
        let mut elapsed = Duration::ZERO;
        let mut refusing = None;
        loop {
            self.edges.look();
            let judged = judge(&edges.borrow_and_update(), place, placed, OffsetDateTime::now_utc());
            if refusing < Some(judged.refusing) {
                refusing = Some(judged.refusing);
                elapsed = committed.elapsed();
            }
            if judged.is_settled || Instant::now() >= deadline {
                return judged.receipt(elapsed);
            }
            let look = deadline.min(Instant::now() + LOOK_EVERY);
            let _ = timeout_at(look, edges.changed()).await;
        }
    }

    /// Wakes waiting calls when the relay, wherever it is, gave feed versions. For ever.
    pub async fn follow_numbers(&self) -> Infallible {
        loop {
            if let Ok(mut listener) = self.store.listen_to_numbers().await {
                while listener.changed().await.is_ok() {
                    self.numbered.send_replace(());
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The feed version of what was committed of a key; `None` if it has none by then. Looks at least once.
    async fn place(&self, key_id: KeyId, deadline: Instant) -> Option<u64> {
        let mut numbered = self.numbered.subscribe();
        loop {
            match self.store.feed_place(key_id).await {
                Ok(Some(place)) => return Some(place),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a receipt waits for Postgres"),
            }
            if Instant::now() >= deadline {
                return None;
            }
            let look = deadline.min(Instant::now() + LOOK_EVERY);
            let _ = timeout_at(look, numbered.changed()).await;
        }
    }
}

/// A request's `receipt_timeout`.
///
/// # Errors
/// If it is negative or longer than 10 s.
pub fn within(receipt_timeout: Option<prost_types::Duration>) -> Result<Option<Duration>, Error> {
    let within = receipt_timeout.map(Duration::try_from).transpose().ok();
    within
        .filter(|within| within.is_none_or(|within| within <= WITHIN_MAX))
        .ok_or_else(|| Error::invalid("receipt_timeout", "must be 0 to 10 s; leave it out to get no receipt"))
}

impl Receipt {
    const fn not_awaited() -> Self {
        Self {
            state: State::NotAwaited,
            edges_refusing: 0,
            edges: 0,
            elapsed: Duration::ZERO,
            silent_edges: Vec::new(),
        }
    }
}

/// How things stand at one moment.
#[derive(Debug, PartialEq, Eq)]
struct Judged {
    refusing: usize,
    missing: Vec<SilentEdge>,
    /// Nobody is left whom it is worth to wait for.
    is_settled: bool,
}

impl Judged {
    fn receipt(self, elapsed: Duration) -> Receipt {
        Receipt {
            state: if self.missing.is_empty() { State::Complete } else { State::Partial },
            edges_refusing: self.refusing,
            edges: self.refusing + self.missing.len(),
            elapsed,
            silent_edges: self.missing,
        }
    }
}

/// Asks each edge that may serve calls whether it knows the feed up to `place` (`None`: not yet in the feed). One that
/// said after `placed` that it has no feed at all refuses every call, and finds the place in what it reads first; one that
/// said so before may have read something older since.
fn judge(
    edges: &BTreeMap<String, Edge>,
    place: Option<u64>,
    placed: OffsetDateTime,
    now: OffsetDateTime,
) -> Judged {
    let mut judged = Judged { refusing: 0, missing: Vec::new(), is_settled: true };
    // Who has been silent for longer refuses every call by now.
    let may_serve = |edge: &Edge| edge.fails_closed().is_none_or(|closed| now <= closed);
    for (edge_id, edge) in edges.iter().filter(|(_, edge)| may_serve(edge)) {
        let has_no_feed = edge.feed_version == 0 && edge.seen >= placed;
        if place.is_some_and(|place| has_no_feed || place <= edge.feed_version) {
            judged.refusing += 1;
            continue;
        }
        judged.is_settled &= now > edge.seen + SILENT_AFTER;
        judged.missing.push(SilentEdge {
            edge_id: edge_id.clone(),
            last_seen: edge.seen,
            fails_closed: edge.fails_closed(),
        });
    }
    judged
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    #[rstest]
    #[case::knows_it(7, 0, Some(7), (1, 0, true))]
    #[case::knows_more(8, 0, Some(7), (1, 0, true))]
    #[case::knows_less(6, 0, Some(7), (0, 1, false))]
    #[case::has_no_feed_yet(0, 0, Some(7), (1, 0, true))]
    #[case::had_no_feed_before(0, 1, Some(7), (0, 1, false))]
    #[case::has_no_feed_and_may_read_the_older_one(0, 0, None, (0, 1, false))]
    #[case::not_in_the_feed_yet(6, 0, None, (0, 1, false))]
    #[case::just_not_silent(6, 5, Some(7), (0, 1, false))]
    #[case::silent(6, 6, Some(7), (0, 1, true))]
    #[case::silent_but_knew_it(7, 6, Some(7), (1, 0, true))]
    #[case::not_yet_failed_closed(6, 33, Some(7), (0, 1, true))]
    #[case::failed_closed(6, 34, Some(7), (0, 0, true))]
    fn each_edge_is_judged_alone(
        #[case] feed_version: u64,
        #[case] silent_s: i64,
        #[case] place: Option<u64>,
        #[case] (refusing, missing, is_settled): (usize, usize, bool),
    ) {
        let edge = Edge::example(feed_version, NOW - time::Duration::seconds(silent_s));
        let judged = judge(&BTreeMap::from([("edge_a".to_owned(), edge)]), place, NOW, NOW);
        assert_eq!(
            (judged.refusing, judged.missing.len(), judged.is_settled),
            (refusing, missing, is_settled)
        );
    }

    #[test]
    fn an_edge_that_serves_on_is_named_until_it_is_heard_of() {
        let year_ago = NOW - time::Duration::days(365);
        let mut edge = Edge::example(6, year_ago);
        edge.serves_stale = true;
        let judged = judge(&BTreeMap::from([("edge_a".to_owned(), edge)]), Some(7), NOW, NOW);
        assert!(judged.is_settled && judged.refusing == 0);
        assert_eq!(judged.missing[0].fails_closed, None);
    }

    #[rstest]
    #[case(None, Some(None))]
    #[case(Some((0, 0)), Some(Some(Duration::ZERO)))]
    #[case(Some((10, 0)), Some(Some(WITHIN_MAX)))]
    #[case(Some((10, 1)), None)]
    #[case(Some((0, -1)), None)]
    #[case(Some((-1, 0)), None)]
    fn at_most_ten_seconds(#[case] asked: Option<(i64, i32)>, #[case] expected: Option<Option<Duration>>) {
        let asked = asked.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
        assert_eq!(within(asked).ok(), expected);
    }

    #[test]
    fn without_edges_it_is_complete() {
        let receipt = judge(&BTreeMap::new(), Some(1), NOW, NOW).receipt(Duration::ZERO);
        assert_eq!((receipt.state, receipt.edges), (State::Complete, 0));
    }
}
