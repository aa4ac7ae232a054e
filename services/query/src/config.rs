//! Settings, read once from flags and environment and checked before a port is bound.

use std::net::SocketAddr;

use clap::Parser;
use http::Uri;
use secrecy::SecretString;

/// Answers questions about usage from ClickHouse.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Config {
    /// Where gRPC is served.
    #[arg(long, env = "KEYMETER_QUERY_GRPC_ADDR", default_value = "127.0.0.1:50052")]
    pub grpc_addr: SocketAddr,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "KEYMETER_QUERY_HEALTH_ADDR", default_value = "127.0.0.1:9104")]
    pub health_addr: SocketAddr,
    /// ClickHouse's HTTP interface.
    #[arg(long, env = "KEYMETER_QUERY_CLICKHOUSE_URL", default_value = "http://127.0.0.1:8123", value_parser = url)]
    pub clickhouse_url: Uri,
    /// User at ClickHouse; without it, ClickHouse's own default.
    #[arg(long, env = "KEYMETER_QUERY_CLICKHOUSE_USER")]
    pub clickhouse_user: Option<String>,
    /// Password at ClickHouse.
    #[arg(long, env = "KEYMETER_QUERY_CLICKHOUSE_PASSWORD", hide_env_values = true)]
    pub clickhouse_password: Option<SecretString>,
    /// The keys service, for the public keys that access tokens are checked with.
    #[arg(long, env = "KEYMETER_QUERY_KEYS_URL", default_value = "http://127.0.0.1:50051", value_parser = url)]
    pub keys_url: Uri,
    /// Who this process is to its callers, keys and ClickHouse.
    #[command(flatten)]
    pub identity: tls::Settings,
    /// Queries that run at once; more wait for up to 5 s.
    #[arg(long, env = "KEYMETER_QUERY_QUERIES_MAX", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub queries_max: u16,
    /// Queries of one workspace that run at once; more wait as well.
    #[arg(long, env = "KEYMETER_QUERY_WORKSPACE_QUERIES_MAX", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub workspace_queries_max: u16,
    /// Exports and tails of one workspace that are open at once; more are refused.
    #[arg(long, env = "KEYMETER_QUERY_WORKSPACE_STREAMS_MAX", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub workspace_streams_max: u16,
    /// Rows that one query may read at ClickHouse; 0 is no limit.
    #[arg(long, env = "KEYMETER_QUERY_QUERY_ROWS_MAX", default_value_t = 2_000_000_000)]
    pub query_rows_max: u64,
    /// Memory that one query may take at ClickHouse, in bytes.
    #[arg(long, env = "KEYMETER_QUERY_QUERY_BYTES_MAX", default_value_t = 2 << 30, value_parser = clap::value_parser!(u64).range(1 << 20..))]
    pub query_bytes_max: u64,
}

fn url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    if matches!(uri.scheme_str(), Some("http" | "https")) && has_host {
        Ok(uri)
    } else {
        Err("give a URL such as http://127.0.0.1:8123".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_good() {
        let config = Config::try_parse_from(["query"]).unwrap();
        assert_eq!(config.grpc_addr.port(), 50052);
        assert_eq!(config.clickhouse_url, "http://127.0.0.1:8123");
    }

    #[test]
    fn a_bad_setting_is_named_and_a_password_is_not_printed() {
        for (flag, value) in [
            ("--clickhouse-url", "127.0.0.1:8123"),
            ("--clickhouse-url", "tcp://127.0.0.1:9000"),
            ("--keys-url", "http://"),
            ("--grpc-addr", "localhost"),
            ("--queries-max", "0"),
            ("--workspace-queries-max", "0"),
            ("--workspace-streams-max", "many"),
            ("--query-rows-max", "all"),
            ("--query-bytes-max", "1"),
        ] {
            let error = Config::try_parse_from(["query", flag, value]).unwrap_err().to_string();
            assert!(error.contains(flag), "{error}");
        }
        let config = Config::try_parse_from(["query", "--clickhouse-password", "hunter2"]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
