//! The edge on a real NATS, before real servers.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod calls;
mod capture;
mod crash;
mod grpc;
mod hostile;
mod outage;
mod policy;
mod protocol;
mod world;
