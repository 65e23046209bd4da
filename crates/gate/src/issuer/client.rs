//! The HTTP clients of all issuers: where they connect to, and what they do not follow.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use doorward_core::keys::metadata;
use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use url::Url;

/// How many redirects within the origin are followed.
const MAX_REDIRECTS: usize = 3;

/// A client for the network and one for this machine, which no proxy of the environment comes between. They follow
/// redirects only within the origin, decode no compression, and send no cookies or credentials.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    remote: Client,
    local: Client,
}

impl Clients {
    /// # Errors
    /// Where TLS cannot be set up.
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        let builder = || {
            let within_origin = redirect::Policy::custom(|attempt| {
                let is_same = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
                if is_same && attempt.previous().len() <= MAX_REDIRECTS { attempt.follow() } else { attempt.stop() }
            });
            Client::builder()
                .redirect(within_origin)
                .referer(false)
                .user_agent(concat!("doorward/", env!("CARGO_PKG_VERSION")))
                .pool_idle_timeout(std::time::Duration::from_secs(20))
                .dns_resolver(std::sync::Arc::new(Pinned))
        };
        Ok(Self { remote: builder().build()?, local: builder().no_proxy().build()? })
    }

    /// The client for `url`.
    pub(super) fn of(&self, url: &Url) -> &Client {
        if metadata::is_local(url) { &self.local } else { &self.remote }
    }
}

/// Names are resolved, checked and connected to in one go: what was checked is what is connected to, whatever the
/// name says a moment later.
#[derive(Debug)]
pub(crate) struct Pinned;

impl Resolve for Pinned {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let usable: Vec<_> = found.iter().copied().filter(|found| is_usable(name.as_str(), found.ip())).collect();
            if usable.is_empty() {
                let found: Vec<_> = found.iter().map(|found| found.ip().to_string()).collect();
                let what =
                    format!("{} stands for {}, where no neighbour of ours may be", name.as_str(), found.join(", "));
                return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, what).into());
            }
            let usable: Addrs = Box::new(usable.into_iter());
            Ok(usable)
        })
    }
}

/// Whether `name` may stand for `address`. Plain http is allowed for names of this machine, so these must mean it;
/// link-local addresses, where clouds answer for machines, are never an issuer's. Other private addresses are: the
/// issuer of a self-hosted product often has one, and its certificate proves the name.
fn is_usable(name: &str, address: IpAddr) -> bool {
    let address = address.to_canonical();
    if metadata::is_local_name(&name.to_ascii_lowercase()) {
        return address.is_loopback();
    }
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !is_link_local && !address.is_unspecified() && !address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_this_machine_means_this_machine_and_no_name_means_the_metadata_service() {
        for (name, address, expected) in [
            ("localhost", "127.0.0.1", true),
            ("sso.localhost", "::1", true),
            ("LOCALHOST", "10.0.0.1", false),
            ("sso.localhost", "93.184.216.34", false),
            ("sso.example.com", "93.184.216.34", true),
            ("sso.example.com", "10.0.0.1", true),
            ("sso.example.com", "127.0.0.1", true),
            ("sso.example.com", "169.254.169.254", false),
            ("sso.example.com", "::ffff:169.254.169.254", false),
            ("sso.example.com", "fe80::1", false),
            ("sso.example.com", "0.0.0.0", false),
            ("sso.example.com", "::", false),
            ("sso.example.com", "224.0.0.1", false),
        ] {
            assert_eq!(is_usable(name, address.parse().unwrap()), expected, "{name} {address}");
        }
    }

    #[tokio::test]
    async fn what_was_checked_is_what_is_connected_to() {
        let resolve = async |name: &str| Pinned.resolve(name.parse().unwrap()).await;
        let Ok(addresses) = resolve("localhost").await else { panic!("localhost is not known here") };
        assert!(addresses.into_iter().all(|address| address.ip().is_loopback()));
        let refused = resolve("169.254.169.254").await.err().expect("refused");
        assert!(refused.to_string().contains("where no neighbour of ours may be"), "{refused}");
    }
}
