//! `keys`: settings, start, run, end. What it does is in `lib.rs`.

use anyhow::Context as _;
use keys::{
    bootstrap, check_secret,
    config::{Command, Config, PREFIX},
    erase_person, migrate, rebuild, rewrap, signing, verify_chain,
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut config = boot::config::<Config>(PREFIX)?;
    match config.command.take().unwrap_or_default() {
        Command::Serve => serve(&config).await,
        Command::Migrate(asked) => migrate::run(&config, &asked).await,
        Command::FeedKeys => signing::print_feed_keys(&config).await,
        Command::EdgeToken(asked) => signing::print_edge_token(&config, &asked).await,
        Command::Bootstrap(asked) => bootstrap::command(&config, &asked).await,
        Command::VerifyChain(asked) => verify_chain::run(&config, &asked).await,
        Command::ExportHeads => verify_chain::export_heads(&config).await,
        Command::Rebuild => rebuild::run(&config).await,
        Command::Rewrap => rewrap::run(&config).await,
        Command::ResetSigningKey => signing::reset(&config).await,
        Command::ErasePerson(asked) => erase_person::command(&config, &asked).await,
        Command::CheckSecret => check_secret::run(std::io::stdin().lock(), std::io::stdout().lock()),
    }
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let kek = config.kek()?;
    let process = boot::start("keymeter-keys", config.health_addr, &config.identity).await?;
    let listener = TcpListener::bind(config.grpc_addr)
        .await
        .with_context(|| format!("gRPC address {} can not be used; choose another one", config.grpc_addr))?;
    let served = keys::run(config, kek, listener, process.health(), process.shutdown()).await;
    process.finish().await;
    served
}
