//! The built executable as a child of the test, among neighbours that live or not.

mod audit;
mod blocklist;
mod boot;
mod cutover;
mod database;
mod doctor;
mod faults;
mod hostile;
mod issuer_keys;
mod jobs;
mod kill;
mod licenses;
mod mail;
mod meanwhile;
mod pause;
mod people;
mod real_issuer;
mod reload;
mod rotation;
mod scoreboard;
mod signals;
mod tls;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use doorward_testkit::{
    folder,
    mail::MailSink,
    port,
    process::Process,
    wire::{Answer, Wire},
};
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for something that has no bound of its own.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the README promises is a second. The rest is for a machine that stood still: whatever else would bring it about
/// takes ten seconds or more, and the figures that are printed say how long it took.
pub(crate) const A_SECOND: Duration = Duration::from_secs(8);

/// A folder with a configuration, and the executable run in it.
struct Installation {
    dir: TempDir,
    port: u16,
}

impl Installation {
    /// `rest` follows after the addresses.
    fn with(rest: &str) -> Self {
        let this = Self { dir: folder::quick(), port: port::free() };
        this.configure(rest);
        this
    }

    /// A folder without a configuration.
    fn bare() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), port: 0 }
    }

    /// Another file in place of the one there is.
    fn configure(&self, rest: &str) {
        let port = self.port;
        let head = format!(
            "public_url = \"http://127.0.0.1:{port}\"\n[listen]\nhttp = \"127.0.0.1:{port}\"\nadmin = \"127.0.0.1:0\"\n"
        );
        fs::write(self.path().join("doorward.toml"), head + rest).unwrap();
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.current_dir(self.path()).args(arguments);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("DOORWARD_") || name == "RUST_LOG" {
                command.env_remove(&*name);
            }
        }
        command
    }

    /// Runs a command to its end, beside the test's own servers.
    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Runs a command that must succeed.
    async fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", all(&output));
        all(&output)
    }

    /// Starts the server and waits until its port is open; how long that took.
    async fn serve_timed(&self, arguments: &[&str]) -> (Process, Duration) {
        let arguments: Vec<&str> = ["serve"].iter().chain(arguments).copied().collect();
        let started = now();
        let mut server = Process::start("doorward", &mut self.command(&arguments));
        while tokio::net::TcpStream::connect(self.address()).await.is_err() {
            assert!(server.is_running(), "it ended:\n{}", server.output());
            assert!(started.elapsed() < PATIENCE, "the port stays closed:\n{}", server.output());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (server, started.elapsed())
    }

    async fn serve(&self) -> Process {
        self.serve_timed(&[]).await.0
    }

    /// Like [`Installation::serve`], and waits until the store answers.
    async fn serve_ready(&self) -> Process {
        let server = self.serve().await;
        self.until_ready().await;
        server
    }

    async fn until_ready(&self) {
        until("ready", PATIENCE, async || (self.get("/readyz", "").await.status == 200).then_some(())).await;
    }

    /// `fields` are whole header lines.
    async fn get(&self, target: &str, fields: &str) -> Answer {
        Wire::ask(self.address(), self.request(target, fields)).await
    }

    /// Like [`Installation::get`], and again while the answer is "not now": a machine that stands still may keep the store, the
    /// revocations or an issuer's keys for longer than a request waits for them.
    async fn judged(&self, target: &str, fields: &str) -> Answer {
        let ask = async || Some(self.get(target, fields).await).filter(|answer| answer.status != 503);
        until("the request is judged", PATIENCE, ask).await.0
    }

    /// Like [`Installation::get`], with a credential that is being revoked: `None` where the answer was let out and is cut
    /// on its way.
    async fn try_get(&self, target: &str, fields: &str) -> Option<Answer> {
        let mut wire = Wire::to(self.address()).await;
        wire.send(self.request(target, fields)).await;
        wire.try_answer().await
    }

    fn request(&self, target: &str, fields: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", self.address())
    }

    async fn post(&self, target: &str, fields: &str, body: &Value) -> Answer {
        let (host, body) = (self.address(), body.to_string());
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{fields}\r\n",
            body.len()
        );
        Wire::ask(host, head + &body).await
    }

    /// Signs in by mail; the `Cookie` line of the session.
    async fn sign_in(&self, sink: &MailSink, email: &str) -> String {
        let before = sink.mails().await.len();
        let asked = self.post("/auth/login/request-link", "", &serde_json::json!({ "email": email })).await;
        assert_eq!(asked.status, 200, "{asked:?}");
        let login = cookie(&asked, "doorward_login");
        let mails = sink.arrived(before + 1).await;
        let text = mails.last().and_then(|mail| mail.text.clone()).unwrap();
        let link = text.split_whitespace().find(|word| word.contains("/login/callback?token=")).unwrap();
        let token = link.split_once("?token=").unwrap().1;
        let body = serde_json::json!({ "token": token });
        let done = self.post("/auth/login/callback", &format!("Cookie: {login}\r\n"), &body).await;
        assert_eq!(done.status, 200, "{done:?}");
        format!("Cookie: {}\r\n", cookie(&done, "doorward_sid"))
    }
}

/// `name=value` of a cookie that an answer sets.
fn cookie(answer: &Answer, name: &str) -> String {
    let mut set = answer.head.lines().filter_map(|line| line.split_once(": ")).filter_map(|(field, value)| {
        let pair = value.split(';').next()?;
        (field.eq_ignore_ascii_case("set-cookie") && pair.split('=').next() == Some(name)).then(|| pair.to_owned())
    });
    set.next_back().unwrap_or_else(|| panic!("no cookie {name} in {}", answer.head))
}

/// The reason that an answer names.
fn reason(answer: &Answer) -> (u16, Option<&str>) {
    (answer.status, answer.header("x-doorward-reason"))
}

/// Whether it says that the revocations could not be read in time. Under load that is about a machine that is starved, and
/// about no key; what the server owes whoever waits for them is in `pause.rs`.
fn is_behind(answer: &Answer) -> bool {
    reason(answer) == (503, Some("shared_unavailable"))
}

/// Everything that a command printed.
fn all(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Asks until the answer is there; how long that took. Fails after `bound`.
pub(crate) async fn until<T>(what: &str, bound: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> (T, Duration) {
    let started = now();
    loop {
        if let Some(value) = ask().await {
            return (value, started.elapsed());
        }
        assert!(started.elapsed() < bound, "not within {bound:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Prints a figure past the capture of the test runner's output.
fn figure(what: &str, value: Duration) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "FIGURE {what}: {value:.1?} (unoptimised build)");
}

#[allow(clippy::disallowed_methods, reason = "measures, does not decide")]
fn now() -> Instant {
    Instant::now()
}
