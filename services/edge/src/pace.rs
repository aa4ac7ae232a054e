//! Notices when nothing moves any more: a long upload is fine, a silent API is not.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

/// When the request's body moved last.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    began: Instant,
    /// In milliseconds after `began`.
    moved_at: Arc<AtomicU64>,
}

impl Pace {
    /// Moving since now.
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), moved_at: Arc::default() }
    }

    /// The body, watched.
    pub(crate) fn watch<B>(&self, body: B) -> Paced<B> {
        Paced { body, pace: self.clone() }
    }

    /// Returns once nothing has moved for `limit`.
    pub(crate) async fn rest(&self, limit: Duration) {
        loop {
            let until = self.began + Duration::from_millis(self.moved_at.load(Relaxed)) + limit;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn moved(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_at.store(millis, Relaxed);
    }
}

/// A body whose frames are noticed.
#[derive(Debug)]
pub(crate) struct Paced<B> {
    body: B,
    pace: Pace,
}

impl<B: Body + Unpin> Body for Paced<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.pace.moved();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rests_only_when_nothing_moves() {
        let (pace, began) = (Pace::start(), Instant::now());
        let moving = pace.clone();
        tokio::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                moving.moved();
            }
        });
        pace.rest(Duration::from_secs(60)).await;
        assert_eq!(began.elapsed().as_secs(), 310);
    }
}
