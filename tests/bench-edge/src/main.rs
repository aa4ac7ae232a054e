//! Measures the edge beside nginx and beside itself without verification, in one run on one machine. Prints progress
//! to the standard error and one JSON object as its last line. Asserts no time.
//!
//! `bench-edge plain ADDR URL` is the plain proxy, a process of its own so that its time can be told.
//! `bench-edge telemetry SECONDS ROUNDS` measures what telemetry costs, and nothing else.

mod api_key;
mod latency;
mod nginx;
mod plain;
mod saturation;
mod servers;
mod steady;
mod steps;
mod telemetry;
mod wrk;

use std::io::Write as _;

use figures::{Asked, Figures};

/// What is asked of figures.
const ASKED: &[(&str, Asked)] = &[
    ("verify_p50_ns", Asked::AtMost(1_000.0)),
    ("limit_p50_ns", Asked::AtMost(300.0)),
    ("capture_p50_ns", Asked::AtMost(2_000.0)),
    ("ratio_to_nginx", Asked::AtLeast(1.0)),
    ("added_p99_us", Asked::AtMost(500.0)),
    ("edge_over_proxy_cpu_percent", Asked::AtMost(10.0)),
];

// As the edge has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, addr, upstream] = arguments.as_slice()
        && command == "plain"
    {
        return plain::serve(addr.parse()?, &upstream.parse()?).await;
    }
    if let [command, seconds, rounds] = arguments.as_slice()
        && command == "telemetry"
    {
        let figures = Figures::new(telemetry::ASKED);
        telemetry::measure(&figures, seconds.parse()?, rounds.parse()?).await?;
        return Ok(writeln!(std::io::stdout(), "{}", figures.json())?);
    }
    let figures = Figures::new(ASKED);
    steps::measure(&figures)?;
    let servers = servers::Servers::start().await?;
    let rate = saturation::measure(&servers, &figures).await? / 2.0;
    latency::measure(&servers, &figures, rate)?;
    servers.check_exact(&figures).await?;
    Ok(writeln!(std::io::stdout(), "{}", figures.json())?)
}
