//! Keeps a verifier's public keys those of the keys service.

use std::time::Duration;

use proto::keys::{ListSigningKeysRequest, sessions_service_client::SessionsServiceClient};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

use crate::Verifier;

/// Between two fetches if nothing asks for one.
const REFRESH_EVERY: Duration = Duration::from_secs(180);
/// Between two fetches that unknown keys ask for: anybody can make up a key's name.
const REFRESH_PAUSE: Duration = Duration::from_secs(5);
/// Longest wait for one answer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the first failed fetch; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Fetches the public keys now, every few minutes, and soon after a token names an unknown one, until
/// `shutdown`. Failed fetches leave the keys as they were. `report` hears of every fetch until the first good
/// one, which is the last it hears: from then on tokens can be checked.
pub async fn follow(
    verifier: Verifier,
    channel: Channel,
    shutdown: CancellationToken,
    report: impl Fn(Result<(), &Status>) + Send,
) {
    let client = SessionsServiceClient::new(channel);
    let mut ready = false;
    let mut retry = RETRY_MIN;
    let keep_up = async {
        loop {
            match fetch(client.clone(), &verifier).await {
                Ok(()) => {
                    if !ready {
                        report(Ok(()));
                    }
                    (ready, retry) = (true, RETRY_MIN);
                    sleep(REFRESH_PAUSE).await;
                    let _ = timeout(REFRESH_EVERY - REFRESH_PAUSE, verifier.unknown_kid()).await;
                }
                Err(status) => {
                    if !ready {
                        report(Err(&status));
                    } else if retry == RETRY_MIN {
                        tracing::warn!(
                            error = status.message(),
                            "signing keys could not be refreshed; keeping the old"
                        );
                    }
                    sleep(retry).await;
                    retry = RETRY_MAX.min(retry * 2);
                }
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = keep_up => {}
    }
}

async fn fetch(mut client: SessionsServiceClient<Channel>, verifier: &Verifier) -> Result<(), Status> {
    let answer = timeout(FETCH_TIMEOUT, client.list_signing_keys(ListSigningKeysRequest {}))
        .await
        .map_err(|_| Status::deadline_exceeded("no answer within 5 s"))??;
    let keys = answer.into_inner().keys;
    if keys.is_empty() {
        return Err(Status::unavailable("the keys service has no signing key yet"));
    }
    verifier.replace(&keys);
    Ok(())
}
