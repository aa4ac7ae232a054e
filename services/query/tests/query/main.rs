//! The service against a real ClickHouse, over gRPC as its callers see it.

#![expect(clippy::unwrap_used, reason = "a test that panics says why it fails")]

mod agreement;
mod bad_input;
mod events;
mod injection;
mod isolation;
mod log;
mod outage;
mod pairs;
mod process;
mod stack;
mod streams;
