//! Ingest as a process on a real NATS and a real ClickHouse engine.

mod analysts;
mod archive;
mod audit;
mod bad_events;
mod cluster;
mod columns;
mod crash;
mod dead_letters;
mod erasure;
mod exact;
mod lifecycle;
mod owner;
mod rebuild;
mod replicas;
mod support;
mod watermark;
