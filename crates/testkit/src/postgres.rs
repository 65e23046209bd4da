//! A private PostgreSQL server, made for the tests of one process and gone with it.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    os::unix::{
        fs::{MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{neighbour, port};

/// How long the server may take to make its files, to start or to stop, on a loaded machine.
const WITHIN: Duration = Duration::from_secs(60);

/// The user `nobody`: PostgreSQL refuses to run as root.
pub(crate) const NOBODY: u32 = 65534;

/// Whether commits reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// As in production.
    On,
    /// Several times faster, and lost with the machine (not with the server process).
    Off,
}

/// A running server on a loopback port of its own. User `app` gets in without a password.
pub struct Postgres {
    bin: PathBuf,
    folder: PathBuf,
    root: bool,
    port: u16,
    fsync: Fsync,
    /// A shell that holds the server: it ends the server when our end of its input closes, however we end.
    keeper: Mutex<Option<Child>>,
    databases: AtomicU64,
}

/// The keeper. `$1` postgres, `$2` folder, `$3` port, `$4` on or off.
const KEEPER: &str = r#"
"$1" -D "$2/data" -p "$3" -c listen_addresses=127.0.0.1 -c unix_socket_directories="$2" -c max_connections=300 \
    -c fsync="$4" -c full_page_writes="$4" >>"$2/log" 2>&1 &
server=$!
cat >/dev/null
kill -QUIT $server 2>/dev/null
wait $server
[ -e "$2/keep" ] || rm -rf "$2"
"#;

/// The server that the tests of this process share; nothing if PostgreSQL is missing (an error under `CI=true`).
///
/// # Panics
/// If it does not start.
pub fn shared() -> Option<&'static Postgres> {
    static SERVER: OnceLock<Option<Postgres>> = OnceLock::new();
    let found = SERVER.get_or_init(|| neighbour::postgres_bin().map(|bin| Postgres::start(bin, Fsync::Off)));
    neighbour::require("postgresql", found.as_ref())
}

/// A server of one's own, for tests that stop it; nothing if PostgreSQL is missing (an error under `CI=true`).
///
/// # Panics
/// If it does not start.
pub fn own(fsync: Fsync) -> Option<Postgres> {
    neighbour::require("postgresql", neighbour::postgres_bin()).map(|bin| Postgres::start(bin, fsync))
}

impl Postgres {
    fn start(bin: PathBuf, fsync: Fsync) -> Self {
        let folder = tempfile::Builder::new().prefix("doorward-pg-").tempdir().unwrap().keep();
        let root = fs::metadata(&folder).unwrap().uid() == 0;
        if root {
            chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = folder.join("data");
        let made = unprivileged(&bin.join("initdb"), &folder, root)
            .args(["-A", "trust", "-U", "app", "-E", "UTF8", "--no-locale", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb failed:\n{}", String::from_utf8_lossy(&made.stderr));
        let (keeper, databases) = (Mutex::new(None), AtomicU64::new(0));
        let server = Self { bin, folder, root, port: port::free(), fsync, keeper, databases };
        server.begin();
        server
    }

    /// Starts the server and waits until it takes connections.
    fn begin(&self) {
        let mut command = unprivileged(Path::new("/bin/sh"), &self.folder, self.root);
        let switch = if self.fsync == Fsync::On { "on" } else { "off" };
        command
            .args(["-c", KEEPER, "postgres-keeper"])
            .arg(self.bin.join("postgres"))
            .arg(&self.folder)
            .args([self.port.to_string().as_str(), switch])
            .stdin(Stdio::piped())
            .process_group(0); // Ctrl-C ends the tests, and their end ends the server
        fs::remove_file(self.folder.join("keep")).ok();
        *self.keeper.lock().unwrap() = Some(command.spawn().unwrap());
        self.wait("take connections", || {
            let args = ["-q", "-t", "1", "-U", "app", "-h", "127.0.0.1", "-d", "postgres", "-p"];
            self.command("pg_isready").args(args).arg(self.port.to_string()).status().unwrap().success()
        });
    }

    /// Stops the server as a crash would: connections break, nothing is written down any more.
    ///
    /// # Panics
    /// If it does not stop.
    pub fn crash(&self) {
        fs::write(self.folder.join("keep"), "").unwrap();
        let keeper = self.keeper.lock().unwrap().take();
        if let Some(mut keeper) = keeper {
            drop(keeper.stdin.take());
            keeper.wait().unwrap();
        }
        self.wait("stop", || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err());
    }

    /// Starts it again after [`Postgres::crash`], on the same port with the same data.
    ///
    /// # Panics
    /// If it does not start.
    pub fn revive(&self) {
        self.begin();
    }

    /// Starts it again as a hot standby: it is read from, waits for a primary that never speaks, and takes no writes.
    ///
    /// # Panics
    /// If it does not start.
    pub fn become_standby(&self) {
        self.sql("postgres", "CHECKPOINT");
        self.crash();
        fs::write(self.folder.join("data/standby.signal"), "").unwrap();
        self.begin();
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes an empty database and gives its URL.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://app@127.0.0.1:{}/{name}", self.port)
    }

    /// Runs a statement as the owner of everything and gives what it printed, unadorned.
    ///
    /// # Panics
    /// If the statement fails.
    pub fn sql(&self, database: &str, text: &str) -> String {
        let out = self
            .command("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "app", "-d", database])
            .args(["-p", &self.port.to_string(), "-c", text])
            .output()
            .unwrap();
        assert!(out.status.success(), "psql failed:\n{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.stdin(Stdio::null()).env("PGCONNECT_TIMEOUT", "10");
        command
    }

    fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = now();
        while !done() {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(start.elapsed() < WITHIN, "PostgreSQL does not {what}; its log:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.get_mut().unwrap().take() {
            drop(keeper.stdin.take()); // the keeper ends the server and removes the folder
            keeper.wait().ok();
        } else {
            fs::remove_dir_all(&self.folder).ok();
        }
    }
}

/// A command in `folder` as somebody whom PostgreSQL accepts.
pub(crate) fn unprivileged(program: &Path, folder: &Path, root: bool) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("HOME", folder).stdin(Stdio::null()).stdout(Stdio::null());
    if root {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

#[allow(clippy::disallowed_methods, reason = "a bound on how long a test helper waits")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_keeps_its_data_over_a_crash_and_leaves_nothing_behind() {
        let Some(server) = own(Fsync::Off) else { return };
        let url = server.database();
        let name = url.rsplit('/').next().unwrap();
        server.sql(name, "CREATE TABLE a (b BIGINT); INSERT INTO a VALUES (7)");
        server.crash();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).is_err());
        server.revive();
        assert_eq!(server.sql(name, "SELECT b FROM a"), "7");
        let (folder, port) = (server.folder.clone(), server.port);
        drop(server);
        assert!(!folder.exists());
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    }
}
