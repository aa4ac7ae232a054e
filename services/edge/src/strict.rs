//! What is refused of requests that are HTTP all the same: whatever two programs could read in two ways, since an
//! attacker lives in between. Pure.

use edge_layer::Problem;
use http::{
    HeaderValue, Method, Request, Version,
    header::{HOST, TRANSFER_ENCODING},
};

/// Refuses a request that the API might read otherwise than this edge.
///
/// # Errors
/// [`Problem::BadRequest`]
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), Problem> {
    let is_clear = has_clear_target(request) && has_clear_host(request) && has_clear_coding(request);
    if is_clear { Ok(()) } else { Err(Problem::BadRequest) }
}

/// Whether a protocol may be upgraded to. Not to HTTP: its requests would pass without keys. Nor to TLS, in which
/// nobody would see them.
pub(crate) fn may_upgrade(protocol: &HeaderValue) -> bool {
    let names = protocol.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    names.into_iter().all(|name| {
        let starts =
            |with: &[u8]| name.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
        !name.is_empty() && !starts(b"h2") && !starts(b"http") && !starts(b"tls")
    })
}

/// A path, or `*` for OPTIONS; never an authority alone.
fn has_clear_target<B>(request: &Request<B>) -> bool {
    let uri = request.uri();
    if uri.authority().is_some() && uri.scheme().is_none() {
        return false;
    }
    uri.path().starts_with('/') || uri.path() == "*" && request.method() == Method::OPTIONS
}

/// One host, the same wherever it stands.
fn has_clear_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return false;
    }
    match (host, request.uri().authority()) {
        (Some(host), authority) => {
            let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]%~".contains(byte);
            let is_same = authority
                .is_none_or(|authority| host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()));
            host.as_bytes().iter().all(is_name) && is_same
        }
        (None, authority) => {
            // A name before an @ is for the client alone.
            let is_name = authority.is_some_and(|authority| !authority.as_str().contains('@'));
            is_name || request.version() < Version::HTTP_11
        }
    }
}

/// At most `chunked`, once: other codings are not undone here, and the API would not learn of them.
fn has_clear_coding<B>(request: &Request<B>) -> bool {
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let first = codings.next();
    first.is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) && codings.next().is_none()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().method(method).uri(target);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
    }

    #[rstest]
    #[case("GET", "/", &[("host", "api.example:80")])]
    #[case("GET", "/", &[("host", "[::1]:80")])]
    #[case("GET", "http://api.example/x", &[("host", "API.example")])]
    #[case("GET", "http://api.example/x", &[])]
    #[case("OPTIONS", "*", &[("host", "a")])]
    #[case("POST", "/", &[("host", "a"), ("transfer-encoding", "Chunked")])]
    fn clear_ones_pass(#[case] method: &str, #[case] target: &str, #[case] headers: &[(&str, &str)]) {
        assert_eq!(check(&request(method, target, headers)), Ok(()));
    }

    #[rstest]
    #[case::no_host("GET", "/", &[])]
    #[case::two_hosts("GET", "/", &[("host", "a"), ("host", "a")])]
    #[case::another_host("GET", "http://a/", &[("host", "b")])]
    #[case::path_in_host("GET", "/", &[("host", "a/b")])]
    #[case::user_in_host("GET", "/", &[("host", "a@b")])]
    #[case::user_in_target("GET", "http://a@b/", &[])]
    #[case::list_of_hosts("GET", "/", &[("host", "a, b")])]
    #[case::authority_alone("GET", "a:80", &[("host", "a:80")])]
    #[case::asterisk("GET", "*", &[("host", "a")])]
    #[case::other_coding("POST", "/", &[("host", "a"), ("transfer-encoding", "gzip, chunked")])]
    #[case::twice("POST", "/", &[("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")])]
    fn unclear_ones_do_not(#[case] method: &str, #[case] target: &str, #[case] headers: &[(&str, &str)]) {
        assert_eq!(check(&request(method, target, headers)), Err(Problem::BadRequest));
    }

    #[rstest]
    #[case("websocket", true)]
    #[case("chat/2", true)]
    #[case("h2c", false)]
    #[case("H2C", false)]
    #[case("websocket, h2c", false)]
    #[case("HTTP/2.0", false)]
    #[case("TLS/1.2", false)]
    #[case("", false)]
    fn no_upgrade_hides_requests(#[case] protocol: &str, #[case] may: bool) {
        assert_eq!(may_upgrade(&protocol.parse().unwrap()), may);
    }
}
