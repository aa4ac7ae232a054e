//! The nouns of Keymeter: ids, secrets, request events, ranges.
//!
//! Pure values and rules, shared by every service. Knows no driver, no wire format, no clock and no
//! async runtime: what depends on time takes `now` as an argument.

pub mod address;
pub mod event;
pub mod id;
pub mod key;
pub mod print;
pub mod range;
pub mod redact;
pub mod secret;

pub use address::AddressStorage;
pub use event::{Denial, Origin, Outcome, RequestEvent};
pub use id::{
    AccountId, EdgeId, Id, IdError, InvitationId, KeyId, RequestId, SecretId, ServiceTokenId, WorkspaceId,
};
pub use key::{Environment, KeyState};
pub use range::{RangeError, TimeRange};
pub use redact::redact;
pub use secret::{Secret, SecretError, SecretHash};
