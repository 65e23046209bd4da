//! How a Redis URL is read and a connection made.

use std::{sync::Arc, time::Duration};

use redis::{
    RedisConnectionInfo,
    aio::{AsyncStream, MultiplexedConnection},
};
use rustls::{ClientConfig, crypto::aws_lc_rs, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::{net::TcpStream, sync::oneshot, time::timeout};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::Task;
use crate::StoreConfigError;

/// How long connecting and signing in may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Where the server is and how to get in.
pub(super) struct Target {
    host: String,
    port: u16,
    has_tls: bool,
    info: RedisConnectionInfo,
    /// `host:port`, without user and password.
    pub(super) name: String,
}

/// A connection and the task that moves its bytes, which ends with it.
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    pub(super) driver: Task,
}

impl Target {
    /// Reads `redis://user:password@host:port/database`, `rediss://` for TLS.
    pub(super) fn parse(url: &str) -> Result<Self, StoreConfigError> {
        let bad = |note: &str| StoreConfigError::BadRedisUrl { note: note.to_owned() };
        let url = Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        let has_tls = match url.scheme() {
            "redis" => false,
            "rediss" => true,
            _ => return Err(bad("it starts with neither redis:// nor rediss://")),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("it has a query or a fragment; in a password write ? # as %3F %23"));
        }
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
            None => return Err(bad("it names no host")),
        };
        let decode = |text: &str| {
            let bytes = percent_encoding::percent_decode_str(text);
            bytes.decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| bad("user or password is no text"))
        };
        let mut info = RedisConnectionInfo::default().set_skip_set_lib_name();
        if !url.username().is_empty() {
            info = info.set_username(decode(url.username())?);
        }
        if let Some(password) = url.password() {
            info = info.set_password(decode(password)?);
        }
        match url.path().trim_matches('/') {
            "" => {}
            number => match number.parse::<u16>() {
                Ok(number) => info = info.set_db(i64::from(number)),
                Err(_) => return Err(bad("the path is no number of a database")),
            },
        }
        let port = url.port().unwrap_or(6379);
        Ok(Self { name: format!("{host}:{port}"), host, port, has_tls, info })
    }

    /// Connects and signs in; what was met, without a secret, if that fails.
    pub(super) async fn connect(&self) -> Result<Connected, String> {
        let slow = |_| Err(format!("no connection within {CONNECT:?}"));
        timeout(CONNECT, self.connect_in_time()).await.unwrap_or_else(slow)
    }

    async fn connect_in_time(&self) -> Result<Connected, String> {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| failed(&error))?;
        tcp.set_nodelay(true).map_err(|error| failed(&error))?;
        let stream: std::pin::Pin<Box<dyn AsyncStream + Send + Sync>> = if self.has_tls {
            let name = ServerName::try_from(self.host.clone()).map_err(|error| failed(&error))?;
            let connector = TlsConnector::from(Arc::new(tls().map_err(|error| failed(&error))?));
            Box::pin(connector.connect(name, tcp).await.map_err(|error| failed(&error))?)
        } else {
            Box::pin(tcp)
        };
        // The task owns what it borrows from; it ends with the connection, or with us if we are given up.
        let (info, (made, connection)) = (self.info.clone(), oneshot::channel());
        let driver = Task(tokio::spawn(async move {
            match MultiplexedConnection::new(&info, stream).await {
                Ok((connection, driver)) => {
                    if made.send(Ok(connection)).is_ok() {
                        driver.await;
                    }
                }
                Err(error) => drop(made.send(Err(error))),
            }
        }));
        let connection = connection.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        Ok(Connected { connection, driver })
    }
}

fn tls() -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?;
    Ok(builder.with_platform_verifier()?.with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Target {
        Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn a_url_names_host_port_user_password_and_database() {
        let target = read("rediss://app:p%40ss@cache.example.com/3");
        assert_eq!((target.name.as_str(), target.has_tls), ("cache.example.com:6379", true));
        assert_eq!((target.info.username(), target.info.password(), target.info.db()), (Some("app"), Some("p@ss"), 3));
        let target = read("redis://:hunter2@[::1]:7000");
        assert_eq!((target.host.as_str(), target.port, target.has_tls), ("::1", 7000, false));
        assert_eq!((target.info.username(), target.info.password()), (None, Some("hunter2")));
    }

    #[test]
    fn a_url_that_cannot_be_used_does_not_repeat_its_password() {
        for url in ["http://:hunter2@host", "redis://:hunter2@host/x", "redis://:hunter2@host?db=1", "redis:///0"] {
            let error = Target::parse(url).err().unwrap().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
