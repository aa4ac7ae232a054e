//! How long single calls are kept: the bucket `retentions` tells ingest. What was chosen later is never overwritten.

use async_nats::jetstream;
use prost::Message as _;
use proto::{
    events as pb,
    nats::RETENTIONS_BUCKET,
    timestamp::{from_proto, to_proto},
};

use crate::{
    store::{Store, retentions::Retention},
    told,
};

/// Tells the bucket of retentions: of those that it was not told, or of all that were ever changed.
///
/// # Errors
/// Postgres or NATS.
pub async fn tell(store: &Store, context: &jetstream::Context, all: bool) -> anyhow::Result<()> {
    let retentions = store.request_retentions(all).await?;
    if retentions.is_empty() {
        return Ok(());
    }
    let bucket = told::bucket(context, RETENTIONS_BUCKET).await?;
    for retention in retentions {
        let key = retention.workspace_id.to_string();
        let there = bucket.get(key.as_str()).await?;
        let there = there.and_then(|value| from_proto(&pb::Retention::decode(value).ok()?.chosen_at?));
        if there.is_none_or(|there| there < retention.chosen_at) {
            bucket.put(key, message(retention).encode_to_vec().into()).await?;
        }
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
