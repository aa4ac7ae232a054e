//! Reads the stream of the model.

use std::collections::VecDeque;

use ingest::{batch::Message, trouble::Trouble, world::Messages};

use crate::servers::Seen;

/// Most messages that a reader has fetched and not handed out.
const FETCH: usize = 8;

/// Fetches some messages at a time and hands them out, even if the server has forgotten them meanwhile.
pub(crate) struct Reader {
    seen: Seen,
    after: u64,
    fetched: VecDeque<Message>,
}

impl Reader {
    pub(crate) fn new(seen: Seen, after: u64) -> Self {
        Self { seen, after, fetched: VecDeque::new() }
    }
}

impl Messages for Reader {
    async fn next(&mut self) -> Result<Message, Trouble> {
        while self.fetched.is_empty() {
            let servers = &self.seen.servers;
            let mut arrivals = servers.arrivals.subscribe();
            let fresh = {
                let shared = servers.shared.lock().unwrap();
                if shared.nats_is_up { shared.disk.after(self.after, FETCH) } else { Vec::new() }
            };
            if fresh.is_empty() {
                let _ = arrivals.changed().await;
                servers.delay(30).await;
                self.seen.running().await;
            }
            for (sequence, published_at, payload) in fresh {
                self.after = sequence;
                self.fetched.push_back(Message { sequence, published_at, sent_in: None, payload });
            }
        }
        Ok(self.fetched.pop_front().expect("one was fetched"))
    }
}
