//! `keys`: settings, start, run, end. What it does is in `lib.rs`.

use std::io::Write as _;

use anyhow::Context as _;
use keys::{
    bootstrap,
    config::{Bootstrap, Command, Config, PREFIX},
    store::Store,
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut config = boot::config::<Config>(PREFIX)?;
    match config.command.take().unwrap_or_default() {
        Command::Serve => serve(&config).await,
        Command::Migrate => keys::migrate(&config).await,
        Command::FeedKeys => Ok(write!(std::io::stdout(), "{}", keys::feed_keys(&config).await?)?),
        Command::Bootstrap(asked) => bootstrap(&config, &asked).await,
    }
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let kek = config.kek()?;
    let process = boot::start("keymeter-keys", config.health_addr).await?;
    let listener = TcpListener::bind(config.grpc_addr)
        .await
        .with_context(|| format!("gRPC address {} can not be used; choose another one", config.grpc_addr))?;
    let served = keys::run(config, kek, listener, process.health(), process.shutdown()).await;
    process.finish().await;
    served
}

async fn bootstrap(config: &Config, asked: &Bootstrap) -> anyhow::Result<()> {
    let store = Store::new(&config.database_url)?;
    let done = bootstrap::run(&store, &config.kek()?, asked).await?;
    store.close().await;
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(&done)?)?)
}
