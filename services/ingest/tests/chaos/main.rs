//! Ingest, NATS and ClickHouse as processes, disturbed in every way that we know of, under load: each event that an edge
//! accepted is one row in the end, by a list that the tests keep. A small part of it here; `tests/chaos` does it at full size.

mod away;
mod calls;
mod crowd;
mod disks;
mod forgets;
mod kills;
mod owners;
mod replay;
mod replies;
mod strace;
#[expect(dead_code, reason = "tests/it, whose support it is, uses all of it")]
#[path = "../it/support/mod.rs"]
mod support;
