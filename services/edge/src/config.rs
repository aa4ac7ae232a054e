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
use edge_layer::{ForwardedHeader, Network, RequiredScopes, RouteTemplates};
use http::{HeaderName, Uri};

use crate::{Settings, upstream::Upstream};

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
    /// The API behind the edge, http://host:port and maybe a path that is put before every path.
    #[arg(long, env = "KEYMETER_EDGE_UPSTREAM_URL")]
    pub upstream_url: Uri,
    /// Address of NATS.
    #[arg(
        long,
        env = "KEYMETER_EDGE_NATS_URL",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    pub nats_url: String,
    /// Folder for events on their way; it must outlive the process and belong to this edge alone.
    #[arg(long, env = "KEYMETER_EDGE_SPOOL_DIR")]
    pub spool_dir: PathBuf,
    /// Most bytes in that folder; above it the oldest events are lost, by number.
    #[arg(long, env = "KEYMETER_EDGE_SPOOL_BYTES_MAX", default_value_t = 4 * 1024 * 1024 * 1024)]
    pub spool_bytes_max: u64,
    /// Number of shards, the same for every edge and ingest.
    #[arg(long, env = "KEYMETER_EDGE_SHARDS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub shards: u16,
    /// Written into each event, for example eu-1.
    #[arg(long, env = "KEYMETER_EDGE_REGION", default_value = "")]
    pub region: String,
    /// Seconds without a live list of keys after which every call is refused.
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
    /// Seconds that running calls have to end after SIGTERM.
    #[arg(long, env = "KEYMETER_EDGE_DRAIN_S", default_value_t = 20)]
    pub drain_s: u64,
}

impl Config {
    /// The checked settings.
    ///
    /// # Errors
    /// Names the setting that is wrong, and what it should be.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let upstream =
            Upstream::new(&self.upstream_url).context("KEYMETER_EDGE_UPSTREAM_URL cannot be used")?;
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
        let edge = edge_layer::Settings {
            nats_url: self.nats_url.clone(),
            spool_dir: self.spool_dir.clone(),
            spool_bytes_max: self.spool_bytes_max,
            shards: self.shards,
            region: self.region.clone(),
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
        Ok(Settings { edge, upstream, drain: Duration::from_secs(self.drain_s) })
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
    const LEAST: [&str; 7] = [
        "edge",
        "--upstream-url",
        "http://127.0.0.1:3000",
        "--spool-dir",
        "spool",
        "--feed-keys-file",
        "feed-keys of nobody",
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
        check("--upstream-url", "https://127.0.0.1:3000", "KEYMETER_EDGE_UPSTREAM_URL");
        check("--upstream-url", "127.0.0.1", "KEYMETER_EDGE_UPSTREAM_URL");
        check("--upstream-url", "http://127.0.0.1/?a=b", "KEYMETER_EDGE_UPSTREAM_URL");
        check("--spool-bytes-max", "1000", "KEYMETER_EDGE_SPOOL_BYTES_MAX");
        check("--region", &"x".repeat(65), "KEYMETER_EDGE_REGION");
        check("--shards", "0", "--shards");
        check("--feed-lost-after-s", "0", "--feed-lost-after-s");
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
