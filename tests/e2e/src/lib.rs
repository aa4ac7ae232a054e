//! The whole of Keymeter on real parts, seen through its public ports only: one test binary, and a stack of
//! its own for each test.
#![cfg(test)]

mod api;
mod backup;
mod bad_input;
mod browser;
mod canaries;
mod chaos;
mod cli;
mod client;
mod cluster;
mod cluster_clients;
mod cluster_stack;
mod counts;
mod deletion;
mod disks;
mod drain;
mod erasure;
mod limits;
mod link;
mod load;
mod outages;
mod rotation;
mod stack;
mod team;
mod tenants;
mod traces;
mod upgrade;
mod usage;
