//! A private Redis server, and a client for it that knows nothing of the one under test.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use crate::{
    neighbour, port,
    process::{Process, Signal},
};

/// How long the server may take to start or to answer, on a loaded machine.
const WITHIN: Duration = Duration::from_secs(30);

/// A running server on a loopback port of its own; nothing is written to disk. Dropping it ends it.
pub struct Redis {
    folder: tempfile::TempDir,
    port: u16,
    options: Vec<String>,
    process: Option<Process>,
}

/// Starts a server with more `options` for its command line; nothing if Redis is missing (an error under `CI=true`).
///
/// # Panics
/// If it does not start.
pub async fn start(options: &[&str]) -> Option<Redis> {
    let mut redis = prepare(options)?;
    redis.revive().await;
    Some(redis)
}

/// A server that does not run yet: its port refuses connections until [`Redis::revive`].
pub fn prepare(options: &[&str]) -> Option<Redis> {
    neighbour::require("redis-server", neighbour::program("redis-server"))?;
    let folder = tempfile::Builder::new().prefix("doorward-redis-").tempdir().unwrap();
    let options = options.iter().map(|&option| option.to_owned()).collect();
    Some(Redis { folder, port: port::free(), options, process: None })
}

/// As [`start`], and speaks TLS only, with this certificate.
///
/// # Panics
/// If it does not start.
pub async fn start_tls(certificate: &str, key: &str) -> Option<Redis> {
    let mut redis = prepare(&[])?;
    for (name, content) in [("cert.pem", certificate), ("key.pem", key)] {
        std::fs::write(redis.folder.path().join(name), content).unwrap();
    }
    let port = redis.port.to_string();
    let options = ["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no", "--tls-cert-file", "cert.pem"];
    redis.options = options.into_iter().chain(["--tls-key-file", "key.pem"]).map(str::to_owned).collect();
    redis.revive().await;
    Some(redis)
}

impl Redis {
    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address without user and password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it, or starts it again, empty, after [`Redis::crash`].
    ///
    /// # Panics
    /// If it does not start.
    pub async fn revive(&mut self) {
        let mut command = Command::new(neighbour::program("redis-server").unwrap());
        command
            .current_dir(self.folder.path())
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &self.port.to_string()])
            .args(&self.options);
        self.process = Some(Process::start("redis-server", &mut command));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        assert!(port::opens(address, WITHIN).await, "redis-server takes no connections");
    }

    /// Ends it as a crash would: connections break, its data is gone.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn crash(&mut self) {
        let mut process = self.process.take().unwrap();
        process.signal(Signal::KILL);
        process.exit(WITHIN).await;
    }

    /// Holds it: connections stay open and are even made, answers do not come. Until [`Redis::resume`].
    ///
    /// # Panics
    /// If it does not run.
    pub fn hang(&mut self) {
        self.process.as_mut().unwrap().signal(Signal::STOP);
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resume(&mut self) {
        self.process.as_mut().unwrap().signal(Signal::CONT);
    }

    /// Sends a command on a connection of its own and gives back the first line of the answer, without its type.
    ///
    /// # Panics
    /// If it does not answer, or answers with an error.
    pub fn command(&self, words: &[&str]) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        stream.write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        // A simple answer, a number or an error: none is longer than this.
        BufReader::new(stream.take(512)).read_line(&mut line).unwrap();
        assert!(!line.starts_with('-') && !line.is_empty(), "{words:?}: {line}");
        line[1..].trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_answers_forgets_with_a_crash_and_comes_back() {
        let Some(mut redis) = start(&[]).await else { return };
        assert_eq!(redis.command(&["SADD", "set", "a b"]), "1");
        assert_eq!(redis.command(&["SISMEMBER", "set", "a b"]), "1");
        redis.crash().await;
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, redis.port())).is_err());
        redis.revive().await;
        assert_eq!(redis.command(&["SISMEMBER", "set", "a b"]), "0");
    }
}
