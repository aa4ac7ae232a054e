//! Lost replies: ClickHouse has taken an insert, or NATS a record, and the connection breaks before ingest hears of it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parts::{ClickHouse, Nats, Relay, Way, asked, eventually, say, seed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    crowd::Crowd,
    support::{Chance, Stage},
};

/// Which replies get lost.
#[derive(Clone, Copy)]
struct Reply {
    /// Something in what was asked before on the same connection.
    to: &'static [u8],
    /// How it begins.
    begins: &'static [u8],
}

/// An insert of rows was answered, which alone are sent in that format.
const OF_INSERT: Reply = Reply { to: b"Native", begins: b"HTTP/1.1 " };
/// A record was written.
const OF_RECORD: Reply = Reply { to: b"KV.ingest_shards.", begins: b"{\"stream\":\"KV_ingest_shards\"" };

/// A way on which one reply gets lost each time that this is asked for.
struct Lossy {
    relay: Relay,
    loses: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
}

impl Lossy {
    async fn start(server: &str, reply: Reply) -> Self {
        let (loses, lost) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let shared = (loses.clone(), lost.clone());
        let relay = Relay::start(server, move |there, back| {
            let (loses, lost) = shared.clone();
            async move {
                let asked = AtomicBool::new(false);
                let lose = || {
                    let is_lost = asked.swap(false, Relaxed) && loses.swap(false, Relaxed);
                    lost.fetch_add(is_lost.into(), Relaxed);
                    is_lost
                };
                tokio::select! {
                    brought = carry(there, reply.to, || { asked.store(true, Relaxed); false }) => brought,
                    brought = carry(back, reply.begins, lose) => brought,
                }
            }
        })
        .await;
        Self { relay, loses, lost }
    }

    /// Waits until the next such reply is lost.
    async fn lose_one(&self) {
        let before = self.lost.load(Relaxed);
        self.loses.store(true, Relaxed);
        eventually("a reply is lost", async || self.lost.load(Relaxed) > before).await;
    }
}

/// Brings what is said until `end`, which is asked each time that it holds `what`.
async fn carry(mut way: Way, what: &[u8], mut end: impl FnMut() -> bool) -> io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = way.from.read(&mut piece).await?;
        let said = &piece[..length];
        if length == 0 || said.windows(what.len()).any(|window| window == what) && end() {
            return Ok(());
        }
        way.to.write_all(said).await?;
    }
}

#[tokio::test]
async fn replies_lost() {
    let losses = asked("KEYMETER_CHAOS_REPLIES", 3);
    let mut chance = Chance::new(seed());
    let (nats, clickhouse) = (Nats::start().await, ClickHouse::start().await);
    let from_clickhouse = Lossy::start(&clickhouse.url(), OF_INSERT).await;
    let from_nats = Lossy::start(&nats.url(), OF_RECORD).await;
    let nats_url = format!("nats://{}", from_nats.relay.address());
    let clickhouse_url = format!("http://{}", from_clickhouse.relay.address());
    let (ingest, health) = Stage::spawn(&nats_url, &clickhouse_url, Stage::ROOMY).await;
    let mut stage = Stage { nats, clickhouse, ingest, health };
    stage.wait_ready().await;
    let mut crowd = Crowd::new(&stage, chance.below(u64::MAX)).await;
    for loss in 1..=losses {
        let way = if chance.below(2) == 0 { &from_clickhouse } else { &from_nats };
        let moment = Duration::from_millis(chance.below(300));
        // Mostly of a worker at work, now and then in a takeover.
        let at_work = chance.below(4) > 0;
        crowd
            .during(async {
                if at_work {
                    stage.wait_ready().await;
                }
                tokio::time::sleep(moment).await;
                way.lose_one().await;
            })
            .await;
        if loss % 50 == 0 {
            crowd.assert_exact(&stage).await;
            say(&format!("{loss} of {losses} replies lost"));
        }
    }
    crowd.assert_exact(&stage).await;
    say(&format!(
        "{} replies of ClickHouse and {} of NATS lost, {} events accepted, each one row",
        from_clickhouse.lost.load(Relaxed),
        from_nats.lost.load(Relaxed),
        crowd.accepted()
    ));
}
