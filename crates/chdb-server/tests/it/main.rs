//! The server as its clients see it: a process of its own for each test, on a free port and a temporary folder.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod cancel;
mod clickhouse_connect;
mod clickhouse_crate;
mod durability;
mod engine;
mod http;
mod isolation;
mod lifecycle;
mod support;
