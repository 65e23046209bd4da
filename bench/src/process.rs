//! What the whole process takes: memory, time to start, bytes on disk.

use std::{
    env, fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use doorward_gate::clock::Clock;
use doorward_testkit::{neighbour, port, upstream::RawUpstream};
use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    Effort, house,
    load::{self, Server},
    report::{Report, Target, median},
    store,
};

/// Sessions that warm the database's and the allocator's own caches first.
const WARM: usize = 10_000;
const CONNECTIONS: usize = 16;

pub(crate) async fn run(report: &mut Report, effort: Effort) {
    report.table("The process", "figure", "");
    size(report);
    start(report, effort).await;
    memory(report, if effort.is_quick { 10_000 } else { 80_000 }).await;
}

/// The size of the executable of this build, stripped.
fn size(report: &mut Report) {
    let built = env::current_exe().unwrap().with_file_name("doorward");
    let Some(strip) = neighbour::program("strip").filter(|_| built.exists()) else {
        return report.skipped("size of the executable", "needs `cargo build --release -p doorward` and strip");
    };
    let folder = tempfile::tempdir().unwrap();
    let stripped = folder.path().join("doorward");
    assert!(Command::new(strip).arg("-o").arg(&stripped).arg(built).status().unwrap().success());
    let megabytes = fs::metadata(&stripped).unwrap().len() as f64 / 1e6;
    let name = "MB of the executable, stripped, profile release";
    report.absolute(name, &format!("{megabytes:.1}"), megabytes, Target::Most(25.0));
}

/// Until the port is bound, and until somebody is answered; issuer, mail server and app are dead.
async fn start(report: &mut Report, effort: Effort) {
    let turns = if effort.is_quick { 3 } else { 11 };
    let existing = store::disk();
    let port = port::free();
    configure(existing.path(), port, "http://127.0.0.1:1");
    house::sqlite(existing.path()).await.close().await;
    // Once before it counts: the root secret is made, the executable is read from disk.
    boot(existing.path(), port).await;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        with.push(boot(existing.path(), port).await);
        let fresh = store::disk();
        configure(fresh.path(), port, "http://127.0.0.1:1");
        without.push(boot(fresh.path(), port).await);
    }
    for (name, times, most) in [("an existing database", with, 50.0), ("none", without, 200.0)] {
        for (what, pick) in [("port is bound", 0), ("first answer", 1)] {
            let millis = |time: &[Duration; 2]| time[pick].as_secs_f64() * 1e3;
            let best = times.iter().map(millis).fold(f64::MAX, f64::min);
            let middle = median(times.iter().map(millis));
            let name = format!("ms until the {what}, with {name}: median (best)");
            let target = if pick == 0 { Target::Most(most) } else { Target::None };
            report.absolute(&name, &format!("{middle:.0} ({best:.0})"), middle, target);
        }
    }
}

fn configure(data: &Path, port: u16, app: &str) {
    fs::write(data.join("doorward.toml"), &*house::config(data, port, app)).unwrap();
}

/// Starts Doorward, waits for the port and for an answer, kills it.
async fn boot(data: &Path, port: u16) -> [Duration; 2] {
    let begin = Instant::now();
    let server = Server::serve(data, port, false);
    while std::net::TcpStream::connect(server.address).is_err() {
        let output = server.process.output();
        assert!(begin.elapsed() < Duration::from_secs(30), "Doorward does not listen:\n{output}");
        std::thread::sleep(Duration::from_micros(200));
    }
    let bound = begin.elapsed();
    assert_eq!(load::ask(server.address, "/auth/healthz", &[]).await.status, 200);
    [bound, begin.elapsed()]
}

/// Idle, and with sessions in memory.
async fn memory(report: &mut Report, sessions: usize) {
    let folder = store::disk();
    let data = folder.path();
    let (opened, clock) = (house::sqlite(data).await, Clock::system());
    let user = house::user(&opened).await;
    let mut cookies = Vec::with_capacity(WARM + sessions);
    while cookies.len() < WARM + sessions {
        cookies.extend(join_all((0..500).map(|_| house::sign_in(&opened, &user, &clock))).await);
    }
    opened.close().await;
    let app = RawUpstream::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let port = port::free();
    configure(data, port, &app.url());
    let server = Server::serve(data, port, false);
    assert!(port::opens(server.address, Duration::from_secs(30)).await, "{}", server.process.output());
    // The ring of keys and the revocation log are read in the background.
    while load::ask(server.address, "/", &[format!("cookie: doorward_sid={}", cookies[0])]).await.status != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    settled(server.process.id()).await;
    let idle = rss(server.process.id());
    let megabytes = idle / 1e6;
    report.absolute("MB of memory (RSS), idle", &format!("{megabytes:.1}"), megabytes, Target::Most(20.0));
    let (warm, counted) = cookies.split_at(WARM);
    visit(server.address, warm).await;
    let before = rss(server.process.id());
    visit(server.address, counted).await;
    let each = (rss(server.process.id()) - before) / counted.len() as f64;
    report.absolute(
        &format!("bytes of memory (RSS) for each of {} sessions", counted.len()),
        &format!("{each:.0}"),
        each,
        Target::Most(300.0),
    );
}

/// Waits until the process has nothing left to do.
pub(crate) async fn settled(process: u32) {
    let mut last = load::cpu_of(process);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = load::cpu_of(process);
        if now - last <= Duration::from_millis(10) {
            return;
        }
        last = now;
    }
}

/// Resident bytes.
pub(crate) fn rss(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() * 1024.0
}

/// Asks the forward-auth route once for each cookie, over a few connections.
async fn visit(address: SocketAddr, cookies: &[String]) {
    let share = cookies.len().div_ceil(CONNECTIONS);
    let visitors = cookies.chunks(share).map(|mine| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut answer = Vec::with_capacity(4096);
        for cookie in mine {
            let request = format!(
                "GET /auth/check/nginx HTTP/1.1\r\nhost: {address}\r\nx-original-method: GET\r\n\
                 x-original-url: /orders\r\nx-forwarded-for: 127.0.0.1\r\nx-forwarded-host: {address}\r\ncookie: doorward_sid={cookie}\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            answer.clear();
            // The answer has no body: it ends with its head.
            while !answer.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "the connection ended");
            }
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        }
    });
    join_all(visitors).await;
}
