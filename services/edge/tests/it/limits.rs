//! Rate limits through the edge's own port, and at several edges that share them over a real NATS.

use std::{
    cell::Cell,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use domain::Denial;
use edge_layer::{Edge, RequestBody};
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full};
use parts::eventually;
use prost::Message as _;
use proto::{events as pb, nats::LIMIT_GOSSIP_SUBJECT};
use tokio::task::JoinSet;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::world::{EdgeProcess, Key, PATIENCE, World, echo, feed_keys, get, json, send, serve, until_known};

fn limit(name: &str, requests: u64, window_s: u32) -> pb::RateLimit {
    pb::RateLimit { name: name.into(), requests, window_s }
}

impl World {
    /// A new key with limits.
    async fn limited_key(&self, limits: &[pb::RateLimit]) -> Key {
        let key = self.key().await;
        self.limit(&key, 2, limits).await;
        key
    }

    async fn limit(&self, key: &Key, version: u64, limits: &[pb::RateLimit]) {
        let entry = key.entry(pb::KeyState::Active);
        self.feed_entry(key, pb::KeyFeedEntry { version, rate_limits: limits.to_vec(), ..entry }).await;
    }
}

/// Status and the values of the headers that tell of limits: the policy, the state, and when to try again.
async fn call(edge: &EdgeProcess, key: &Key) -> (u16, [String; 3]) {
    let response = send(get(&edge.url("/x"), key)).await;
    let header =
        |name| response.headers().get(name).map_or("", |value: &http::HeaderValue| value.to_str().unwrap());
    (
        response.status().as_u16(),
        ["ratelimit-policy", "ratelimit", "retry-after"].map(|name| header(name).to_owned()),
    )
}

/// `RateLimit` without how long anything takes.
fn without_times(state: &str) -> String {
    let untimed = |item: &str| format!("{}t=", item.split("t=").next().unwrap());
    state.split(", ").map(untimed).collect::<Vec<_>>().join(", ")
}

/// How many of `calls` calls are admitted.
async fn admitted(edge: &EdgeProcess, key: &Key, calls: u64) -> u64 {
    let mut admitted = 0;
    for _ in 0..calls {
        admitted += u64::from(call(edge, key).await.0 == 200);
    }
    admitted
}

async fn metric(edge: &EdgeProcess, name: &str) -> f64 {
    let said = parts::get(&edge.health, "/metrics").await.unwrap().body;
    let line = said.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
}

async fn until_metric(edge: &EdgeProcess, name: &str, value: f64) {
    eventually(&format!("{name} is {value}"), async || (metric(edge, name).await - value).abs() < 0.5).await;
}

#[tokio::test]
async fn a_limit_refuses_and_tells_how_it_stands() {
    let world = World::start().await;
    let key = world.limited_key(&[limit("hour", 2, 3_600), limit("day", 9, 86_400)]).await;
    let free = world.key().await;
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    let policy = "\"hour\";q=2;w=3600, \"day\";q=9;w=86400";
    for wanted in ["\"hour\";r=1;t=, \"day\";r=8;t=", "\"hour\";r=0;t=, \"day\";r=7;t="] {
        let (status, [told, state, retry_after]) = call(&edge, &key).await;
        assert_eq!((status, told.as_str(), retry_after.as_str()), (200, policy, ""));
        assert_eq!(without_times(&state), wanted);
    }
    let refused = send(get(&edge.url("/x"), &key)).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert_eq!(refused.headers()["ratelimit-policy"], policy);
    assert_eq!(json(&refused)["denial"], "rate_limited");
    assert_eq!(json(&refused)["violated-policies"][0], "hour");
    let wait: u32 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=1_800).contains(&wait), "{wait}");
    let state = refused.headers()["ratelimit"].to_str().unwrap();
    assert!(state.starts_with(&format!("\"hour\";r=0;t={wait}, \"day\";r=7;t=")), "{state}");
    assert_eq!(call(&edge, &free).await, (200, Default::default()));

    let events = world.events_of(4).await;
    let mut of_key: Vec<_> = events.iter().filter(|event| event.key_id == key.key_id).collect();
    of_key.sort_by_key(|event| event.request_id.as_uuid());
    let told: Vec<_> = of_key
        .iter()
        .map(|event| (event.denial, event.limit_name.as_str(), event.limit_window_s, event.limit_remaining))
        .collect();
    let wanted = [(None, "", 3_600, 1), (None, "", 3_600, 0), (Some(Denial::RateLimited), "hour", 3_600, 0)];
    assert_eq!(told, wanted);
    let of_free = events.iter().find(|event| event.key_id == free.key_id).unwrap();
    assert_eq!((of_free.limit_window_s, of_free.limit_remaining), (0, 0));
}

#[tokio::test]
async fn only_admitted_calls_use_limits_up() {
    let world = World::start().await;
    let limits = vec![limit("day", 100, 86_400)];
    let key = world.limited_key(&limits).await;
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    assert_eq!(admitted(&edge, &key, 1).await, 1);
    let off = key.entry(pb::KeyState::Disabled);
    world.feed_entry(&key, pb::KeyFeedEntry { version: 3, rate_limits: limits.clone(), ..off }).await;
    let before = Cell::new(1);
    eventually("it is switched off", async || {
        let status = call(&edge, &key).await.0;
        before.set(before.get() + u64::from(status == 200));
        status == 401
    })
    .await;
    assert_eq!(admitted(&edge, &key, 5).await, 0);
    world.limit(&key, 4, &limits).await;
    until_known(&edge, &key, "/x").await;
    assert_eq!(admitted(&edge, &key, 105).await, 100 - before.get() - 1);
    // A raised limit gives what it has more; nothing is forgotten.
    world.limit(&key, 5, &[limit("day", 102, 86_400)]).await;
    eventually("the limit is raised", async || {
        without_times(&call(&edge, &key).await.1[1]) == "\"day\";r=1;t="
    })
    .await;
    assert_eq!(admitted(&edge, &key, 5).await, 1);
}

#[tokio::test]
async fn a_restart_forgets_no_long_limit() {
    let world = World::start().await;
    let key = world.limited_key(&[limit("month", 10, 2_592_000)]).await;
    let mut edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    let file = edge.spool.path().join("limits");
    assert_eq!(admitted(&edge, &key, 7).await, 7);
    eventually("it is saved", async || std::fs::metadata(&file).unwrap().len() > 0).await;
    edge.service.kill().await;
    edge.service.restart();
    edge.wait_ready().await;
    assert_eq!(admitted(&edge, &key, 2).await, 2);
    // An orderly stop saves what there is.
    assert!(edge.service.sigterm().await.success());
    edge.service.restart();
    edge.wait_ready().await;
    assert_eq!(admitted(&edge, &key, 5).await, 1);
}

#[tokio::test]
async fn edges_share_what_is_used_and_say_if_they_cannot() {
    let mut world = World::start().await;
    let key = world.limited_key(&[limit("day", 100, 86_400)]).await;
    let upstream = serve(echo()).await;
    let (one, two) =
        tokio::join!(EdgeProcess::start(&world, upstream, &[]), EdgeProcess::start(&world, upstream, &[]));
    for edge in [&one, &two] {
        until_metric(edge, "keymeter_edge_limit_peers", 1.0).await;
        until_metric(edge, "keymeter_edge_limit_local", 0.0).await;
    }
    let used = AtomicU64::new(0);
    let use_up = async |edge: &EdgeProcess, calls: u64| {
        used.fetch_add(calls, Relaxed);
        assert_eq!(admitted(edge, &key, calls).await, calls);
    };
    // What an edge says is left after one more call is what all edges together have left.
    let knows_all = async |edge: &EdgeProcess| {
        let state = call(edge, &key).await.1[1].clone();
        let left: u64 = state.split(['=', ';']).nth(2).unwrap().parse().unwrap();
        used.fetch_add(1, Relaxed) + 1 + left == 100
    };
    use_up(&one, 30).await;
    eventually("the other one has heard of it", async || knows_all(&two).await).await;

    // Alone, both go on.
    world.nats.kill().await;
    for edge in [&one, &two] {
        until_metric(edge, "keymeter_edge_limit_local", 1.0).await;
    }
    use_up(&one, 15).await;
    use_up(&two, 15).await;
    assert!(!knows_all(&one).await && !knows_all(&two).await);
    world.nats.restart().await;
    for edge in [&one, &two] {
        until_metric(edge, "keymeter_edge_limit_local", 0.0).await;
        eventually("it has heard of the other's calls", async || knows_all(edge).await).await;
    }
    // A third one learns it all from the others.
    let three = EdgeProcess::start(&world, upstream, &[]).await;
    until_metric(&three, "keymeter_edge_limit_keys", 1.0).await;
    eventually("it knows of every call", async || knows_all(&three).await).await;
    let left = 100 - used.load(Relaxed);
    assert_eq!(admitted(&three, &key, 100).await, left);
}

#[tokio::test]
async fn what_is_lost_between_edges_is_asked_for() {
    let world = World::start().await;
    let key = world.limited_key(&[limit("day", 100, 86_400)]).await;
    let edge = EdgeProcess::start(&world, serve(echo()).await, &[]).await;
    assert_eq!(admitted(&edge, &key, 3).await, 3);
    let client = async_nats::connect(world.nats.url()).await.unwrap();
    let mut heard = client.subscribe(LIMIT_GOSSIP_SUBJECT).await.unwrap();
    let stranger = domain::EdgeId::generate().to_string();
    let say = async |sequence: u64, asks: &[&str], uses: Vec<pb::LimitUse>| {
        let asks = asks.iter().map(|&asked| asked.to_owned()).collect();
        let message = pb::LimitGossip { edge_id: stranger.clone(), boot_epoch: 1, sequence, asks, uses };
        client.publish(LIMIT_GOSSIP_SUBJECT, message.encode_to_vec().into()).await.unwrap();
    };
    let mut until = async |wanted: &dyn Fn(&pb::LimitGossip) -> bool| {
        let said = tokio::time::timeout(PATIENCE, async {
            loop {
                let said = pb::LimitGossip::decode(heard.next().await.unwrap().payload).unwrap();
                if said.edge_id != stranger && wanted(&said) {
                    return said;
                }
            }
        });
        said.await.unwrap()
    };
    // Whoever asks is told everything.
    say(1, &["*"], Vec::new()).await;
    let said = until(&|said| !said.uses.is_empty()).await;
    let used = &said.uses[0];
    assert_eq!(
        (used.key_id.as_slice(), used.count, used.requests),
        (key.key_id.as_bytes().as_slice(), 3, 100)
    );
    // The second message is lost, and what it told is in the third.
    let told =
        |count, fresh| pb::LimitUse { series: 1, count, fresh, used_milli: count * 1_000, ..used.clone() };
    say(3, &[], vec![told(20, 5)]).await;
    until(&|said| said.asks.contains(&stranger)).await;
    say(4, &[], vec![told(40, 0)]).await;
    // What cannot be read is counted, and harms nobody.
    client.publish(LIMIT_GOSSIP_SUBJECT, Bytes::from_static(&[255, 1])).await.unwrap();
    until_metric(&edge, "keymeter_edge_limit_uses_refused_total", 1.0).await;
    assert!((metric(&edge, "keymeter_edge_limit_gaps_total").await - 1.0).abs() < 0.5);
    // The 15 that the stranger knew of may be our 3 and others, so the greater counts; then come 5, 20, and this call.
    let state = call(&edge, &key).await.1[1].clone();
    assert!(state.starts_with("\"day\";r=59;"), "{state}");
}

/// An edge inside of this process before a service that only counts.
struct Counting {
    edge: Edge,
    admitted: AtomicU64,
    _spool: tempfile::TempDir,
}

impl Counting {
    async fn start(world: &World) -> Arc<Self> {
        let spool = tempfile::tempdir().unwrap();
        let keys = feed_keys().parse().unwrap();
        let settings = edge_layer::Settings::new(world.nats.url(), spool.path(), keys);
        let edge = Edge::start(edge_layer::Settings { shards: 2, ..settings }).await.unwrap();
        Arc::new(Self { edge, admitted: AtomicU64::new(0), _spool: spool })
    }

    /// Calls with the key at a steady pace until `end`.
    async fn load(self: Arc<Self>, key: Key, pause: Duration, end: Instant) {
        let service = service_fn(async |_: Request<RequestBody<Empty<Bytes>>>| {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        let service = self.edge.layer().layer(service);
        let mut next = Instant::now();
        while next < end {
            tokio::time::sleep_until(next.into()).await;
            // A late wake-up does not make fewer calls.
            while next <= Instant::now() {
                let request = Request::get("/x")
                    .header("x-api-key", key.secret.reveal())
                    .body(Empty::<Bytes>::new())
                    .unwrap();
                let response = service.clone().oneshot(request).await.unwrap();
                self.admitted.fetch_add(u64::from(response.status() == 200), Relaxed);
                let _ = response.into_body().collect().await;
                next += pause;
            }
        }
    }
}

/// The longest that a message between two edges took here, the stalls of this process among it, in microseconds.
async fn watch_delay(url: String, longest_us: Arc<AtomicU64>) {
    let client = async_nats::connect(url).await.unwrap();
    let mut heard = client.subscribe("probe").await.unwrap();
    loop {
        let sent = Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        client.publish("probe", Bytes::new()).await.unwrap();
        heard.next().await.unwrap();
        longest_us.fetch_max(u64::try_from(sent.elapsed().as_micros()).unwrap(), Relaxed);
    }
}

/// Three edges at ten times the limit over a real NATS. What is admitted is held against the time that really went
/// by and the delays that there really were, so a slow machine makes the test no stricter.
#[expect(clippy::print_stderr, reason = "the figures, for whoever measures")]
async fn ten_times(requests: u64, window_s: u32, windows: u32) {
    let world = World::start().await;
    let key = world.limited_key(&[limit("limit", requests, window_s)]).await;
    let mut edges = Vec::new();
    for _ in 0..3 {
        edges.push(Counting::start(&world).await);
    }
    for edge in &edges {
        eventually("the edge shares limits", async || {
            let status = edge.edge.status();
            status.limits_shared && status.feed == edge_layer::Feed::Live
        })
        .await;
    }
    let window = Duration::from_secs(window_s.into());
    let pause = window.mul_f64(3.0 / (10 * requests) as f64);
    let longest_us = Arc::<AtomicU64>::default();
    let watch = tokio::spawn(watch_delay(world.nats.url(), longest_us.clone()));
    let start = Instant::now();
    let mut load = JoinSet::new();
    for edge in &edges {
        load.spawn(edge.clone().load(key.clone(), pause, start + window * (windows + 1)));
    }
    let admitted = || edges.iter().map(|edge| edge.admitted.load(Relaxed)).sum::<u64>();
    let mut counts = Vec::new();
    tokio::time::sleep(window).await;
    let (first, began) = (admitted(), Instant::now());
    for _ in 0..windows {
        let before = admitted();
        tokio::time::sleep(window).await;
        counts.push(admitted() - before);
    }
    let (all, took) = (admitted() - first, began.elapsed());
    while load.join_next().await.is_some() {}
    let wanted = requests as f64 * took.as_secs_f64() / window.as_secs_f64();
    watch.abort();
    // An edge tells up to 100 ms after an admission; a stall may come before that, and on the way.
    let interval_s = 0.1 + 2.0 * longest_us.load(Relaxed) as f64 / 1e6;
    let bound = f64::max(if window_s >= 10 { 0.05 } else { 0.0 }, 2.0 * interval_s / f64::from(window_s));
    let off = (all as f64 - wanted) / requests as f64;
    eprintln!(
        "{requests} in {window_s} s: {first} in the first window, then {counts:?}; off by {:.2} %, interval {interval_s:.2} s",
        off * 100.0
    );
    assert!(off.abs() <= bound, "{all} of {wanted}: {counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_edges_at_ten_times_a_long_limit() {
    ten_times(300, 10, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_edges_at_ten_times_a_short_limit() {
    ten_times(100, 1, 10).await;
}
