//! One run from its seed, what must be so after it, and the runs that tests make.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use ingest::metrics::Metrics;
use tokio::sync::{oneshot, watch};

use crate::{
    chance::Chance,
    chaos,
    clock::Clock,
    edges::{Edge, Kind, Truth},
    model::{ClickHouse, Disk, Identity},
    operator,
    servers::{Bug, Servers, Shared},
};

/// Calls come and things go wrong for so long.
const CHAOS: Duration = Duration::from_secs(12);
/// By then everything must be delivered.
const DEADLINE: Duration = Duration::from_secs(400);
const EDGES: u64 = 2;

/// What a run was like.
#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    events: u64,
    inserts: u64,
    takeovers: u64,
    passes: u64,
}

/// One run; the error says what is wrong.
fn simulate(seed: u64, bug: Option<Bug>) -> Result<Figures, String> {
    let clock = Clock::new();
    let shared = Shared {
        chance: Chance::new(seed),
        disk: Disk::new(1),
        copies: VecDeque::new(),
        nats_is_up: true,
        clickhouse: ClickHouse::default(),
        clickhouse_is_up: true,
        is_lossy: true,
        letters: 0,
        deleted: BTreeSet::new(),
        published: Vec::new(),
        bug,
        inserts: 0,
        takeovers: 0,
    };
    let servers = Servers {
        clock: clock.clone(),
        shared: Arc::new(Mutex::new(shared)),
        connections: Arc::new(watch::Sender::new(0)),
        arrivals: Arc::new(watch::Sender::new(0)),
    };
    let truth = Truth::default();
    let delivered = clock.run(live(servers.clone(), truth.clone()));
    delivered.unwrap_or_else(|| Err("everybody waits for something that never comes".into()))?;
    let shared = servers.shared.lock().unwrap();
    check(&truth.lock().unwrap(), &shared)?;
    let events = truth.lock().unwrap().len() as u64;
    let passes = shared.clickhouse.passes.len() as u64;
    Ok(Figures { events, inserts: shared.inserts, takeovers: shared.takeovers, passes })
}

/// Edges, workers and misfortunes, until all is delivered.
async fn live(servers: Servers, truth: Truth) -> Result<(), String> {
    let processes = chaos::reign(servers.clone(), Metrics::new(), CHAOS);
    let (keep, kept) = oneshot::channel();
    servers.clock.spawn(async move {
        let _ = keep.send(processes.await);
    });
    let mut ends = Vec::new();
    let (tell, end) = oneshot::channel();
    let operator = operator::work(servers.clone(), Metrics::new(), CHAOS);
    servers.clock.spawn(async move {
        operator.await;
        let _ = tell.send(Ok(()));
    });
    ends.push(end);
    for number in 0..EDGES {
        let (tell, end) = oneshot::channel();
        let edge = Edge::new(number, servers.clone(), truth.clone());
        servers.clock.spawn(async move {
            let _ = tell.send(edge.run(CHAOS).await);
        });
        ends.push(end);
    }
    let late = servers.clock.clone();
    let delivered = async {
        for end in ends {
            end.await.map_err(|_| "an edge or the operator is gone".to_owned())??;
        }
        drop(kept.await);
        Ok(())
    };
    tokio::select! {
        biased;
        delivered = delivered => delivered,
        () = late.sleep(DEADLINE) => Err(format!("not delivered after {} s", DEADLINE.as_secs())),
    }
}

/// Each good event is one row, and nothing else is.
fn check(truth: &BTreeMap<Identity, Kind>, shared: &Shared) -> Result<(), String> {
    for (identity, kind) in truth {
        let found = shared.clickhouse.rows.get(identity).map_or(0, Vec::len);
        if found != usize::from(*kind == Kind::Good) {
            return Err(format!("{identity:?} is {kind:?} and has {found} rows"));
        }
    }
    if let Some(identity) = shared.clickhouse.rows.keys().find(|identity| !truth.contains_key(identity)) {
        return Err(format!("{identity:?} was never numbered and has a row"));
    }
    // A request that outlives its worker may note a gap late, so what has a row may have one as well.
    let gaps = &shared.clickhouse.gaps;
    if let Some((identity, kind)) =
        truth.iter().find(|(identity, kind)| **kind != Kind::Good && !gaps.contains(identity))
    {
        return Err(format!("{identity:?} is {kind:?}, and not noted as a gap"));
    }
    if let Some(wrong) = shared.clickhouse.wrong() {
        return Err(wrong);
    }
    let bad = truth.values().filter(|kind| **kind == Kind::Bad).count() as u64;
    if shared.letters < bad {
        return Err(format!("{bad} bad events, {} dead letters", shared.letters));
    }
    Ok(())
}

fn all_are_exact(seeds: std::ops::Range<u64>) {
    let mut total = Figures::default();
    for seed in seeds.clone() {
        match simulate(seed, None) {
            Ok(Figures { events, inserts, takeovers, passes }) => {
                total.passes += passes;
                total.events += events;
                total.inserts += inserts;
                total.takeovers += takeovers;
            }
            Err(wrong) => panic!("seed {seed}: {wrong}"),
        }
    }
    // That it was no idyll.
    let runs = seeds.end - seeds.start;
    assert!(total.events > 80 * runs && total.inserts > 5 * runs && total.takeovers > 5 * runs, "{total:?}");
    assert!(total.passes > 5 * runs, "{total:?}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "to repeat a run by its seed")]
fn one_seed_again() {
    let seed = std::env::var("KEYMETER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    simulate(seed, None).unwrap();
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..20 {
        let once = format!("{:?}", simulate(seed, None));
        assert_eq!(format!("{:?}", simulate(seed, None)), once);
    }
}

// In four, so that they run side by side.
#[test]
fn every_seed_is_exact_0() {
    all_are_exact(0..2_500);
}

#[test]
fn every_seed_is_exact_1() {
    all_are_exact(2_500..5_000);
}

#[test]
fn every_seed_is_exact_2() {
    all_are_exact(5_000..7_500);
}

#[test]
fn every_seed_is_exact_3() {
    all_are_exact(7_500..10_000);
}

#[test]
fn bugs_that_are_put_in_are_found() {
    let bugs = [
        Bug::NoFence,
        Bug::NoWait,
        Bug::NoReadBack,
        Bug::SameStream,
        Bug::EarlyCommit,
        Bug::LateCommit,
        Bug::NoLook,
        Bug::EarlyNote,
    ];
    for bug in bugs {
        let found = (0..5_000).find(|seed| simulate(*seed, Some(bug)).is_err());
        assert!(found.is_some(), "{bug:?} was not found");
    }
}
