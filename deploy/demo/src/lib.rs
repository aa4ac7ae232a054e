//! What the demonstration is made of. The API and its past share one catalogue of endpoints, so that the live
//! calls look like the old ones. Nothing here is part of the product.

pub mod api;
pub mod callers;
pub mod catalogue;
pub mod dice;
pub mod history;
pub mod keyring;
pub mod past;
pub mod pressure;
pub mod setup;
pub mod traffic;

/// Completes at SIGTERM or SIGINT.
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
