//! A client's address, cut down to what tells addresses apart. Not anonymous: who knows an address can compute it.

use std::net::Ipv6Addr;

use aws_lc_rs::digest;

/// First bytes of the SHA-256 of an address.
pub type ClientPrint = [u8; 8];

/// The print of an address; IPv4 as `::ffff:a.b.c.d`.
///
/// # Panics
/// Never: SHA-256 has more than 8 bytes.
#[must_use]
pub fn client_print(address: Ipv6Addr) -> ClientPrint {
    let digest = digest::digest(&digest::SHA256, &address.octets());
    digest.as_ref().first_chunk().copied().expect("SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_print_is_fixed() {
        // Computed outside this program: a print that changes would count every address twice.
        let print = client_print(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert_eq!(data_encoding::HEXLOWER.encode(&print), "d4e5082d5753022f");
        assert_ne!(print, client_print(Ipv4Addr::new(192, 0, 2, 2).to_ipv6_mapped()));
    }
}
