//! Edges under load, and the oracle: a list of the ids of all events that they accepted, which no part of the system
//! ever sees.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use proto::events as pb;
use uuid::Uuid;

use crate::support::{Chance, Edge, Stage};

/// How long nothing may be committed while edges wait for it.
const STANDSTILL_MAX: Duration = Duration::from_secs(120);
/// After so long without a commit edges send everything again.
const RESEND_AFTER: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);
/// Messages between two looks at what is committed.
const LOOK_EVERY: u64 = 40;
/// The one that is not [`crate::support::example::SHARD`].
const OTHER_SHARD: u16 = 0;
/// Rows that are read at once to be held against the list.
const PIECE: usize = 500_000;

/// How much a crowd sends.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Most events of a message.
    pub(crate) events_max: u64,
    /// Most milliseconds between two messages.
    pub(crate) pause_max_ms: u64,
}

/// Some edges.
pub(crate) struct Crowd {
    edges: Vec<Edge>,
    /// For each edge the ids of its events, by their sequence.
    accepted: Vec<Vec<Uuid>>,
    latency_us: u64,
    load: Load,
    chance: Chance,
    messages: u64,
}

impl Crowd {
    /// Edges that send small messages as fast as NATS takes them.
    pub(crate) async fn new(stage: &Stage, seed: u64) -> Self {
        Self::with_load(stage, seed, Load { events_max: 100, pause_max_ms: 20 }).await
    }

    /// Three edges on the tests' shard and one on the other, whose rows may go into the same insert.
    pub(crate) async fn with_load(stage: &Stage, seed: u64, load: Load) -> Self {
        let mut crowd = Self::on_one_shard(stage, seed, load).await;
        crowd.edges.push(Edge::on_shard("edge_d", OTHER_SHARD, stage.jetstream().await));
        crowd.accepted.push(Vec::new());
        crowd
    }

    /// The three.
    pub(crate) async fn on_one_shard(stage: &Stage, seed: u64, load: Load) -> Self {
        let jetstream = stage.jetstream().await;
        let edges = ["edge_a", "edge_b", "edge_c"].map(|id| Edge::new(id, jetstream.clone()));
        let accepted = edges.iter().map(|_| Vec::new()).collect();
        let edges = edges.into();
        Self { edges, accepted, latency_us: 0, load, chance: Chance::new(seed), messages: 0 }
    }

    /// How many events were accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.iter().map(|ids| ids.len() as u64).sum()
    }

    /// Accepts events at one edge and publishes them once; whether NATS acknowledged them changes nothing.
    pub(crate) async fn send(&mut self, count: u64, change: impl FnOnce(&mut pb::RequestEventBatch)) {
        let at = self.chance.below(self.edges.len() as u64) as usize;
        let message = self.edges[at].spool_changed(count, change);
        for event in &message.events {
            self.accepted[at].push(Uuid::from_slice(&event.request_id).expect("an id has 16 bytes"));
            self.latency_us += u64::from(event.latency_us);
        }
        self.edges[at].publish(&message).await;
    }

    /// Goes on sending until `disturbance` is over.
    pub(crate) async fn during<T>(&mut self, disturbance: impl Future<Output = T>) -> T {
        let mut disturbance = std::pin::pin!(disturbance);
        loop {
            tokio::select! {
                biased;
                over = &mut disturbance => return over,
                () = self.step() => {}
            }
        }
    }

    async fn step(&mut self) {
        self.messages += 1;
        if self.messages.is_multiple_of(LOOK_EVERY) && self.free().await > 0 {
            self.resend().await;
        }
        let Load { events_max, pause_max_ms } = self.load;
        let (count, pause) = (1 + self.chance.below(events_max), self.chance.below(pause_max_ms + 1));
        self.send(count, |_| {}).await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// Forgets what is committed; how many messages are left.
    pub(crate) async fn free(&mut self) -> usize {
        let mut left = 0;
        for edge in &mut self.edges {
            left += edge.free().await;
        }
        left
    }

    async fn resend(&self) {
        for edge in &self.edges {
            edge.resend().await;
        }
    }

    /// Waits until the edges are rid of everything.
    pub(crate) async fn settle(&mut self) {
        let (mut least, mut progress, mut sent) = (usize::MAX, Instant::now(), None::<Instant>);
        loop {
            let left = self.free().await;
            if left == 0 {
                return;
            }
            if left < least {
                (least, progress) = (left, Instant::now());
            }
            assert!(
                progress.elapsed() < STANDSTILL_MAX,
                "{left} messages wait at the edges and none is committed"
            );
            if sent.is_none_or(|at| at.elapsed() > RESEND_AFTER && progress.elapsed() > RESEND_AFTER) {
                self.resend().await;
                sent = Some(Instant::now());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until the edges are rid of everything; then each accepted event is one row, there are no others, the
    /// projection says what the rows say, and ingest's own audits find nothing and never did.
    pub(crate) async fn assert_exact(&mut self, stage: &Stage) {
        self.settle().await;
        let mut differences = String::new();
        for (edge, accepted) in self.edges.iter().zip(&self.accepted) {
            for (piece, ids) in accepted.chunks(PIECE).enumerate() {
                let first = piece * PIECE + 1;
                let sql = format!(
                    "select request_id from keymeter.request_events where edge_id = '{}' and edge_seq between {first} and {}",
                    edge.id,
                    first + ids.len() - 1,
                );
                compare(&edge.id, ids, &stage.clickhouse.query(&sql).await, &mut differences);
            }
        }
        assert!(differences.is_empty(), "{differences}");
        let all = "select count(), sum(latency_us) from keymeter.request_events";
        let expected = format!("{}\t{}\n", self.accepted(), self.latency_us);
        assert_eq!(stage.clickhouse.query(all).await, expected, "rows that no edge has accepted");
        assert_projection(stage).await;
        // Which also repairs; but nothing came to that.
        let found =
            stage.ingest.log().lines().find(|line| line.contains("the audit found")).map(str::to_owned);
        assert_eq!(found, None, "rows were missing or doubled for a while");
        let audit = stage.command(&["audit"]).await;
        assert!(audit.ok, "{audit:?}");
    }
}

fn compare(edge_id: &str, accepted: &[Uuid], rows: &str, differences: &mut String) {
    let mut times: BTreeMap<Uuid, u64> = accepted.iter().map(|id| (*id, 0)).collect();
    let mut strange = 0;
    for id in rows.lines() {
        match times.get_mut(&id.parse().expect("an id is a UUID")) {
            Some(times) => *times += 1,
            None => strange += 1,
        }
    }
    let lost = times.values().filter(|times| **times == 0).count();
    let doubled = times.values().filter(|times| **times > 1).count();
    if lost + doubled + strange > 0 {
        let _ = writeln!(differences, "{edge_id}: {lost} lost, {doubled} doubled, {strange} strange");
    }
}

/// The same sums from the rows and from each projection.
async fn assert_projection(stage: &Stage) {
    let answer = "method, status_code, outcome, origin, denial";
    for (projection, sums) in [
        (
            "totals_by_quarter_hour",
            format!(
                "toStartOfFifteenMinutes(occurred_at) as at, {answer}, count(), sum(latency_us), max(occurred_at)"
            ),
        ),
        ("totals_by_day", format!("toDate(occurred_at) as at, route, {answer}, count()")),
    ] {
        let sums = async |settings: &str| {
            let sql = format!(
                "select workspace_id, key_id, {sums} from keymeter.request_events group by all order by all
                 settings {settings}"
            );
            stage.clickhouse.query(&sql).await
        };
        let forced = format!("optimize_use_projections = 1, force_optimize_projection_name = '{projection}'");
        assert_eq!(
            sums(&forced).await,
            sums("optimize_use_projections = 0").await,
            "{projection} is not as the rows"
        );
    }
}
