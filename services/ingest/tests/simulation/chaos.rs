//! What goes wrong while calls come: processes are killed and stopped, servers crash, forget and come back.

use std::time::Duration;

use boot::Health;
use ingest::{Services, edges, erasures, metrics::Metrics, shard, trouble::SharedNeed};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    SHARD,
    clock::TaskId,
    model::Disk,
    servers::{Seen, Servers},
};

/// Small, so that streams are purged.
const STREAM_BYTES_MAX: u64 = 20_000;
const STREAM_KEEP: Duration = Duration::from_secs(6);
const COPIES_MAX: usize = 4;

/// A worker process.
pub(crate) struct Process {
    task: TaskId,
    kept: Kept,
}

/// What keeps the services of a process together.
pub(crate) struct Kept {
    pub(crate) runs: watch::Sender<bool>,
    /// Dropped senders would look like news.
    _told: (watch::Sender<edges::Edges>, watch::Sender<erasures::Erasures>),
}

/// What a process that is called so works with.
pub(crate) fn services(servers: &Servers, metrics: &Metrics, owner: String) -> (Services<Seen>, Kept) {
    let (runs, seen_runs) = watch::channel(true);
    let (edges, heartbeats) = watch::channel(edges::Edges { is_complete: true, ..Default::default() });
    let known = erasures::Erasures { is_complete: true, ..Default::default() };
    let (told, erasures) = watch::channel(known);
    let health = Health::default();
    let services = Services {
        world: Seen { servers: servers.clone(), runs: seen_runs },
        edges: heartbeats,
        erasures,
        metrics: metrics.clone(),
        shards: SharedNeed::present(health.need("shards")),
        nats: SharedNeed::present(health.need("nats")),
        clickhouse: SharedNeed::present(health.need("clickhouse")),
        owner,
        stream_bytes_max: STREAM_BYTES_MAX,
        stream_keep: STREAM_KEEP,
        rows_max: ingest::batch::rows_max(1),
        bulk_shard: 1,
    };
    (services, Kept { runs, _told: (edges, told) })
}

/// Starts the `number`th process.
pub(crate) fn start(servers: &Servers, metrics: &Metrics, number: u64) -> Process {
    let (services, kept) = services(servers, metrics, format!("process {number}"));
    let task = servers.clock.spawn(async move {
        let _ = shard::run(SHARD, services, CancellationToken::new()).await;
    });
    Process { task, kept }
}

/// Lets things go wrong until `end`, then heals everything; a process works on.
pub(crate) async fn reign(servers: Servers, metrics: Metrics, end: Duration) -> Vec<Process> {
    let mut processes = vec![start(&servers, &metrics, 1), start(&servers, &metrics, 2)];
    let mut started = 2;
    while servers.clock.now() < end {
        servers.delay(1_000).await;
        let (what, which, long) = {
            let chance = &mut servers.shared.lock().unwrap().chance;
            (chance.below(16), chance.below(2), Duration::from_millis(chance.below(12_000)))
        };
        let which = usize::try_from(which).unwrap();
        match what {
            0..=3 => {
                started += 1;
                servers.clock.kill(processes[which].task);
                processes[which] = start(&servers, &metrics, started);
            }
            4..=6 => stop(&servers, &processes[which], long),
            7..=8 => crash_clickhouse(&servers, long / 4),
            9..=10 => lose_nats(&servers, long / 4, |_, _| {}),
            11 => lose_nats(&servers, long / 4, |servers, _| go_back(servers)),
            12 => lose_nats(&servers, long / 4, |servers, _| wipe(servers)),
            13 => lose_nats(&servers, Duration::ZERO, |servers, _| make_the_stream_anew(servers)),
            _ => keep_a_copy(&servers),
        }
    }
    servers.shared.lock().unwrap().is_lossy = false;
    for process in &processes {
        process.kept.runs.send_replace(true);
    }
    processes
}

/// SIGSTOP, and SIGCONT later.
fn stop(servers: &Servers, process: &Process, long: Duration) {
    process.kept.runs.send_replace(false);
    let (clock, runs) = (servers.clock.clone(), process.kept.runs.clone());
    servers.clock.spawn(async move {
        clock.sleep(long).await;
        runs.send_replace(true);
    });
}

fn crash_clickhouse(servers: &Servers, long: Duration) {
    {
        let mut shared = servers.shared.lock().unwrap();
        shared.clickhouse.crash();
        shared.clickhouse_is_up = false;
    }
    let again = servers.clone();
    servers.clock.spawn(async move {
        again.clock.sleep(long).await;
        again.shared.lock().unwrap().clickhouse_is_up = true;
    });
}

/// NATS is away for a while, and everybody connects anew.
fn lose_nats(servers: &Servers, long: Duration, happens: fn(&Servers, Duration)) {
    servers.shared.lock().unwrap().nats_is_up = false;
    let again = servers.clone();
    servers.clock.spawn(async move {
        again.clock.sleep(long).await;
        happens(&again, long);
        again.shared.lock().unwrap().nats_is_up = true;
        again.connections.send_modify(|count| *count += 1);
    });
}

fn go_back(servers: &Servers) {
    let mut shared = servers.shared.lock().unwrap();
    let count = shared.copies.len() as u64;
    if count > 0 {
        let which = shared.chance.below(count);
        shared.disk = shared.copies[usize::try_from(which).unwrap()].clone();
    }
}

fn wipe(servers: &Servers) {
    let mut shared = servers.shared.lock().unwrap();
    shared.disk = Disk::new(shared.disk.incarnation + 1_000);
}

/// Sequences count from 1 again; the buckets stay.
fn make_the_stream_anew(servers: &Servers) {
    let disk = &mut servers.shared.lock().unwrap().disk;
    disk.incarnation += 1;
    disk.first = 1;
    disk.messages.clear();
}

fn keep_a_copy(servers: &Servers) {
    let mut shared = servers.shared.lock().unwrap();
    let copy = shared.disk.clone();
    shared.copies.push_back(copy);
    if shared.copies.len() > COPIES_MAX {
        shared.copies.pop_front();
    }
}
