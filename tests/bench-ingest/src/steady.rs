//! Calls at a steady rate: how long after an edge has answered a call a query sees it, and how much one loud
//! workspace delays the others.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::ensure;
use domain::{KeyId, RequestEvent, WorkspaceId};
use figures::{Figures, say};
use futures_util::future::try_join_all;
use proto::nats;
use time::OffsetDateTime;
use tokio::task::JoinSet;

use crate::{
    ASKED_PER_SECOND,
    edges::{EDGES, Edge, SHARDS, encoded},
    stage::Stage,
    traffic::{Chance, Traffic},
};

/// How often an edge sends what it has gathered.
const GATHER: Duration = Duration::from_millis(50);
/// Most calls of a message.
const MESSAGE_EVENTS_MAX: usize = 1_000;
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(15);
/// Time between two queries, which every figure may be too long by. More of them take a fifth of the server's time.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for the last probes.
const LATE_MAX: Duration = Duration::from_secs(60);
/// Distinct calls, sent again and again under new numbers.
const POOL: usize = 100_000;
const SEED: u64 = 9;
/// Workspaces beside the loud one, which calls so many times as often as each of them.
const OTHERS: usize = 20;
const LOUD: f64 = 20.0;

/// Encoded calls with their workspaces and shards, so many a second of them.
struct Load {
    calls: Vec<(WorkspaceId, u16, Vec<u8>)>,
    per_second: f64,
}

pub(crate) async fn measure(figures: &Figures, capacity: f64) -> anyhow::Result<()> {
    let rates = [
        ("freshness_half_of_asked", ASKED_PER_SECOND / 2.0, "half of the asked speed"),
        ("freshness", capacity * 0.5, "half of the whole's speed"),
        ("freshness_90_percent", capacity * 0.9, "90 % of the whole's speed"),
    ];
    for (name, per_second, what) in rates {
        say(&format!("freshness at {per_second:.0} events a second, {what}"));
        let mut traffic = Traffic::new(SEED, false);
        let calls: Vec<_> = (0..POOL).map(|_| traffic.call(OffsetDateTime::now_utc())).collect();
        figures.note_times(name, run(&[load(&calls, per_second)]).await?, &["p50", "p99"]);
    }
    let others_per_second = capacity / 4.0;
    say(&format!(
        "{OTHERS} workspaces with {others_per_second:.0} events a second together, alone and beside a loud one"
    ));
    let mut traffic = Traffic::new(SEED, false);
    let mut chance = Chance::new(SEED);
    let mut calls = |count: usize, workspaces: std::ops::Range<u64>| -> Vec<RequestEvent> {
        let one = |_| {
            let workspace = workspaces.start + chance.below(workspaces.end - workspaces.start);
            traffic.call_in(workspace as usize, OffsetDateTime::now_utc())
        };
        (0..count).map(one).collect()
    };
    let others = load(&calls(POOL, 1..OTHERS as u64 + 1), others_per_second);
    let loud = load(&calls(POOL, 0..1), others_per_second / OTHERS as f64 * LOUD);
    let both = [others, loud];
    let (alone, beside) = (run(&both[..1]).await?, run(&both).await?);
    let mean = |times: &[Duration]| times.iter().sum::<Duration>().as_secs_f64() / times.len() as f64;
    let delayed = (mean(&beside) / mean(&alone) - 1.0) * 100.0;
    figures.note_times("others_alone", alone, &["p50", "p99"]);
    figures.note_times("others_beside_loud", beside, &["p50", "p99"]);
    figures.note("others_delayed_percent", delayed);
    Ok(())
}

fn load(calls: &[RequestEvent], per_second: f64) -> Load {
    let calls =
        calls.iter().map(|call| (call.workspace_id, nats::shard_of(&call.key_id, SHARDS), encoded(call)));
    Load { calls: calls.collect(), per_second }
}

/// Calls that are looked for: their numbers, and when the edge had answered each.
type Probes = Arc<Mutex<Vec<VecDeque<(u64, Instant)>>>>;

/// How long each probe took from the edge's answer until a query saw it.
async fn run(loads: &[Load]) -> anyhow::Result<Vec<Duration>> {
    let stage = Stage::start().await?;
    let _ingest = stage.spawn_ingest().await;
    let mut probe = Prober::new();
    let jetstream = async_nats::jetstream::new(async_nats::connect(stage.nats.url()).await?);
    let mut edges: Vec<Edge> = (0..EDGES).map(|number| Edge::new(number as u64)).collect();
    let mut sending = JoinSet::new();
    // Until ingest has started.
    probe.send(&mut edges[0], Duration::ZERO);
    sending.spawn(publish(jetstream.clone(), drain(&mut edges)));
    stage.wait_for_rows(1).await?;
    probe.sent.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(VecDeque::clear);

    let (began, mut due, mut at) = (Instant::now(), vec![0.0; loads.len()], vec![0; loads.len()]);
    let mut ticks = tokio::time::interval(GATHER);
    let mut next_look = Instant::now();
    let mut times = Vec::new();
    let (question, sent) = (probe.question.clone(), probe.sent.clone());
    let publishing = async {
        while began.elapsed() < WARM_UP + MEASURED {
            ticks.tick().await;
            for (index, Load { calls, per_second }) in loads.iter().enumerate() {
                due[index] += per_second * GATHER.as_secs_f64();
                while due[index] >= 1.0 {
                    let (workspace_id, shard, bytes) = &calls[at[index] % calls.len()];
                    edges[at[index] % EDGES].take_now(workspace_id, *shard, bytes.clone());
                    (due[index], at[index]) = (due[index] - 1.0, at[index] + 1);
                }
            }
            if began.elapsed() > WARM_UP {
                let edge = probe.chance.below(EDGES as u64) as usize;
                let answered = Duration::from_millis(probe.chance.below(GATHER.as_millis() as u64));
                probe.send(&mut edges[edge], answered);
            }
            sending.spawn(publish(jetstream.clone(), drain(&mut edges)));
            while let Some(sent) = sending.try_join_next() {
                sent??;
            }
        }
        anyhow::Ok(())
    };
    let looking = async {
        loop {
            tokio::time::sleep(next_look.saturating_duration_since(Instant::now())).await;
            next_look = Instant::now() + LOOK_EVERY;
            let seen = stage.clickhouse.try_query(&question).await.map_err(anyhow::Error::msg)?;
            let now = Instant::now();
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            for line in seen.lines() {
                let (shard, newest) = line.split_once('\t').unwrap_or(("0", "0"));
                let (shard, newest) = (shard.parse::<usize>()?, newest.parse::<u64>()?);
                while let Some((_, answered)) = sent[shard].pop_front_if(|(number, _)| *number <= newest) {
                    times.push(now - answered);
                }
            }
            let late = began.elapsed().saturating_sub(WARM_UP + MEASURED);
            if late > Duration::ZERO && sent.iter().all(VecDeque::is_empty) {
                return anyhow::Ok(());
            }
            ensure!(late < LATE_MAX, "some calls were not seen for {} s", LATE_MAX.as_secs());
        }
    };
    tokio::try_join!(publishing, looking)?;
    Ok(times)
}

/// Everything that edges have gathered, as messages.
fn drain(edges: &mut [Edge]) -> Vec<(u16, bytes::Bytes)> {
    let mut messages = Vec::new();
    for edge in edges {
        for shard in nats::all_shards(SHARDS) {
            while let Some(message) = edge.message(shard, MESSAGE_EVENTS_MAX) {
                messages.push((shard, message));
            }
        }
    }
    messages
}

async fn publish(
    jetstream: async_nats::jetstream::Context,
    messages: Vec<(u16, bytes::Bytes)>,
) -> anyhow::Result<()> {
    let sent = messages.into_iter().map(async |(shard, message)| {
        jetstream.publish(nats::request_events_subject(shard), message).await?.await?;
        anyhow::Ok(())
    });
    try_join_all(sent).await.map(drop)
}

/// Sends calls that are looked for: one key of each shard, of a workspace of their own.
struct Prober {
    chance: Chance,
    call: RequestEvent,
    keys: Vec<KeyId>,
    number: u64,
    question: String,
    sent: Probes,
}

impl Prober {
    fn new() -> Self {
        let call = Traffic::new(SEED + 1, false).call(OffsetDateTime::now_utc());
        let key =
            |shard| std::iter::repeat_with(KeyId::generate).find(|key| nats::shard_of(key, SHARDS) == shard);
        let keys: Vec<_> = (0..SHARDS).filter_map(key).collect();
        let ids: Vec<_> = keys.iter().map(|key| format!("'{}'", key.as_uuid())).collect();
        let question = format!(
            "select shard, max(request_bytes) from keymeter.request_events
             where workspace_id = '{}' and key_id in ({}) group by shard",
            call.workspace_id.as_uuid(),
            ids.join(", ")
        );
        let sent = Arc::new(Mutex::new(vec![VecDeque::new(); usize::from(SHARDS)]));
        Self { chance: Chance::new(SEED), call, keys, number: 0, question, sent }
    }

    /// One for each shard, answered by the edge a while ago.
    fn send(&mut self, edge: &mut Edge, answered: Duration) {
        self.number += 1;
        let answered_at = Instant::now() - answered;
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        for (key_id, sent) in self.keys.iter().zip(sent.iter_mut()) {
            edge.take(&RequestEvent {
                key_id: *key_id,
                occurred_at: OffsetDateTime::now_utc() - answered,
                request_bytes: self.number,
                ..self.call.clone()
            });
            sent.push_back((self.number, answered_at));
        }
    }
}
