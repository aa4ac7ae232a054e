//! The keys service on real parts, through its own port.
#![expect(clippy::unwrap_used, reason = "tests")]

mod activity;
mod attributes;
mod bootstrap;
mod feed;
mod harness;
mod input;
mod leaks;
mod lists;
mod lives;
mod model;
mod offline;
mod outage;
mod process;
mod rotation;
mod sealed;
mod sessions;
mod tenants;
