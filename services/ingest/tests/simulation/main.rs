//! The protocol of ingest, run as it is against servers that crash, delay, lose, forget and go back in time, on a
//! clock of its own: the same seed gives the same run. A failure names its seed; run that one alone with
//! `KEYMETER_SEED=17 cargo nextest run -p ingest one_seed`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod archive;
mod audit;
#[path = "../it/support/chance.rs"]
mod chance;
mod chaos;
mod clock;
mod edges;
mod model;
mod operator;
mod reader;
mod run;
mod servers;

/// The shard of all events.
const SHARD: u16 = 1;
