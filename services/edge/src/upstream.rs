//! The address of the API behind the edge, and the address that a request has there. Pure.

use anyhow::{Context as _, ensure};
use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

/// Where requests go.
#[derive(Debug, Clone)]
pub struct Upstream {
    authority: Authority,
    /// Put before every path, without a slash at its end.
    base: String,
}

impl Upstream {
    /// The API at `url`.
    ///
    /// # Errors
    /// If it is not `http://host[:port][/path]`.
    pub fn new(url: &Uri) -> anyhow::Result<Self> {
        ensure!(url.scheme() == Some(&Scheme::HTTP), "it must start with http://");
        let authority = url.authority().context("it must name a host")?;
        ensure!(url.query().is_none(), "it must not have a query string");
        ensure!(!authority.as_str().contains('@'), "it must not have a user or password");
        Ok(Self { authority: authority.clone(), base: url.path().trim_end_matches('/').to_owned() })
    }

    /// The address of `asked` at the API.
    ///
    /// # Errors
    /// If the two together are no valid address.
    pub fn address(&self, asked: &Uri) -> Result<Uri, http::Error> {
        let path = asked.path_and_query().map_or("/", PathAndQuery::as_str);
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(self.authority.clone());
        // `*` of OPTIONS stays alone.
        if self.base.is_empty() || !path.starts_with('/') {
            return uri.path_and_query(path).build();
        }
        uri.path_and_query(format!("{}{path}", self.base)).build()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://api:3000", "/v1/x?y=z", "http://api:3000/v1/x?y=z")]
    #[case("http://api:3000/", "/", "http://api:3000/")]
    #[case("http://api/base/", "/v1", "http://api/base/v1")]
    #[case("http://api/base", "http://client.example/v1?q", "http://api/base/v1?q")]
    fn paths_are_kept(#[case] url: &str, #[case] asked: &str, #[case] address: &str) {
        let upstream = Upstream::new(&url.parse().unwrap()).unwrap();
        assert_eq!(upstream.address(&asked.parse().unwrap()).unwrap().to_string(), address);
    }

    #[test]
    fn the_asterisk_stays_alone() {
        let upstream = Upstream::new(&"http://api/base".parse().unwrap()).unwrap();
        assert_eq!(upstream.address(&"*".parse().unwrap()).unwrap().path(), "*");
    }

    #[rstest]
    #[case("https://api")]
    #[case("/api")]
    #[case("http://api/?a")]
    #[case("http://user:word@api")]
    fn others_are_refused(#[case] url: &str) {
        assert!(Upstream::new(&url.parse().unwrap()).is_err());
    }
}
