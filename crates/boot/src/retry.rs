//! Waiting for something that may be away, without noise.

use std::{fmt::Display, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::Need;

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Calls `attempt` until it succeeds, with pauses that double from 100 ms to 5 s. `need` is down meanwhile
/// and up afterwards; the log has a line for each change of the reason only. `None` if the process is asked
/// to stop first.
pub async fn retry<T, E: Display>(
    what: &str,
    need: &Need,
    shutdown: &CancellationToken,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Option<T> {
    let mut pause = BACKOFF_FIRST;
    let mut said = String::new();
    loop {
        let result = tokio::select! {
            result = attempt() => result,
            () = shutdown.cancelled() => return None,
        };
        match result {
            Ok(value) => {
                need.up();
                if !said.is_empty() {
                    tracing::info!(need = need.name(), "{what}: done");
                }
                return Some(value);
            }
            Err(error) => {
                let reason = format!("{error:#}");
                if reason != said {
                    tracing::warn!(need = need.name(), reason, "{what}: waiting");
                    need.down(reason.clone());
                    said = reason;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return None,
        }
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}
