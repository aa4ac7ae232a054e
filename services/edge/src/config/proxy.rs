//! The settings of the proxy: where the API is, how it is spoken to, TLS, and how much of what is allowed.

use std::{path::PathBuf, sync::Arc, thread::available_parallelism, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Args;
use http::{Uri, uri::PathAndQuery};
use rustls::ServerConfig;
use tls::Identity;

use crate::{
    Serving, Timeouts,
    headers::Believed,
    upstream::{Address, Probing, Protocol, Trust},
};

/// Most addresses of the API.
const UPSTREAMS_MAX: usize = 64;

/// Where calls go, and how.
#[derive(Debug, Clone, Args)]
pub struct Proxy {
    /// The API behind the edge, http://host:port or https://host:port and maybe a path that is put before every
    /// path; several addresses of the same API are separated by commas.
    #[arg(long, env = "KEYMETER_EDGE_UPSTREAM_URL", value_delimiter = ',', required = true)]
    pub upstream_url: Vec<Uri>,
    /// How the API is spoken to; gRPC needs http2.
    #[arg(long, env = "KEYMETER_EDGE_UPSTREAM_PROTOCOL", value_enum, default_value_t = Protocol::Http1)]
    pub upstream_protocol: Protocol,
    /// File with the certificates that an API behind https may be certified by, PEM. Without it the system's.
    #[arg(long, env = "KEYMETER_EDGE_UPSTREAM_CA_FILE")]
    pub upstream_ca_file: Option<PathBuf>,
    /// Path of the API that is asked for its health; answers of 2xx and 3xx are good. Without it nothing is asked.
    #[arg(long, env = "KEYMETER_EDGE_UPSTREAM_HEALTH_PATH")]
    pub upstream_health_path: Option<PathAndQuery>,
    /// Seconds from one such request to the next.
    #[arg(long, env = "KEYMETER_EDGE_UPSTREAM_HEALTH_INTERVAL_S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub upstream_health_interval_s: u64,
    /// File with the certificate chain for clients, PEM; without it clients connect without TLS.
    #[arg(long, env = "KEYMETER_EDGE_TLS_CERT_FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// File with the key of that certificate, PEM.
    #[arg(long, env = "KEYMETER_EDGE_TLS_KEY_FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    /// Seconds to connect to the API; 0 is no limit.
    #[arg(long, env = "KEYMETER_EDGE_CONNECT_TIMEOUT_S", default_value_t = 5)]
    pub connect_timeout_s: u64,
    /// Seconds until the API's answer begins, once it has the request or while it takes no more of it; 0 is no limit.
    #[arg(long, env = "KEYMETER_EDGE_ANSWER_TIMEOUT_S", default_value_t = 60)]
    pub answer_timeout_s: u64,
    /// Seconds between two pieces of a body, either way; 0 is no limit.
    #[arg(long, env = "KEYMETER_EDGE_IDLE_TIMEOUT_S", default_value_t = 300)]
    pub idle_timeout_s: u64,
    /// Seconds that a whole call may take; 0 is no limit.
    #[arg(long, env = "KEYMETER_EDGE_TOTAL_TIMEOUT_S", default_value_t = 0)]
    pub total_timeout_s: u64,
    /// Seconds that an upgraded connection, such as a WebSocket, may be silent; 0 is no limit.
    #[arg(long, env = "KEYMETER_EDGE_TUNNEL_IDLE_TIMEOUT_S", default_value_t = 3600)]
    pub tunnel_idle_timeout_s: u64,
    /// Most bytes of a request's body; 0 is no limit.
    #[arg(long, env = "KEYMETER_EDGE_REQUEST_BODY_BYTES_MAX", default_value_t = 0)]
    pub request_body_bytes_max: u64,
    /// Most connections of clients; others wait to be accepted.
    #[arg(long, env = "KEYMETER_EDGE_CONNECTIONS_MAX", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_max: u32,
    /// Threads that serve; 0 is one for each core.
    #[arg(long, env = "KEYMETER_EDGE_THREADS", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256))]
    pub threads: u16,
    /// Seconds that running calls have to end after SIGTERM.
    #[arg(long, env = "KEYMETER_EDGE_DRAIN_S", default_value_t = 20)]
    pub drain_s: u64,
}

impl Proxy {
    /// The checked settings.
    ///
    /// # Errors
    /// Names the setting that is wrong, and what it should be.
    pub fn settings(&self, identity: Option<&Identity>, believed: Believed) -> anyhow::Result<Serving> {
        let upstreams = self.upstream_url.iter().map(Address::new).collect::<Result<Vec<_>, _>>();
        let upstreams = upstreams.context("KEYMETER_EDGE_UPSTREAM_URL cannot be used")?;
        ensure!(
            (1..=UPSTREAMS_MAX).contains(&upstreams.len()),
            "KEYMETER_EDGE_UPSTREAM_URL has {} addresses, 1 to {UPSTREAMS_MAX} are allowed",
            upstreams.len()
        );
        let trust = match &self.upstream_ca_file {
            Some(file) => Some(Trust::load(Some(file)).with_context(|| {
                format!("KEYMETER_EDGE_UPSTREAM_CA_FILE {} cannot be used", file.display())
            })?),
            None if upstreams.iter().any(Address::is_tls) => Some(Trust::load(None).context(
                "the system has no certificates to check the API with; name some with KEYMETER_EDGE_UPSTREAM_CA_FILE",
            )?),
            None => None,
        };
        Ok(Serving {
            threads: self.threads()?,
            connections_max: self.connections_max as usize,
            tls: self.tls()?,
            upstreams,
            protocol: self.upstream_protocol,
            trust,
            identity: identity.cloned(),
            probing: self
                .upstream_health_path
                .clone()
                .map(|path| Probing { path, interval: Duration::from_secs(self.upstream_health_interval_s) }),
            timeouts: Timeouts {
                connect: Duration::from_secs(self.connect_timeout_s),
                answer: Duration::from_secs(self.answer_timeout_s),
                idle: Duration::from_secs(self.idle_timeout_s),
                total: Duration::from_secs(self.total_timeout_s),
                tunnel_idle: Duration::from_secs(self.tunnel_idle_timeout_s),
            },
            request_body_bytes_max: self.request_body_bytes_max,
            believed,
            drain: Duration::from_secs(self.drain_s),
        })
    }

    fn threads(&self) -> anyhow::Result<usize> {
        match self.threads {
            0 => Ok(available_parallelism()
                .context("the number of cores is unknown; set KEYMETER_EDGE_THREADS")?
                .get()),
            threads => Ok(threads.into()),
        }
    }

    fn tls(&self) -> anyhow::Result<Option<Arc<ServerConfig>>> {
        let (Some(cert), Some(key)) = (self.tls_cert_file.clone(), self.tls_key_file.clone()) else {
            return Ok(None);
        };
        let server = tls::server(tls::Files { cert, key });
        server.map(Some).context("KEYMETER_EDGE_TLS_CERT_FILE and KEYMETER_EDGE_TLS_KEY_FILE cannot be used")
    }
}
