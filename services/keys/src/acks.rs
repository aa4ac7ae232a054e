//! What edges say over gRPC of how far they are, told to all keys services through Postgres: any of them may be asked for
//! a receipt, and NATS may be away. Kept nowhere.

use std::{convert::Infallible, time::Duration};

use domain::EdgeId;
use proto::{events::EdgeHeartbeat, keys::AckFeedRequest};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use crate::{
    edges::Edges,
    error::Error,
    store::{Store, StoreError},
};

/// Acks that wait to be told; an edge says it again a second later.
const WAITING_MAX: usize = 4_096;
/// Told together: a notice of Postgres holds 8,000 bytes, an ack less than 80.
const TOLD_AT_ONCE: usize = 90;
/// Before it is tried again after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes acks. Clones share everything.
#[derive(Clone)]
pub struct Acks {
    edges: Edges,
    store: Store,
    waiting: mpsc::Sender<EdgeHeartbeat>,
}

/// What waits to be told.
pub struct Waiting(mpsc::Receiver<EdgeHeartbeat>);

impl Acks {
    /// Takes acks for `edges`; they are told to others by [`Self::run`].
    #[must_use]
    pub fn new(store: Store, edges: Edges) -> (Self, Waiting) {
        let (waiting, told) = mpsc::channel(WAITING_MAX);
        (Self { edges, store, waiting }, Waiting(told))
    }

    /// An edge said how far it is.
    ///
    /// # Errors
    /// If its id is none.
    pub fn take(&self, ack: &AckFeedRequest) -> Result<(), Error> {
        if ack.edge_id.parse::<EdgeId>().is_err() {
            return Err(Error::invalid("edge_id", "must be edge_ and 26 characters"));
        }
        let beat = EdgeHeartbeat {
            edge_id: ack.edge_id.clone(),
            boot_epoch: ack.boot_epoch,
            feed_version: ack.feed_version,
            feed_lost_after_ms: ack.feed_lost_after_ms,
            serves_stale: ack.serves_stale,
            ..EdgeHeartbeat::default()
        };
        self.edges.beat(ack.edge_id.clone(), &beat, OffsetDateTime::now_utc());
        // Where there is no room the next one says it.
        let _ = self.waiting.try_send(beat);
        Ok(())
    }

    /// Tells others and hears them, for ever.
    pub async fn run(&self, mut waiting: Waiting) -> Infallible {
        let hear = async {
            loop {
                let Err(error) = self.hear().await;
                tracing::debug!(%error, "what edges tell other keys services is not heard");
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            never = self.tell(&mut waiting) => never,
            never = hear => never,
        }
    }

    async fn tell(&self, waiting: &mut Waiting) -> Infallible {
        let mut beats = Vec::new();
        loop {
            if waiting.0.recv_many(&mut beats, TOLD_AT_ONCE).await == 0 {
                // Nobody is left who could say anything.
                std::future::pending::<()>().await;
            }
            let lines: Vec<String> = beats.drain(..).map(|beat| line(&beat)).collect();
            if let Err(error) = self.store.tell_acks(&lines.join("\n")).await {
                tracing::debug!(%error, "other keys services are not told how far edges are");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn hear(&self) -> Result<Infallible, StoreError> {
        let mut listener = self.store.listen_to_acks().await?;
        loop {
            let heard = listener.heard().await?;
            let now = OffsetDateTime::now_utc();
            for beat in heard.lines().filter_map(parse) {
                self.edges.beat(beat.edge_id.clone(), &beat, now);
            }
        }
    }
}

fn line(beat: &EdgeHeartbeat) -> String {
    let EdgeHeartbeat { edge_id, boot_epoch, feed_version, feed_lost_after_ms, serves_stale, .. } = beat;
    format!("{edge_id} {boot_epoch} {feed_version} {feed_lost_after_ms} {}", u8::from(*serves_stale))
}

fn parse(line: &str) -> Option<EdgeHeartbeat> {
    let mut words = line.split(' ');
    Some(EdgeHeartbeat {
        edge_id: words.next()?.to_owned(),
        boot_epoch: words.next()?.parse().ok()?,
        feed_version: words.next()?.parse().ok()?,
        feed_lost_after_ms: words.next()?.parse().ok()?,
        serves_stale: words.next()? == "1",
        ..EdgeHeartbeat::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard_and_fits() {
        let beat = EdgeHeartbeat {
            edge_id: EdgeId::generate().to_string(),
            boot_epoch: u32::MAX,
            feed_version: u64::MAX,
            feed_lost_after_ms: u32::MAX,
            serves_stale: true,
            ..EdgeHeartbeat::default()
        };
        assert_eq!(parse(&line(&beat)), Some(beat.clone()));
        assert_eq!(
            parse(&line(&EdgeHeartbeat { serves_stale: false, ..beat.clone() }))
                .map(|beat| beat.serves_stale),
            Some(false)
        );
        assert!((line(&beat).len() + 1) * TOLD_AT_ONCE < 8_000);
        for bad in ["", "edge_a", "edge_a 1 2 x 0"] {
            assert_eq!(parse(bad), None);
        }
    }
}
