//! Ingest as a process on a real NATS and a real ClickHouse engine.

mod audit;
mod bad_events;
mod columns;
mod crash;
mod dead_letters;
mod erasure;
mod exact;
mod lifecycle;
mod owner;
mod support;
mod watermark;
