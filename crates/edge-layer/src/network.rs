//! Networks in CIDR notation, and who a caller is behind proxies that are trusted. IPv4 is held as
//! `::ffff:a.b.c.d`, so both kinds are one. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName};

use crate::forwarded::{self, FORWARDED, ForwardedHeader};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Bits before the IPv4 address in its IPv6 form.
const MAPPED_BITS: u32 = 96;

/// A network such as 192.0.2.0/24 or `2001:db8::/32`; an address alone is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: u128,
    mask: u128,
}

/// The text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a network in CIDR notation, such as 192.0.2.0/24 or 2001:db8::/32")]
pub struct NetworkError;

impl std::str::FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let (bits_max, before) = if address.is_ipv4() { (32, MAPPED_BITS) } else { (128, 0) };
        let bits = match bits {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().map_err(|_| NetworkError)?
            }
            Some(_) => return Err(NetworkError),
            None => bits_max,
        };
        if bits > bits_max {
            return Err(NetworkError);
        }
        let mask = u128::MAX.checked_shl(128 - before - bits).unwrap_or(0);
        Ok(Self { address: u128::from(mapped(address)) & mask, mask })
    }
}

impl Network {
    /// No address is in it.
    pub(crate) const NOWHERE: Self = Self { address: 1, mask: 0 };

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        u128::from(address) & self.mask == self.address
    }
}

/// Who called: the peer, or behind trusted proxies whom the last of them names that is not trusted itself.
/// `None` if that can not be told.
pub(crate) fn client(
    peer: Option<IpAddr>,
    headers: &HeaderMap,
    trusted: &[Network],
    believed: ForwardedHeader,
) -> Option<Ipv6Addr> {
    let peer = mapped(peer?);
    if !is_in(peer, trusted) {
        return Some(peer);
    }
    let by_list = || named(peer, x_forwarded_for(headers), trusted);
    let by_element = || named(peer, forwarded::hops(headers), trusted);
    match believed {
        ForwardedHeader::XForwardedFor => by_list(),
        ForwardedHeader::Forwarded => by_element(),
        ForwardedHeader::Either if !headers.contains_key(FORWARDED) => by_list(),
        ForwardedHeader::Either if !headers.contains_key(X_FORWARDED_FOR) => by_element(),
        ForwardedHeader::Either => by_list().filter(|client| by_element() == Some(*client)),
    }
}

/// The nearest hop that is not trusted; the farthest if all are.
fn named(
    peer: Ipv6Addr,
    hops: impl Iterator<Item = Option<Ipv6Addr>>,
    trusted: &[Network],
) -> Option<Ipv6Addr> {
    let mut client = peer;
    for hop in hops {
        client = hop?;
        if !is_in(client, trusted) {
            break;
        }
    }
    Some(client)
}

fn is_in(address: Ipv6Addr, networks: &[Network]) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// The nearest hop first; `None` for one that can not be read.
fn x_forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = Option<Ipv6Addr>> + '_ {
    let values = headers.get_all(X_FORWARDED_FOR).into_iter().rev();
    let hops = values.flat_map(|value| value.to_str().unwrap_or("").rsplit(','));
    hops.map(|hop| hop_address(hop.trim()))
}

/// Some proxies add a port.
fn hop_address(hop: &str) -> Option<Ipv6Addr> {
    let with_port = || hop.parse::<SocketAddr>().map(|address| address.ip());
    hop.parse::<IpAddr>().or_else(|_| with_port()).ok().map(mapped)
}

/// The address as IPv6.
pub(crate) const fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("192.0.2.0/24", "192.0.2.0", true)]
    #[case("192.0.2.0/24", "192.0.2.255", true)]
    #[case("192.0.2.0/24", "192.0.3.0", false)]
    #[case("192.0.2.0/24", "::ffff:192.0.2.7", true)]
    #[case("192.0.2.77/24", "192.0.2.7", true)]
    #[case("192.0.2.7", "192.0.2.7", true)]
    #[case("192.0.2.7", "192.0.2.8", false)]
    #[case("192.0.2.7/32", "192.0.2.8", false)]
    #[case("0.0.0.0/0", "203.0.113.1", true)]
    #[case("0.0.0.0/0", "2001:db8::1", false)]
    #[case("::/0", "2001:db8::1", true)]
    #[case("::/0", "192.0.2.7", true)]
    #[case("2001:db8::/32", "2001:db8:ffff::1", true)]
    #[case("2001:db8::/32", "2001:db9::", false)]
    #[case("2001:db8::1/128", "2001:db8::1", true)]
    #[case("::ffff:192.0.2.0/120", "192.0.2.9", true)]
    fn addresses_are_in_networks_or_not(
        #[case] network: &str,
        #[case] address: IpAddr,
        #[case] inside: bool,
    ) {
        assert_eq!(network.parse::<Network>().unwrap().contains(mapped(address)), inside);
    }

    #[rstest]
    #[case("")]
    #[case("192.0.2.0/33")]
    #[case("2001:db8::/129")]
    #[case("192.0.2.0/")]
    #[case("192.0.2.0/+8")]
    #[case("192.0.2/24")]
    #[case("192.0.2.0/24 ")]
    #[case("example.org/24")]
    fn no_network(#[case] text: &str) {
        assert_eq!(text.parse::<Network>(), Err(NetworkError));
    }

    #[test]
    fn nobody_is_nowhere() {
        assert!(
            ["::", "::1", "192.0.2.1"]
                .iter()
                .all(|ip| !Network::NOWHERE.contains(mapped(ip.parse().unwrap())))
        );
    }

    const PEER: &str = "10.0.0.1";

    #[rstest]
    #[case::nobody_is_trusted(PEER, &["198.51.100.7"], "", Some(PEER))]
    #[case::another_is_trusted(PEER, &["198.51.100.7"], "10.0.0.2", Some(PEER))]
    #[case::the_peer_is(PEER, &["198.51.100.7"], "10.0.0.0/8", Some("198.51.100.7"))]
    #[case::a_client_s_own_claim_is_not_believed(PEER, &["192.0.2.1, 198.51.100.7"], "10.0.0.0/8", Some("198.51.100.7"))]
    #[case::a_chain_of_proxies(PEER, &["198.51.100.7, 10.9.9.9"], "10.0.0.0/8", Some("198.51.100.7"))]
    #[case::several_headers(PEER, &["198.51.100.7", "10.9.9.9 , 10.8.8.8"], "10.0.0.0/8", Some("198.51.100.7"))]
    #[case::all_trusted(PEER, &["10.9.9.9, 10.8.8.8"], "10.0.0.0/8", Some("10.9.9.9"))]
    #[case::no_header(PEER, &[], "10.0.0.0/8", Some(PEER))]
    #[case::with_a_port(PEER, &["198.51.100.7:4711"], "10.0.0.0/8", Some("198.51.100.7"))]
    #[case::with_a_port_ipv6(PEER, &["[2001:db8::1]:4711"], "10.0.0.0/8", Some("2001:db8::1"))]
    #[case::garbled(PEER, &["198.51.100.7, unknown"], "10.0.0.0/8", None)]
    #[case::empty(PEER, &[""], "10.0.0.0/8", None)]
    fn the_client_is_whom_trusted_proxies_name(
        #[case] peer: &str,
        #[case] forwarded: &[&'static str],
        #[case] trusted: &str,
        #[case] expected: Option<&str>,
    ) {
        let trusted: Vec<Network> = trusted.split_terminator(' ').map(|text| text.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, value.parse().unwrap());
        }
        let expected = expected.map(|text| mapped(text.parse().unwrap()));
        let either = ForwardedHeader::Either;
        assert_eq!(client(peer.parse().ok(), &headers, &trusted, either), expected);
        assert_eq!(client(None, &headers, &trusted, either), None);
    }

    #[rstest]
    #[case::one_alone("", "for=198.51.100.7", ["198.51.100.7", PEER, "198.51.100.7"])]
    #[case::the_other_alone("198.51.100.7", "", ["198.51.100.7", "198.51.100.7", PEER])]
    #[case::both_agree("198.51.100.7, 10.9.9.9", "for=\"198.51.100.7:80\"", ["198.51.100.7"; 3])]
    #[case::both_differ("198.51.100.7", "for=203.0.113.9", ["", "198.51.100.7", "203.0.113.9"])]
    #[case::one_is_garbled("198.51.100.7", "for=unknown", ["", "198.51.100.7", ""])]
    #[case::chain("", "for=203.0.113.9, for=198.51.100.7, for=10.9.9.9;by=_x", ["198.51.100.7", PEER, "198.51.100.7"])]
    fn forwarded_is_believed_as_configured(
        #[case] list: &'static str,
        #[case] elements: &'static str,
        #[case] expected: [&str; 3],
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in [(X_FORWARDED_FOR, list), (FORWARDED, elements)] {
            if !value.is_empty() {
                headers.append(name, value.parse().unwrap());
            }
        }
        let trusted: [Network; 1] = ["10.0.0.0/8".parse().unwrap()];
        let believed = [ForwardedHeader::Either, ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded];
        for (believed, expected) in believed.into_iter().zip(expected) {
            let found = client(PEER.parse().ok(), &headers, &trusted, believed);
            assert_eq!(found, expected.parse().ok().map(mapped), "{believed:?}");
        }
        let stranger = "192.0.2.1".parse().ok();
        assert_eq!(client(stranger, &headers, &trusted, ForwardedHeader::Either), stranger.map(mapped));
    }
}
