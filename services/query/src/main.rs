//! The query service as a process; what it does is in `lib.rs`.

use anyhow::Context as _;
use query::{Config, run};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = boot::config::<Config>("KEYMETER_QUERY_")?;
    let process = boot::start("keymeter-query", config.health_addr, &config.identity).await?;
    let addr = config.grpc_addr;
    let listener = TcpListener::bind(addr)
        .await
        .with_context(|| format!("gRPC address {addr} can not be used; set KEYMETER_QUERY_GRPC_ADDR"))?;
    let result = run(config, listener, process.health(), process.shutdown()).await;
    process.finish().await;
    result
}
