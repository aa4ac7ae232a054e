//! A demonstration around the product: an API to put behind the edge, keys, a week of past calls, and callers.
//! Each subcommand does one of them.

use std::io::IsTerminal as _;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the API behind the edge until it is asked to stop.
    Api(demo::api::Config),
    /// Makes the keys that are not there yet; prints the id and the secret of the first one.
    Setup(demo::setup::Config),
    /// Publishes a week of past calls, once, and waits until they are counted.
    History(demo::history::Config),
    /// Calls the API through the edge until it is asked to stop.
    Traffic(demo::traffic::Config),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Its own words only: what a client library connects to is no news here.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter("warn,demo=info")
        .init();
    match boot::config::<Arguments>("KEYMETER_DEMO_")?.command {
        Command::Api(config) => demo::api::run(config).await,
        Command::Setup(config) => demo::setup::run(config).await,
        Command::History(config) => demo::history::run(config).await,
        Command::Traffic(config) => demo::traffic::run(config).await,
    }
}
