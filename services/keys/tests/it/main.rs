//! The keys service on real parts, through its own port.
#![expect(clippy::unwrap_used, reason = "tests")]

mod activity;
mod bootstrap;
mod feed;
mod harness;
mod input;
mod lives;
mod members;
mod outage;
mod process;
mod reauthentication;
mod sealed;
mod service_tokens;
mod sessions;
mod team;
mod tenants;
mod trail;
mod workspaces;
