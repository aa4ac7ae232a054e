//! What a proxy does to headers: those of one hop stay behind (RFC 9110, section 7.6.1), and the API is told who
//! asked, and not what somebody says of that who is not believed. Pure.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use edge_layer::{ForwardedHeader, Network};
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{CONNECTION, FORWARDED, HOST, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE},
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What proxies say of where a call comes from begins so, but for `Forwarded` and `X-Real-IP`.
const X_FORWARDED: &str = "x-forwarded-";
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Whose word the API gets about where a call comes from.
#[derive(Debug, Clone, Default)]
pub struct Believed {
    /// Networks of the proxies.
    pub proxies: Arc<[Network]>,
    /// The header that they write.
    pub header: ForwardedHeader,
}

/// Who asks, and how: the same for all calls of a connection.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) peer: SocketAddr,
    address: HeaderValue,
    scheme: HeaderValue,
}

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

impl Believed {
    /// Takes out what the peer is not believed: everything of a stranger, since whoever asks can write it, and of a proxy
    /// the header that it does not write but passes on.
    pub(crate) fn keep(&self, headers: &mut HeaderMap, asker: &Asker) {
        let peer = match asker.peer.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        if self.proxies.iter().any(|network| network.contains(peer)) {
            match self.header {
                ForwardedHeader::Either => {}
                ForwardedHeader::XForwardedFor => drop(headers.remove(FORWARDED)),
                ForwardedHeader::Forwarded => drop(headers.remove(X_FORWARDED_FOR)),
            }
            return;
        }
        let told = |name: &&HeaderName| {
            name.as_str().starts_with(X_FORWARDED) || **name == FORWARDED || **name == X_REAL_IP
        };
        let told: Vec<_> = headers.keys().filter(told).cloned().collect();
        for name in told {
            headers.remove(name);
        }
    }
}

impl Asker {
    /// The other end of a connection.
    pub(crate) fn new(peer: SocketAddr, is_tls: bool) -> Self {
        let address = HeaderValue::try_from(peer.ip().to_canonical().to_string());
        let scheme = HeaderValue::from_static(if is_tls { "https" } else { "http" });
        Self { peer, address: address.expect("an address is letters, digits, dots and colons"), scheme }
    }

    /// As an element of `Forwarded` (RFC 7239).
    fn element(&self) -> HeaderValue {
        let host = match self.peer.ip().to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        let scheme = self.scheme.to_str().unwrap_or_default();
        HeaderValue::try_from(format!("for={host};proto={scheme}")).expect("it is printable ASCII")
    }
}

/// Tells the API who asked, by which name: appends to `X-Forwarded-For`, and to `Forwarded` if it is there, keeps
/// `X-Forwarded-Proto` and `-Host` of a proxy before this one, keeps `Host` (HTTP/2 has it in the address).
pub(crate) fn forward(headers: &mut HeaderMap, asked: &Uri, asker: &Asker) {
    if !headers.contains_key(HOST)
        && let Some(host) =
            asked.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
    {
        headers.insert(HOST, host);
    }
    add_to_list(headers, X_FORWARDED_FOR, asker.address.clone());
    if headers.contains_key(FORWARDED) {
        add_to_list(headers, FORWARDED, asker.element());
    }
    headers.entry(X_FORWARDED_PROTO).or_insert_with(|| asker.scheme.clone());
    if let Some(host) = headers.get(HOST).cloned() {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
}

/// Adds an element, in one line with those before it: many read the first line of a header only.
fn add_to_list(headers: &mut HeaderMap, name: HeaderName, element: HeaderValue) {
    let mut list = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    let element = if list.is_empty() {
        element
    } else {
        list.extend_from_slice(element.as_bytes());
        HeaderValue::from_bytes(&list).unwrap_or(element)
    };
    headers.insert(name, element);
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

    fn asker(peer: &str, is_tls: bool) -> Asker {
        Asker::new(SocketAddr::new(peer.parse().unwrap(), 4711), is_tls)
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
        let mut first = headers(&[("host", "api.example")]);
        forward(&mut first, &"/v1".parse().unwrap(), &asker("192.0.2.1", false));
        let forwarded = [
            ("host", "api.example"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "api.example"),
        ];
        assert_eq!(first, headers(&forwarded));

        let mut second = headers(&[
            ("x-forwarded-for", "203.0.113.9, 198.51.100.7"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=198.51.100.7;proto=https"),
        ]);
        forward(&mut second, &"http://api.example/v1".parse().unwrap(), &asker("::1", false));
        let lines = |name| second.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(lines("forwarded"), ["for=198.51.100.7;proto=https, for=\"[::1]\";proto=http"]);
        assert_eq!(lines("x-forwarded-for"), ["203.0.113.9, 198.51.100.7, 10.0.0.1, ::1"]);
        assert_eq!(
            (&second["x-forwarded-proto"], &second["host"]),
            (&"https".parse().unwrap(), &"api.example".parse().unwrap())
        );
    }

    #[test]
    fn who_is_not_believed_tells_the_api_nothing() {
        let said = [
            ("accept", "*/*"),
            ("forwarded", "for=198.51.100.7;host=evil.example"),
            ("x-forwarded-for", "198.51.100.7"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "10.0.0.1"),
        ];
        let left = |peer: &str, proxies: &str, header| {
            let proxies = proxies.split_terminator(',').map(|network| network.parse().unwrap()).collect();
            let mut headers = headers(&said);
            Believed { proxies, header }.keep(&mut headers, &asker(peer, true));
            headers
        };
        let without = |names: &[&str]| {
            let mut headers = headers(&said);
            names.iter().for_each(|name| drop(headers.remove(*name)));
            headers
        };
        let either = ForwardedHeader::Either;
        for (peer, proxies) in
            [("192.0.2.1", ""), ("192.0.2.1", "192.0.2.2,10.0.0.0/8"), ("::1", "192.0.2.1")]
        {
            assert_eq!(left(peer, proxies, either), headers(&said[..1]), "{peer} of {proxies}");
        }
        for (peer, proxies) in [("192.0.2.1", "10.0.0.0/8,192.0.2.0/24"), ("2001:db8::1", "2001:db8::/32")] {
            assert_eq!(left(peer, proxies, either), headers(&said));
            assert_eq!(left(peer, proxies, ForwardedHeader::XForwardedFor), without(&["forwarded"]));
            assert_eq!(left(peer, proxies, ForwardedHeader::Forwarded), without(&["x-forwarded-for"]));
        }
    }
}
