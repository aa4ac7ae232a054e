//! How much of its callers' addresses a workspace lets be kept. Pure.

use std::net::Ipv6Addr;

/// Bits of an IPv4 address, as `::ffff:a.b.c.d`, and of an IPv6 address that are left of a truncated one.
const IPV4_BITS: u32 = 96 + 24;
const IPV6_BITS: u32 = 48;

/// What is kept of the addresses that calls come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AddressStorage {
    /// The whole address.
    #[default]
    Whole,
    /// Its network: /24 of IPv4, /48 of IPv6.
    Truncated,
    /// Nothing: `::`.
    None,
}

impl AddressStorage {
    /// What is kept of an address; IPv4 as `::ffff:a.b.c.d`.
    #[must_use]
    pub fn keep(self, address: Ipv6Addr) -> Ipv6Addr {
        match self {
            Self::Whole => address,
            Self::Truncated => {
                let bits = if address.to_ipv4_mapped().is_some() { IPV4_BITS } else { IPV6_BITS };
                Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - bits)))
            }
            Self::None => Ipv6Addr::UNSPECIFIED,
        }
    }

    /// The name in SQL and in the audit trail.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Truncated => "truncated",
            Self::None => "none",
        }
    }
}

impl std::str::FromStr for AddressStorage {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Whole, Self::Truncated, Self::None].into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_as_far_as_is_wished() {
        let check = |storage: AddressStorage, address: &str, kept: &str| {
            assert_eq!(storage.keep(address.parse().unwrap()), kept.parse::<Ipv6Addr>().unwrap());
            assert_eq!(storage.as_str().parse(), Ok(storage));
        };
        check(AddressStorage::Whole, "::ffff:192.0.2.77", "::ffff:192.0.2.77");
        check(AddressStorage::Truncated, "::ffff:192.0.2.77", "::ffff:192.0.2.0");
        check(AddressStorage::Truncated, "::ffff:255.255.255.255", "::ffff:255.255.255.0");
        check(AddressStorage::Truncated, "2001:db8:1:2:3:4:5:6", "2001:db8:1::");
        check(AddressStorage::Truncated, "::", "::");
        check(AddressStorage::None, "2001:db8:1:2:3:4:5:6", "::");
        check(AddressStorage::None, "::ffff:192.0.2.77", "::");
    }
}
