//! Access tokens: what they say, signing them, and checking them offline.
//!
//! A server keeps one [`Verifier`], filled by [`follow`], and asks it about each call. Never opens a
//! database and never sees a password or a service token.

mod claims;
mod follow;
mod signer;
mod verifier;

pub use claims::{Claims, Role, Subject};
pub use follow::follow;
pub use signer::{Signer, SigningKeyError};
pub use verifier::Verifier;

/// How long an access token is good for after it was signed.
pub const LIFETIME: time::Duration = time::Duration::minutes(5);

/// The audience of every access token.
const AUDIENCE: &str = "keymeter";
