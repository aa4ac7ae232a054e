//! Measures what the keys service promises, on real parts: deletes under load with three edges, then a million
//! keys. Prints progress to the standard error and one JSON object as its last line. Asserts no time.

mod deletes;
mod million;
mod world;

use std::io::Write as _;

use figures::{Asked, Figures};

/// What is asked of figures.
const ASKED: &[(&str, Asked)] = &[
    ("delete_refused_p99_ms", Asked::AtMost(250.0)),
    ("delete_refused_max_ms", Asked::AtMost(1_000.0)),
    ("snapshot_1m_s", Asked::AtMost(10.0)),
    ("snapshot_1m_edge_rss_mb", Asked::AtMost(350.0)),
    ("keys_1m_list_p99_ms", Asked::AtMost(20.0)),
    ("keys_1m_get_p99_ms", Asked::AtMost(20.0)),
    ("keys_1m_create_p99_ms", Asked::AtMost(20.0)),
];

/// Secrets in the large installation.
const KEYS: usize = 1_000_000;
/// Deletes that are measured.
const DELETES: usize = 1_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let figures = Figures::new(ASKED);
    let mut world = world::World::start().await?;
    deletes::measure(&mut world, &figures, DELETES).await?;
    million::measure(&mut world, &figures, KEYS).await?;
    Ok(writeln!(std::io::stdout(), "{}", figures.json())?)
}
