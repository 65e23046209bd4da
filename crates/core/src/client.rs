//! Who the client is, when trusted proxies stand in front.

use std::{fmt, net::IpAddr, str::FromStr};

use http::{HeaderMap, HeaderName};

use crate::{decision::Denial, reason::Reason, request::Scheme};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How many hops of `X-Forwarded-For` are followed at most.
const MAX_HOPS: usize = 32;

/// A network: an address and how many leading bits count (RFC 4632 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CidrError {
    /// Not an IP address before the slash.
    Address,
    /// Not a number of bits that the address has.
    Bits,
    /// Bits are set behind the prefix; the network that was probably meant.
    HostBits(Cidr),
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("not an IP address or network; write one like `10.0.0.0/8` or `::1`"),
            Self::Bits => f.write_str("the prefix length is no number, or more than the address has bits"),
            Self::HostBits(meant) => write!(f, "the address has bits behind its prefix; write `{meant}`"),
        }
    }
}

impl std::error::Error for CidrError {}

impl Cidr {
    /// Whether `address` lies in the network. An IPv4 address in its IPv6 mapping counts as itself.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                same_prefix(u32::from(network).into(), u32::from(address).into(), 32 - u32::from(self.bits))
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                same_prefix(network.into(), address.into(), 128 - u32::from(self.bits))
            }
            _ => false,
        }
    }
}

/// Whether two addresses are equal without their last `free` bits.
fn same_prefix(one: u128, other: u128, free: u32) -> bool {
    (one ^ other).checked_shr(free).unwrap_or(0) == 0
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Reads `address/bits`, or an address alone for itself.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| CidrError::Address)?;
        if network.to_canonical() != network {
            return Err(CidrError::Address);
        }
        let width = if network.is_ipv4() { 32 } else { 128 };
        let plain = |bits: &str| bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
        let bits = match bits {
            None => width,
            Some(bits) if plain(bits) => bits.parse().ok().filter(|&bits| bits <= width).ok_or(CidrError::Bits)?,
            Some(_) => return Err(CidrError::Bits),
        };
        let free = u32::from(width - bits);
        let masked: IpAddr = match network {
            IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) & u32::MAX.checked_shl(free).unwrap_or(0)).into()),
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & u128::MAX.checked_shl(free).unwrap_or(0)).into()),
        };
        let cidr = Self { network: masked, bits };
        if masked == network { Ok(cidr) } else { Err(CidrError::HostBits(cidr)) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.bits)
    }
}

/// The proxies that may say for whom they ask. Empty trusts nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Cidr>);

impl TrustedProxies {
    /// From the networks of the config.
    pub fn new(networks: Vec<Cidr>) -> Self {
        Self(networks)
    }

    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// What the client's side of a request looks like once forwarding headers are believed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client<'a> {
    /// Address.
    pub ip: IpAddr,
    /// Scheme that the client used.
    pub scheme: Scheme,
    /// Host that the client asked for, as written; not yet judged.
    pub host: &'a str,
    /// Whether the peer itself is a trusted proxy.
    pub via_proxy: bool,
}

/// Derives the client of a request.
///
/// From a trusted peer, `X-Forwarded-For` is read from its right end: every trusted hop is skipped, the
/// first other one is the client. A hop that is no address ends the walk at the hop before it: what
/// lies further left cannot be known. `X-Forwarded-Proto` and `-Host` replace scheme and host. From any
/// other peer all of them are ignored, and `Forwarded`, `X-Real-IP` and the like always are.
///
/// `scheme` and `host` are those of the connection and the request itself.
///
/// # Errors
/// `request_malformed` if a trusted peer sends `X-Forwarded-Proto` or `-Host` twice or as a list, or
/// a scheme that is none: a proxy that appends to what a client sent cannot be believed.
pub fn derive<'a>(
    peer: IpAddr,
    scheme: Scheme,
    host: &'a str,
    headers: &'a HeaderMap,
    trusted: &TrustedProxies,
) -> Result<Client<'a>, Denial> {
    let peer = peer.to_canonical();
    if !trusted.contains(peer) {
        return Ok(Client { ip: peer, scheme, host, via_proxy: false });
    }
    let scheme = match single(headers, &FORWARDED_PROTO)? {
        None => scheme,
        Some(word) => read_scheme(word)
            .ok_or_else(|| Denial::from(Reason::RequestMalformed).with_note("x-forwarded-proto: not http or https"))?,
    };
    let host = single(headers, &FORWARDED_HOST)?.unwrap_or(host);
    Ok(Client { ip: client_ip(peer, headers, trusted), scheme, host, via_proxy: true })
}

/// Reads a scheme as proxies send it; some name a WebSocket's.
fn read_scheme(word: &str) -> Option<Scheme> {
    Scheme::parse(word).or_else(|| match word {
        _ if word.eq_ignore_ascii_case("ws") => Some(Scheme::Http),
        _ if word.eq_ignore_ascii_case("wss") => Some(Scheme::Https),
        _ => None,
    })
}

/// The one value of a header that must not be a list.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Denial> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str() {
        Ok(text) if values.next().is_none() && !text.contains(',') => Ok(Some(text.trim())),
        _ => {
            Err(Denial::from(Reason::RequestMalformed).with_note(format!("{name}: more than one value, or not ASCII")))
        }
    }
}

/// The rightmost hop that is not trusted.
fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> IpAddr {
    let mut client = peer;
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','));
    for hop in hops.take(MAX_HOPS) {
        let Some(hop) = read_hop(hop) else { break };
        client = hop;
        if !trusted.contains(hop) {
            break;
        }
    }
    client
}

/// Reads one hop: an address, perhaps with a port, IPv6 then in brackets.
fn read_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim_matches([' ', '\t']);
    let address = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let port_ok = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
            port_ok.then(|| address.parse::<IpAddr>().ok()).flatten().filter(IpAddr::is_ipv6)
        }
        None => text.parse().ok().or_else(|| text.parse::<std::net::SocketAddrV4>().ok().map(|at| (*at.ip()).into())),
    };
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn proxies() -> TrustedProxies {
        TrustedProxies::new(["127.0.0.1", "10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).to_vec())
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for &(name, value) in pairs {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn address(peer: &str, lines: &[&'static str]) -> IpAddr {
        let lines: Vec<_> = lines.iter().map(|&line| ("x-forwarded-for", line)).collect();
        derive(ip(peer), Scheme::Http, "a", &headers(&lines), &proxies()).unwrap().ip
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_other() {
        let holds = |network: &str, address: &str| network.parse::<Cidr>().unwrap().contains(ip(address));
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.1.1") && !holds("::/0", "10.1.1.1"));
        assert!(holds("0.0.0.0/0", "1.2.3.4") && holds("::1", "::1") && !holds("::1", "::2"));
        assert!(holds("2001:db8::/33", "2001:db8:7fff::1") && !holds("2001:db8::/33", "2001:db8:8000::1"));
    }

    #[test]
    fn what_is_no_network_says_what_to_write() {
        let error = |text: &str| text.parse::<Cidr>().unwrap_err();
        for text in ["", "localhost", "10.0.0", "10.0.0.0.0/8", " 10.0.0.0/8", "::ffff:10.0.0.0/104"] {
            assert_eq!(error(text), CidrError::Address, "{text}");
        }
        for text in ["10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0.0.0/08", "10.0.0.0/8/8"] {
            assert_eq!(error(text), CidrError::Bits, "{text}");
        }
        assert_eq!(error("10.1.0.0/8").to_string(), "the address has bits behind its prefix; write `10.0.0.0/8`");
    }

    #[test]
    fn the_client_is_the_rightmost_hop_that_is_not_trusted() {
        assert_eq!(address("127.0.0.1", &[]), ip("127.0.0.1"));
        assert_eq!(address("127.0.0.1", &["6.6.6.6, 10.0.0.7"]), ip("6.6.6.6"));
        assert_eq!(address("127.0.0.1", &["1.1.1.1, 6.6.6.6, 10.0.0.7"]), ip("6.6.6.6"));
        assert_eq!(address("127.0.0.1", &["6.6.6.6", "10.0.0.7"]), ip("6.6.6.6"));
        assert_eq!(address("127.0.0.1", &["10.0.0.8, 10.0.0.7"]), ip("10.0.0.8"));
        assert_eq!(address("::ffff:127.0.0.1", &["[2001:db8::1]:443"]), ip("2001:db8::1"));
        assert_eq!(address("127.0.0.1", &["6.6.6.6:1234"]), ip("6.6.6.6"));
    }

    #[test]
    fn a_hop_that_is_no_address_ends_the_walk() {
        assert_eq!(address("127.0.0.1", &["6.6.6.6, unknown"]), ip("127.0.0.1"));
        assert_eq!(address("127.0.0.1", &["6.6.6.6, unknown, 10.0.0.7"]), ip("10.0.0.7"));
        assert_eq!(address("127.0.0.1", &["6.6.6.6, "]), ip("127.0.0.1"));
        let long: &'static str = Box::leak(vec!["10.0.0.7"; 40].join(",").into_boxed_str());
        assert_eq!(address("127.0.0.1", &["6.6.6.6", long]), ip("10.0.0.7"));
    }

    #[test]
    fn an_untrusted_peer_says_nothing_about_itself() {
        let said = headers(&[
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil.test"),
        ]);
        let client = derive(ip("8.8.8.8"), Scheme::Http, "a", &said, &proxies()).unwrap();
        assert_eq!(client, Client { ip: ip("8.8.8.8"), scheme: Scheme::Http, host: "a", via_proxy: false });
    }

    #[test]
    fn a_trusted_peer_says_scheme_and_host_once_each() {
        let said = headers(&[("x-forwarded-proto", "WSS"), ("x-forwarded-host", "b:8443"), ("x-real-ip", "9.9.9.9")]);
        let client = derive(ip("10.0.0.7"), Scheme::Http, "a", &said, &proxies()).unwrap();
        assert_eq!(client, Client { ip: ip("10.0.0.7"), scheme: Scheme::Https, host: "b:8443", via_proxy: true });
        for said in [
            headers(&[("x-forwarded-proto", "https"), ("x-forwarded-proto", "https")]),
            headers(&[("x-forwarded-proto", "https,http")]),
            headers(&[("x-forwarded-proto", "gopher")]),
            headers(&[("x-forwarded-proto", "")]),
            headers(&[("x-forwarded-host", "evil.test, app.example")]),
        ] {
            let denial = derive(ip("127.0.0.1"), Scheme::Http, "a", &said, &proxies()).unwrap_err();
            assert_eq!(denial.reason, Reason::RequestMalformed, "{said:?}");
        }
    }
}
