//! `keys`: settings, start, run, end. What it does is in `lib.rs`.

use std::io::{self, Write as _};

use anyhow::Context as _;
use keys::{
    bootstrap, check_secret,
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
        Command::CheckSecret => check_secret::run(io::stdin().lock(), io::stdout().lock()),
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
    Ok(writeln!(io::stdout(), "{}", serde_json::to_string(&done)?)?)
}
