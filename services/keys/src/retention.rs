//! How long single calls are kept: the bucket `retentions` tells ingest. What was chosen later is never overwritten.

use bytes::Bytes;
use prost::Message as _;
use proto::{
    events as pb,
    nats::RETENTIONS_BUCKET,
    timestamp::{from_proto, to_proto},
};

use crate::{
    nats::Streams,
    store::{Store, retentions::Retention},
    told,
};

/// Tells the bucket of retentions: of those that it was not told, or of all that were ever changed.
///
/// # Errors
/// Postgres or NATS.
pub async fn tell(store: &Store, streams: &Streams, all: bool) -> anyhow::Result<()> {
    let retentions = store.request_retentions(all).await?;
    if retentions.is_empty() {
        return Ok(());
    }
    let bucket = streams.bucket(RETENTIONS_BUCKET, "for how long workspaces keep single calls").await?;
    for retention in retentions {
        let key = retention.workspace_id.to_string();
        let is_newer = |there: &Bytes| {
            let there =
                pb::Retention::decode(&there[..]).ok().and_then(|there| from_proto(&there.chosen_at?));
            there.is_some_and(|there| there >= retention.chosen_at)
        };
        told::put(&bucket, &key, message(retention).encode_to_vec(), is_newer).await?;
        store.told_request_retention(retention).await?;
    }
    Ok(())
}

fn message(retention: Retention) -> pb::Retention {
    pb::Retention {
        workspace_id: retention.workspace_id.as_bytes().to_vec(),
        days: retention.days.unsigned_abs(),
        chosen_at: Some(to_proto(retention.chosen_at)),
    }
}
