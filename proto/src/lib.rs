//! The wire contract: generated messages and services, the names of NATS streams and buckets, resource
//! names, and conversions between messages and the domain. Holds no logic beyond them.

pub mod event;
pub mod event_bytes;
pub mod nats;
pub mod resource;
pub mod status;
pub mod timestamp;

/// Messages between the edge, ingest and keys.
pub mod events {
    tonic::include_proto!("keymeter.events.v1");
}
/// Keys, workspaces and sessions.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod keys {
    tonic::include_proto!("keymeter.keys.v1");
}
/// Usage of keys.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod usage {
    tonic::include_proto!("keymeter.usage.v1");
}

/// Descriptors of all files, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
