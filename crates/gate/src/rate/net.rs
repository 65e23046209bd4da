//! Who counts as one client.

use std::net::IpAddr;

/// The network that counts as one client: an IPv4 address, or the /64 of an IPv6 address, because a
/// whole /64 commonly belongs to one host (CVE-2026-45364).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientNet(u128);

impl ClientNet {
    /// The network of `address`; an IPv4 address mapped into IPv6 counts as itself.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().to_bits()),
            IpAddr::V6(v6) => Self(v6.to_bits() >> 64 << 64),
        }
    }

    pub(super) fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}
