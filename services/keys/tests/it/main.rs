//! The keys service on real parts, through its own port.
#![expect(clippy::unwrap_used, reason = "tests")]

mod activity;
mod bootstrap;
mod edge;
mod feed;
mod forgery;
mod harness;
mod input;
mod lives;
mod outage;
mod process;
mod receipts;
mod removal;
mod sealed;
mod sessions;
mod tenants;
