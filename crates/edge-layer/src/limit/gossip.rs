//! Tells the other edges over core NATS what was used of limits, and hears them. Whatever is lost is noticed by the
//! messages' numbers, and asked for again. Times and levels are told as durations, so clocks need not agree.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_nats::Client;
use domain::EdgeId;
use futures_util::StreamExt as _;
use prost::Message as _;
use proto::{events as pb, nats::LIMIT_GOSSIP_SUBJECT};
use tokio::time::{sleep_until, timeout};

use super::{RateLimits, peers::Peers, table::SHARDS};

/// An edge tells no more often than this,
const PAUSE: Duration = Duration::from_millis(20);
/// and under many uses so much later for each of them,
const PAUSE_PER_USE: Duration = Duration::from_micros(10);
/// at most so much.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// An edge says something at least this often, which shows what was lost.
const BEAT: Duration = Duration::from_secs(1);
/// Without its own messages coming back for so long an edge counts alone.
const CURRENT_FOR: Duration = Duration::from_secs(3);
/// Uses in a message: some 100 kB.
const MESSAGE_USES_MAX: usize = 2_000;
/// Uses told at once; what is more is told after the next pause.
const TOLD_USES_MAX: usize = 10_000;
/// A lost message is not asked for more often than this.
const ASK_PAUSE: Duration = Duration::from_secs(1);
/// Most debt that others can make, in windows.
const DEBT_WINDOWS_MAX: usize = 16;
/// How long the last message may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Asks every edge.
const EVERYBODY: &str = "*";

/// What is known of the exchange, over all connections.
#[derive(Debug)]
pub(crate) struct Exchange {
    edge_id: EdgeId,
    boot_epoch: u32,
    began: Instant,
    sequence: AtomicU64,
    peers: Mutex<Peers>,
    /// Milliseconds after `began` at which a message of our own last came back, plus one.
    returned_at: AtomicU64,
    sent: AtomicU64,
    heard: AtomicU64,
    refused: AtomicU64,
    gaps: AtomicU64,
    is_connected: AtomicBool,
    /// How many shards are still to be told as a whole, and which is the next.
    left: AtomicUsize,
    next: AtomicUsize,
    /// From which shard on news are told.
    cursor: AtomicUsize,
    pub(super) is_save_failing: AtomicBool,
}

/// Figures for metrics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    /// Keys with something used.
    pub(crate) keys: u64,
    /// Edges that tell something just now, without this one.
    pub(crate) peers: u64,
    /// Since a message of our own last came back; `None` before the first.
    pub(crate) age: Option<Duration>,
    /// Uses told to others.
    pub(crate) sent: u64,
    /// Uses heard of others.
    pub(crate) heard: u64,
    /// Messages and uses that were not taken.
    pub(crate) refused: u64,
    /// Losses that were noticed, and made good since.
    pub(crate) gaps: u64,
    /// The edge counts alone.
    pub(crate) is_local: bool,
    /// What is used cannot be saved.
    pub(crate) is_save_failing: bool,
}

impl Exchange {
    pub(super) fn new(edge_id: EdgeId, boot_epoch: u32) -> Self {
        let none = || AtomicU64::new(0);
        Self {
            edge_id,
            boot_epoch,
            began: Instant::now(),
            sequence: none(),
            peers: Mutex::default(),
            returned_at: none(),
            sent: none(),
            heard: none(),
            refused: none(),
            gaps: none(),
            is_connected: AtomicBool::new(false),
            left: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            cursor: AtomicUsize::new(0),
            is_save_failing: AtomicBool::new(false),
        }
    }

    /// Whether others hear us.
    pub(super) fn is_current(&self, now: Instant) -> bool {
        self.is_connected.load(Relaxed) && self.age(now).is_some_and(|age| age < CURRENT_FOR)
    }

    pub(super) fn figures(&self, keys: usize, now: Instant) -> Figures {
        Figures {
            keys: keys as u64,
            peers: self.peers.lock().unwrap_or_else(PoisonError::into_inner).live(now) as u64,
            age: self.age(now),
            sent: self.sent.load(Relaxed),
            heard: self.heard.load(Relaxed),
            refused: self.refused.load(Relaxed),
            gaps: self.gaps.load(Relaxed),
            is_local: !self.is_current(now),
            is_save_failing: self.is_save_failing.load(Relaxed),
        }
    }

    fn age(&self, now: Instant) -> Option<Duration> {
        let at = self.returned_at.load(Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(self.began).saturating_sub(Duration::from_millis(at)))
    }

    fn has_returned(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.began).as_millis();
        self.returned_at.store(u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1, Relaxed);
    }

    /// Everything is to be told once more.
    fn tell_all(&self) {
        self.left.store(SHARDS, Relaxed);
    }

    fn message(&self, asks: Vec<String>, uses: Vec<pb::LimitUse>) -> pb::LimitGossip {
        self.sent.fetch_add(uses.len() as u64, Relaxed);
        let sequence = self.sequence.fetch_add(1, Relaxed) + 1;
        pb::LimitGossip {
            edge_id: self.edge_id.to_string(),
            boot_epoch: self.boot_epoch,
            sequence,
            asks,
            uses,
        }
    }
}

/// Says that nobody hears us any more, however the exchange ends.
struct Connected<'a>(&'a AtomicBool);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// Exchanges until the connection fails.
///
/// # Errors
/// If NATS does not take a message.
pub(crate) async fn run(client: Client, limits: Arc<RateLimits>) -> Result<(), async_nats::Error> {
    let exchange = &limits.exchange;
    let mut subscription = client.subscribe(LIMIT_GOSSIP_SUBJECT).await?;
    // First, so that no answer is missed.
    client.flush().await?;
    exchange.is_connected.store(true, Relaxed);
    let _connected = Connected(&exchange.is_connected);
    // What others told meanwhile was missed, and what we told may not have arrived.
    exchange.tell_all();
    let mut asks = vec![EVERYBODY.to_owned()];
    let mut due = Instant::now();
    let mut beat_at = due;
    let mut asked_at = due;
    loop {
        let is_waited_for = !asks.is_empty() && asked_at <= Instant::now();
        let wake = async {
            sleep_until(due.into()).await;
            if exchange.left.load(Relaxed) == 0 && !is_waited_for && !limits.table.is_untold() {
                tokio::select! {
                    () = limits.stirred.notified() => {}
                    () = sleep_until(beat_at.into()) => {}
                }
            }
        };
        tokio::select! {
            message = subscription.next() => match message {
                Some(message) => {
                    if let Some(missed) = hear(&limits, &message.payload) && !asks.contains(&missed) {
                        asks.push(missed);
                    }
                }
                None => return Err("the subscription has ended".into()),
            },
            () = wake => {
                let now = Instant::now();
                let asking = if is_waited_for { std::mem::take(&mut asks) } else { Vec::new() };
                if !asking.is_empty() {
                    asked_at = now + ASK_PAUSE;
                }
                let is_beat = now >= beat_at;
                let told = tell(&client, &limits, asking, is_beat).await?;
                let per_use = PAUSE_PER_USE.saturating_mul(u32::try_from(told).unwrap_or(u32::MAX));
                due = now + per_use.clamp(PAUSE, PAUSE_MAX);
                if is_beat {
                    exchange.peers.lock().unwrap_or_else(PoisonError::into_inner).forget(now);
                    beat_at = now + BEAT;
                }
            }
        }
    }
}

/// Tells what is left when the edge stops.
pub(crate) async fn farewell(client: &Client, limits: &RateLimits) {
    let last = async {
        while limits.table.is_untold() {
            tell(client, limits, Vec::new(), false).await?;
        }
        client.flush().await?;
        Ok::<_, async_nats::Error>(())
    };
    if !matches!(timeout(FAREWELL_TIMEOUT, last).await, Ok(Ok(()))) {
        tracing::info!("the other edges were not told what was last used of rate limits");
    }
}

/// Sends news, and of everything as much as is due; says how many uses that were.
async fn tell(
    client: &Client,
    limits: &RateLimits,
    mut asks: Vec<String>,
    is_beat: bool,
) -> Result<usize, async_nats::PublishError> {
    let (exchange, now) = (&limits.exchange, limits.tick(Instant::now()));
    // Before they are looked for, so that whatever comes later wakes us again.
    limits.is_stirred.store(false, Relaxed);
    let mut cursor = exchange.cursor.load(Relaxed);
    let mut uses = limits.table.untold(&mut cursor, TOLD_USES_MAX, now);
    exchange.cursor.store(cursor % SHARDS, Relaxed);
    while uses.len() < TOLD_USES_MAX && exchange.left.load(Relaxed) > 0 {
        exchange.left.fetch_sub(1, Relaxed);
        uses.extend(limits.table.all(exchange.next.fetch_add(1, Relaxed) % SHARDS, now));
    }
    let told = uses.len();
    let mut is_due = is_beat || !asks.is_empty();
    while is_due || !uses.is_empty() {
        is_due = false;
        let rest = uses.split_off(uses.len().min(MESSAGE_USES_MAX));
        let message = exchange.message(std::mem::take(&mut asks), std::mem::replace(&mut uses, rest));
        client.publish(LIMIT_GOSSIP_SUBJECT, message.encode_to_vec().into()).await?;
    }
    Ok(told)
}

/// Takes a message; names the edge that is to be asked to tell again.
fn hear(limits: &RateLimits, payload: &[u8]) -> Option<String> {
    let (exchange, now) = (&limits.exchange, Instant::now());
    let message = pb::LimitGossip::decode(payload).ok();
    let read = message.and_then(|message| Some((message.edge_id.parse::<EdgeId>().ok()?, message)));
    let Some((edge_id, message)) = read else {
        exchange.refused.fetch_add(1, Relaxed);
        return None;
    };
    if edge_id == exchange.edge_id {
        exchange.has_returned(now);
        return None;
    }
    let own = exchange.edge_id.to_string();
    if message.asks.iter().any(|asked| *asked == own || asked == EVERYBODY) {
        exchange.tell_all();
    }
    let (sender, live) = {
        let mut peers = exchange.peers.lock().unwrap_or_else(PoisonError::into_inner);
        (peers.heard(edge_id, message.boot_epoch, message.sequence, now), peers.live(now))
    };
    let Some(sender) = sender else {
        exchange.refused.fetch_add(1, Relaxed);
        return None;
    };
    let (debt_windows, tick) = (live.clamp(1, DEBT_WINDOWS_MAX) as u64, limits.tick(now));
    for told in &message.uses {
        let taken = limits.table.hear(sender.peer, told, debt_windows, tick);
        (if taken { &exchange.heard } else { &exchange.refused }).fetch_add(1, Relaxed);
    }
    sender.has_gap.then(|| {
        exchange.gaps.fetch_add(1, Relaxed);
        message.edge_id
    })
}
