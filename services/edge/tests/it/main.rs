//! The edge on a real NATS, before real servers.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod api;
mod calls;
mod capture;
mod crash;
mod grpc;
mod grpc_refusals;
mod hostile;
mod limits;
mod outage;
mod policy;
mod protocol;
mod proxy;
mod smuggling;
mod tls;
mod traces;
mod upstreams;
mod world;
