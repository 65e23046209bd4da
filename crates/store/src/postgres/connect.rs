//! How a PostgreSQL URL is read and a connection made.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::{sync::watch, time::timeout};
use tokio_postgres::{
    Client, Config, NoTls, SimpleQueryMessage,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::connection::failed;
use crate::{StoreConfigError, sql::DbError};

/// How long connecting and signing in may take.
const CONNECT: Duration = Duration::from_secs(4);

/// Where the database is and how to get there.
pub(super) struct Target {
    config: Config,
    roots: Option<Arc<RootCertStore>>,
    /// `host/database`, without user and password.
    pub(super) name: String,
}

/// Reads a URL. TLS is verified whenever it is used: `require` and `prefer` do not mean less than `verify-full`.
///
/// Without `sslmode`, a loopback or local-socket server is spoken to in the clear, any other with `prefer`.
pub(super) fn parse_url(url: &str) -> Result<Target, StoreConfigError> {
    let bad = |note: &str| StoreConfigError::BadUrl { note: note.to_owned() };
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut kept, mut mode, mut root_file) = (Vec::new(), None, None);
    for segment in query.split('&').filter(|segment| !segment.is_empty()) {
        let value = || url::form_urlencoded::parse(segment.as_bytes()).next().map(|(_, value)| value.into_owned());
        match segment.split_once('=').map_or(segment, |(key, _)| key) {
            "sslmode" => mode = value(),
            "sslrootcert" => root_file = value().map(PathBuf::from),
            _ => kept.push(segment),
        }
    }
    // The driver's error may repeat part of the password, so it is not shown.
    let rest = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    let mut config: Config = rest.parse().map_err(|_| {
        bad("host, port or an option is not understood; in a password write / ? # @ : % as %2F %3F %23 %40 %3A %25")
    })?;
    let Some(host) = config.get_hosts().first() else { return Err(bad("it names no host")) };
    let (host, local) = match host {
        Host::Tcp(host) if host.is_empty() => return Err(bad("it names no host")),
        Host::Tcp(host) => {
            let address = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
            (host.clone(), address || host == "localhost")
        }
        Host::Unix(folder) => (folder.display().to_string(), true),
    };
    config.ssl_mode(match mode.as_deref() {
        None if local => SslMode::Disable,
        None | Some("prefer" | "allow") => SslMode::Prefer,
        Some("disable") => SslMode::Disable,
        Some("require" | "verify-ca" | "verify-full") => SslMode::Require,
        Some(_) => return Err(bad("sslmode is none of disable, prefer, require, verify-full")),
    });
    let roots = root_file.as_deref().map(read_roots).transpose()?.map(Arc::new);
    config
        .application_name("doorward")
        .connect_timeout(Duration::from_secs(3))
        .keepalives_idle(Duration::from_secs(30))
        .tcp_user_timeout(Duration::from_secs(10));
    let name = format!("{host}/{}", config.get_dbname().unwrap_or("postgres"));
    Ok(Target { config, roots, name })
}

fn read_roots(file: &Path) -> Result<RootCertStore, StoreConfigError> {
    let bad = |note: String| StoreConfigError::BadRootCertificates { note: format!("{}: {note}", file.display()) };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| bad(error.to_string()))? {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() { Err(bad("it holds no certificate".to_owned())) } else { Ok(roots) }
}

impl Target {
    fn tls(&self) -> Result<MakeRustlsConnect, DbError> {
        let bad = |error: rustls::Error| DbError::Unavailable(format!("TLS cannot be set up: {error}"));
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(bad)?;
        let builder = match &self.roots {
            Some(roots) => builder.with_root_certificates(Arc::clone(roots)),
            None => builder.with_platform_verifier().map_err(bad)?,
        };
        Ok(MakeRustlsConnect::new(builder.with_no_client_auth()))
    }

    /// Connects. Nothing is set on the session yet: see [`Target::settle`].
    pub(super) async fn open(&self) -> Result<Opened, DbError> {
        let opened = async {
            let (ended, gone) = watch::channel(false);
            if self.config.get_ssl_mode() == SslMode::Disable {
                let (client, connection) = self.config.connect(NoTls).await.map_err(|error| failed(&error))?;
                tokio::spawn(drive(connection, ended));
                return Ok((client, gone));
            }
            let (client, connection) = self.config.connect(self.tls()?).await.map_err(|error| failed(&error))?;
            tokio::spawn(drive(connection, ended));
            Ok((client, gone))
        };
        self.in_time(opened).await
    }

    /// Makes sure, before anything is set, that connections are our own and lead to a server that learns first.
    ///
    /// A pooler that lends one connection of the database to several clients in turn loses the settings of our sessions, and
    /// leaves them to others who then cannot write. It shows when two connections lead to one process of the server, or one
    /// connection to two. Not noticed: a pooler that is switched to lending later.
    ///
    /// A standby learns late what was revoked, and nothing says how late: what is read there must not count as fresh.
    ///
    /// # Errors
    /// `Unavailable` where that is so, or nothing was answered in time.
    pub(super) async fn check_direct(&self, connections: &[Opened]) -> Result<(), DbError> {
        let (first, others) = connections.split_first().ok_or_else(|| DbError::Fault("no connection".to_owned()))?;
        let one = self.backend(first).await?;
        for other in others {
            let other = self.backend(other).await?;
            if one.process == other.process {
                return Err(shared());
            }
            other.check_primary(&self.name)?;
        }
        if self.backend(first).await?.process != one.process {
            return Err(shared());
        }
        one.check_primary(&self.name)
    }

    /// Asked in one message, which goes to one process whatever lies between; it sets something, and changes nothing by
    /// it, for proxies that keep a connection for whoever sets something.
    async fn backend(&self, (client, _): &Opened) -> Result<Backend, DbError> {
        let question = "SET lock_timeout TO DEFAULT; \
            SELECT pg_backend_pid(), pg_postmaster_start_time(), pg_is_in_recovery()";
        let asked = async { client.simple_query(question).await.map_err(|error| failed(&error)) };
        let answer = self.in_time(asked).await?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.ok_or_else(|| DbError::Fault("the server does not know its own process".to_owned()))?;
        let text = |column| row.get(column).unwrap_or_default().to_owned();
        Ok(Backend { process: (text(0), text(1)), is_standby: row.get(2) == Some("t") })
    }

    /// Gives the session our settings.
    pub(super) async fn settle(&self, client: &Client, deadline: Duration) -> Result<(), DbError> {
        let settings = session(deadline);
        let settled = async { client.batch_execute(&settings).await.map_err(|error| failed(&error)) };
        self.in_time(settled).await
    }

    /// Connects and settles the session, without the checks.
    pub(super) async fn connect(&self, deadline: Duration) -> Result<Client, DbError> {
        let (client, _gone) = self.open().await?;
        self.settle(&client, deadline).await?;
        Ok(client)
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
        let slow = || DbError::Unavailable(format!("{} does not answer", self.name));
        timeout(CONNECT, work).await.unwrap_or_else(|_| Err(slow()))
    }
}

/// A connection, and what becomes true when it ends, whoever ends it.
pub(super) type Opened = (Client, watch::Receiver<bool>);

/// What answers at the other end of a connection.
struct Backend {
    /// Its number, and when its server was started.
    process: (String, String),
    is_standby: bool,
}

impl Backend {
    fn check_primary(&self, name: &str) -> Result<(), DbError> {
        if !self.is_standby {
            return Ok(());
        }
        Err(DbError::Unavailable(format!(
            "{name} is a standby, which learns late of what was revoked; lead to the primary"
        )))
    }
}

fn shared() -> DbError {
    DbError::Unavailable(
        "a pooler lends one connection of the database to several clients; have it hand out whole sessions \
         (PgBouncer: pool_mode = session), or connect to the database itself"
            .to_owned(),
    )
}

async fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>>, ended: watch::Sender<bool>) {
    if let Err(error) = connection.await {
        tracing::debug!(error = %failed(&error), "a PostgreSQL connection ended");
    }
    ended.send_replace(true);
}

/// Whether the operator has said that nothing is to be written, which the settings of our own sessions hide.
///
/// # Errors
/// `Unavailable` where that is so.
pub(super) async fn check_writable(client: &Client) -> Result<(), DbError> {
    let setting = "SELECT reset_val = 'on' FROM pg_settings WHERE name = 'default_transaction_read_only'";
    let setting = client.query_one(setting, &[]).await;
    match setting.and_then(|row| row.try_get(0)).map_err(|error| failed(&error))? {
        true => Err(DbError::Unavailable("default_transaction_read_only is on: nothing may be written".to_owned())),
        false => Ok(()),
    }
}

/// The settings that every session runs with: nothing outlives its caller, nothing waits for ever, no answer before
/// the commit is durable (a stronger setting of the server stays), and nothing is written but in a transaction that was
/// begun for it: a statement that is sent right behind its `BEGIN` does nothing where that failed.
fn session(deadline: Duration) -> String {
    let millis = deadline.as_millis();
    format!(
        "SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = on; \
         SET statement_timeout = {millis}; \
         SET lock_timeout = {millis}; SET idle_in_transaction_session_timeout = {millis}; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> SslMode {
        parse_url(url).unwrap().config.get_ssl_mode()
    }

    #[tokio::test]
    async fn nothing_is_written_where_the_transaction_was_not_begun() {
        let Some(server) = doorward_testkit::postgres::shared() else { return };
        let target = parse_url(&server.database()).unwrap();
        let client = target.connect(Duration::from_secs(30)).await.unwrap();
        let begin = client.batch_execute("BEGIN READ WRITE NONSENSE");
        let (begun, written) = tokio::join!(begin, client.batch_execute("CREATE TABLE written ()"));
        assert!(begun.is_err());
        assert_eq!(check_writable(&client).await, Ok(()));
        assert_eq!(
            written.unwrap_err().code().map(tokio_postgres::error::SqlState::code),
            Some("25006"),
            "read-only transaction"
        );
        // And where it was, it is.
        client.batch_execute("BEGIN READ WRITE").await.unwrap();
        client.batch_execute("CREATE TABLE written ()").await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
    }

    #[tokio::test]
    async fn a_database_that_is_to_take_no_writes_is_left_alone() {
        let Some(server) = doorward_testkit::postgres::shared() else { return };
        let url = server.database();
        let target = parse_url(&url).unwrap();
        let name = target.config.get_dbname().unwrap();
        server.sql(name, &format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = on"));
        let client = target.connect(Duration::from_secs(30)).await.unwrap();
        assert!(client.query_one("SELECT 1", &[]).await.is_ok());
        let refused = check_writable(&client).await;
        assert!(matches!(refused, Err(DbError::Unavailable(note)) if note.contains("read_only")));
    }

    #[test]
    fn a_local_server_needs_no_tls_and_a_remote_one_gets_it() {
        assert_eq!(mode("postgres://app@127.0.0.1/db"), SslMode::Disable);
        assert_eq!(mode("postgres://app@localhost/db"), SslMode::Disable);
        assert_eq!(mode("postgres://app@%2Frun%2Fpostgresql/db"), SslMode::Disable);
        assert_eq!(mode("postgres://app@db.example.com/db"), SslMode::Prefer);
        assert_eq!(mode("postgres://app@db.example.com/db?sslmode=verify-full"), SslMode::Require);
        assert_eq!(mode("postgres://app@127.0.0.1/db?connect_timeout=2&sslmode=require"), SslMode::Require);
    }

    #[test]
    fn a_url_that_cannot_be_read_does_not_repeat_its_password() {
        for url in [
            "postgres://app:hunter2secret@host:port/db",
            "postgres://app:hunter2secret@host/db?sslmode=hunter2",
            "postgres://app:hunter2secret@host/db?sslrootcert=/no/such/file",
            "postgres:///db",
        ] {
            let error = parse_url(url).err().unwrap().to_string();
            assert!(!error.contains("hunter2") && !error.contains("secret@"), "{error}");
        }
        let target = parse_url("postgres://app:hunter2@host/db").unwrap();
        assert_eq!(target.name, "host/db");
        assert!(!format!("{:?}", target.config).contains("hunter2"));
    }
}
