//! What a proxy does to headers: those of one hop stay behind (RFC 9110, section 7.6.1), and the API is told who
//! asked. Pure.

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{CONNECTION, HOST, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE},
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// For the next hop alone, even if `Connection` does not name them.
const OF_ONE_HOP: [HeaderName; 7] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE];

/// Takes out what is meant for one hop, and whatever `Connection` names. `TE: trailers` stays, since trailers are
/// passed on. Returns the protocol that an upgrade asks for.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    // Most messages have none of them, and looking for each costs more than looking at all.
    if !headers.keys().any(|name| OF_ONE_HOP.contains(name)) {
        return None;
    }
    let options: Vec<HeaderName> =
        tokens(headers, &CONNECTION).filter_map(|name| name.parse().ok()).collect();
    let upgrade = headers.remove(UPGRADE).filter(|_| options.contains(&UPGRADE));
    let wants_trailers = tokens(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    for name in options {
        headers.remove(name);
    }
    for name in OF_ONE_HOP {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    upgrade
}

/// Asks the next hop to change to `protocol`.
pub(crate) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Tells the API who asked, by which name: appends to `X-Forwarded-For`, keeps `X-Forwarded-Proto` and `-Host` of
/// a proxy before this one, keeps `Host` (HTTP/2 has it in the address).
pub(crate) fn forward(headers: &mut HeaderMap, asked: &Uri, peer: &HeaderValue, scheme: &HeaderValue) {
    if !headers.contains_key(HOST)
        && let Some(host) =
            asked.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
    {
        headers.insert(HOST, host);
    }
    headers.append(X_FORWARDED_FOR, peer.clone());
    headers.entry(X_FORWARDED_PROTO).or_insert_with(|| scheme.clone());
    if let Some(host) = headers.get(HOST).cloned() {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|token| token.split(';').next().unwrap_or("").trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn one_hop_stays_behind() {
        let mut all = headers(&[
            ("connection", "close, X-Private"),
            ("connection", "Upgrade"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic dTpw"),
            ("te", "gzip;q=0.5, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("trailer", "x-sum"),
            ("accept", "*/*"),
        ]);
        assert_eq!(strip_hop_by_hop(&mut all).unwrap(), "websocket");
        assert_eq!(all, headers(&[("trailer", "x-sum"), ("accept", "*/*"), ("te", "trailers")]));
        set_upgrade(&mut all, HeaderValue::from_static("websocket"));
        assert_eq!(
            (&all["connection"], &all["upgrade"]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
    }

    #[test]
    fn an_upgrade_must_be_named_by_connection() {
        let mut all = headers(&[("upgrade", "websocket"), ("te", "gzip")]);
        assert_eq!(strip_hop_by_hop(&mut all), None);
        assert!(all.is_empty());
    }

    #[test]
    fn the_api_learns_who_asked() {
        let value = HeaderValue::from_static;
        let mut first = headers(&[("host", "api.example")]);
        forward(&mut first, &"/v1".parse().unwrap(), &value("192.0.2.1"), &value("http"));
        let forwarded = [
            ("host", "api.example"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "api.example"),
        ];
        assert_eq!(first, headers(&forwarded));

        let mut second = headers(&[("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https")]);
        forward(&mut second, &"http://api.example/v1".parse().unwrap(), &value("::1"), &value("http"));
        let hops: Vec<_> = second.get_all("x-forwarded-for").iter().collect();
        assert_eq!(hops, ["198.51.100.7", "::1"]);
        assert_eq!(
            (&second["x-forwarded-proto"], &second["host"]),
            (&"https".parse().unwrap(), &"api.example".parse().unwrap())
        );
    }
}
