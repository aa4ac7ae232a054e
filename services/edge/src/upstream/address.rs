//! The address of the API behind the edge, and the address that a request has there. Pure.

use anyhow::{Context as _, ensure};
use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

/// How the API is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, which gRPC needs: by prior knowledge, or agreed on in the TLS handshake.
    Http2,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    authority: Authority,
    is_tls: bool,
    /// Put before every path, without a slash at its end.
    base: String,
}

impl Address {
    /// The API at `url`.
    ///
    /// # Errors
    /// If it is not `http://host[:port][/path]` or the same with `https`.
    pub fn new(url: &Uri) -> anyhow::Result<Self> {
        let is_tls = url.scheme() == Some(&Scheme::HTTPS);
        ensure!(is_tls || url.scheme() == Some(&Scheme::HTTP), "it must start with http:// or https://");
        let authority = url.authority().context("it must name a host")?;
        ensure!(url.query().is_none(), "it must not have a query string");
        ensure!(!authority.as_str().contains('@'), "it must not have a user or password");
        ensure!(!authority.host().is_empty(), "it must name a host");
        let base = url.path().trim_end_matches('/').to_owned();
        Ok(Self { authority: authority.clone(), is_tls, base })
    }

    /// Name or address of the machine, without brackets.
    pub(crate) fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.is_tls { 443 } else { 80 })
    }

    /// Host and port, as they were given.
    pub(crate) fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// Whether it is spoken to through TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Appends the target of `asked` as a request line has it.
    pub(crate) fn write_target(&self, out: &mut Vec<u8>, asked: &Uri) {
        let path = path(asked);
        // `*` of OPTIONS stays alone.
        if path.starts_with('/') {
            out.extend_from_slice(self.base.as_bytes());
        }
        out.extend_from_slice(path.as_bytes());
    }

    /// The whole address of `asked`, under the name that the client knows the API by.
    ///
    /// # Errors
    /// If that is no valid address.
    pub(crate) fn uri(&self, asked: &Uri, host: &[u8]) -> Result<Uri, http::Error> {
        let mut target = Vec::new();
        self.write_target(&mut target, asked);
        let scheme = if self.is_tls { Scheme::HTTPS } else { Scheme::HTTP };
        let target =
            if target == b"*" { PathAndQuery::from_static("*") } else { target.as_slice().try_into()? };
        Uri::builder().scheme(scheme).authority(host).path_and_query(target).build()
    }
}

fn path(asked: &Uri) -> &str {
    asked.path_and_query().map_or("/", PathAndQuery::as_str)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn address(url: &str) -> Address {
        Address::new(&url.parse().unwrap()).unwrap()
    }

    #[rstest]
    #[case("http://api:3000", "/v1/x?y=z", "/v1/x?y=z")]
    #[case("http://api:3000/", "/", "/")]
    #[case("https://api/base/", "/v1", "/base/v1")]
    #[case("http://api/base", "http://client.example/v1?q", "/base/v1?q")]
    #[case("http://api/base", "*", "*")]
    fn paths_are_kept(#[case] url: &str, #[case] asked: &str, #[case] target: &str) {
        let mut out = Vec::new();
        address(url).write_target(&mut out, &asked.parse().unwrap());
        assert_eq!(String::from_utf8(out).unwrap(), target);
    }

    #[test]
    fn http2_names_the_host_that_the_client_named() {
        let uri = address("https://10.0.0.1/base").uri(&"/v1?q".parse().unwrap(), b"api.example").unwrap();
        assert_eq!(uri.to_string(), "https://api.example/base/v1?q");
        assert!(address("http://api").uri(&"/v1".parse().unwrap(), b"a b").is_err());
    }

    #[rstest]
    #[case("http://api", "api", 80)]
    #[case("https://api", "api", 443)]
    #[case("https://[::1]:8443", "::1", 8443)]
    fn the_port_follows_from_the_scheme(#[case] url: &str, #[case] host: &str, #[case] port: u16) {
        assert_eq!((address(url).host(), address(url).port()), (host, port));
    }

    #[rstest]
    #[case("ftp://api")]
    #[case("/api")]
    #[case("http://api/?a")]
    #[case("http://user:word@api")]
    fn others_are_refused(#[case] url: &str) {
        assert!(Address::new(&url.parse().unwrap()).is_err());
    }
}
