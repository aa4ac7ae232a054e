//! The way from an edge to NATS, on which acknowledgements of events can get lost.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use parts::{Relay, Way};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

/// How the answer of a stream to a published batch of events begins.
const ACK: &[u8] = b"{\"stream\":\"REQUEST_EVENTS_";

/// A relay between one edge and NATS.
pub(crate) struct Link {
    url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    loses_acks: AtomicBool,
    lost_acks: AtomicU64,
}

impl Link {
    /// A relay to `nats`, which may come and go.
    pub(crate) async fn start(nats: &str) -> Self {
        let state = Arc::<State>::default();
        let shared = state.clone();
        let relay = Relay::start(nats, move |there, back| {
            let shared = shared.clone();
            async move {
                tokio::try_join!(there.bring(), relay(back, shared))?;
                Ok(())
            }
        })
        .await;
        let url = format!("nats://{}", relay.address());
        Self { url, state }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// From now on acknowledgements get lost, or no more.
    pub(crate) fn lose_acks(&self, are_lost: bool) {
        self.state.loses_acks.store(are_lost, Relaxed);
    }

    pub(crate) fn lost_acks(&self) -> u64 {
        self.state.lost_acks.load(Relaxed)
    }
}

/// From NATS to the edge, message by message.
async fn relay(back: Way, state: Arc<State>) -> std::io::Result<()> {
    let (mut from, mut to) = (BufReader::new(back.from), back.to);
    let mut message = Vec::new();
    loop {
        message.clear();
        if from.read_until(b'\n', &mut message).await? == 0 {
            return Ok(());
        }
        let line = message.len();
        if message.starts_with(b"MSG ") || message.starts_with(b"HMSG ") {
            // Its last word is how many bytes follow, and a line's end after them.
            let text = String::from_utf8_lossy(&message);
            let bytes: usize = text.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
            message.resize(line + bytes + 2, 0);
            from.read_exact(&mut message[line..]).await?;
        }
        if state.loses_acks.load(Relaxed) && message[line..].starts_with(ACK) {
            state.lost_acks.fetch_add(1, Relaxed);
            continue;
        }
        to.write_all(&message).await?;
    }
}
