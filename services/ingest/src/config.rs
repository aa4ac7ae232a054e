//! The settings of ingest.

use std::net::SocketAddr;

use clap::Parser;
use nats_cluster::Servers;
use secrecy::SecretString;

use crate::command::Command;

/// Moves request events from NATS JetStream to ClickHouse, each exactly once.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Config {
    /// NATS with JetStream, 2.11 or newer: a server, or several of one cluster with commas between them.
    #[arg(
        long,
        global = true,
        env = "KEYMETER_INGEST_NATS_URL",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    pub nats_url: String,

    /// How many servers of NATS hold each of ingest's streams and buckets: 1, 3 or 5. Those that are there are changed
    /// with the next start; see docs/scaling.md.
    #[arg(long, global = true, env = "KEYMETER_INGEST_NATS_REPLICAS", default_value = "1", value_parser = nats_cluster::replicas)]
    pub nats_replicas: usize,

    /// ClickHouse over HTTP, 26.3 or newer.
    #[arg(
        long,
        global = true,
        env = "KEYMETER_INGEST_CLICKHOUSE_URL",
        default_value = "http://127.0.0.1:8123"
    )]
    pub clickhouse_url: String,

    /// ClickHouse user that may create and write the database `keymeter`; none for the default user.
    #[arg(long, global = true, env = "KEYMETER_INGEST_CLICKHOUSE_USER")]
    pub clickhouse_user: Option<String>,

    /// Its password.
    #[arg(long, global = true, env = "KEYMETER_INGEST_CLICKHOUSE_PASSWORD", hide_env_values = true)]
    pub clickhouse_password: Option<SecretString>,

    /// Cluster of that ClickHouse, by its name there, whose servers share the data; none for one server. Chosen with
    /// the first start. Not tried on a real cluster yet.
    #[arg(long, global = true, env = "KEYMETER_INGEST_CLICKHOUSE_CLUSTER", value_parser = cluster_name)]
    pub clickhouse_cluster: Option<String>,

    /// Shards to ingest, numbered from 0; the same number as at every edge.
    #[arg(long, global = true, env = "KEYMETER_INGEST_SHARDS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub shards: u16,

    /// Most bytes of each shard's stream; a full one refuses events, which then wait in the edges' spools. All
    /// shards together must fit well within NATS' disk.
    #[arg(long, env = "KEYMETER_INGEST_STREAM_BYTES_MAX", default_value_t = 1 << 30, value_parser = clap::value_parser!(i64).range(1 << 20..))]
    pub stream_bytes_max: i64,

    /// Hours for which a stream keeps messages after they are in ClickHouse, for `rebuild`; fewer when it is 60 % full.
    #[arg(long, env = "KEYMETER_INGEST_STREAM_KEEP_HOURS", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=720))]
    pub stream_keep_hours: u16,

    /// Where health and metrics are served.
    #[arg(long, env = "KEYMETER_INGEST_HEALTH_ADDR", default_value = "127.0.0.1:9103")]
    pub health_addr: SocketAddr,

    /// Who this process is to NATS, ClickHouse and those who ask for its health.
    #[command(flatten)]
    pub identity: tls::Settings,

    /// What to do instead of ingesting.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Config {
    /// Where NATS is, and who this process is to it.
    ///
    /// # Errors
    /// If an address is none, or the identity cannot be used.
    pub fn nats(&self) -> anyhow::Result<Servers> {
        Ok(Servers::parse(&self.nats_url)?.secured_by(self.identity.identity()?))
    }
}

/// It stands in SQL between quotes.
fn cluster_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !text.is_empty() && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("must have only letters, digits, _ and -".to_owned())
    }
}
