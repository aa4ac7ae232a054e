//! Checks of what a key may be told: tags, owner, scopes, networks, rate limits.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use access::Subject;
use ipnet::{IpNet, Ipv4Net};
use proto::keys as pb;

use super::{at_most, one_line};
use crate::{error::Error, key::RateLimit};

const TAGS_MAX: usize = 20;
const TAG_NAME_CHARS_MAX: usize = 63;
const TAG_VALUE_CHARS_MAX: usize = 100;
const SCOPES_MAX: usize = 50;
const SCOPE_CHARS_MAX: usize = 100;
const NETWORKS_MAX: usize = 50;
const RATE_LIMITS_MAX: usize = 10;
const RATE_LIMIT_NAME_CHARS_MAX: usize = 32;
/// 30 days.
const WINDOW_MAX_S: u32 = 2_592_000;
/// Prefix of the IPv6 network whose addresses stand for IPv4 ones.
const MAPPED_PREFIX: u8 = 96;

/// At most 20 tags.
///
/// # Errors
/// What is wrong with which.
pub fn tags(field: &'static str, tags: &HashMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    few(field, tags.len(), TAGS_MAX)?;
    tags.iter().map(|(name, value)| Ok((tag_name(field, name)?, tag_value(field, value)?))).collect()
}

/// A tag's name: 1 to 63 characters of a-z, 0-9, _, - and .
///
/// # Errors
/// What is wrong with it.
pub fn tag_name(field: &'static str, name: &str) -> Result<String, Error> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
    if name.is_empty() || name.len() > TAG_NAME_CHARS_MAX || !name.chars().all(good) {
        return Err(Error::invalid(field, "names must have 1 to 63 characters of a-z, 0-9, _, - and ."));
    }
    Ok(name.to_owned())
}

/// A tag's value: at most 100 characters, one line.
///
/// # Errors
/// What is wrong with it.
pub fn tag_value(field: &'static str, value: &str) -> Result<String, Error> {
    one_line(field, value, TAG_VALUE_CHARS_MAX)
}

/// Who answers for a key: an account or a service token. Whether it is of the workspace is seen later.
///
/// # Errors
/// If it is neither.
pub fn owner(field: &'static str, owner: &str) -> Result<Subject, Error> {
    owner.parse().map_err(|_| {
        Error::invalid(field, "must be the id of an account, acc_…, or of a service token, svc_…")
    })
}

/// At most 50 scopes, each once, in their order.
///
/// # Errors
/// What is wrong with which.
pub fn scopes(field: &'static str, scopes: &[String]) -> Result<Vec<String>, Error> {
    few(field, scopes.len(), SCOPES_MAX)?;
    let good = |c: char| c.is_ascii_alphanumeric() || ".:_/*-".contains(c);
    for scope in scopes {
        if scope.is_empty() || scope.len() > SCOPE_CHARS_MAX || !scope.chars().all(good) {
            let what = "each must have 1 to 100 characters of a-z, A-Z, 0-9 and .:_/*-";
            return Err(Error::invalid(field, what));
        }
    }
    once(field, scopes)?;
    Ok(scopes.to_vec())
}

/// At most 50 networks, each once, in their order.
///
/// # Errors
/// What is wrong with which, and how it is right.
pub fn allowed_networks(field: &'static str, networks: &[String]) -> Result<Vec<IpNet>, Error> {
    few(field, networks.len(), NETWORKS_MAX)?;
    let read: Vec<IpNet> = networks.iter().map(|text| network(field, text)).collect::<Result<_, _>>()?;
    once(field, &read)?;
    Ok(read)
}

fn network(field: &'static str, text: &str) -> Result<IpNet, Error> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let right = IpNet::from(address);
        return Err(Error::invalid(field, format!("{address} is an address; write the network {right}")));
    }
    let network: IpNet = text.parse().map_err(|_| {
        Error::invalid(field, "must be networks in CIDR notation, 192.0.2.0/24 or 2001:db8::/32")
    })?;
    let right = unmapped(network.trunc());
    if right == network {
        Ok(network)
    } else {
        Err(Error::invalid(field, format!("{network} is written as {right}")))
    }
}

/// The IPv4 network for which an IPv6 one stands, since callers are known by their IPv4 address.
fn unmapped(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED_PREFIX => {
            let v4 = v6.network().to_ipv4_mapped();
            let v4 = v4.and_then(|address| Ipv4Net::new(address, v6.prefix_len() - MAPPED_PREFIX).ok());
            v4.map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

/// At most 10 limits, in their order.
///
/// # Errors
/// What is wrong with which.
pub fn rate_limits(field: &'static str, limits: &[pb::RateLimit]) -> Result<Vec<RateLimit>, Error> {
    few(field, limits.len(), RATE_LIMITS_MAX)?;
    let read: Vec<RateLimit> =
        limits.iter().map(|limit| rate_limit(field, limit)).collect::<Result<_, _>>()?;
    once(field, &read.iter().map(|limit| &limit.name).collect::<Vec<_>>())?;
    Ok(read)
}

fn rate_limit(field: &'static str, limit: &pb::RateLimit) -> Result<RateLimit, Error> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    let name = &limit.name;
    at_most(field, name, RATE_LIMIT_NAME_CHARS_MAX)?;
    if name.is_empty() || !name.chars().all(good) {
        return Err(Error::invalid(field, "names must have 1 to 32 characters of a-z, 0-9, _ and -"));
    }
    if limit.requests < 1 {
        return Err(Error::invalid(field, format!("requests of {name} must be at least 1")));
    }
    let window_s = limit.window.filter(|window| window.nanos == 0).and_then(|window| {
        u32::try_from(window.seconds).ok().filter(|seconds| (1..=WINDOW_MAX_S).contains(seconds))
    });
    let window_s = window_s.ok_or_else(|| {
        Error::invalid(field, format!("the window of {name} must be whole seconds, 1 s to 30 days"))
    })?;
    Ok(RateLimit { name: name.clone(), requests: limit.requests, window_s })
}

fn few(field: &'static str, count: usize, max: usize) -> Result<(), Error> {
    if count > max { Err(Error::invalid(field, format!("must have at most {max} entries"))) } else { Ok(()) }
}

fn once<T: Ord + std::fmt::Display>(field: &'static str, entries: &[T]) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    match entries.iter().find(|entry| !seen.insert(*entry)) {
        Some(twice) => Err(Error::invalid(field, format!("names {twice} twice"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::v4("192.0.2.0/24", Ok("192.0.2.0/24"))]
    #[case::everything("0.0.0.0/0", Ok("0.0.0.0/0"))]
    #[case::one("192.0.2.1/32", Ok("192.0.2.1/32"))]
    #[case::v6_is_normalised("2001:0DB8:0:0::/32", Ok("2001:db8::/32"))]
    #[case::host_bits("192.0.2.7/24", Err("192.0.2.7/24 is written as 192.0.2.0/24"))]
    #[case::host_bits_of_v6("2001:db8::1/32", Err("2001:db8::1/32 is written as 2001:db8::/32"))]
    #[case::bare("192.0.2.7", Err("192.0.2.7 is an address; write the network 192.0.2.7/32"))]
    #[case::mapped("::ffff:192.0.2.0/120", Err("::ffff:192.0.2.0/120 is written as 192.0.2.0/24"))]
    #[case::too_long("192.0.2.0/33", Err("CIDR"))]
    #[case::negative("192.0.2.0/-1", Err("CIDR"))]
    #[case::blank(" 192.0.2.0/24", Err("CIDR"))]
    #[case::empty("", Err("CIDR"))]
    #[case::name("example.org/24", Err("CIDR"))]
    fn networks(#[case] text: &str, #[case] expected: Result<&str, &str>) {
        let read = allowed_networks("f", &[text.to_owned()]);
        match (read, expected) {
            (Ok(read), Ok(expected)) => assert_eq!(read[0].to_string(), expected),
            (Err(Error::Invalid { description, .. }), Err(part)) => {
                assert!(description.contains(part), "{description}");
            }
            (read, expected) => panic!("{read:?} is not {expected:?}"),
        }
    }

    #[rstest]
    #[case::good("orders:read", true)]
    #[case::every_kind("A9.:_/*-", true)]
    #[case::longest(&"a".repeat(100), true)]
    #[case::empty("", false)]
    #[case::too_long(&"a".repeat(101), false)]
    #[case::blank("a b", false)]
    #[case::umlaut("ä", false)]
    fn one_scope(#[case] scope: &str, #[case] good: bool) {
        assert_eq!(scopes("f", &[scope.to_owned()]).is_ok(), good);
    }

    #[rstest]
    #[case::good("team", "A b", true)]
    #[case::empty_value("team", "", true)]
    #[case::longest(&"a".repeat(63), &"é".repeat(100), true)]
    #[case::no_name("", "a", false)]
    #[case::long_name(&"a".repeat(64), "a", false)]
    #[case::capital("Team", "a", false)]
    #[case::long_value("a", &"é".repeat(101), false)]
    #[case::line_break("a", "b\n", false)]
    fn one_tag(#[case] name: &str, #[case] value: &str, #[case] good: bool) {
        assert_eq!(tags("f", &HashMap::from([(name.to_owned(), value.to_owned())])).is_ok(), good);
    }

    #[rstest]
    #[case::good("per-minute_1", 1, 60, 0, true)]
    #[case::longest(&"a".repeat(32), i64::MAX, 2_592_000, 0, true)]
    #[case::no_name("", 1, 60, 0, false)]
    #[case::long_name(&"a".repeat(33), 1, 60, 0, false)]
    #[case::capital("A", 1, 60, 0, false)]
    #[case::no_requests("a", 0, 60, 0, false)]
    #[case::no_window("a", 1, 0, 0, false)]
    #[case::long_window("a", 1, 2_592_001, 0, false)]
    #[case::half_a_second("a", 1, 1, 500_000_000, false)]
    fn one_rate_limit(
        #[case] name: &str,
        #[case] requests: i64,
        #[case] seconds: i64,
        #[case] nanos: i32,
        #[case] good: bool,
    ) {
        let window = Some(prost_types::Duration { seconds, nanos });
        let limit = pb::RateLimit { name: name.into(), requests, window };
        assert_eq!(rate_limits("f", std::slice::from_ref(&limit)).is_ok(), good);
        assert!(rate_limits("f", &[limit.clone(), limit]).is_err(), "a name stands once");
    }

    #[test]
    fn there_are_not_too_many_and_none_twice() {
        let numbers = |count: usize| (0..count).map(|i| format!("a{i}"));
        let many_scopes = |count| scopes("f", &numbers(count).collect::<Vec<_>>()).is_ok();
        assert!(many_scopes(50) && !many_scopes(51));
        let many_tags =
            |count| tags("f", &numbers(count).map(|name| (name, String::new())).collect()).is_ok();
        assert!(many_tags(20) && !many_tags(21));
        let networks = |count: usize| (0..count).map(|i| format!("192.0.2.{i}/32")).collect::<Vec<_>>();
        let many_networks = |count| allowed_networks("f", &networks(count)).is_ok();
        assert!(many_networks(50) && !many_networks(51));
        assert!(scopes("f", &["a".into(), "b".into(), "a".into()]).is_err());
        assert!(allowed_networks("f", &["::/0".into(), "0::/0".into()]).is_err());
        assert!(owner("f", "acc_00000000000000000000000000").is_ok());
        assert!(owner("f", "svc_00000000000000000000000000").is_ok());
        assert!(owner("f", "key_00000000000000000000000000").is_err());
    }
}
