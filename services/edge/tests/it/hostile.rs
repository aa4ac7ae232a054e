//! What strangers may send without end: memory stays bounded, and the totals exact.
//!
//! The full size is measured by the same test in a release build: see CONTRIBUTING.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use axum::Router;
use futures_util::StreamExt as _;
use prost::Message as _;
use proto::{events as pb, nats};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::world::{EdgeProcess, Key, SHARDS, World, get, send, serve};

/// How much the edge may grow by all of it.
const GROWTH_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Calls with a path of their own, unless `KEYMETER_HOSTILE_CALLS` says otherwise.
const CALLS: u64 = 10_000;
/// Connections that send them, and calls that each sends before it reads answers.
const CONNECTIONS: u64 = 4;
const PIPELINED: u64 = 50;
/// Connections that never end their request, and bytes that every second one tries to send of it.
const SLOW_CONNECTIONS: usize = 400;
const SLOW_HEAD_BYTES: usize = 380 * 1024;
const LOUD_EVERY: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_input_costs_bounded_memory_and_no_count() {
    #[expect(clippy::disallowed_methods, reason = "the size of a measurement, not a setting")]
    let calls = std::env::var("KEYMETER_HOSTILE_CALLS").map_or(CALLS, |calls| calls.parse().unwrap());
    let world = World::start().await;
    let key = world.key().await;
    let edge = EdgeProcess::start(&world, serve(Router::new().fallback(async || "")).await, &[]).await;
    let taken = Arc::new(Taken::default());
    for shard in nats::all_shards(SHARDS) {
        tokio::spawn(take(world.jetstream.clone(), shard, taken.clone()));
    }
    // What an edge has after its first calls, so that it is not taken for growth.
    let mut sent = flood(&edge, &key, "warm", 2_000).await;
    let before = resident_bytes(&edge);
    let began = std::time::Instant::now();
    sent += flood(&edge, &key, "call", calls).await;
    let took = began.elapsed();
    let after_paths = resident_bytes(&edge);
    sent += strange_heads(&edge, &key).await;
    let slow = slowloris(&edge, &key).await;
    assert_eq!(send(get(&edge.url("/still"), &key)).await.status(), 200, "others are served meanwhile");
    sent += 1;
    let after = resident_bytes(&edge);
    drop(slow);

    let deadline = Duration::from_secs(60) + took;
    let all = async {
        while taken.events.load(Relaxed) < sent {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(deadline, all).await.unwrap_or_else(|_| panic!("{taken:?} of {sent}"));
    let growth = after.max(after_paths).saturating_sub(before);
    println!(
        "{{\"calls\": {calls}, \"per_s\": {:.0}, \"before_bytes\": {before}, \"after_paths_bytes\": {after_paths}, \"after_all_bytes\": {after}, \"growth_bytes\": {growth}, \"events\": {}, \"other_route\": {}}}",
        calls as f64 / took.as_secs_f64(),
        taken.events.load(Relaxed),
        taken.other.load(Relaxed),
    );
    assert_eq!(taken.events.load(Relaxed), sent, "each call is counted once");
    assert_eq!(taken.lost.load(Relaxed), 0);
    // Both floods are over a thousand routes, so all of the second is under the one for others.
    assert!(taken.other.load(Relaxed) >= calls, "{taken:?}");
    assert!(growth <= GROWTH_BYTES_MAX, "grew by {growth} bytes");
}

/// Sends calls, each with a path of its own, and returns how many were answered by the API.
async fn flood(edge: &EdgeProcess, key: &Key, name: &str, calls: u64) -> u64 {
    let share = calls / CONNECTIONS;
    let senders = (0..CONNECTIONS).map(|connection| {
        let (addr, secret) = (edge.addr.clone(), key.secret.reveal().to_owned());
        let calls = if connection == 0 { calls - share * (CONNECTIONS - 1) } else { share };
        let name = format!("{name}-{connection}");
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(&addr).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (mut done, mut requests) = (0, String::new());
            while done < calls {
                let some = PIPELINED.min(calls - done);
                requests.clear();
                for number in done..done + some {
                    // No number by itself, or it would be an id.
                    requests += &format!(
                        "GET /{name}/p{number}q?x={number} HTTP/1.1\r\nHost: a\r\nX-API-Key: {secret}\r\n\r\n"
                    );
                }
                stream.write_all(requests.as_bytes()).await.unwrap();
                answers(&mut stream, some).await;
                done += some;
            }
            done
        })
    });
    let mut answered = 0;
    for sender in senders.collect::<Vec<_>>() {
        answered += sender.await.unwrap();
    }
    answered
}

/// Reads so many answers, all of them 200 and without a body.
async fn answers(stream: &mut TcpStream, count: u64) {
    const END: &[u8] = b"\r\n\r\n";
    let (mut bytes, mut seen) = (Vec::new(), 0);
    while seen < count {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "hung up after {seen} of {count}");
        while let Some(end) = bytes.windows(END.len()).position(|window| window == END) {
            assert!(bytes.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&bytes[..end]));
            bytes.drain(..end + END.len());
            seen += 1;
        }
    }
    assert!(bytes.is_empty());
}

/// Long paths, bytes that are no text, NUL, ten thousand headers; returns how many were taken as calls.
async fn strange_heads(edge: &EdgeProcess, key: &Key) -> u64 {
    let secret = key.secret.reveal();
    let head = |path: &[u8], more: &str| {
        let rest = format!(" HTTP/1.1\r\nHost: a\r\nX-API-Key: {secret}\r\nConnection: close\r\n{more}\r\n");
        [b"GET ", path, rest.as_bytes()].concat()
    };
    let many: String = (0..10_000).map(|number| format!("x-{number}: 1\r\n")).collect();
    let cases = [
        (head(&[b"/", "a".repeat(60_000).as_bytes()].concat(), ""), "200"),
        (head(&"/a".repeat(30_000).into_bytes(), ""), "200"),
        (head(&"/%2e%2e/%00%ff".repeat(4_000).into_bytes(), ""), "200"),
        (head(&[b"/", "a".repeat(70_000).as_bytes()].concat(), ""), "414"),
        (head(b"/\xff\xfe\x80", ""), "400"),
        (head(b"/nul\0", ""), "400"),
        (head(b"/many", &many), "431"),
        (head(b"/value", "x-nul: a\0b\r\n"), "400"),
    ];
    let mut taken = 0;
    for _ in 0..20 {
        for (request, status) in &cases {
            let mut stream = TcpStream::connect(&edge.addr).await.unwrap();
            // The edge may answer and hang up before all is sent.
            let _ = stream.write_all(request).await;
            let mut answer = [0; 12];
            let name = String::from_utf8_lossy(&request[..40]);
            // Refused in the middle of a head the connection may be reset before the answer is read.
            if stream.read_exact(&mut answer).await.is_err() {
                assert!(*status != "200", "no answer for {name}");
                continue;
            }
            assert_eq!(&answer[9..], status.as_bytes(), "{name}");
            taken += u64::from(*status == "200");
        }
    }
    taken
}

/// Opens connections that begin a request and do not end it.
async fn slowloris(edge: &EdgeProcess, key: &Key) -> Vec<TcpStream> {
    let secret = key.secret.reveal();
    let mut streams = Vec::new();
    for number in 0..SLOW_CONNECTIONS {
        let mut stream = TcpStream::connect(&edge.addr).await.unwrap();
        let filling = if number % LOUD_EVERY == 0 { SLOW_HEAD_BYTES } else { 1 };
        let head = format!(
            "GET /slow HTTP/1.1\r\nHost: a\r\nX-API-Key: {secret}\r\nX-Slow: {}",
            "a".repeat(filling)
        );
        // What is too long is refused before all of it is sent.
        let written = stream.write_all(head.as_bytes()).await;
        assert!(written.is_ok() || filling == SLOW_HEAD_BYTES, "{written:?}");
        streams.push(stream);
    }
    streams
}

fn resident_bytes(edge: &EdgeProcess) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", edge.service.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// What arrived in the streams, each event once.
#[derive(Debug, Default)]
struct Taken {
    events: AtomicU64,
    other: AtomicU64,
    lost: AtomicU64,
}

/// Does for one shard what ingest does: takes each event once, says that ClickHouse has it, and purges.
async fn take(jetstream: async_nats::jetstream::Context, shard: u16, taken: Arc<Taken>) {
    let stream = jetstream.get_stream(nats::request_events_stream(shard)).await.unwrap();
    let commits = jetstream.get_key_value(nats::EDGE_COMMITS_BUCKET).await.unwrap();
    let config = pull::Config { ack_policy: AckPolicy::None, ..Default::default() };
    let consumer: PullConsumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let mut next = BTreeMap::<String, u64>::new();
    while let Some(message) = messages.next().await {
        let message = message.unwrap();
        let batch = pb::RequestEventBatch::decode(message.payload.clone()).unwrap();
        let name = nats::edge_commit_key(&batch.edge_id, batch.boot_epoch, shard);
        let next = next.entry(name.clone()).or_insert(1);
        let known = usize::try_from(next.saturating_sub(batch.first_seq)).unwrap();
        assert!(batch.first_seq <= *next, "a gap before {}", batch.first_seq);
        let fresh = batch.events.get(known..).unwrap_or_default();
        *next += fresh.len() as u64;
        taken.lost.fetch_add(batch.lost.len() as u64, Relaxed);
        let other = fresh.iter().filter(|event| event.route == "__other__").count();
        assert!(fresh.iter().all(|event| !event.path.contains('?') && event.path.len() <= 1024));
        taken.other.fetch_add(other as u64, Relaxed);
        taken.events.fetch_add(fresh.len() as u64, Relaxed);
        let committed = vec![pb::SeqRange { first_seq: 1, last_seq: *next - 1 }];
        commits.put(name, pb::EdgeCommit { committed }.encode_to_vec().into()).await.unwrap();
        let sequence = message.info().unwrap().stream_sequence;
        stream.purge().sequence(sequence).await.unwrap();
    }
}
