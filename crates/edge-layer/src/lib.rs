//! Verification of API keys and an exact record of each call, as a tower [`Layer`](tower::Layer) for any service
//! over HTTP: axum, hyper, or the reverse proxy `edge`.
//!
//! A request is verified in memory against keys that NATS or the keys service feeds, and its event is in a spool on the disk before
//! the first byte of the answer leaves; no request waits for NATS, Postgres or ClickHouse.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{net::SocketAddr, time::Duration};
//!
//! let edge = edge_layer::Edge::start(edge_layer::Settings {
//!     nats_url: "nats://127.0.0.1:4222".into(),
//!     spool_dir: "/var/lib/api/spool".into(),
//!     spool_bytes_max: 4 << 30,
//!     shards: 4,
//!     region: String::new(),
//!     keys: None,
//!     feed_lost_after: Duration::from_secs(30),
//!     when_feed_lost: edge_layer::WhenFeedLost::Refuse,
//!     feed_keys: std::fs::read_to_string("feed-keys")?.parse()?,
//!     required_scopes: "GET /v1/orders orders:read".parse()?,
//!     trusted_proxies: vec!["10.0.0.0/8".parse()?],
//! })
//! .await?;
//! let api = axum::Router::new().route("/v1/orders", axum::routing::get(|| async { "[]" })).layer(edge.layer());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, api).await?;
//! edge.close(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```

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
mod heartbeat;
mod key_table;
mod layer;
mod limit;
mod link;
mod metrics;
mod network;
mod problem;
mod publish;
mod route;
mod scopes;
mod snapshot;
mod spool;
mod verdict;
mod watch;

pub use caller::{Peer, X_REQUEST_ID};
pub use capture::{Held, RequestBody, ResponseBody, Tunnel};
pub use credential::CredentialError;
pub use edge::{Edge, Settings, StartError, Status};
pub use feed::{Source, WhenFeedLost};
pub use feed_keys::{FeedKeys, FeedKeysError};
pub use layer::{AnswerBody, Caller, EdgeLayer, EdgeService};
pub use network::{Network, NetworkError};
pub use problem::Problem;
pub use scopes::{RequiredScopes, RequiredScopesError};
pub use spool::OpenError;
pub use verdict::Feed;
pub use watch::KeysAccess;
