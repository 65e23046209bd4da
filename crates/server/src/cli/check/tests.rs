use std::{fs, path::Path};

use doorward_testkit::issuer;

use super::*;

/// A configuration in `dir` with `more` in it; no mail, so that no check needs a mail server.
fn config(dir: &Path, top: &str, more: &str) -> Config {
    let text = format!("public_url = \"http://localhost:8080\"\n{top}\n{more}");
    Config::parse(&text, &dir.join("doorward.toml"), &Default::default()).unwrap()
}

async fn check(config: Config) -> (serde_json::Value, Result<(), Failure>) {
    let mut bytes = Vec::new();
    let outcome = run(Ok(config), &Clock::system(), &mut Out::new(&mut bytes, true)).await;
    (serde_json::from_slice(&bytes).unwrap(), outcome)
}

fn finding<'a>(document: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let findings = document["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["name"].as_str().unwrap().starts_with(name)).unwrap()
}

fn issuer_entry(issuer: &issuer::Issuer) -> String {
    format!(
        "[[issuers]]\nname = \"main\"\nissuer = \"{}\"\naudiences = [\"app\"]\nkeys = {{ jwks_url = \"{}\" }}\n",
        issuer.url(),
        issuer.jwks_url()
    )
}

/// A port that refuses connections.
fn closed_port() -> u16 {
    doorward_testkit::port::free()
}

#[tokio::test]
async fn neighbours_that_answer_are_fine() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = issuer::Issuer::start().await;
    let app = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = app.local_addr().unwrap().port();
    let more = format!(
        "{}[apps.web]\nupstream = \"http://127.0.0.1:{port}\"\n[[rules]]\npath = \"/*\"\nallow = [\"bearer\"]\napp = \"web\"\n",
        issuer_entry(&issuer)
    );
    let (document, outcome) = check(config(dir.path(), "", &more)).await;
    assert!(outcome.is_ok(), "{document:#}");
    assert_eq!(finding(&document, "issuer main")["status"], "ok");
    assert_eq!(finding(&document, "app web")["status"], "ok");
    assert_eq!(finding(&document, "store")["detail"], "made on the first start");
    assert_eq!(finding(&document, "mail")["status"], "note", "without [mail] nobody can sign in by mail");
    assert!(!dir.path().join("data").exists(), "check made the data folder");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "check left a file behind");
}

#[tokio::test]
async fn neighbours_that_are_down_end_with_one_and_come_with_remedies() {
    let dir = tempfile::tempdir().unwrap();
    let mut issuer = issuer::Issuer::start().await;
    let entry = issuer_entry(&issuer);
    issuer.die().await;
    let closed = closed_port();
    let more = format!(
        "{entry}[mail]\nurl = \"smtp://127.0.0.1:{closed}\"\nfrom = \"login@example.com\"\n\
         [store]\nurl = \"postgres://doorward@127.0.0.1:{closed}/doorward\"\n\
         [secrets]\nroot = \"0123456789abcdef0123456789abcdef\"\n\
         [apps.web]\nupstream = \"http://127.0.0.1:{closed}\"\n"
    );
    let (document, outcome) = check(config(dir.path(), "", &more)).await;
    for name in ["issuer main", "app web", "mail server", "store"] {
        let finding = finding(&document, name);
        assert_eq!(finding["status"], "down", "{document:#}");
        assert!(finding["remedy"].as_str().is_some_and(|remedy| remedy.len() > 10));
    }
    assert!(matches!(outcome, Err(Failure::Said(1))));
    assert_eq!(document["ok"], false);
}

#[tokio::test]
async fn an_issuer_without_a_usable_key_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = issuer::Issuer::start_with(issuer::Algorithm::Es256).await;
    let (document, outcome) = check(config(dir.path(), "", &issuer_entry(&issuer))).await;
    let finding = finding(&document, "issuer main");
    assert_eq!(finding["status"], "wrong", "ES256 is not among the default algorithms: {document:#}");
    assert!(matches!(outcome, Err(Failure::Said(2))));
}

#[tokio::test]
async fn a_certificate_with_another_key_is_misconfiguration() {
    let dir = tempfile::tempdir().unwrap();
    let one = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let tls = "[listen]\nhttps = \"127.0.0.1:0\"\ntls = { cert_file = \"cert.pem\", key_file = \"key.pem\" }\n";
    fs::write(dir.path().join("cert.pem"), one.cert.pem()).unwrap();

    fs::write(dir.path().join("key.pem"), other.signing_key.serialize_pem()).unwrap();
    let (document, outcome) = check(config(dir.path(), "", tls)).await;
    assert_eq!(finding(&document, "TLS certificate")["status"], "wrong");
    assert!(matches!(outcome, Err(Failure::Said(2))));

    fs::write(dir.path().join("key.pem"), one.signing_key.serialize_pem()).unwrap();
    let (document, outcome) = check(config(dir.path(), "", tls)).await;
    assert_eq!(finding(&document, "TLS certificate")["status"], "ok", "{document:#}");
    assert!(outcome.is_ok());
}

#[tokio::test]
async fn rules_that_never_decide_and_other_surprises_are_notes() {
    let dir = tempfile::tempdir().unwrap();
    let app = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", app.local_addr().unwrap());
    let rule = |path: &str, more: &str| {
        format!("[[rules]]\npath = \"{path}\"\nallow = [\"session\"]\nupstream = \"{upstream}\"\n{more}\n")
    };
    let more = rule("/*", "license = \"active\"") + &rule("/api/*", "");
    let (document, outcome) = check(config(dir.path(), "", &more)).await;
    assert!(outcome.is_ok(), "notes do not fail: {document:#}");
    for name in ["rules[1]", "rules[0].license", "login.link_ttl"] {
        assert_eq!(finding(&document, name)["status"], "note", "{name}");
    }
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_written_is_misconfiguration() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("occupied"), "a file").unwrap();
    let (document, outcome) = check(config(dir.path(), "data_dir = \"occupied/data\"", "")).await;
    assert_eq!(finding(&document, "data_dir")["status"], "wrong", "{document:#}");
    assert!(matches!(outcome, Err(Failure::Said(2))));
}

#[tokio::test]
async fn a_license_server_is_asked_and_what_is_wrong_is_said_in_words() {
    use doorward_testkit::license::{Fault, LicenseServer};

    let dir = tempfile::tempdir().unwrap();
    let keygen = LicenseServer::start(|| issuer::control::now() * 1000).await;
    let ask = async || {
        let (document, _) = check(config(dir.path(), "", &keygen.toml())).await;
        finding(&document, "license provider").clone()
    };
    let fine = ask().await;
    assert_eq!((&fine["status"], &fine["detail"]), (&"ok".into(), &"answers, signed with a pinned key (CE)".into()));
    for (fault, status, remedy) in [
        (Fault::Refuse(403, "LICENSE_NOT_ALLOWED".to_owned()), "wrong", "prod-"),
        (Fault::Refuse(401, "TOKEN_EXPIRED".to_owned()), "wrong", "license.token"),
        (Fault::WrongKey, "wrong", "license.public_keys"),
        (Fault::EmptySignature, "wrong", "ENCRYPTION_*"),
        (Fault::Unsigned, "wrong", "something before the license server"),
        (Fault::Page(404), "wrong", "license.account"),
        (Fault::Redirect("https://licenses.example.com/".to_owned()), "wrong", "license.host"),
        (Fault::Page(502), "down", "license.api_url"),
    ] {
        keygen.fault(Some(fault.clone()));
        let found = ask().await;
        assert_eq!(found["status"], status, "{fault:?}: {found}");
        assert!(found["remedy"].as_str().unwrap().contains(remedy), "{fault:?}: {found}");
    }
    keygen.fault(None);
    for (skew, status, detail) in [(120, "note", "s ahead of ours"), (-900, "wrong", "s behind ours")] {
        keygen.skew(skew);
        let found = ask().await;
        assert_eq!(found["status"], status, "{found}");
        assert!(found["detail"].as_str().unwrap().contains(detail), "{found}");
    }
    keygen.die().await;
    assert_eq!(ask().await["status"], "down");
}

#[tokio::test]
async fn the_license_file_and_the_relay_are_looked_at() {
    use doorward_testkit::{
        paper::{Account, Paper},
        relay::Relay,
    };

    let dir = tempfile::tempdir().unwrap();
    let (account, stranger, now) = (Account::generate(), Account::generate(), issuer::control::now() * 1000);
    let day = 86_400_000;
    let toml = |place: &str| {
        format!(
            "[license]\nprovider = \"file\"\n{place}\naccount = \"acct-1\"\nproduct = \"prod-1\"\npublic_keys = [\"{}\"]\n",
            account.public_key()
        )
    };
    let file = dir.path().join("license.lic");
    let ask = async |text: Option<String>| {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let (document, _) = check(config(dir.path(), "", &toml(&format!("path = {file:?}")))).await;
        finding(&document, "license ").clone()
    };
    let fine = Paper { expiry: Some(now + 30 * day), ..Paper::new("lic-1", now - day) };
    let over = Paper { file_ends: Some(now - 1000), ..fine.clone() };
    let other = Paper { product: "prod-2".to_owned(), ..fine.clone() };
    for (text, status, detail) in [
        (None, "wrong", "there is no license file"),
        (Some("not a license".to_owned()), "wrong", ""),
        (Some(stranger.file(&fine)), "wrong", "license.lic"),
        (Some(account.file(&other)), "wrong", "product"),
        (Some(account.file(&over)), "wrong", "the file has ended"),
        (Some(account.file(&fine)), "ok", "license.lic is genuine, until "),
    ] {
        let found = ask(text).await;
        assert_eq!(found["status"], status, "{found}");
        assert!(found["detail"].as_str().unwrap().contains(detail), "{detail}: {found}");
        assert_eq!(found["remedy"].is_null(), status == "ok", "{found}");
    }

    // A key whose text the vendor chose freely says nothing that could be compared.
    let bare = toml(&format!("path = {file:?}")).replace("account = \"acct-1\"\nproduct = \"prod-1\"\n", "");
    fs::write(&file, account.free_key("ada@example.com")).unwrap();
    let (document, outcome) = check(config(dir.path(), "", &bare)).await;
    let found = finding(&document, "license ");
    assert_eq!((&found["status"], outcome.is_ok()), (&"note".into(), true), "{found}");
    assert!(found["detail"].as_str().unwrap().contains("it counts for ever"), "{found}");
    assert!(found["remedy"].as_str().unwrap().contains("license.account"), "{found}");
    let found = ask(Some(account.free_key("ada@example.com"))).await;
    assert!(found["status"] == "wrong" && found["detail"].as_str().unwrap().contains("account"), "{found}");

    let ask = async |url: &str| {
        let place = format!("relay_url = \"{url}\"\nfingerprint = \"node-1\"");
        let (document, outcome) = check(config(dir.path(), "", &toml(&place))).await;
        (finding(&document, "license relay").clone(), outcome.is_ok())
    };
    let relay = Relay::start(&[], 60, issuer::control::now).await;
    let (found, is_fine) = ask(&relay.url()).await;
    assert_eq!((&found["status"], is_fine), (&"ok".into(), true), "{found}");
    assert_eq!(relay.heard(), ["GET /v1/health"], "nothing is claimed");
    let (found, is_fine) = ask(&format!("http://127.0.0.1:{}", closed_port())).await;
    assert_eq!((&found["status"], is_fine), (&"down".into(), false), "{found}");
    assert!(found["remedy"].as_str().unwrap().contains("license.relay_url"), "{found}");
}
