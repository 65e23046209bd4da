//! `[listen]`: where Doorward listens and whom it believes.

use std::{net::SocketAddr, path::PathBuf};

use doorward_core::client::Cidr;

use super::{key::settings, read::Reader, scalar::SecretText};

settings! {
    /// Where Doorward listens, and which peers may speak for others.
    pub struct Listen check Listen::check {
        /// Address of the HTTP listener (h2c and HTTP/1.1). Put TLS in front of it, or use `https`.
        http: SocketAddr = default "127.0.0.1:8080";
        /// Address of the TLS listener (h2 and HTTP/1.1). Needs `tls`.
        https: SocketAddr = optional "0.0.0.0:8443";
        /// Certificate of the TLS listener; both files are read again when they change.
        tls: Tls = optional { cert_file = "./tls/cert.pem", key_file = "./tls/key.pem" };
        /// Address of the admin listener: `/metrics`, deep health, console. Off loopback it needs `admin_token`.
        admin: SocketAddr = default "127.0.0.1:8081";
        /// Bearer token that the admin listener asks for; needed when it is not on loopback.
        admin_token: SecretText<32> = optional "a secret of 32 characters or more", or_file;
        /// Peers that may set `X-Forwarded-*` and ask the forward-auth routes. Nobody else is believed.
        trusted_proxies: Vec<Cidr> = default ["127.0.0.1/32"];
    }

    /// A certificate and its key, PEM.
    pub struct Tls {
        /// Certificate chain, the server's own certificate first.
        cert_file: PathBuf = required "./tls/cert.pem";
        /// Private key of the first certificate.
        key_file: PathBuf = required "./tls/key.pem";
    }
}

impl Listen {
    fn check(&self, cx: &mut Reader<'_>) {
        if self.https.is_some() && self.tls.is_none() {
            cx.problem_in(
                "https",
                "a TLS listener needs a certificate",
                "add `tls = { cert_file = \"…\", key_file = \"…\" }` to [listen], or remove `https`",
            );
        }
        if self.https.is_none() && self.tls.is_some() {
            cx.problem_in(
                "tls",
                "a certificate without a TLS listener",
                "add `https = \"0.0.0.0:8443\"`, or remove `tls`",
            );
        }
        if let Some(tls) = &self.tls {
            for (name, path) in [("tls.cert_file", &tls.cert_file), ("tls.key_file", &tls.key_file)] {
                if let Err(what) = cx.read_file(path) {
                    cx.problem_in(name, what, format!("make {} a readable PEM file", path.display()));
                }
            }
        }
        if !self.admin.ip().is_loopback() && self.admin_token.is_none() {
            cx.problem_in(
                "admin",
                format!("the admin listener on {} is open to other machines and asks for no token", self.admin),
                "listen on loopback (`admin = \"127.0.0.1:8081\"`), or set `admin_token_file`",
            );
        }
        let used = [("http", Some(self.http)), ("https", self.https), ("admin", Some(self.admin))];
        for (i, (name, address)) in used.iter().enumerate() {
            let earlier = used[..i].iter().find(|(_, other)| other == address);
            if let (Some(address), Some((other, _))) = (address.filter(|address| address.port() != 0), earlier) {
                cx.problem_in(name, format!("{address} is taken by `{other}` already"), "choose another port");
            }
        }
    }
}
