//! Addresses that may be reached: public ones, and what a system was given besides.
//!
//! Names are resolved here and nowhere else, and the connection goes to the address that was checked: a name that resolves
//! differently a moment later gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// Why a service can't be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    /// The name has no address.
    #[error("`{host}` can't be resolved")]
    Unresolved {
        host: String,
        #[source]
        source: std::io::Error,
    },
    /// An address of this machine, this network or its provider.
    #[error("`{host}` is at {address}, which is not a public address and not in the system's `networks`")]
    Private { host: String, address: IpAddr },
}

/// The addresses of a host, every one of them allowed.
pub(crate) async fn resolve(host: &str, port: u16, networks: &[IpNet]) -> Result<Vec<SocketAddr>, AddressError> {
    let unresolved = |source| AddressError::Unresolved { host: host.to_owned(), source };
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => tokio::net::lookup_host((host, port)).await.map_err(unresolved)?.collect(),
    };
    if found.is_empty() {
        return Err(unresolved(std::io::Error::other("no address")));
    }
    // One bad address spoils all: a name that mixes them is up to something.
    match found.iter().find(|address| !allowed(address.ip(), networks)) {
        Some(address) => Err(AddressError::Private { host: host.to_owned(), address: address.ip() }),
        None => Ok(found),
    }
}

fn allowed(address: IpAddr, networks: &[IpNet]) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address)) || is_public(address)
}

/// Whether an address is on the public internet (IANA's special-purpose registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240
        // Azure's metadata and DNS live at a public address.
        || address == Ipv4Addr::new(168, 63, 129, 16);
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // NAT64 and 6to4 lead to the IPv4 address within.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo, documentation, benchmarking, ORCHID.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        // Only 2000::/3 is given out.
        [first, ..] => first & 0xe000 == 0x2000 && first != 0x3fff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses() {
        for (text, expected) in [
            ("1.1.1.1", true),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("172.32.0.1", true),
            ("192.168.0.1", false),
            ("169.254.169.254", false),
            ("100.100.100.200", false),
            ("168.63.129.16", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:1.1.1.1", true),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("2606:4700::1111", true),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::", false),
            ("2002:101:101::", true),
            ("2001:db8::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(allowed(text.parse().expect("an address"), &[]), expected, "{text}");
        }
        let networks = ["127.0.0.0/8".parse().expect("a network")];
        assert!(allowed("127.0.0.1".parse().expect("an address"), &networks));
        assert!(allowed("::ffff:127.0.0.1".parse().expect("an address"), &networks));
        assert!(!allowed("10.0.0.1".parse().expect("an address"), &networks));
    }
}
