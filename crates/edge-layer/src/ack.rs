//! Says at once that changes of the key feed were applied. Nobody is waited for: heartbeats say the same later.

use std::{convert::Infallible, sync::Arc, time::Duration};

use async_nats::{PublishError, jetstream};
use domain::EdgeId;
use prost::Message as _;
use proto::{events::FeedAck, nats::FEED_ACKS_SUBJECT};

use crate::feed::FeedState;

/// Changes within this time are acknowledged as one.
const PAUSE: Duration = Duration::from_millis(10);

/// Acknowledges until the connection fails.
pub(crate) async fn run(
    jetstream: jetstream::Context,
    edge_id: EdgeId,
    feed: Arc<FeedState>,
) -> Result<Infallible, PublishError> {
    let edge_id = edge_id.to_string();
    let mut told = feed.told();
    loop {
        let feed_version = *told.borrow_and_update();
        if feed_version > 0 {
            let ack = FeedAck { edge_id: edge_id.clone(), feed_version };
            jetstream.client().publish(FEED_ACKS_SUBJECT, ack.encode_to_vec().into()).await?;
        }
        tokio::time::sleep(PAUSE).await;
        if told.changed().await.is_err() {
            // The edge is going; so is this.
            std::future::pending::<()>().await;
        }
    }
}
