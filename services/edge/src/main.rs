//! The edge as a process: settings in, a reverse proxy until SIGTERM.

use anyhow::Context as _;
use edge::config::Config;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config: Config = boot::config("KEYMETER_EDGE_")?;
    let settings = config.settings()?;
    let process = boot::start("keymeter-edge", config.health_addr, &config.identity).await?;
    let listener = TcpListener::bind(config.addr)
        .await
        .with_context(|| format!("KEYMETER_EDGE_ADDR {} cannot be used; choose another one", config.addr))?;
    let result = edge::run(settings, listener, &process.health(), &process.shutdown()).await;
    process.finish().await;
    result
}
