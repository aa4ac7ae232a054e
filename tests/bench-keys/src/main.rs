//! Measures what the keys service promises, on real parts: deletes under load with three edges, then a million
//! keys. Prints progress to the standard error and one JSON object as its last line. Asserts no time.

mod deletes;
mod figures;
mod million;
mod world;

use std::io::Write as _;

/// Secrets in the large installation.
const KEYS: usize = 1_000_000;
/// Deletes that are measured.
const DELETES: usize = 1_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let figures = figures::Figures::default();
    let mut world = world::World::start().await?;
    deletes::measure(&mut world, &figures, DELETES).await?;
    million::measure(&mut world, &figures, KEYS).await?;
    Ok(writeln!(std::io::stdout(), "{}", figures.json())?)
}
