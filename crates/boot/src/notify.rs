//! What systemd is told of a `Type=notify` service: READY once nothing is missing, STATUS with what is, STOPPING at the
//! drain, and WATCHDOG where the unit asks for it. Says nothing where nobody listens.

use std::{env, time::Duration};

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::Health;

/// Between two looks at what is missing.
const POLL: Duration = Duration::from_millis(500);

/// Tells systemd for as long as it is polled, through the drain too; ends at once without systemd.
pub(crate) async fn tell(health: Health, shutdown: CancellationToken) {
    if env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    // Twice as often as asked for, as systemd's manual has it.
    let watchdog = sd_notify::watchdog_enabled().map(|asked| asked / 2);
    let pause = watchdog.map_or(POLL, |watchdog| watchdog.min(POLL));
    let (mut was_ready, mut said) = (false, String::new());
    loop {
        let stopping = shutdown.is_cancelled();
        let (ready, status) = status(&health, stopping);
        let mut news = Vec::new();
        if ready && !was_ready {
            news.push(NotifyState::Ready);
        }
        if status != said {
            news.extend(stopping.then_some(NotifyState::Stopping));
            news.push(NotifyState::Status(&status));
        }
        news.extend(watchdog.map(|_| NotifyState::Watchdog));
        if !news.is_empty() && sd_notify::notify(&news).is_ok() {
            (was_ready, said) = (was_ready || ready, status);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled(), if !stopping => {}
        }
    }
}

fn status(health: &Health, stopping: bool) -> (bool, String) {
    let missing = health.missing();
    let ready = missing.is_empty() && !stopping;
    let status = match (stopping, ready) {
        (true, _) => "draining".to_owned(),
        (false, true) => "ready".to_owned(),
        (false, false) => {
            let missing = missing.iter().map(|(name, missing)| format!("{name}: {}", missing.reason));
            // A line break would begin another assignment.
            format!("missing {}", missing.collect::<Vec<_>>().join("; ")).replace('\n', " ")
        }
    };
    (ready, status)
}
