//! Access tokens: what they say, signing them, checking them offline, and what they allow.
//!
//! A server keeps one [`Verifier`], filled by [`follow`], behind a [`GateLayer`] that asks [`table`] about each
//! call. Never opens a database and never sees a password or a service token.

mod claims;
mod edge_token;
mod follow;
mod gate;
mod role;
mod signer;
pub mod table;
mod verifier;

pub use claims::{Claims, Subject};
pub use follow::follow;
pub use gate::{Gate, GateLayer};
pub use role::{Role, Scope};
pub use signer::{Signer, SigningKeyError};
pub use verifier::Verifier;

/// How long an access token is good for after it was signed.
pub const LIFETIME: time::Duration = time::Duration::minutes(5);

/// The audience of every access token.
const AUDIENCE: &str = "keymeter";
