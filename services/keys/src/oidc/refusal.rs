//! Why nobody came in by the provider.

use super::Away;

/// Why.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no provider.
    #[error("no OpenID Connect provider is configured")]
    NotConfigured,
    /// The flow is unknown, too old, used, or of another browser.
    #[error("the sign-in has ended or was begun elsewhere")]
    Ended,
    /// The provider, or the person there, said no; in its word.
    #[error("the provider said no: {0}")]
    Refused(String),
    /// What the provider said of the person is not good.
    #[error("the ID token is not good: {0}")]
    Token(&'static str),
    /// The provider gave no answer that can be read.
    #[error(transparent)]
    Away(#[from] Away),
    /// It did not ask the person anew.
    #[error("the provider did not ask again")]
    NotAgain,
    /// Somebody else than the session's person.
    #[error("another person")]
    AnotherPerson,
    /// No account is theirs.
    #[error("no account")]
    NoAccount,
    /// The provider does not say that the address is theirs.
    #[error("the e-mail address is not verified")]
    EmailNotVerified,
    /// The account is already somebody else's at the provider.
    #[error("the account is linked to another person")]
    LinkedToAnother,
    /// The invitation is for another address.
    #[error("the invitation is for somebody else")]
    InvitedIsAnother,
}
