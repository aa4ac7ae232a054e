//! Settings of the server, from flags and the environment.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::ensure;
use clap::Parser;

/// ClickHouse's HTTP interface over the ClickHouse engine in libchdb: for a laptop and for tests, not for production.
///
/// It has no users: whoever reaches the address may read and change everything. So it listens on the loopback only.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Config {
    /// The engine, a file libchdb.so.
    #[arg(long, env = "CHDB_LIBRARY")]
    pub library: PathBuf,

    /// Folder of the data; created if missing. One process at a time.
    #[arg(long, env = "CHDB_PATH")]
    pub path: PathBuf,

    /// Address to listen on, on the loopback.
    #[arg(long, env = "CHDB_LISTEN", default_value = "127.0.0.1:8123")]
    pub listen: SocketAddr,

    /// Configuration file for the engine; its `users_config` gives the user `default` row policies, say.
    #[arg(long, env = "CHDB_CONFIG_FILE")]
    pub config_file: Option<PathBuf>,

    /// Who this server is; with it, only callers are let in that show a certificate as well.
    #[command(flatten)]
    pub identity: tls::Settings,

    /// Statements that run at once; more wait.
    #[arg(long, env = "CHDB_CONNECTIONS", default_value = "16", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub connections: u16,

    /// How long a stop waits for running statements before it cancels them, in seconds.
    #[arg(long, env = "CHDB_DRAIN_S", default_value = "10")]
    pub drain_s: u64,
}

impl Config {
    /// Looks for what can be known to fail before a port is bound.
    ///
    /// # Errors
    /// Names the setting and the remedy.
    pub fn validate(&self) -> anyhow::Result<()> {
        ensure!(
            self.listen.ip().is_loopback(),
            "CHDB_LISTEN={} is not a loopback address; this server has no users, so choose 127.0.0.1 or [::1]",
            self.listen
        );
        ensure!(
            self.library.is_file(),
            "CHDB_LIBRARY={} is no file; unpack libchdb.so of the npm package @chdb/lib-linux-x64-gnu and name it",
            self.library.display()
        );
        if let Some(file) = &self.config_file {
            ensure!(
                file.is_file(),
                "CHDB_CONFIG_FILE={} is no file; name the engine's configuration",
                file.display()
            );
        }
        Ok(())
    }
}
