//! The ingest process: settings, telemetry, run until asked to stop.

use ingest::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = boot::config("KEYMETER_INGEST_")?;
    let process = boot::start("keymeter-ingest", config.health_addr).await?;
    let ended = ingest::run(config, process.health(), process.shutdown()).await;
    process.finish().await;
    ended
}
