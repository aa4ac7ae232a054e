//! Verification of API keys and an exact record of each call, as a tower [`Layer`](tower::Layer) for any service
//! over HTTP: axum, hyper, or the reverse proxy `edge`.
//!
//! A request is verified in memory against keys that NATS or the keys service feeds, and its event is in a spool on the disk before
//! the first byte of the answer leaves; no request waits for NATS, Postgres or ClickHouse.
//!
//! The rest is in its README:
#![doc = include_str!("../README.md")]

mod ack;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod bucket;
mod caller;
mod capture;
mod chain;
mod commits;
mod credential;
mod edge;
mod feed;
mod feed_keys;
mod feed_log;
mod fill;
mod forwarded;
#[cfg(test)]
mod fuzz;
mod grpc;
mod heartbeat;
mod key_table;
mod layer;
mod limit;
mod link;
mod metrics;
mod network;
mod problem;
mod publish;
pub mod quota;
mod resource;
mod route;
mod routes;
mod scopes;
mod snapshot;
mod spans;
mod spool;
mod template;
mod verdict;
mod watch;

pub use caller::{Peer, X_REQUEST_ID};
pub use capture::{Held, RequestBody, ResponseBody, Tunnel};
pub use credential::CredentialError;
pub use domain::{Environment, Origin};
pub use edge::{Edge, Settings, StartError, Status};
pub use feed::{Source, WhenFeedLost};
pub use feed_keys::{FeedKeys, FeedKeysError};
pub use forwarded::{ForwardedHeader, ForwardedHeaderError};
pub use layer::{AnswerBody, Caller, EdgeLayer, EdgeService};
pub use network::{Network, NetworkError};
pub use problem::Problem;
pub use resource::ResourceId;
pub use routes::{RouteTemplates, RouteTemplatesError};
pub use scopes::{RequiredScopes, RequiredScopesError};
pub use spool::OpenError;
pub use template::TemplateError;
pub use trace;
pub use verdict::Feed;
pub use watch::KeysAccess;
