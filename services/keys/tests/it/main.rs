//! The keys service on real parts, through its own port.
#![expect(clippy::unwrap_used, reason = "tests")]

mod activity;
mod attributes;
mod bootstrap;
mod chain;
mod edge;
mod erasure;
mod feed;
mod forgery;
mod harness;
mod input;
mod leak;
mod leaks;
mod lists;
mod lives;
mod lost_key;
mod members;
mod model;
mod offline;
mod outage;
mod process;
mod reauthentication;
mod rebuild;
mod receipts;
mod removal;
mod roles;
mod rotation;
mod sealed;
mod service_tokens;
mod sessions;
mod tampering;
mod team;
mod tenants;
mod trail;
mod upgrade;
mod workspaces;
