//! Serves the pages: settings, listener, run.

use anyhow::Context as _;
use tokio::net::TcpListener;
use ui::Config;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = boot::config::<Config>("KEYMETER_UI_")?;
    let process = boot::start("keymeter-ui", config.health_addr, &config.identity).await?;
    let listener = TcpListener::bind(config.addr)
        .await
        .with_context(|| format!("address {} can not be used; choose another with --addr", config.addr))?;
    let served = ui::run(config, listener, &process.health(), process.shutdown()).await;
    process.finish().await;
    served
}
