//! Settings, read once and checked before a port is bound.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, sync::Arc};

use anyhow::Context as _;
use clap::Parser;
use http::Uri;
use rustls::ServerConfig;

/// Serves the pages of Keymeter.
#[derive(Debug, Clone, Parser)]
#[command(name = "ui", version)]
pub struct Config {
    /// Where pages are served.
    #[arg(long, env = "KEYMETER_UI_ADDR", default_value = "127.0.0.1:8080")]
    pub addr: SocketAddr,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "KEYMETER_UI_HEALTH_ADDR", default_value = "127.0.0.1:9105")]
    pub health_addr: SocketAddr,
    /// gRPC address of the keys service.
    #[arg(long, env = "KEYMETER_UI_KEYS_URL", default_value = "http://127.0.0.1:50051")]
    pub keys_url: HttpUrl,
    /// gRPC address of the query service.
    #[arg(long, env = "KEYMETER_UI_QUERY_URL", default_value = "http://127.0.0.1:50052")]
    pub query_url: HttpUrl,
    /// The address that people open. With https the session's cookie is Secure and has the __Host- prefix, and
    /// browsers are told to stay on https.
    #[arg(long, env = "KEYMETER_UI_PUBLIC_URL", default_value = "http://127.0.0.1:8080")]
    pub public_url: HttpUrl,
    /// File with the certificate chain for browsers, PEM; without it they connect without TLS.
    #[arg(long, env = "KEYMETER_UI_TLS_CERT_FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// File with the key of that certificate, PEM.
    #[arg(long, env = "KEYMETER_UI_TLS_KEY_FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    /// Who this process is to keys, query and those who ask for its health.
    #[command(flatten)]
    pub identity: tls::Settings,
    /// The address that callers of the API use, shown in ready curl lines.
    #[arg(long, env = "KEYMETER_UI_EDGE_URL", default_value = "http://127.0.0.1:8081")]
    pub edge_url: HttpUrl,
}

impl Config {
    /// How TLS is taken up with browsers; `None` if they connect without.
    ///
    /// # Errors
    /// If the files are no pair.
    pub(crate) fn tls(&self) -> anyhow::Result<Option<Arc<ServerConfig>>> {
        let (Some(cert), Some(key)) = (self.tls_cert_file.clone(), self.tls_key_file.clone()) else {
            return Ok(None);
        };
        let server = tls::server(tls::Files { cert, key });
        server.map(Some).context("KEYMETER_UI_TLS_CERT_FILE and KEYMETER_UI_TLS_KEY_FILE")
    }
}

/// An absolute http or https address without a query.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(Uri);

impl HttpUrl {
    /// The address itself.
    pub(crate) const fn uri(&self) -> &Uri {
        &self.0
    }

    /// Whether the address is encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Scheme, host and port as a browser writes them in `Origin`.
    #[must_use]
    pub fn origin(&self) -> String {
        let scheme = self.0.scheme_str().unwrap_or("http");
        let authority = self.0.authority().map_or("", |authority| authority.as_str()).to_ascii_lowercase();
        let default_port = if self.is_https() { ":443" } else { ":80" };
        format!("{scheme}://{}", authority.strip_suffix(default_port).unwrap_or(&authority))
    }
}

impl FromStr for HttpUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| "not an address; write http://host:port".to_owned())?;
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        // A quote would break out of the curl line that people paste into a shell.
        let plain = uri.query().is_none() && !text.contains(['\'', '"', '`', '$', '\\', '@']);
        if scheme && plain { Ok(Self(uri)) } else { Err("write http://host:port or https://host".to_owned()) }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://127.0.0.1:8080", Some("http://127.0.0.1:8080"))]
    #[case("https://Keys.Example.com:443/", Some("https://keys.example.com"))]
    #[case("http://keys.example.com:80", Some("http://keys.example.com"))]
    #[case("ftp://keys.example.com", None)]
    #[case("keys.example.com", None)]
    #[case("http://example.com/?a=b", None)]
    #[case("http://example.com/'$(id)'", None)]
    fn an_address_is_checked_at_start(#[case] text: &str, #[case] origin: Option<&str>) {
        assert_eq!(text.parse::<HttpUrl>().ok().map(|url| url.origin()).as_deref(), origin);
    }

    #[test]
    fn https_is_seen() {
        assert!("https://a".parse::<HttpUrl>().unwrap().is_https());
        assert!(!"http://a".parse::<HttpUrl>().unwrap().is_https());
    }
}
