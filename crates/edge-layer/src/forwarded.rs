//! `Forwarded` of RFC 7239, read from its end: what stands last was written by the nearest proxy. Pure.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName};

use crate::network::mapped;

/// The header.
pub(crate) const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// Which header of a trusted proxy is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedHeader {
    /// Whichever a call has. If it has both they have to name the same client, or the address is unknown: proxies
    /// write the one, and a client can have sent the other.
    #[default]
    Either,
    /// `X-Forwarded-For` alone.
    XForwardedFor,
    /// `Forwarded` alone.
    Forwarded,
}

/// The text names no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of: either, x-forwarded-for, forwarded")]
pub struct ForwardedHeaderError;

impl std::str::FromStr for ForwardedHeader {
    type Err = ForwardedHeaderError;

    fn from_str(text: &str) -> Result<Self, ForwardedHeaderError> {
        match text {
            "either" => Ok(Self::Either),
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err(ForwardedHeaderError),
        }
    }
}

/// The addresses that were forwarded for, the nearest first; `None` for one that is hidden or can not be read.
pub(crate) fn hops(headers: &HeaderMap) -> impl Iterator<Item = Option<Ipv6Addr>> + '_ {
    let values = headers.get_all(FORWARDED).into_iter().rev();
    // Cut at every comma, also within quotes: a client can not hide what proxies add behind an open quote.
    let elements = values.flat_map(|value| value.to_str().unwrap_or("").rsplit(','));
    elements.map(|element| node(element.trim()))
}

/// The address in `for=` of one element.
fn node(element: &str) -> Option<Ipv6Addr> {
    let pairs = element.split(';').map(|pair| pair.trim().split_once('='));
    let mut found = None;
    for pair in pairs {
        let (name, value) = pair?;
        if name.eq_ignore_ascii_case("for") && found.replace(value).is_some() {
            return None;
        }
    }
    let value = found?;
    let quoted = value.strip_prefix('"').map(|rest| rest.strip_suffix('"'));
    address(quoted.unwrap_or(Some(value))?)
}

/// An address, maybe with a port that is a number or hidden.
fn address(node: &str) -> Option<Ipv6Addr> {
    let (host, port) = match node.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        // Some write IPv6 without brackets; then there is no port.
        None if node.matches(':').count() > 1 => (node, ""),
        None => node.find(':').map_or((node, ""), |at| node.split_at(at)),
    };
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let has_good_end = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    host.parse::<IpAddr>().ok().filter(|_| has_good_end).map(mapped)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("for=192.0.2.60;proto=http;by=203.0.113.43", &[Some("::ffff:192.0.2.60")])]
    #[case("For=192.0.2.43, FOR=\"198.51.100.17:4711\"", &[Some("::ffff:198.51.100.17"), Some("::ffff:192.0.2.43")])]
    #[case("for=\"[2001:db8:cafe::17]:4711\"", &[Some("2001:db8:cafe::17")])]
    #[case("for=\"[2001:db8::1]\";proto=https", &[Some("2001:db8::1")])]
    #[case("for=2001:db8::1", &[Some("2001:db8::1")])]
    #[case("for=\"192.0.2.1:_hidden\"", &[Some("::ffff:192.0.2.1")])]
    #[case("for=unknown", &[None])]
    #[case("for=_gazonk", &[None])]
    #[case("proto=https", &[None])]
    #[case("for=192.0.2.1;for=192.0.2.2", &[None])]
    #[case("for=192.0.2.1:80:90", &[None])]
    #[case("for=\"192.0.2.1", &[None])]
    #[case("192.0.2.1", &[None])]
    #[case("", &[None])]
    #[case::an_open_quote_hides_nothing("for=\"x, for=192.0.2.1", &[Some("::ffff:192.0.2.1"), None])]
    fn elements_are_read_from_the_end(#[case] value: &str, #[case] expected: &[Option<&str>]) {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED, value.parse().unwrap());
        let found: Vec<_> = hops(&headers).map(|hop| hop.map(|address| address.to_string())).collect();
        assert_eq!(found, expected.iter().map(|hop| hop.map(str::to_owned)).collect::<Vec<_>>());
    }
}
