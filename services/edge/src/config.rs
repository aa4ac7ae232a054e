//! The settings of the edge, checked before a port is bound.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use domain::Environment;
use edge_layer::{ForwardedHeader, KeysAccess, Network, RequiredScopes, RouteTemplates, WhenFeedLost};
use http::{HeaderName, Uri};

use crate::{Settings, durable, headers::Believed};

mod proxy;

pub use self::proxy::Proxy;

/// Smallest spool, in bytes.
const SPOOL_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// Longest region that an event can hold, in bytes.
const REGION_BYTES_MAX: usize = 64;

/// A reverse proxy that verifies API keys and records every call.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Config {
    /// Where clients connect.
    #[arg(long, env = "KEYMETER_EDGE_ADDR", default_value = "127.0.0.1:8081")]
    pub addr: SocketAddr,
    /// Where /healthz, /readyz and /metrics are.
    #[arg(long, env = "KEYMETER_EDGE_HEALTH_ADDR", default_value = "127.0.0.1:9102")]
    pub health_addr: SocketAddr,
    /// Where calls go, and how.
    #[command(flatten)]
    pub proxy: Proxy,
    /// NATS: a server, or several of one cluster with commas between them.
    #[arg(
        long,
        env = "KEYMETER_EDGE_NATS_URL",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    pub nats_url: String,
    /// Who this process is to NATS, keys, the API behind it and those who ask for its health.
    #[command(flatten)]
    pub identity: tls::Settings,
    /// Folder for events on their way; it must outlive the process and belong to this edge alone.
    #[arg(long, env = "KEYMETER_EDGE_SPOOL_DIR")]
    pub spool_dir: PathBuf,
    /// Whether that folder may be on a file system that ends with the machine or the container: what is not yet in
    /// ClickHouse then is lost.
    #[arg(long, env = "KEYMETER_EDGE_SPOOL_EPHEMERAL", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub spool_ephemeral: bool,
    /// Most bytes in that folder; above it the oldest events are lost, by number.
    #[arg(long, env = "KEYMETER_EDGE_SPOOL_BYTES_MAX", default_value_t = 4 * 1024 * 1024 * 1024)]
    pub spool_bytes_max: u64,
    /// Number of shards, the same for every edge and ingest.
    #[arg(long, env = "KEYMETER_EDGE_SHARDS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub shards: u16,
    /// Calls a second of a workspace that are counted at once; what is beyond is counted as well, some 30 s later
    /// if it goes on for long, so that one loud workspace delays nobody else's figures.
    #[arg(long, env = "KEYMETER_EDGE_WORKSPACE_CALLS_PER_S", default_value_t = edge_layer::quota::CALLS_PER_S, value_parser = clap::value_parser!(u32).range(1..))]
    pub workspace_calls_per_s: u32,
    /// Written into each event, for example eu-1.
    #[arg(long, env = "KEYMETER_EDGE_REGION", default_value = "")]
    pub region: String,
    /// The keys service over gRPC, http:// or https://host:port: where the list of keys comes from while NATS is away.
    #[arg(long, env = "KEYMETER_EDGE_KEYS_URL", requires = "keys_token_file")]
    pub keys_url: Option<Uri>,
    /// File with the output of `keys edge-token`; read again at each connection.
    #[arg(long, env = "KEYMETER_EDGE_KEYS_TOKEN_FILE", requires = "keys_url")]
    pub keys_token_file: Option<PathBuf>,
    /// What becomes of calls when the list of keys is lost: refuse, or stale-ok, which decides by what is known.
    #[arg(long, env = "KEYMETER_EDGE_WHEN_FEED_LOST", default_value = "refuse")]
    pub when_feed_lost: FeedLost,
    /// Seconds without a live list of keys after which it counts as lost.
    #[arg(long, env = "KEYMETER_EDGE_FEED_LOST_AFTER_S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(2..=86_400))]
    pub feed_lost_after_s: u64,
    /// File with the public keys that the list of keys is checked with: the output of `keys feed-keys`.
    #[arg(long, env = "KEYMETER_EDGE_FEED_KEYS_FILE")]
    pub feed_keys_file: PathBuf,
    /// File with the scopes that routes require, a line each: METHOD /template scope. Without it none does.
    #[arg(long, env = "KEYMETER_EDGE_REQUIRED_SCOPES")]
    pub required_scopes: Option<PathBuf>,
    /// Networks of proxies that are believed whom they forward for, in CIDR notation, separated by commas.
    #[arg(long, env = "KEYMETER_EDGE_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,
    /// The header that those proxies write: x-forwarded-for, forwarded, or either.
    #[arg(long, env = "KEYMETER_EDGE_FORWARDED_HEADER", default_value = "either")]
    pub forwarded_header: ForwardedHeader,
    /// File with the API's routes: an OpenAPI 3 document, or a line each: METHOD /template.
    #[arg(long, env = "KEYMETER_EDGE_ROUTES")]
    pub routes: Option<PathBuf>,
    /// Most routes of a workspace and day; calls of others count under __other__.
    #[arg(long, env = "KEYMETER_EDGE_ROUTES_MAX", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub routes_max: u32,
    /// A header of the API's answers that names the resource id, in the place of the path.
    #[arg(long, env = "KEYMETER_EDGE_RESOURCE_ID_HEADER")]
    pub resource_id_header: Option<HeaderName>,
    /// live or test: keys of the other environment are refused. Without it both are admitted.
    #[arg(long, env = "KEYMETER_EDGE_ENVIRONMENT", value_parser = environment)]
    pub environment: Option<Environment>,
    /// Whether the API gets the credentials that clients send.
    #[arg(long, env = "KEYMETER_EDGE_FORWARD_CREDENTIALS", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub forward_credentials: bool,
}

/// What becomes of calls when the list of keys is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FeedLost {
    /// Refused with 503.
    Refuse,
    /// Decided by the keys that are known, however old that is.
    StaleOk,
}

impl Config {
    /// The checked settings.
    ///
    /// # Errors
    /// Names the setting that is wrong, and what it should be.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let identity = self.identity.identity()?;
        let believed =
            Believed { proxies: self.trusted_proxies.clone().into(), header: self.forwarded_header };
        let serving = self.proxy.settings(identity.as_ref(), believed)?;
        ensure!(
            self.spool_bytes_max >= SPOOL_BYTES_MIN,
            "KEYMETER_EDGE_SPOOL_BYTES_MAX is {}, at least {SPOOL_BYTES_MIN} are needed",
            self.spool_bytes_max
        );
        ensure!(
            self.region.len() <= REGION_BYTES_MAX,
            "KEYMETER_EDGE_REGION has {} bytes, at most {REGION_BYTES_MAX} are allowed",
            self.region.len()
        );
        if !self.spool_ephemeral {
            durable::check(&self.spool_dir)?;
        }
        let edge = edge_layer::Settings {
            nats_url: self.nats_url.clone(),
            identity,
            spool_dir: self.spool_dir.clone(),
            spool_bytes_max: self.spool_bytes_max,
            shards: self.shards,
            workspace_calls_per_s: self.workspace_calls_per_s,
            region: self.region.clone(),
            keys: self.keys()?,
            when_feed_lost: match self.when_feed_lost {
                FeedLost::Refuse => WhenFeedLost::Refuse,
                FeedLost::StaleOk => WhenFeedLost::ServeStale,
            },
            feed_lost_after: Duration::from_secs(self.feed_lost_after_s),
            feed_keys: read("KEYMETER_EDGE_FEED_KEYS_FILE", &self.feed_keys_file)?,
            required_scopes: match &self.required_scopes {
                Some(file) => read("KEYMETER_EDGE_REQUIRED_SCOPES", file)?,
                None => RequiredScopes::default(),
            },
            trusted_proxies: self.trusted_proxies.clone(),
            forwarded_header: self.forwarded_header,
            routes: match &self.routes {
                Some(file) => read("KEYMETER_EDGE_ROUTES", file)?,
                None => RouteTemplates::default(),
            },
            routes_max: usize::try_from(self.routes_max)?,
            resource_id_header: self.resource_id_header.clone(),
            environment: self.environment,
            forward_credentials: self.forward_credentials,
        };
        let (named, most) = (edge.routes.len(), edge.routes_max);
        ensure!(
            named <= most,
            "KEYMETER_EDGE_ROUTES names {named} routes, and KEYMETER_EDGE_ROUTES_MAX is {most}: raise it"
        );
        Ok(Settings { edge, serving })
    }

    fn keys(&self) -> anyhow::Result<Option<KeysAccess>> {
        let Some((url, token_file)) = self.keys_url.as_ref().zip(self.keys_token_file.as_ref()) else {
            return Ok(None);
        };
        let is_url = matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
        ensure!(is_url, "KEYMETER_EDGE_KEYS_URL is {url}, give a URL such as http://127.0.0.1:50051");
        fs::metadata(token_file).with_context(|| {
            format!(
                "KEYMETER_EDGE_KEYS_TOKEN_FILE {} cannot be used; fill it with the output of `keys edge-token`",
                token_file.display()
            )
        })?;
        Ok(Some(KeysAccess { url: url.clone(), token_file: token_file.clone() }))
    }
}

fn environment(text: &str) -> Result<Environment, &'static str> {
    text.parse().map_err(|()| "not one of: live, test")
}

/// What the file of a setting holds.
fn read<T>(setting: &str, file: &Path) -> anyhow::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let named = || format!("{setting} {} cannot be used", file.display());
    fs::read_to_string(file).with_context(named)?.parse().with_context(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "k1 O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=\n";
    const LEAST: [&str; 8] = [
        "edge",
        "--upstream-url",
        "http://127.0.0.1:3000",
        "--spool-dir",
        "spool",
        "--feed-keys-file",
        "feed-keys of nobody",
        // Wherever the tests run.
        "--spool-ephemeral",
    ];

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn little_is_needed() {
        let keys = file(KEYS);
        let mut config = Config::try_parse_from(LEAST).unwrap();
        config.feed_keys_file = keys.path().to_owned();
        assert!(config.settings().is_ok());
        assert_eq!((config.addr.port(), config.shards, config.spool_bytes_max), (8081, 4, 1 << 32));
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let check = |flag: &str, value: &str, name: &str| {
            let arguments = LEAST.iter().copied().filter(|argument| {
                flag != "--upstream-url" || !argument.contains("http") && *argument != flag
            });
            let error = match Config::try_parse_from(arguments.chain([flag, value])) {
                Ok(config) => format!("{:#}", config.settings().unwrap_err()),
                Err(error) => error.to_string(),
            };
            assert!(error.contains(name), "{flag} {value}: {error}");
        };
        check("--upstream-url", "ftp://127.0.0.1:3000", "KEYMETER_EDGE_UPSTREAM_URL");
        check("--upstream-url", "127.0.0.1", "KEYMETER_EDGE_UPSTREAM_URL");
        check("--upstream-url", "http://127.0.0.1/?a=b", "KEYMETER_EDGE_UPSTREAM_URL");
        check("--upstream-url", "http://127.0.0.1:1,https://127.0.0.1:2/?a=b", "KEYMETER_EDGE_UPSTREAM_URL");
        check("--upstream-url", "", "--upstream-url");
        check("--upstream-protocol", "http3", "--upstream-protocol");
        check("--upstream-ca-file", "no such file", "KEYMETER_EDGE_UPSTREAM_CA_FILE no such file");
        check("--upstream-health-path", "a path", "--upstream-health-path");
        check("--tls-cert-file", "a", "--tls-key-file");
        check("--connections-max", "0", "--connections-max");
        check("--idle-timeout-s", "soon", "--idle-timeout-s");
        check("--spool-bytes-max", "1000", "KEYMETER_EDGE_SPOOL_BYTES_MAX");
        check("--region", &"x".repeat(65), "KEYMETER_EDGE_REGION");
        check("--shards", "0", "--shards");
        check("--feed-lost-after-s", "0", "--feed-lost-after-s");
        check("--when-feed-lost", "shrug", "--when-feed-lost");
        check("--keys-url", "http://127.0.0.1:50051", "--keys-token-file");
        check("--trusted-proxies", "10.0.0.0/8,10.0.0.0/33", "--trusted-proxies");
        check("--forwarded-header", "via", "--forwarded-header");
        check("--routes-max", "0", "--routes-max");
        check("--resource-id-header", "a b", "--resource-id-header");
        check("--environment", "prod", "live, test");
        check("--forward-credentials", "perhaps", "--forward-credentials");
    }

    #[test]
    fn a_file_that_is_none_is_told_with_what_to_do() {
        let mut config = Config::try_parse_from(LEAST).unwrap();
        let told = |config: &Config| format!("{:#}", config.settings().unwrap_err());
        assert!(told(&config).contains("KEYMETER_EDGE_FEED_KEYS_FILE feed-keys of nobody"));
        let (empty, keys, scopes, good) = (file(""), file(KEYS), file("GET /a"), file("GET /a a"));
        let (broken, many) = (file("openapi: 3.0.3\npaths: {'/a{': {}}"), file("GET /a\nGET /b"));
        config.feed_keys_file = empty.path().to_owned();
        assert!(told(&config).contains("`keys feed-keys`"));
        config.feed_keys_file = keys.path().to_owned();
        config.keys_url = Some(Uri::from_static("http://127.0.0.1:50051"));
        config.keys_token_file = Some("token of nobody".into());
        assert!(told(&config).contains("KEYMETER_EDGE_KEYS_TOKEN_FILE token of nobody"));
        config.keys_url = Some(Uri::from_static("127.0.0.1"));
        assert!(told(&config).contains("KEYMETER_EDGE_KEYS_URL"));
        config.keys_url = None;
        config.required_scopes = Some(scopes.path().to_owned());
        assert!(told(&config).contains("KEYMETER_EDGE_REQUIRED_SCOPES") && told(&config).contains("line 1"));
        config.required_scopes = Some(good.path().to_owned());
        config.routes = Some(broken.path().to_owned());
        assert!(told(&config).contains("KEYMETER_EDGE_ROUTES") && told(&config).contains("paths./a{"));
        (config.routes, config.routes_max) = (Some(many.path().to_owned()), 1);
        assert!(told(&config).contains("KEYMETER_EDGE_ROUTES_MAX"));
        config.routes_max = 2;
        assert!(config.settings().is_ok());
    }
}
