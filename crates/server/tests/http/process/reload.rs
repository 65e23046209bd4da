//! SIGHUP while requests run and keys change: no good token is refused, and an issuer that is gone is gone with the answer.
//! And what it takes besides rules: the token of the admin listener.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use doorward_testkit::{
    issuer::{Issuer, Rotation},
    process::{Process, Signal},
    upstream::EchoApp,
    wire::Wire,
};
use tokio::task::JoinSet;

use super::{
    Installation, PATIENCE,
    issuer_keys::{bearer, rest},
    now, reason, until,
};

/// Times that the file changes.
const ROUNDS: u64 = 12;
/// Callers that ask all the time, with this pause: other tests need the machine as well.
const CALLERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);
/// Whoever waited this long for a new key met a machine that stood still: fetches take a moment. It spoils a rotation or
/// two.
const WAITED: Duration = Duration::from_secs(2);

/// Sends SIGHUP and waits for the answer: the line in the log of the policy with this version.
async fn reload(server: &mut Process, version: u64) {
    server.signal(Signal::HUP);
    let taken = format!("version={version}");
    let is_it = |line: &str| (line.contains("took the new configuration") && line.contains(&taken)).then_some(());
    server.line(PATIENCE, is_it).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_while_keys_rotate_refuse_no_good_token_and_admit_none_of_a_removed_issuer() {
    let (app, stays, goes) = (EchoApp::start().await, Issuer::start().await, Issuer::start().await);
    let keys = format!("jwks_url = \"{}\", min_interval = \"1s\"", stays.jwks_url());
    let without = rest(&app, &stays, &keys);
    let with = format!(
        "{without}[[issuers]]\nname = \"second\"\nissuer = \"{}\"\naudiences = [\"app\"]\n\
         keys = {{ jwks_url = \"{}\" }}\n",
        goes.url(),
        goes.jwks_url()
    );
    let installation = Arc::new(Installation::with(&with));
    let mut server = installation.serve_ready().await;
    let (stays, is_over, asked) = (Arc::new(stays), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let round_now = Arc::new(AtomicU64::new(0));
    // Each asks with a token of the newest key.
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (installation, stays) = (Arc::clone(&installation), Arc::clone(&stays));
        let (is_over, asked, round) = (Arc::clone(&is_over), Arc::clone(&asked), Arc::clone(&round_now));
        callers.spawn(async move {
            let (mut refused, mut waited, mut late) = (Vec::new(), 0, Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                tokio::time::sleep(PAUSE).await;
                let began = now();
                let answer = installation.get("/api/x", &bearer(&stays)).await;
                asked.fetch_add(1, Ordering::Relaxed);
                match reason(&answer) {
                    (200, _) => {}
                    _ if super::is_behind(&answer) => late.push(round.load(Ordering::Relaxed)),
                    (503, Some("keys_unavailable")) if began.elapsed() > WAITED => waited += 1,
                    other => refused.push(format!("{other:?}")),
                }
            }
            (refused, waited, late)
        });
    }
    let mut admitted = Vec::new();
    for round in 0..ROUNDS {
        round_now.store(round, Ordering::Relaxed);
        let before = asked.load(Ordering::Relaxed);
        // The keys change in the midst of some reloads, and the interval of fetches passes between any two.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let (is_gone, version) = (round % 2 == 0, round + 2);
        installation.configure(if is_gone { &without } else { &with });
        if round % 3 < 2 {
            stays.rotate(Rotation::Overlap);
        }
        reload(&mut server, version).await;
        for _ in 0..4 {
            let answer = installation.judged("/api/x", &bearer(&goes)).await;
            let expected = if is_gone { (401, Some("token_wrong_issuer")) } else { (200, None) };
            if reason(&answer) != expected {
                admitted.push(format!("round {round}: {:?}", reason(&answer)));
            }
        }
        until("others ask", PATIENCE, async || (asked.load(Ordering::Relaxed) > before).then_some(())).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let (mut refused, mut waited, mut late) = (Vec::new(), 0, Vec::new());
    for (one_refused, one_waited, one_late) in callers.join_all().await {
        refused.extend(one_refused);
        waited += one_waited;
        late.extend(one_late);
    }
    let asked = asked.load(Ordering::Relaxed);
    assert!(refused.is_empty(), "{} of {asked} good tokens: {:?}", refused.len(), refused[0]);
    assert!(waited <= 2 * CALLERS, "{waited} of {asked} good tokens waited in vain");
    // A machine that stands still spoils some rounds; a reload that did so would spoil all of them.
    let spoilt: BTreeSet<_> = late.iter().collect();
    assert!(
        late.len() as u64 * 20 <= asked || spoilt.len() as u64 * 2 <= ROUNDS,
        "{} of {asked}, in rounds {spoilt:?}: a reload throws away what was read of the revocations",
        late.len()
    );
    assert!(admitted.is_empty(), "after the answer: {admitted:?}");
}

/// Asks for the metrics with a token; the status.
async fn with_token(admin: SocketAddr, token: &str) -> u16 {
    let head = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n");
    Wire::ask(admin, head + "Connection: close\r\n\r\n").await.status
}

#[tokio::test]
async fn another_admin_token_counts_from_sighup_on_and_another_root_secret_is_named_for_the_next_start() {
    let installation = Installation::with("admin_token_file = \"admin.token\"\n[secrets]\nroot_file = \"the-root\"\n");
    let write = |name: &str, text: &str| fs::write(installation.path().join(name), text).unwrap();
    let [old, new] = ["old", "new"].map(|which| format!("{which} token, only for this test, no secret"));
    let [root, other] = ["one", "two"].map(|which| format!("root {which}, only for this test, not a secret"));
    write("admin.token", &old);
    write("the-root", &root);
    let mut server = installation.serve_ready().await;
    let address = |line: &str| line.split_once("admin=")?.1.split_whitespace().next()?.parse().ok();
    let admin: SocketAddr = server.line(PATIENCE, address).await;
    assert_eq!((with_token(admin, &old).await, with_token(admin, &new).await), (200, 401));

    // It leaked: another one is written over it. The line end is no change of the other secret.
    write("admin.token", &format!("{new}\n"));
    write("the-root", &format!("{root}\n"));
    reload(&mut server, 2).await;
    assert_eq!((with_token(admin, &old).await, with_token(admin, &new).await), (401, 200));
    assert!(!server.output().contains("takes effect with the next start"), "{}", server.output());

    write("the-root", &other);
    reload(&mut server, 3).await;
    let waits = |line: &str| {
        let is_it = line.contains("takes effect with the next start") && line.contains("key=\"secrets.root_file\"");
        is_it.then_some(())
    };
    server.line(PATIENCE, waits).await;
    for secret in [&old, &new, &root, &other] {
        assert!(!server.output().contains(secret.as_str()), "{}", server.output());
    }
}
