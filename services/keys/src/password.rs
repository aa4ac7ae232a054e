//! Passwords: argon2id on a few blocking threads, the same work whether the account exists or not.

use std::sync::Arc;

use argon2::{
    Argon2, PasswordHash, PasswordVerifier as _,
    password_hash::{PasswordHasher as _, SaltString},
};
use aws_lc_rs::rand;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};

use crate::error::Error;

/// How many are checked at once: each takes 19 MiB and a core.
const AT_ONCE: usize = 2;
/// Longest wait for one's turn.
const TURN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
/// Longest password taken, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Fewest characters of a new password.
pub const PASSWORD_CHARS_MIN: usize = 8;

/// Checks the length of a new password.
///
/// # Errors
/// If it is too short or too long.
pub fn check_new(field: &'static str, password: &SecretString) -> Result<(), Error> {
    let text = password.expose_secret();
    if text.chars().count() >= PASSWORD_CHARS_MIN && text.len() <= PASSWORD_BYTES_MAX {
        Ok(())
    } else {
        Err(Error::invalid(field, "must have 8 characters to 1,024 bytes"))
    }
}

/// Too many people sign in at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many people sign in at once")]
pub struct Busy;

/// Checks passwords. Clones share the turns.
#[derive(Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    /// Checked where there is no account, so that the answer takes as long.
    decoy: Arc<str>,
}

impl Passwords {
    /// Ready to check; takes as long as one check.
    #[must_use]
    pub fn new() -> Self {
        let decoy = hash(&crate::token::generate(""));
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), decoy: decoy.into() }
    }

    /// The hash of a new password, in its turn.
    ///
    /// # Errors
    /// If no turn came in 5 s.
    ///
    /// # Panics
    /// Never: hashing does not.
    pub async fn hash(&self, password: SecretString) -> Result<String, Busy> {
        let turn = self.turn().await?;
        let hashed = spawn_blocking(move || {
            let _turn = turn;
            hash(&password)
        });
        Ok(hashed.await.expect("hashing does not panic"))
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Busy> {
        timeout(TURN_TIMEOUT, Arc::clone(&self.turns).acquire_owned())
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or(Busy)
    }

    /// Whether the password is the one that was hashed; false without a hash, after the same time.
    ///
    /// # Errors
    /// If no turn came in 5 s.
    ///
    /// # Panics
    /// Never: the check does not.
    pub async fn check(&self, hash: Option<String>, password: SecretString) -> Result<bool, Busy> {
        let turn = self.turn().await?;
        let decoy = Arc::clone(&self.decoy);
        let checked = spawn_blocking(move || {
            let _turn = turn;
            let matches = matches(hash.as_deref().unwrap_or(&decoy), &password);
            matches && hash.is_some()
        });
        Ok(checked.await.expect("the check does not panic"))
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

/// The argon2id hash of a password, with its salt and parameters.
///
/// # Panics
/// If the operating system has no randomness to give.
#[must_use]
pub fn hash(password: &SecretString) -> String {
    let mut salt = [0; 16];
    rand::fill(&mut salt).expect("the operating system gives randomness");
    let salt = SaltString::encode_b64(&salt).expect("16 bytes are a salt");
    Argon2::default()
        .hash_password(password.expose_secret().as_bytes(), &salt)
        .expect("the parameters are argon2's own")
        .to_string()
}

fn matches(hash: &str, password: &SecretString) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| {
        Argon2::default().verify_password(password.expose_secret().as_bytes(), &hash).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_an_account_passes() {
        let passwords = Passwords::new();
        let right = hash(&"correct horse".into());
        assert!(right.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{right}");
        assert_eq!(passwords.check(Some(right.clone()), "correct horse".into()).await, Ok(true));
        assert_eq!(passwords.check(Some(right), "wrong horse".into()).await, Ok(false));
        assert_eq!(passwords.check(None, "correct horse".into()).await, Ok(false));
        assert_eq!(passwords.check(Some("damaged".into()), String::new().into()).await, Ok(false));
    }
}
