//! The ingest process: settings, telemetry, run until asked to stop; or one subcommand.

use ingest::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut config: Config = boot::config("KEYMETER_INGEST_")?;
    match config.command.take() {
        Some(command) => command.run(&config).await,
        None => work(config).await,
    }
}

async fn work(config: Config) -> anyhow::Result<()> {
    let process = boot::start("keymeter-ingest", config.health_addr, &config.identity).await?;
    let ended = ingest::run(config, process.health(), process.shutdown()).await;
    process.finish().await;
    ended
}
