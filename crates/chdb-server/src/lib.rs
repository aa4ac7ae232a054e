//! ClickHouse's HTTP interface over the ClickHouse engine in libchdb: for a laptop and for tests. One workspace of
//! trust: it has no users and listens on the loopback only.

mod answer;
mod body;
mod compression;
mod config;
mod engine;
mod exception;
mod headers;
mod request;
mod router;
mod server;
mod sql;
mod statement;

pub use config::Config;
pub use engine::exit;
pub use server::{THREADS_MAX, run};
