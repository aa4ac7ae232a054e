//! Slows down guessing of passwords: at most ten attempts in 15 minutes for one e-mail address from one
//! network address. An attempt counts when it starts, so many at once do not pass; a good one clears the count.

use std::net::IpAddr;

use time::{Duration, OffsetDateTime};

use crate::{
    error::Error,
    store::{Store, StoreError},
    token::sha256,
};

/// How many attempts are taken in a [`WINDOW`].
pub const ATTEMPTS_MAX: usize = 10;
/// How long an attempt counts.
pub const WINDOW: Duration = Duration::minutes(15);

/// Whose attempts are counted together.
pub struct Origin {
    hash: Vec<u8>,
}

impl Origin {
    /// An e-mail address from a network address.
    #[must_use]
    pub fn of(email: &str, address: Option<IpAddr>) -> Self {
        let address = address.map(|address| address.to_canonical().to_string()).unwrap_or_default();
        Self { hash: sha256(format!("{address} {email}").as_bytes()) }
    }
}

/// Counts an attempt.
///
/// # Errors
/// If there were too many; such a refused one does not count. Postgres.
pub async fn admit(store: &Store, origin: &Origin, now: OffsetDateTime) -> Result<(), Error> {
    let mut tx = store.begin().await?;
    tx.lock(&format!("sign-in {}", data_encoding::HEXLOWER.encode(&origin.hash))).await?;
    let attempts = tx.attempts(&origin.hash, now - WINDOW).await?;
    if let Some(retry_after) = retry_after(&attempts, now) {
        return Err(Error::Throttled { retry_after: retry_after.unsigned_abs() });
    }
    tx.add_attempt(&origin.hash, now).await?;
    Ok(tx.commit().await?)
}

/// Clears the count, after a good attempt.
///
/// # Errors
/// Postgres.
pub async fn forget(store: &Store, origin: &Origin) -> Result<(), StoreError> {
    store.forget_attempts(&origin.hash).await
}

/// How long until an attempt is taken; `None` is now. `attempts` are those of the last [`WINDOW`], oldest first.
fn retry_after(attempts: &[OffsetDateTime], now: OffsetDateTime) -> Option<Duration> {
    let leaves_room = attempts.len().checked_sub(ATTEMPTS_MAX)?;
    Some((attempts[leaves_room] + WINDOW - now).max(Duration::SECOND))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_eleventh_waits_until_the_first_is_old() {
        let now = datetime!(2026-11-22 06:00 UTC);
        let attempts: Vec<_> = (0..11).map(|minute| now - Duration::minutes(11 - minute)).collect();
        assert_eq!(retry_after(&attempts[..9], now), None);
        assert_eq!(retry_after(&attempts[..10], now), Some(Duration::minutes(4)));
        assert_eq!(retry_after(&attempts, now), Some(Duration::minutes(5)));
        assert_eq!(retry_after(&[], now), None);
    }

    #[test]
    fn one_address_does_not_lock_out_another() {
        let hash = |email: &str, address: &str| Origin::of(email, address.parse().ok()).hash;
        assert_ne!(hash("a@b", "127.0.0.1"), hash("a@b", "127.0.0.2"));
        assert_ne!(hash("a@b", "127.0.0.1"), hash("c@b", "127.0.0.1"));
        assert_eq!(hash("a@b", "127.0.0.1"), hash("a@b", "::ffff:127.0.0.1"));
    }
}
