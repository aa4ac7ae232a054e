//! The files of `deploy/` as a stranger uses them: read by the real tools, and run, service by service, on real parts.
//! There is no container engine here: what only one can show is not tested, and docs/deploy.md says so.
#![cfg(test)]

mod chart;
mod cluster;
mod compose;
mod image;
mod kubernetes;
mod monitoring;
mod nats_run;
mod nats_users;
mod notify;
mod site;
mod units;
mod users;
