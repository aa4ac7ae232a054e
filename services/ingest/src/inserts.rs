//! What the shards of a process have to insert just then goes together, since each insert costs the server some 15 ms,
//! and each part that it leaves must be merged.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc, oneshot};
use trace::SpanContext;

use crate::{
    native::{Block, Common},
    rows::Rows,
    spans,
    store::{Store, StoreError},
};

/// How long the first one waits for those of other shards, which were paced by the same insert before.
const GATHER: Duration = Duration::from_millis(10);
/// From so many rows on nothing more is put together: larger inserts cost the server hardly less for each.
const ROWS_MAX: usize = 130_000;
/// Most shards of an insert, so that its query id stays readable.
const SHARDS_MAX: usize = 64;
/// Inserts at a time: the server reads one while it writes the other.
const LANES: usize = 2;

/// Where workers hand in their rows.
#[derive(Debug, Clone)]
pub struct Inserts(mpsc::Sender<Part>);

/// What one shard inserts.
struct Part {
    block: Block,
    common: Common,
    id: String,
    /// The span of what it is a part of, if that is sampled.
    asked_in: Option<SpanContext>,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl Inserts {
    /// Inserts into `store` until the last clone is dropped.
    #[must_use]
    pub fn start(store: Store) -> Self {
        let (sender, parts) = mpsc::channel(SHARDS_MAX);
        tokio::spawn(run(store, parts));
        Self(sender)
    }

    /// Inserts rows as the query `id`; they are on disk when this returns. Others may be in the same query, so that an
    /// error of theirs can be the answer.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if nothing was written; else nobody knows what was.
    pub async fn insert(&self, rows: Arc<Rows>, common: Common, id: String) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        let gone = || StoreError::Unknown("nobody inserts any more".to_owned());
        // Sorted here, while an insert before may be on its way.
        let block = Block::new(rows, common);
        let asked_in = trace::current().filter(SpanContext::is_sampled);
        self.0.send(Part { block, common, id, asked_in, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

async fn run(store: Store, mut waiting: mpsc::Receiver<Part>) {
    let lanes = Arc::new(Semaphore::new(LANES));
    while let Some(first) = waiting.recv().await {
        let Ok(lane) = lanes.clone().acquire_owned().await else { return };
        tokio::time::sleep(GATHER).await;
        let mut rows = first.block.len();
        let mut parts = vec![first];
        while rows < ROWS_MAX
            && parts.len() < SHARDS_MAX
            && let Ok(part) = waiting.try_recv()
        {
            rows += part.block.len();
            parts.push(part);
        }
        // Whoever has given up takes the shard over, and fences what was not sent yet.
        parts.retain(|part| !part.done.is_closed());
        let store = store.clone();
        tokio::spawn(async move {
            send(&store, parts).await;
            drop(lane);
        });
    }
}

async fn send(store: &Store, parts: Vec<Part>) {
    let id = parts.iter().map(|part| &*part.id).collect::<Vec<_>>().join("+");
    // The rows go with the blocks, so that their memory is the worker's alone again when it is answered.
    let rows = parts.iter().map(|part| part.block.len()).sum();
    let span = spans::of_insert(parts.iter().filter_map(|part| part.asked_in.clone()), rows);
    let (blocks, asking): (Vec<_>, Vec<_>) =
        parts.into_iter().map(|Part { block, common, done, .. }| (block, (common, done))).unzip();
    let inserted =
        if blocks.is_empty() { Ok(()) } else { store.insert(blocks.into_iter().flatten(), &id, span).await };
    let is_one = asking.len() == 1;
    for (common, done) in asking {
        let answer = match &inserted {
            Ok(()) => Ok(()),
            Err(StoreError::Fenced) if is_one || is_fenced(store, common).await => Err(StoreError::Fenced),
            Err(error) => Err(StoreError::Unknown(error.to_string())),
        };
        // It may have given up meanwhile.
        let _ = done.send(answer);
    }
}

/// Whether it was this shard's epoch that was refused. None of its rows was written then, whatever became of others.
async fn is_fenced(store: &Store, common: Common) -> bool {
    store.fence(common.shard).await.is_ok_and(|epoch| epoch > common.writer_epoch)
}
