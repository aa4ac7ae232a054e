//! Waiting for a condition. Knows no other clock than its own limit, so no test asserts how long a thing took.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a condition may take on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What a probe answers: settled or not yet.
pub trait Settled {
    /// What was waited for.
    type Value;
    /// The value if it is there.
    fn settled(self) -> Option<Self::Value>;
}

impl<T> Settled for Option<T> {
    type Value = T;
    fn settled(self) -> Self {
        self
    }
}

impl Settled for bool {
    type Value = ();
    fn settled(self) -> Option<()> {
        self.then_some(())
    }
}

/// Asks `probe` until it answers `Some` or `true`.
///
/// # Panics
/// If it has not after 60 seconds; the message holds `what`.
pub async fn eventually<S: Settled>(what: &str, mut probe: impl AsyncFnMut() -> S) -> S::Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(value) = probe().await.settled() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain for this: {what}", LIMIT.as_secs());
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn asks_until_it_is_settled() {
        let asked = Cell::new(0);
        let value = eventually("three questions", async || {
            asked.set(asked.get() + 1);
            (asked.get() == 3).then_some("done")
        })
        .await;
        assert_eq!((value, asked.get()), ("done", 3));
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "waited 60 s in vain for this: the end of time")]
    async fn gives_up_and_says_what_it_waited_for() {
        eventually("the end of time", async || false).await;
    }
}
