//! A private PgBouncer in front of a private PostgreSQL.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::{MetadataExt as _, chown},
    time::Duration,
};

use crate::{
    neighbour, port,
    postgres::{NOBODY, Postgres, unprivileged},
    process::Process,
};

/// How long it may take to start, on a loaded machine.
const WITHIN: Duration = Duration::from_secs(30);

/// A running pooler on a loopback port of its own. Dropping it ends it.
pub struct PgBouncer {
    _folder: tempfile::TempDir,
    _process: Process,
    port: u16,
}

impl PgBouncer {
    /// One in front of every database of `server`, with this `pool_mode`; nothing if PgBouncer is missing (an error under
    /// `CI=true`).
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(server: &Postgres, mode: &str) -> Option<Self> {
        let program = neighbour::require("pgbouncer", neighbour::program("pgbouncer"))?;
        let folder = tempfile::Builder::new().prefix("doorward-pgbouncer-").tempdir().unwrap();
        let (port, server) = (port::free(), server.port());
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={server} user=app\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n"
        );
        fs::write(folder.path().join("pgbouncer.ini"), settings).unwrap();
        // As PostgreSQL, it refuses to run as root.
        let root = fs::metadata(folder.path()).unwrap().uid() == 0;
        if root {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let process = Process::start("pgbouncer", unprivileged(&program, folder.path(), root).arg("pgbouncer.ini"));
        let address = (Ipv4Addr::LOCALHOST, port).into();
        assert!(port::opens(address, WITHIN).await, "PgBouncer takes no connections:\n{}", process.output());
        Some(Self { _folder: folder, _process: process, port })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}
