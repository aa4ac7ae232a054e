//! Measures ingest beside what it stands on, in one run on one machine: the engine alone, NATS alone, the whole, and
//! how fresh rows are at a steady rate. Prints progress to the standard error and one JSON object as its last line.
//! Asserts no time.
//!
//! `bench-ingest telemetry CALLS ROUNDS` measures what telemetry costs, and nothing else.

mod bus;
mod disk;
mod edges;
mod engine;
mod pipeline;
mod stage;
mod steady;
mod telemetry;
mod traffic;

use std::io::Write as _;

use figures::{Asked, Figures, say};
use stage::Stage;

// As ingest has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Events a second that the whole is asked for.
const ASKED_PER_SECOND: f64 = 400_000.0;
/// What is asked of figures.
const ASKED: &[(&str, Asked)] = &[
    ("pipeline_events_per_s", Asked::AtLeast(ASKED_PER_SECOND)),
    ("ratio", Asked::AtLeast(0.6)),
    ("rss_mib", Asked::AtMost(256.0)),
    ("bytes_per_event", Asked::AtMost(48.0)),
    ("bytes_per_traced_event", Asked::AtMost(64.0)),
    ("freshness_half_of_asked_p99_ms", Asked::AtMost(1_000.0)),
    ("freshness_p99_ms", Asked::AtMost(1_000.0)),
    ("freshness_90_percent_p99_ms", Asked::AtMost(2_000.0)),
    ("others_delayed_percent", Asked::AtMost(10.0)),
];

/// Calls of the runs without and with a trace id.
const CALLS: usize = 3_000_000;
const TRACED_CALLS: usize = 500_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, calls, rounds] = arguments.as_slice()
        && command == "telemetry"
    {
        let figures = Figures::new(telemetry::ASKED);
        telemetry::measure(&figures, calls.parse()?, rounds.parse()?).await?;
        return Ok(writeln!(std::io::stdout(), "{}", figures.json())?);
    }
    let figures = Figures::new(ASKED);
    say(&format!("{CALLS} calls as messages; they and their blocks take 2 GiB of memory"));
    let messages = edges::messages(CALLS, false);
    let engine_rows_per_s = engine::measure(&figures, &messages).await?;
    let stage = Stage::start().await?;
    stage.publish(messages).await?;
    bus::measure(&figures, &stage, CALLS).await?;
    let pipeline_events_per_s = pipeline::measure(&figures, stage, CALLS).await?;
    figures.note("ratio", pipeline_events_per_s / engine_rows_per_s);
    say(&format!("{TRACED_CALLS} calls with a trace id on each"));
    let stage = Stage::start().await?;
    stage.publish(edges::messages(TRACED_CALLS, true)).await?;
    let bytes = disk::of_traced(stage, TRACED_CALLS).await?;
    figures.note("bytes_per_traced_event", bytes);
    steady::measure(&figures, pipeline_events_per_s).await?;
    Ok(writeln!(std::io::stdout(), "{}", figures.json())?)
}
