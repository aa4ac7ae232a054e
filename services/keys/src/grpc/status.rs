//! The one place where an error becomes a gRPC status.

use std::{collections::HashMap, error::Error as _, time::Duration};

use proto::status::{error as status_of, internal, invalid, not_found, unavailable};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{error::Error, key::WORKING_SECRETS_MAX, oidc::Refusal, seal::KekError, store::StoreError};

/// When to try again while Postgres is away.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The status of an error. What the caller can not mend is logged here, and nowhere else.
pub(super) fn status(error: Error) -> Status {
    match error {
        Error::Invalid { field, description } => invalid(field, description),
        Error::NotFound { what, name } => not_found(what, &name),
        Error::IdempotencyKeyReused => status_of(
            Code::AlreadyExists,
            "IDEMPOTENCY_KEY_REUSED",
            "idempotency_key was used for another request in the last 24 hours; choose a new one",
        ),
        Error::StaleEtag => status_of(
            Code::Aborted,
            "STALE_ETAG",
            "the key has changed since that etag was read; read it again with GetKey",
        ),
        Error::KeyDeleted => status_of(
            Code::FailedPrecondition,
            "KEY_DELETED",
            "the key was deleted, for good; create a new one",
        ),
        Error::NoCopy => status_of(
            Code::FailedPrecondition,
            "NO_COPY",
            "there is no copy of this key's secret that opens; rotate the key",
        ),
        Error::TooManySecrets => status_of(
            Code::FailedPrecondition,
            "TOO_MANY_SECRETS",
            format!(
                "{WORKING_SECRETS_MAX} secrets of this key work already; retire one with RetireSecret, or \
                 rotate without overlap"
            ),
        ),
        Error::CurrentSecret => status_of(
            Code::FailedPrecondition,
            "CURRENT_SECRET",
            "this is the key's current secret; rotate the key first, or delete or disable it",
        ),
        Error::NotOwner => status_of(
            Code::PermissionDenied,
            "NOT_OWNER",
            "your role lets you change only keys that you own; ask its owner or an administrator",
        ),
        Error::PeopleOnly => status_of(
            Code::PermissionDenied,
            "PEOPLE_ONLY",
            "a service token can not do this; sign in as a person with SessionsService.SignIn",
        ),
        Error::NotAllowed(message) => status_of(Code::PermissionDenied, "ROLE_NOT_ALLOWED", message),
        Error::Precondition { reason, message } => status_of(Code::FailedPrecondition, reason, message),
        Error::AlreadyThere { reason, message } => status_of(Code::AlreadyExists, reason, message),
        Error::NotMember => {
            status_of(Code::PermissionDenied, "NOT_A_MEMBER", "the account is not in that workspace")
        }
        Error::Unauthenticated(why) => status_of(Code::Unauthenticated, "NOT_SIGNED_IN", why),
        Error::Provider(refusal) => refused(&refusal),
        Error::Throttled { retry_after } => {
            exhausted("TOO_MANY_ATTEMPTS", "too many wrong passwords", retry_after)
        }
        Error::TooManyReveals { retry_after } => {
            exhausted("TOO_MANY_REVEALS", "too many secrets were shown again", retry_after)
        }
        Error::Busy(_) => unavailable("a free turn to check passwords", RETRY_AFTER),
        Error::NotStarted => unavailable("Postgres", RETRY_AFTER),
        Error::Store(StoreError::Away(source)) => {
            tracing::warn!(error = %source, "Postgres is away");
            unavailable("Postgres", RETRY_AFTER)
        }
        Error::Kek(KekError::Away(source)) | Error::Store(StoreError::Kek(KekError::Away(source))) => {
            tracing::warn!(error = format!("{source:#}"), "the keeper of the key-encryption key is away");
            unavailable("the key-encryption key", RETRY_AFTER)
        }
        Error::Kek(error) => {
            tracing::error!(error = %error, "a call failed");
            internal()
        }
        Error::Store(error) => {
            tracing::error!(error = %error, source = error.source().map(tracing::field::display), "a call failed");
            internal()
        }
        Error::Unsealable(error) => {
            tracing::error!(error = %error, "a call failed");
            internal()
        }
    }
}

/// Nobody came in by the provider: who was at fault, and what to do.
fn refused(refusal: &Refusal) -> Status {
    let (code, reason, message) = match refusal {
        Refusal::NotConfigured => (
            Code::FailedPrecondition,
            "PROVIDER_NOT_CONFIGURED",
            "there is no OpenID Connect provider; sign in with SignIn, or set KEYMETER_KEYS_OIDC_ISSUER",
        ),
        Refusal::Ended => (
            Code::Unauthenticated,
            "PROVIDER_SIGN_IN_ENDED",
            "this sign-in was used, is older than 10 minutes or was begun elsewhere; begin anew with \
             BeginProviderSignIn",
        ),
        Refusal::Refused(word) => {
            tracing::info!(provider.error = word, "the OpenID Connect provider said no");
            (
                Code::Unauthenticated,
                "PROVIDER_REFUSED",
                "the provider said no; begin anew with BeginProviderSignIn",
            )
        }
        Refusal::Token(why) => {
            tracing::warn!(why, "an ID token was not good");
            (
                Code::Unauthenticated,
                "PROVIDER_TOKEN_INVALID",
                "what the provider said of the person is not good; the log of the keys service has the cause",
            )
        }
        Refusal::Away(away) => {
            tracing::warn!(error = %away, "nobody can sign in at the OpenID Connect provider");
            (
                Code::Unavailable,
                "PROVIDER_AWAY",
                "the OpenID Connect provider gives no good answer; try again, or sign in with SignIn",
            )
        }
        Refusal::NotAgain => (
            Code::Unauthenticated,
            "NOT_PROVED_AGAIN",
            "the provider did not say that it asked the person anew (auth_time); begin with reauthenticate",
        ),
        Refusal::AnotherPerson => {
            (Code::PermissionDenied, "ANOTHER_PERSON", "at the provider this is not the session's person")
        }
        Refusal::NoAccount => (
            Code::PermissionDenied,
            "NO_ACCOUNT",
            "no account has this e-mail address; ask a member of a workspace for an invitation",
        ),
        Refusal::EmailNotVerified => (
            Code::PermissionDenied,
            "EMAIL_NOT_VERIFIED",
            "the provider does not say that the e-mail address is verified; have it verified there",
        ),
        Refusal::LinkedToAnother => (
            Code::PermissionDenied,
            "LINKED_TO_ANOTHER",
            "the account of this e-mail address belongs to another person at the provider; ask whoever runs this",
        ),
        Refusal::InvitedIsAnother => (
            Code::PermissionDenied,
            "INVITED_IS_ANOTHER",
            "the invitation is for another e-mail address; sign in as that person, or ask for an invitation",
        ),
    };
    status_of(code, reason, message)
}

fn exhausted(reason: &str, what: &str, retry_after: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, "keymeter", HashMap::new());
    details.set_retry_info(Some(retry_after));
    let message = format!("{what}; try again in {} s", retry_after.as_secs().max(1));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}
