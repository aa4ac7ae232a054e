//! Something that was read from the provider, kept for an hour. After a failure it is left alone for a while, whoever
//! asks.

use std::sync::Arc;

use tokio::{
    sync::Mutex,
    time::{Duration, Instant},
};

use super::Away;

const KEEP_FOR: Duration = Duration::from_hours(1);
/// Between two readings because somebody came with something newer.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// After the first failure; twice as long after each further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is kept.
pub(super) struct Kept<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Option<(Arc<T>, Instant)>,
    /// When the last reading failed, and how many did in a row.
    failed: Option<(Instant, u32)>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { value: None, failed: None }) }
    }
}

impl<T> Kept<T> {
    /// What is kept, or else read now; those who ask meanwhile wait for the same.
    pub(super) async fn get(&self, read: impl AsyncFnOnce() -> Result<T, Away>) -> Result<Arc<T>, Away> {
        let mut state = self.state.lock().await;
        match state.kept(Instant::now()) {
            Some(value) => Ok(value),
            None => state.renew(read).await,
        }
    }

    /// What is newer than `seen`; `None` if that was read just now.
    pub(super) async fn newer(
        &self,
        seen: &Arc<T>,
        read: impl AsyncFnOnce() -> Result<T, Away>,
    ) -> Result<Option<Arc<T>>, Away> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        match &state.value {
            Some((value, _)) if !Arc::ptr_eq(value, seen) => Ok(Some(Arc::clone(value))),
            Some((_, read_at)) if now < *read_at + RENEW_EVERY => Ok(None),
            _ => state.renew(read).await.map(Some),
        }
    }
}

impl<T> State<T> {
    fn kept(&self, now: Instant) -> Option<Arc<T>> {
        let (value, read_at) = self.value.as_ref()?;
        (now < *read_at + KEEP_FOR).then(|| Arc::clone(value))
    }

    /// How much longer the provider is left alone.
    fn pause(&self, now: Instant) -> Option<Duration> {
        let (at, failures) = self.failed?;
        let pause = PAUSE_MIN.saturating_mul(1 << (failures - 1).min(10)).min(PAUSE_MAX);
        (at + pause).checked_duration_since(now).filter(|left| !left.is_zero())
    }

    async fn renew(&mut self, read: impl AsyncFnOnce() -> Result<T, Away>) -> Result<Arc<T>, Away> {
        if let Some(left) = self.pause(Instant::now()) {
            return Err(Away::new(format!("it failed before, and is asked again in {left:.1?}")));
        }
        match read().await {
            Ok(value) => {
                let value = Arc::new(value);
                (self.value, self.failed) = (Some((Arc::clone(&value), Instant::now())), None);
                Ok(value)
            }
            Err(error) => {
                let failures = self.failed.map_or(1, |(_, failures)| failures.saturating_add(1));
                self.failed = Some((Instant::now(), failures));
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let start = Instant::now();
        let left = |failures| {
            let state = State::<()> { value: None, failed: Some((start, failures)) };
            state.pause(start).unwrap().as_secs()
        };
        assert_eq!([1, 2, 3, 5, 6, 1_000].map(left), [1, 2, 4, 16, 30, 30]);
        let state = State::<()> { value: None, failed: Some((start, 1)) };
        assert_eq!(state.pause(start + PAUSE_MIN), None);
    }

    #[tokio::test]
    async fn it_is_read_once_and_not_at_all_after_a_failure() {
        let kept = Kept::default();
        assert!(kept.get(async || Err(Away::new("no"))).await.is_err());
        assert!(kept.get(async || -> Result<u8, Away> { panic!("left alone") }).await.is_err());
        kept.state.lock().await.failed = None;
        let one = kept.get(async || Ok(1)).await.unwrap();
        assert_eq!(*kept.get(async || Ok(2)).await.unwrap(), 1);
        assert!(kept.newer(&one, async || Ok(3)).await.unwrap().is_none(), "read just now");
        assert_eq!(kept.newer(&Arc::new(0), async || Ok(4)).await.unwrap().as_deref(), Some(&1));
        let long_ago = Instant::now().checked_sub(RENEW_EVERY).unwrap();
        kept.state.lock().await.value = Some((Arc::clone(&one), long_ago));
        assert_eq!(kept.newer(&one, async || Ok(5)).await.unwrap().as_deref(), Some(&5));
    }
}
