//! Load by wrk, and what it costs the processes that bear it.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use doorward_testkit::{
    neighbour, port,
    process::Process,
    wire::{Answer, Wire},
};

use crate::{Effort, house, roles};

const WITHIN: Duration = Duration::from_secs(30);

/// A role in a process of its own.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a role that says where it listens.
    pub(crate) async fn start(role: &str, variables: &[(&str, &str)]) -> Self {
        let process = Process::start(role, this(role).envs(variables.iter().copied()));
        let address = process.line(WITHIN, |line| line.strip_prefix("listening ")?.parse().ok()).await;
        Self { process, address }
    }

    /// Starts a whole Doorward on one thread, with a person who has a session, and waits until it lets them through.
    pub(crate) async fn doorward(data: &Path, app: SocketAddr) -> (Self, String) {
        let store = house::sqlite(data).await;
        let user = house::user(&store).await;
        let cookie = house::sign_in(&store, &user, &doorward_gate::clock::Clock::system()).await;
        store.close().await;
        let port = port::free();
        fs::write(data.join("doorward.toml"), &*house::config(data, port, &format!("http://{app}"))).unwrap();
        let server = Self::serve(data, port, true);
        assert!(port::opens(server.address, WITHIN).await, "Doorward does not listen:\n{}", server.process.output());
        let ready = async {
            while ask(server.address, "/", &[format!("cookie: doorward_sid={cookie}")]).await.status != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ready = tokio::time::timeout(WITHIN, ready).await;
        assert!(ready.is_ok(), "Doorward does not let anybody through:\n{}", server.process.output());
        (server, cookie)
    }

    /// `doorward serve` in `data`, where the configuration is.
    pub(crate) fn serve(data: &Path, port: u16, one_thread: bool) -> Self {
        let mut command = this("doorward");
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DOORWARD_")) {
            command.env_remove(name);
        }
        if one_thread {
            command.env("TOKIO_WORKER_THREADS", "1");
        }
        command.current_dir(data).env("RUST_LOG", "error").args(["serve", "--config", "doorward.toml"]);
        let process = Process::start("doorward", &mut command);
        Self { process, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }
}

/// This executable in another role.
pub(crate) fn this(role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(roles::VARIABLE, role);
    command
}

/// One request over a connection of its own.
pub(crate) async fn ask(address: SocketAddr, target: &str, headers: &[String]) -> Answer {
    let fields: String = headers.iter().map(|field| format!("{field}\r\n")).collect();
    Wire::ask(address, format!("GET {target} HTTP/1.1\r\nhost: {address}\r\n{fields}connection: close\r\n\r\n")).await
}

/// What is under load, and whose CPU time that is.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) processes: Vec<u32>,
    pub(crate) url: String,
    pub(crate) headers: Vec<String>,
    /// A file with tokens, of which each request carries the next.
    pub(crate) tokens: Option<PathBuf>,
}

/// Loads everybody in turns; CPU seconds per 10,000 requests, for each contestant and turn.
pub(crate) async fn measure(program: &Path, contestants: &[Contestant], effort: Effort) -> Vec<Vec<f64>> {
    let mut costs = vec![Vec::new(); contestants.len()];
    // The first turn warms caches, pools and allocators and is thrown away.
    for round in 0..=effort.rounds {
        for turn in 0..contestants.len() {
            let at = (turn + round) % contestants.len();
            let one = &contestants[at];
            let before = cpu(&one.processes);
            let requests = wrk(program, one, if effort.is_quick || round == 0 { 1 } else { 2 }).await;
            let spent = cpu(&one.processes) - before;
            if round > 0 {
                costs[at].push(spent.as_secs_f64() / requests * 10_000.0);
            }
        }
    }
    costs
}

/// wrk, or the reason why there is none.
pub(crate) fn program() -> Option<PathBuf> {
    neighbour::program("wrk")
}

/// Runs wrk; the number of requests that were answered, all of them well.
async fn wrk(program: &Path, one: &Contestant, seconds: u32) -> f64 {
    let mut command = tokio::process::Command::new(program);
    command.args(["-t1", "-c32", &format!("-d{seconds}s")]).kill_on_drop(true);
    for header in &one.headers {
        command.args(["-H", header]);
    }
    let script = env::temp_dir().join(format!("doorward-bench-{}.lua", std::process::id()));
    if let Some(tokens) = &one.tokens {
        fs::write(&script, format!("local file = {:?}\n{SCRIPT}", tokens.display().to_string())).unwrap();
        command.arg("-s").arg(&script);
    }
    let out = command.arg(&one.url).output().await.unwrap();
    fs::remove_file(&script).ok();
    let text = String::from_utf8_lossy(&out.stdout);
    let is_good = out.status.success() && !text.contains("Non-2xx") && !text.contains("Socket errors");
    assert!(is_good, "{}: {text}{}", one.name, String::from_utf8_lossy(&out.stderr));
    let requests = text.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
    requests.unwrap_or_else(|| panic!("{}: wrk says\n{text}", one.name))
}

const SCRIPT: &str = r#"
local tokens, at = {}, 0
for line in io.lines(file) do tokens[#tokens + 1] = "Bearer " .. line end
request = function()
  at = at % #tokens + 1
  wrk.headers["Authorization"] = tokens[at]
  return wrk.format()
end
"#;

/// CPU time of these processes with all their threads so far.
fn cpu(processes: &[u32]) -> Duration {
    processes.iter().map(|id| cpu_of(*id)).sum()
}

/// `utime` and `stime` of proc_pid_stat(5); the second field may hold spaces, so counting starts behind it.
pub(crate) fn cpu_of(process: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}
