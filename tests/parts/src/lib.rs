//! Real components for tests, each with its own port and temporary folder: NATS, Postgres, ClickHouse and our
//! own binaries. They end with the value that stands for them, and with the test's process however it ends.
//! Never shares a server between two tests, and never takes a component from the PATH.

mod authority;
mod by_hand;
mod clickhouse;
mod collector;
mod disk;
mod http;
mod install;
mod nats;
mod nats_cluster;
mod network;
mod port;
mod postgres;
mod process;
mod relay;
mod service;
mod wait;

pub use authority::Authority;
pub use by_hand::{asked, say, seed};
pub use clickhouse::{ClickHouse, migrations};
pub use collector::{Collector, SeenSpan};
pub use disk::SmallDisk;
pub use http::{Answer, get, request};
pub use install::{binary, checker, libchdb, node_modules, python, root, use_binaries};
pub use nats::Nats;
pub use nats_cluster::NatsCluster;
pub use port::free_port;
pub use postgres::Postgres;
pub use relay::{Relay, Way};
pub use service::Service;
pub use wait::{Settled, eventually};
