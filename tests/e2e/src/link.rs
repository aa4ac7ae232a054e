//! The way from an edge to NATS, on which acknowledgements of events can get lost.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let (state, nats) = (Arc::<State>::default(), nats.trim_start_matches("nats://").to_owned());
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((edge, _)) = listener.accept().await {
                // Without NATS the edge is hung up on, and tries again.
                let Ok(server) = TcpStream::connect(&nats).await else { continue };
                let ((mut from_edge, to_edge), (from_nats, mut to_nats)) =
                    (edge.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from_edge, &mut to_nats).await });
                tokio::spawn(relay(from_nats, to_edge, shared.clone()));
            }
        });
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
async fn relay(from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<State>) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
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
