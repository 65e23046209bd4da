//! Commands that ask the license provider, against the testkit's license server over a real socket.

use doorward_testkit::{
    issuer::{Issuer, control::now},
    license::{Fault, LicenseServer, hub},
};
use serde_json::json;

use super::{CONFIG, Ended, Installation};

const ADA: &str = "ada@example.com";
const SECRETS: &str = "[secrets]\nroot = \"only for this test, only for this test\"\n";

/// A command, with nothing else of this process held up by it: the license server answers meanwhile.
async fn run(installation: &Installation, arguments: &[&str]) -> Ended {
    let mut command = installation.command(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    Ended::of(&output)
}

async fn keygen() -> (LicenseServer, Installation) {
    let server = LicenseServer::start(|| now() * 1000).await;
    let installation = Installation::with(&format!("{CONFIG}\n{}\n{SECRETS}", server.toml()));
    (server, installation)
}

#[tokio::test]
async fn a_license_is_validated_by_its_key_and_by_its_id_and_whoever_asks_is_told_what_follows() {
    let (server, installation) = keygen().await;
    let license = server.license(&server.user(ADA));
    server.entitle(&license, "sso");
    server.ends_in(&license, 30 * 86_400);
    let key = server.key_of(&license);
    std::fs::write(installation.path().join("key"), format!("{key}\n")).unwrap();
    for name in [license.as_str(), &key, "key"] {
        let ended = run(&installation, &["license", "validate", "--json", name]).await;
        assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
        let said = ended.json();
        assert_eq!(
            (&said["license"], &said["state"], &said["usable"]),
            (&json!(license), &json!("active"), &json!(true))
        );
        assert_eq!(said["entitlements"], "sso");
        assert!(said["verdict"].as_str().unwrap().starts_with("usable until "), "{said}");
    }
    assert_eq!(server.validation_events(), 3, "a full validation, which the server tells its webhook endpoints of");
    server.suspend(&license);
    let ended = run(&installation, &["license", "validate", &key]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("suspended") && ended.stdout.contains("refused: license_suspended"), "{ended:?}");
    assert!(!ended.stdout.contains(&key), "a key is a secret: {ended:?}");
    let ended = run(&installation, &["license", "validate", "AAAA-BBBB"]).await;
    assert_eq!((ended.code, ended.stdout.contains("there is none with this key or id")), (Some(1), true), "{ended:?}");
    assert!(!installation.path().join("data").exists(), "nothing is written down");
}

#[tokio::test]
async fn a_provider_that_is_down_ends_a_command_with_one_and_one_that_is_wrong_with_two() {
    let (server, installation) = keygen().await;
    let license = server.license(&server.user(ADA));
    for (fault, code, text) in [
        (Fault::Page(502), 1, "it answers 502; start the license server"),
        (Fault::TooMany(5), 1, "429"),
        (Fault::Unsigned, 2, "something before the license server"),
        (Fault::WrongKey, 2, "license.public_keys"),
        (Fault::Refuse(401, "TOKEN_EXPIRED".to_owned()), 2, "license.token"),
    ] {
        server.fault(Some(fault.clone()));
        for arguments in [&["license", "validate", &license][..], &["users", "add", "bob@example.com", "--at-provider"]]
        {
            let ended = run(&installation, arguments).await;
            assert_eq!(ended.code, Some(code), "{fault:?} {arguments:?}: {ended:?}");
            assert!(ended.stderr.contains(text) && ended.stdout.is_empty(), "{fault:?}: {ended:?}");
        }
    }
    server.die().await;
    assert_eq!(run(&installation, &["license", "validate", &license]).await.code, Some(1));
    let listed = run(&installation, &["users", "list", "--json"]).await;
    assert_eq!(listed.json(), json!([]), "nobody was made here for want of somebody there");

    let without = Installation::with(&format!("{CONFIG}\n{SECRETS}"));
    for (arguments, text) in [
        (&["license", "validate", "x"][..], "doorward license verify"),
        (&["users", "add", ADA, "--at-provider"], "leave out `--at-provider`"),
        (&["license", "forget"], "only the license of an installation"),
        (&["users", "add", ADA, "--at-provider", "--pending-subject", "s"], "cannot be used with"),
    ] {
        let ended = run(&without, arguments).await;
        assert_eq!((ended.code, ended.stderr.contains(text)), (Some(2), true), "{ended:?}");
    }
}

#[tokio::test]
async fn a_user_is_made_here_and_at_the_provider_once() {
    let (server, installation) = keygen().await;
    let ended = run(&installation, &["users", "add", "Ada@example.com", "--at-provider", "--json"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let made = ended.json();
    let there = server.find_user(ADA).unwrap();
    assert_eq!((&made["candidate_subject"], &made["link_status"]), (&json!(there), &json!("pending_verify")));

    let (hits, again) = (server.hits(), run(&installation, &["users", "add", ADA, "--at-provider"]).await);
    assert!(again.code == Some(1) && again.stderr.contains("is a user already"), "{again:?}");
    assert_eq!(server.hits(), hits, "nobody is asked about somebody who is here");

    let bob = server.user("bob@example.com");
    let ended = run(&installation, &["users", "add", "bob@example.com", "--at-provider"]).await;
    assert_eq!(ended.stdout, "added bob@example.com, whom the license provider knew\n", "{ended:?}");
    let listed = run(&installation, &["users", "list", "--json"]).await.json();
    assert_eq!(listed[1]["candidate_subject"], json!(bob));
    let audit = run(&installation, &["audit", "tail", "--json"]).await.json();
    let words: Vec<_> = audit.as_array().unwrap().iter().map(|row| row["detail"]["at_provider"].clone()).collect();
    assert_eq!(words, ["created", "known"], "{audit}");
}

#[tokio::test]
async fn a_hub_is_asked_with_the_keys_of_its_issuer() {
    let server = LicenseServer::start(|| now() * 1000).await;
    let config = hub::answer_with(&server, Issuer::start().await);
    let installation = Installation::with(&format!("{CONFIG}\n{config}\n{SECRETS}"));
    let license = server.license(&server.user(ADA));
    server.ends_in(&license, 86_400);
    let ended = run(&installation, &["license", "validate", "--json", &license]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = ended.json();
    assert_eq!((&said["state"], &said["usable"]), (&json!("active"), &json!(true)));
    assert!(said["verdict"].as_str().unwrap().starts_with("usable until "), "{said}");
    server.revoke(&license);
    assert_eq!(run(&installation, &["license", "validate", &license]).await.code, Some(1));
    let ended = run(&installation, &["users", "add", "carol@example.com", "--at-provider"]).await;
    assert_eq!(ended.stdout, "added carol@example.com, and at the license provider\n", "{ended:?}");
    assert!(server.find_user("carol@example.com").is_some());
}
