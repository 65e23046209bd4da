//! What can be wrong with answers, one by one: none of it is ever an observation.

use doorward_testkit::license::{Fault, USER_TOKEN};

use super::*;
use crate::license::provider::FaultKind;

async fn fault_of(stage: &Stage) -> ProviderFault {
    let user = stage.server.user("ann@example.com");
    stage.server.license(&user);
    let answer = stage.ask(Question { subject: Some(user), ..question() }).await;
    answer.expect_err("an observation came of it")
}

#[tokio::test]
async fn every_fault_is_named_and_none_is_a_verdict() {
    use FaultKind::{Misconfigured, Unavailable, Untrusted};
    for (fault, kind, note) in [
        (Fault::Page(502), Unavailable, "it answers 502"),
        (Fault::Page(503), Unavailable, "it answers 503"),
        (Fault::TooMany(7), Unavailable, "429"),
        (Fault::Endless, Unavailable, "too long"),
        (Fault::Refuse(503, "TIMEOUT".to_owned()), Unavailable, "it answers 503"),
        (Fault::Refuse(402, "LIMIT_EXCEEDED".to_owned()), Unavailable, "402, LIMIT_EXCEEDED"),
        (Fault::Page(404), Untrusted, "an unsigned 404"),
        (Fault::Page(403), Untrusted, "an unsigned 403"),
        (Fault::Page(200), Untrusted, "no signature"),
        (Fault::Unsigned, Untrusted, "no signature"),
        (Fault::EmptySignature, Misconfigured, "ENCRYPTION_* secrets"),
        (Fault::WrongKey, Untrusted, "the signature does not fit"),
        (Fault::OtherAccount, Untrusted, "another account"),
        (Fault::Tampered, Untrusted, "not the one that was signed"),
        (Fault::OtherShape, Untrusted, "another form"),
        (Fault::Redirect("https://licenses.example.com/x".to_owned()), Misconfigured, "https://licenses.example.com"),
        (Fault::Refuse(401, "TOKEN_EXPIRED".to_owned()), Misconfigured, "401, TOKEN_EXPIRED"),
        (Fault::Refuse(403, "LICENSE_NOT_ALLOWED".to_owned()), Misconfigured, "403, LICENSE_NOT_ALLOWED"),
        (Fault::Refuse(400, "INVALID_API_VERSION".to_owned()), Misconfigured, "400, INVALID_API_VERSION"),
    ] {
        let stage = Stage::new().await;
        stage.server.fault(Some(fault.clone()));
        let met = fault_of(&stage).await;
        assert_eq!(met.kind, kind, "{fault:?}: {met}");
        assert!(met.note.contains(note), "{fault:?}: {met}");
        assert!(!met.note.contains(PRODUCT_TOKEN));
        let wanted = (fault == Fault::TooMany(7)).then_some(Duration::from_secs(7));
        assert_eq!(met.retry_after, wanted, "{fault:?}");
        // And back: the same handle goes on.
        stage.server.fault(None);
        let user = stage.server.user("bob@example.com");
        assert_eq!(stage.about(&user).await.state, S::None, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_costs_five_seconds() {
    let stage = Stage::new().await;
    stage.server.fault(Some(Fault::Hang));
    let fault = tokio::time::timeout(ASK_TIMEOUT + Duration::from_millis(100), fault_of(&stage)).await;
    assert_eq!(fault.expect("it takes no longer").note, Trouble::TimedOut.to_string());
}

#[tokio::test]
async fn a_slow_answer_is_an_answer_and_a_dead_server_none() {
    let stage = Stage::new().await;
    let user = stage.server.user("ann@example.com");
    stage.server.license(&user);
    stage.server.fault(Some(Fault::Slow(Duration::from_millis(50))));
    assert_eq!(stage.about(&user).await.state, S::Active);
    stage.server.fault(None);
    stage.server.die().await;
    let met = stage.ask(Question { subject: Some(user.clone()), ..question() }).await.unwrap_err();
    assert_eq!(met.kind, FaultKind::Unavailable, "{met}");
    stage.server.revive().await;
    assert_eq!(stage.about(&user).await.state, S::Active);
}

#[tokio::test]
async fn two_clocks_may_be_five_minutes_apart() {
    for (seconds, side) in [(600, "600 s ahead of ours"), (-600, "600 s behind ours")] {
        let stage = Stage::new().await;
        stage.server.skew(seconds);
        let met = fault_of(&stage).await;
        assert_eq!(met.kind, FaultKind::Untrusted);
        assert!(met.note.contains(side), "{met}");
    }
    for seconds in [240, -240] {
        let stage = Stage::new().await;
        stage.server.skew(seconds);
        let user = stage.server.user("ann@example.com");
        let said = stage.about(&user).await;
        assert_eq!(said.observed_at.as_secs(), NOW + seconds, "the provider's signed time orders its answers");
    }
}

#[tokio::test]
async fn an_old_answer_is_refused_and_a_younger_one_says_how_old_it_is() {
    let stage = Stage::new().await;
    let user = stage.server.user("ann@example.com");
    let license = stage.server.license(&user);
    assert_eq!(stage.about(&user).await.state, S::Active);
    stage.server.suspend(&license);
    stage.server.fault(Some(Fault::Replay));
    stage.clock.advance(Duration::from_secs(60));
    let said = stage.about(&user).await;
    assert_eq!((said.state, said.observed_at.as_secs()), (S::Active, NOW), "so a newer observation stands");
    stage.clock.advance(Duration::from_secs(241));
    let met = stage.ask(Question { subject: Some(user.clone()), ..question() }).await.unwrap_err();
    assert!(met.note.contains("301 s behind ours"), "{met}");
}

#[tokio::test]
async fn a_date_that_a_proxy_wrote_anew_is_not_the_one_that_was_signed() {
    let stage = Stage::new().await;
    let user = stage.server.user("ann@example.com");
    stage.server.fault(Some(Fault::RewrittenDate));
    assert_eq!(stage.about(&user).await.observed_at.as_secs(), NOW);
}

#[tokio::test]
async fn what_is_wrong_in_the_configuration_is_told_apart() {
    type Change = fn(&mut KeygenConfig, &LicenseServer);
    let cases: [(Change, &str, &str); 6] = [
        (|config, _| config.account = "testkit".to_owned(), "an unsigned 404", "license.account"),
        (|config, _| config.endpoint.token = Secret::new(USER_TOKEN.to_owned()), "TOKEN_NOT_ALLOWED", "prod-"),
        (|config, _| config.endpoint.token = Secret::new("prod-unknown".to_owned()), "TOKEN_INVALID", "license.token"),
        (|config, _| config.keys = AccountKeys::default(), "no ed25519 key is pinned", "license.public_keys"),
        (|_, server| server.in_production("licenses.example.com"), "it sends us to https", "license.host"),
        (
            |config, server| {
                config.endpoint.host = Some("other.example.com".to_owned());
                server.in_production("licenses.example.com");
            },
            "an unsigned 403",
            "license.host",
        ),
    ];
    for (change, note, remedy) in cases {
        let stage = Stage::with(change).await;
        let trouble = stage.provider.inspect().await.unwrap_err();
        assert_ne!(trouble.kind(), FaultKind::Unavailable, "{trouble}");
        assert!(trouble.to_string().contains(note), "{note}: {trouble}");
        assert!(trouble.remedy().contains(remedy), "{remedy}: {}", trouble.remedy());
    }
}
