//! What can go wrong in a use case. One place turns it into a gRPC status: `grpc::status`.

use std::time::Duration;

use crate::{
    oidc::Refusal,
    password::Busy,
    seal::{KekError, Unsealable},
    store::StoreError,
};

/// Why a call was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of the request.
    #[error("{field}: {description}")]
    Invalid {
        /// As it stands in the request.
        field: &'static str,
        /// What it must be.
        description: String,
    },
    /// No such thing, or another workspace's.
    #[error("no such {what}")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
        /// As it stands in the request.
        name: String,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// The etag is not current.
    #[error("the etag is not current")]
    StaleEtag,
    /// The key was deleted.
    #[error("the key was deleted")]
    KeyDeleted,
    /// There is no copy of the secret.
    #[error("there is no copy of the secret")]
    NoCopy,
    /// The key is another one's.
    #[error("the key is another one's")]
    NotOwner,
    /// Too many secrets of the key would work at once.
    #[error("too many secrets would work at once")]
    TooManySecrets,
    /// The key's current secret can not be retired.
    #[error("the current secret can not be retired")]
    CurrentSecret,
    /// Too many secrets were shown again.
    #[error("too many reveals")]
    TooManyReveals {
        /// When the next one is done.
        retry_after: Duration,
    },
    /// Only a person may do this.
    #[error("only a person may do this")]
    PeopleOnly,
    /// The role does not reach that far.
    #[error("not allowed")]
    NotAllowed(&'static str),
    /// Things are not as they must be for this.
    #[error("{message}")]
    Precondition {
        /// In `UPPER_SNAKE`.
        reason: &'static str,
        /// Says the remedy.
        message: &'static str,
    },
    /// There is one already.
    #[error("{message}")]
    AlreadyThere {
        /// In `UPPER_SNAKE`.
        reason: &'static str,
        /// Says the remedy.
        message: &'static str,
    },
    /// The account is not in the workspace.
    #[error("the account is not in the workspace")]
    NotMember,
    /// E-mail, password or token are not good; which, is not said.
    #[error("not signed in")]
    Unauthenticated(&'static str),
    /// Nobody came in by the provider.
    #[error(transparent)]
    Provider(#[from] Refusal),
    /// Too many wrong passwords.
    #[error("too many attempts")]
    Throttled {
        /// When the next attempt is taken.
        retry_after: Duration,
    },
    /// Too many people sign in at once.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The service has not yet prepared itself.
    #[error("not started yet")]
    NotStarted,
    /// Something sealed does not open.
    #[error(transparent)]
    Unsealable(#[from] Unsealable),
    /// The key-encryption key, or what is wrapped under it.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// Postgres.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// A bad field.
    #[must_use]
    pub fn invalid(field: &'static str, description: impl Into<String>) -> Self {
        Self::Invalid { field, description: description.into() }
    }
}
