//! An issuer and a license server to try gateways and libraries against, and the scores of those that were tried: see
//! `docs/evil-issuer.md` and `docs/evil-license-server.md`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper for tests: what fails says so and ends")]
#![allow(clippy::print_stdout, reason = "its answers")]

use std::{env, net::SocketAddr, process::ExitCode, sync::Arc};

use doorward_testkit::{
    control::Control,
    issuer::{self, Issuer, script::Script},
    license::{self, ACCOUNT, Fault, LicenseServer, PRODUCT, PRODUCT_TOKEN},
    scoreboard::{
        self, Launcher,
        table::{self, Column},
    },
};
use serde_json::json;

const USAGE: &str = "doorward-testkit issuer [--script NAME|FILE] [--listen 127.0.0.1:0]
doorward-testkit scripts
doorward-testkit license [--listen 127.0.0.1:0] [--user EMAIL]... [--fault FAULT] [--hub]
doorward-testkit scoreboard [--quick] [--only WORD] {--doorward NAME=PATH | --lines NAME=COMMAND | --gateway NAME=COMMAND}...

The issuer prints one line of JSON when it is ready: its `issuer`, `jwks_url` and `control`.
POST control/mint, POST control/do, GET control/stats; see docs/evil-issuer.md.

The license server answers as Keygen does, and prints one line too: its `url`, `account`, `product`, `token` and
`public_keys`, the `config` for Doorward, the `users` with their licenses, and `control`. --user makes a user with a
license; --fault breaks its answers from the start (`unsigned`, `'{\"page\": 502}'`); --hub answers with license JWTs.
POST control/users, /licenses, /do, /webhook, GET control/stats, /heard; see docs/evil-license-server.md.

The scoreboard plays every situation against each of those verifiers and prints a table; --only those of a name, --quick those
that take less than half a minute.";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &words[..] {
        ["--help" | "-h" | "help"] | [_, "--help" | "-h"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        ["issuer", options @ ..] => issuer(options).await,
        ["license", options @ ..] => license(options).await,
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
    let theirs = Arc::clone(&issuer);
    let orders = control.serve(move |order| {
        let issuer = Arc::clone(&theirs);
        async move { issuer::control::answer(&issuer, order).await }
    });
    tokio::select! {
        () = orders => {}
        () = async {
            issuer.follow(script).await;
            std::future::pending::<()>().await;
        } => {}
    }
    ExitCode::SUCCESS
}

async fn license(options: &[&str]) -> ExitCode {
    let (mut listen, mut users, mut fault, mut is_hub) = ("127.0.0.1:0", Vec::new(), None, false);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if *option == "--hub" {
            is_hub = true;
            continue;
        }
        let Some(value) = options.next() else { return usage() };
        match *option {
            "--listen" => listen = value,
            "--user" => users.push(*value),
            "--fault" => match Fault::parse(value).map_err(|error| error.to_string()).and_then(|fault| {
                fault.check()?;
                Ok(fault)
            }) {
                Ok(it) => fault = Some(it),
                Err(error) => {
                    eprintln!("{value}: {error}; docs/evil-license-server.md lists the faults");
                    return ExitCode::from(2);
                }
            },
            _ => return usage(),
        }
    }
    let Ok(listen) = listen.parse::<SocketAddr>() else { return usage() };
    let server = Arc::new(LicenseServer::listen(listen, || issuer::control::now() * 1000).await);
    let hub = if is_hub { Some(Issuer::start().await) } else { None };
    let config = match hub {
        Some(issuer) => license::hub::answer_with(&server, issuer),
        None => server.toml(),
    };
    let users: Vec<_> = users
        .into_iter()
        .map(|email| {
            let user = server.user(email);
            let license = server.license(&user);
            json!({"email": email, "id": user, "license": license, "key": server.key_of(&license)})
        })
        .collect();
    server.fault(fault);
    let control = Control::bind("127.0.0.1".parse().unwrap()).await;
    let keys = license::Algorithm::ALL.map(|algorithm| server.public_key(algorithm));
    let ready = json!({
        "ready": true,
        "url": server.url(),
        "account": ACCOUNT,
        "product": PRODUCT,
        "token": PRODUCT_TOKEN,
        "public_keys": keys,
        "config": config,
        "users": users,
        "control": format!("http://{}", control.address()),
    });
    println!("{ready}");
    control
        .serve(move |order| {
            let server = Arc::clone(&server);
            async move { license::control::answer(&server, order).await }
        })
        .await;
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
