//! TLS on every link. A process has an identity: a certificate, its key, and the authority that certifies all processes
//! of one Keymeter. With it, servers take only callers that the authority certified, and clients only such servers.
//! Certificates are read anew when their files change. Knows no part of the product.

mod channel;
mod identity;
mod listener;
mod pair;

pub use channel::channel;
pub use identity::{HttpsClient, Identity, Settings};
pub use listener::{Listener, Stream};
pub use pair::{Files, server};
