//! The blocklist by command beside a running server, and a Redis behind TLS.

use std::time::Duration;

use doorward_testkit::{issuer::Issuer, redis, upstream::EchoApp};

use super::{A_SECOND, Installation, PATIENCE, all, figure, now, reason, until};

/// How often a key is blocked and taken back, at most.
const ROUNDS: usize = 5;

fn rest(app: &str, issuer: &Issuer, more: &str) -> String {
    format!(
        "[apps.web]\nupstream = \"{app}\"\n[[rules]]\npath = \"/*\"\nallow = [\"bearer\"]\napp = \"web\"\n\
         [[issuers]]\nname = \"main\"\nissuer = \"{}\"\naudiences = [\"app\"]\nkeys = {{ jwks_url = \"{}\" }}\n{more}",
        issuer.url(),
        issuer.jwks_url()
    )
}

#[allow(clippy::disallowed_methods, reason = "a token for a process that lives by the system's clock")]
fn seconds() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

fn token(issuer: &Issuer) -> String {
    let mut claims = issuer.claims("app", seconds());
    claims["jti"] = "7f3a".into();
    claims["sub"] = "ada".into();
    issuer.mint(&claims)
}

#[tokio::test]
async fn a_command_blocks_a_token_in_a_running_server_within_a_second_and_takes_it_back() {
    let (app, issuer) = (EchoApp::start().await, Issuer::start().await);
    let installation = Installation::with(&rest(&app.url(), &issuer, ""));
    let _server = installation.serve_ready().await;
    let token = token(&issuer);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(installation.judged("/x", &bearer).await.status, 200);
    let name = ["--issuer", "main", "--jti", "7f3a"];
    let mut fastest = A_SECOND;
    // What is promised: a machine that stood still spoils some of them, not all.
    for (command, expected) in [("add", (401, Some("token_revoked"))), ("remove", (200, None))].repeat(ROUNDS) {
        if fastest < Duration::from_secs(1) && command == "add" {
            break;
        }
        installation.ok(&[&["blocklist", command][..], &name].concat()).await;
        let done = now();
        until(command, PATIENCE, async || {
            let answer = installation.try_get("/x", &bearer).await?;
            (reason(&answer) == expected).then_some(())
        })
        .await;
        let took = done.elapsed();
        figure(&format!("blocklist {command} until a running server follows"), took);
        assert!(took < A_SECOND, "{command}: {took:?}");
        fastest = fastest.min(took);
    }
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    installation.ok(&["blocklist", "add", "--issuer", "main", "--subject", "ada", "--why", "left"]).await;
    let explained = installation.ok(&["explain", "--token", &token]).await;
    assert!(explained.contains("token_revoked: the subject is blocked since"), "{explained}");
    let listed = installation.ok(&["blocklist", "list"]).await;
    assert!(listed.contains("subject ada of main") && listed.contains("left"), "{listed}");
    let again = installation.run(&[&["blocklist", "remove"][..], &name].concat()).await;
    assert_eq!(again.status.code(), Some(1), "{}", all(&again));
}

#[tokio::test]
async fn a_redis_behind_tls_is_asked_only_if_its_certificate_is_trusted() {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = rcgen::generate_simple_self_signed(names).unwrap();
    let (pem, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
    let Some(redis) = redis::start_tls(&pem, &key).await else { return };
    let (app, issuer) = (EchoApp::start().await, Issuer::start().await);
    let shared = format!("[shared]\nurl = \"rediss://localhost:{}\"\nblocklist_set = \"blocked\"\n", redis.port());
    let installation = Installation::with(&rest(&app.url(), &issuer, &shared));
    let trusted = installation.path().join("ca.pem");
    std::fs::write(&trusted, pem).unwrap();
    let check = async |trusts: bool| {
        let mut command = installation.command(&["check"]);
        if trusts {
            command.env("SSL_CERT_FILE", &trusted);
        }
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    // Who is asked here has two seconds, which a machine that stands still may take.
    until("a certificate that is trusted does", PATIENCE, async || {
        let fine = check(true).await;
        let is_fine = all(&fine).contains("answers for `blocked`") && fine.status.code() == Some(0);
        eprintln!("{}", all(&fine));
        is_fine.then_some(())
    })
    .await;
    until("another one is named", PATIENCE, async || {
        let distrusted = check(false).await;
        assert_eq!(distrusted.status.code(), Some(1), "{}", all(&distrusted));
        assert!(!all(&distrusted).contains("answers for `blocked`"), "{}", all(&distrusted));
        eprintln!("{}", all(&distrusted));
        all(&distrusted).contains("invalid peer certificate").then_some(())
    })
    .await;
}
