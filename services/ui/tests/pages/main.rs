//! The pages as a browser without scripts gets them, in front of in-memory services.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod fake_audit;
mod fake_keys;
mod fake_members;
mod fake_provider;
mod fake_team;
mod fake_tokens;
mod fake_usage;
mod fake_workspaces;
mod fakes;
mod key_list;
mod key_pages;
mod keys;
mod members;
mod provider;
mod security;
mod serving;
mod settings;
mod site;
mod team;
mod team_security;
mod usage;
mod usage_more;
