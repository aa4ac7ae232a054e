//! The pages as a browser without scripts gets them, in front of in-memory services.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake_usage;
mod fake_workspaces;
mod fakes;
mod keys;
mod security;
mod serving;
mod site;
mod usage;
