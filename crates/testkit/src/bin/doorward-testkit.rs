//! An issuer to try gateways and libraries against, and the scores of those that were tried: see `docs/evil-issuer.md`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper for tests: what fails says so and ends")]
#![allow(clippy::print_stdout, reason = "its answers")]

use std::{env, net::SocketAddr, process::ExitCode, sync::Arc};

use doorward_testkit::{
    issuer::{Issuer, control::Control, script::Script},
    scoreboard::{
        self, Launcher,
        table::{self, Column},
    },
};
use serde_json::json;

const USAGE: &str = "doorward-testkit issuer [--script NAME|FILE] [--listen 127.0.0.1:0]
doorward-testkit scripts
doorward-testkit scoreboard [--quick] [--only WORD] {--doorward NAME=PATH | --lines NAME=COMMAND | --gateway NAME=COMMAND}...

The issuer prints one line of JSON when it is ready: its `issuer`, `jwks_url` and `control`.
POST control/mint, POST control/do, GET control/stats; see docs/evil-issuer.md.
The scoreboard plays every situation against each of those verifiers and prints a table; --only those of a name, --quick those
that take less than half a minute.";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &words[..] {
        ["issuer", options @ ..] => issuer(options).await,
        ["scripts"] => {
            for (name, script) in Script::named() {
                println!("{name:<26}{}", script.about);
            }
            ExitCode::SUCCESS
        }
        ["scoreboard", options @ ..] => scoreboard(options).await,
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

async fn issuer(options: &[&str]) -> ExitCode {
    let (mut script, mut listen) = ("steady", "127.0.0.1:0");
    for pair in options.chunks(2) {
        match pair {
            ["--script", value] => script = value,
            ["--listen", value] => listen = value,
            _ => return usage(),
        }
    }
    let Ok(listen) = listen.parse::<SocketAddr>() else { return usage() };
    let script = match Script::find(script) {
        Ok(script) => script,
        Err(error) => {
            eprintln!("{script}: {error}; `doorward-testkit scripts` lists those that are built in");
            return ExitCode::from(2);
        }
    };
    let issuer = Arc::new(Issuer::listen(listen, script.algorithm).await);
    let control = Control::bind("127.0.0.1".parse().unwrap()).await;
    let ready = json!({
        "ready": true,
        "about": script.about,
        "issuer": issuer.url(),
        "jwks_url": issuer.jwks_url(),
        "control": format!("http://{}", control.address()),
    });
    println!("{ready}");
    tokio::select! {
        () = control.serve(Arc::clone(&issuer)) => {}
        () = async {
            issuer.follow(script).await;
            std::future::pending::<()>().await;
        } => {}
    }
    ExitCode::SUCCESS
}

async fn scoreboard(options: &[&str]) -> ExitCode {
    let mut cases = scoreboard::all();
    let mut verifiers = Vec::new();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if *option == "--quick" {
            cases.retain(|case| !case.is_slow);
            continue;
        }
        let Some(value) = options.next() else { return usage() };
        if *option == "--only" {
            cases.retain(|case| case.id.contains(value));
            continue;
        }
        let Some((name, command)) = value.split_once('=') else { return usage() };
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let launcher = match *option {
            "--doorward" => Launcher::Doorward(command.into()),
            "--lines" if !words.is_empty() => Launcher::Lines(words),
            "--gateway" if !words.is_empty() => Launcher::Gateway(words),
            _ => return usage(),
        };
        verifiers.push((name, launcher));
    }
    if verifiers.is_empty() || cases.is_empty() {
        return usage();
    }
    let mut columns = Vec::new();
    // One after the other: they would only slow each other down.
    for (name, launcher) in verifiers {
        eprintln!("{name}: {} situations", cases.len());
        columns.push(Column { name: name.to_owned(), scores: scoreboard::play(&cases, &launcher).await });
    }
    println!("{}", table::markdown(&cases, &columns));
    ExitCode::SUCCESS
}
