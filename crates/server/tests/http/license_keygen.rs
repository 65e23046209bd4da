//! Provider `keygen`: a whole server, and a license server beside it that is asked over a socket.

use std::{sync::Arc, time::Duration};

use doorward_core::{
    effects::Effects,
    license::{Holder, LicenseState, Observation},
    time::Timestamp,
    user::LinkStatus,
};
use doorward_gate::clock::Clock;
use doorward_testkit::{
    license::{Fault, LicenseServer, OnExpiry},
    wire::Answer,
};
use futures_util::future::join_all;

use crate::{
    door::until,
    world::{Caller, NOW, Setup, World, json as body, outcome},
};

const ADA: &str = "ada@example.com";
const RULES: &str = r#"
[[rules]]
path = "/free/*"
allow = ["session"]
license = "none"
app = "web"

[[rules]]
path = "/sso/*"
allow = ["session"]
require = { entitlements = ["sso"] }
app = "web"

[[rules]]
path = "/*"
allow = ["session"]
app = "web"
"#;
const MINUTE: Duration = Duration::from_secs(60);
const DAY: i64 = 86_400;
/// Longer than anybody waits before a question that failed is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(31);
/// How often a stage is set, at most, whose license server was late for no reason of ours.
const STAGES: usize = 4;

struct Stage {
    keygen: Arc<LicenseServer>,
    world: World,
}

impl Stage {
    async fn new() -> Self {
        Self::with(|setup| setup).await
    }

    async fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let clock = Clock::manual(Timestamp::from_secs(NOW));
        let theirs = clock.clone();
        let keygen = Arc::new(LicenseServer::start(move || theirs.now().wall.as_millis()).await);
        let setup = Setup::of(&format!("{RULES}\n{}", keygen.toml())).clock(clock);
        // Nobody is to be signed out in the days that pass here.
        let setup = setup.session("idle = \"60d\"\nabsolute = \"60d\"");
        Self { keygen, world: change(setup).start().await }
    }

    /// Ada, signed in, with a user and a license at Keygen: browser, user, license.
    async fn ada(&self) -> (Caller, String, String) {
        let user = self.keygen.user(ADA);
        let license = self.keygen.license(&user);
        (self.world.browser(ADA).await, user, license)
    }

    /// Lets what is known get old enough to be asked for again.
    async fn later(&self) {
        self.world.advance(6 * MINUTE).await;
    }

    /// Asks until the answer has this status and reason. A request waits for the license server for a second at most; a
    /// question of more than five has failed, and is asked again after half a minute of the manual clock.
    async fn meets(&self, caller: &mut Caller, target: &str, wanted: (u16, Option<&str>)) -> Answer {
        let mut other = None;
        for tries in 1..=3000 {
            match caller.try_get(target).await {
                Some(answer) if outcome(&answer) == wanted => return answer,
                answer => other = answer,
            }
            if tries % 500 == 0 {
                self.world.advance(ASK_AGAIN).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{wanted:?} did not come to pass: {other:?}");
    }

    /// Whether a question failed: where the license server does no wrong, only because this machine stood still.
    fn was_late(&self) -> bool {
        self.world.gate().licenses().unwrap().status().faults.iter().sum::<u64>() > 0
    }

    /// How often the verdict on any license was asked for.
    fn questions(&self) -> usize {
        self.keygen.heard().iter().filter(|heard| heard.target.ends_with("/actions/validate")).count()
    }
}

async fn post(caller: &mut Caller) -> (u16, Option<String>) {
    let answer = caller.post_form("/x", "a=b").await;
    let (status, reason) = outcome(&answer);
    (status, reason.map(str::to_owned))
}

#[tokio::test]
async fn each_state_of_a_license_is_what_its_holder_meets() {
    let stage = Stage::new().await;
    let (mut ada, user, license) = stage.ada().await;
    let keygen = &stage.keygen;
    stage.meets(&mut ada, "/x", (200, None)).await;
    assert_eq!(post(&mut ada).await, (200, None));

    keygen.suspend(&license);
    assert_eq!(outcome(&ada.get("/x").await), (200, None), "within `cache_ttl` nobody asks");
    stage.later().await;
    stage.meets(&mut ada, "/x", (402, Some("license_suspended"))).await;
    assert_eq!(outcome(&ada.get("/free/x").await), (200, None));
    keygen.reinstate(&license);
    stage.world.advance(MINUTE).await;
    // Whoever has just paid gets in.
    stage.meets(&mut ada, "/x", (200, None)).await;

    keygen.ban(&user);
    stage.later().await;
    stage.meets(&mut ada, "/x", (402, Some("license_banned"))).await;
    keygen.unban(&user);

    keygen.ends_in(&license, -DAY);
    stage.world.advance(MINUTE).await;
    // The grace is for reading.
    let read = stage.meets(&mut ada, "/x", (200, None)).await;
    assert_eq!(read.header("x-license-grace"), Some("6"), "{read:?}");
    assert_eq!(post(&mut ada).await, (402, Some("license_expired_grace".to_owned())));
    stage.world.advance(Duration::from_secs(6 * DAY as u64)).await;
    stage.meets(&mut ada, "/x", (402, Some("license_expired"))).await;
    keygen.change(&license, |license| license.on_expiry = OnExpiry::Allow);
    stage.world.advance(MINUTE).await;
    // The vendor lets it go on.
    stage.meets(&mut ada, "/x", (200, None)).await;

    keygen.renew(&license);
    keygen.revoke(&license);
    stage.later().await;
    stage.meets(&mut ada, "/x", (402, Some("license_none"))).await;
    let again = keygen.license(&user);
    stage.world.advance(MINUTE).await;
    stage.meets(&mut ada, "/x", (200, None)).await;
    keygen.change(&again, |license| license.verdict = Some((false, "TOO_MANY_MACHINES")));
    stage.later().await;
    stage.meets(&mut ada, "/x", (402, Some("license_invalid"))).await;
    assert_eq!(keygen.validation_events(), 0, "no request makes the license server tell anybody");
}

#[tokio::test]
async fn whoever_is_unknown_there_has_no_license() {
    let stage = Stage::new().await;
    let mut bob = stage.world.browser("bob@example.com").await;
    stage.meets(&mut bob, "/x", (402, Some("license_none"))).await;
    let user = stage.keygen.user("bob@example.com");
    stage.keygen.license(&user);
    stage.world.advance(MINUTE).await;
    stage.meets(&mut bob, "/x", (200, None)).await;
}

#[tokio::test]
async fn an_entitlement_opens_what_asks_for_it() {
    let stage = Stage::new().await;
    let (mut ada, _, license) = stage.ada().await;
    let refused = stage.meets(&mut ada, "/sso/x", (402, Some("license_entitlement_missing"))).await;
    assert!(body(&refused).to_string().contains("sso"), "{refused:?}");
    stage.keygen.entitle(&license, "sso");
    stage.later().await;
    stage.meets(&mut ada, "/sso/x", (200, None)).await;
}

#[tokio::test]
async fn a_thousand_requests_are_one_question() {
    for _ in 0..STAGES {
        let stage = Stage::new().await;
        let (mut ada, ..) = stage.ada().await;
        stage.meets(&mut ada, "/x", (200, None)).await;
        for _ in 1..1000 {
            assert_eq!(ada.get("/x").await.status, 200);
        }
        if !stage.was_late() {
            assert_eq!(stage.questions(), 1);
            assert_eq!(stage.keygen.hits(), 4, "who, which, whether, and what it includes");
            return;
        }
    }
    panic!("the license server was late every time");
}

#[tokio::test]
async fn two_hundred_requests_at_once_are_one_question() {
    for _ in 0..STAGES {
        let stage = Stage::new().await;
        let (mut ada, ..) = stage.ada().await;
        stage.keygen.fault(Some(Fault::Slow(Duration::from_millis(10))));
        let all = join_all((0..200).map(|_| {
            let mut ada = ada.clone();
            async move { ada.get("/x").await }
        }))
        .await;
        // Who waited for a second in vain may come again; nobody is refused.
        let is_right = |answer: &Answer| [(200, None), (503, Some("license_unknown"))].contains(&outcome(answer));
        assert!(all.iter().all(is_right), "{all:?}");
        stage.meets(&mut ada, "/x", (200, None)).await;
        if !stage.was_late() {
            assert_eq!(stage.questions(), 1);
            return;
        }
    }
    panic!("the license server was late every time");
}

#[tokio::test]
async fn a_license_server_that_is_dead_for_two_days_costs_writing_after_one_and_is_forgiven_when_it_is_back() {
    let stage = Stage::new().await;
    let (mut ada, _, license) = stage.ada().await;
    stage.meets(&mut ada, "/x", (200, None)).await;
    stage.keygen.die().await;
    for hours in [1, 12, 10] {
        stage.world.advance(60 * MINUTE * hours).await;
        assert_eq!(outcome(&ada.get("/x").await), (200, None), "known, and trusted for a day");
        assert_eq!(post(&mut ada).await, (200, None));
    }
    stage.world.advance(120 * MINUTE).await;
    assert_eq!(outcome(&ada.get("/x").await), (200, None));
    assert_eq!(post(&mut ada).await, (503, Some("license_unknown".to_owned())), "never 402: it may have been renewed");
    stage.world.advance(Duration::from_secs(8 * DAY as u64)).await;
    let unknown = ada.get("/x").await;
    assert_eq!(outcome(&unknown), (503, Some("license_unknown")));
    assert!(unknown.header("retry-after").is_some(), "{unknown:?}");

    stage.keygen.suspend(&license);
    stage.keygen.revive().await;
    stage.world.advance(2 * MINUTE).await;
    // The first question after an outage is asked in the background.
    stage.meets(&mut ada, "/x", (402, Some("license_suspended"))).await;
    stage.keygen.reinstate(&license);
    stage.world.advance(MINUTE).await;
    stage.meets(&mut ada, "/x", (200, None)).await;
}

#[tokio::test]
async fn no_fault_of_the_license_server_is_taken_for_a_verdict() {
    for fault in [
        Fault::Page(502),
        Fault::Page(404),
        Fault::TooMany(5),
        Fault::Unsigned,
        Fault::EmptySignature,
        Fault::WrongKey,
        Fault::OtherAccount,
        Fault::Tampered,
        Fault::OtherShape,
        Fault::Endless,
        Fault::Redirect("https://elsewhere.example/".to_owned()),
        Fault::Refuse(401, "TOKEN_EXPIRED".to_owned()),
    ] {
        let stage = Stage::new().await;
        let (mut ada, _, license) = stage.ada().await;
        stage.meets(&mut ada, "/x", (200, None)).await;
        // Were a word of it believed, this would be a refusal.
        stage.keygen.suspend(&license);
        stage.keygen.fault(Some(fault.clone()));
        stage.later().await;
        let hits = stage.keygen.hits();
        assert_eq!(outcome(&ada.get("/x").await), (200, None), "{fault:?}");
        until("it was asked", || stage.keygen.hits() > hits).await;
        let mut bob = stage.world.browser("bob@example.com").await;
        assert_eq!(outcome(&bob.get("/x").await), (503, Some("license_unknown")), "{fault:?}: nothing is known of him");
        stage.keygen.fault(None);
        stage.world.advance(20 * MINUTE).await;
        // Back again.
        stage.meets(&mut ada, "/x", (402, Some("license_suspended"))).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_older_than_what_is_known_changes_nothing() {
    let stage = Stage::new().await;
    let user = stage.world.user(ADA).await;
    let (mut ada, _, license) = stage.ada().await;
    stage.meets(&mut ada, "/x", (200, None)).await;
    stage.world.advance(MINUTE).await;
    let suspended = Observation {
        state: LicenseState::Suspended,
        license_id: Some(license),
        expires_at: None,
        entitlements: Default::default(),
        observed_at: stage.world.clock.now().wall,
    };
    let licenses = stage.world.gate().licenses().unwrap();
    licenses.observe(Holder::User(user.id), suspended, None).await.unwrap();
    // The answers of two minutes ago, in which all was well; they would still be fresh enough.
    stage.keygen.fault(Some(Fault::Replay));
    stage.world.advance(MINUTE).await;
    let hits = stage.keygen.hits();
    assert_eq!(outcome(&ada.get("/x").await), (402, Some("license_suspended")));
    until("it was asked", || stage.keygen.hits() > hits).await;
    stage.keygen.fault(None);
    stage.world.advance(MINUTE).await;
    stage.meets(&mut ada, "/x", (200, None)).await;
}

#[tokio::test]
async fn a_pending_user_is_linked_by_what_keygen_knows_of_their_address() {
    let stage = Stage::with(|setup| setup.login("response_floor = \"0s\"")).await;
    let subject = stage.keygen.user(ADA);
    stage.keygen.license(&subject);
    let store = stage.world.store();
    let ada = stage.world.user(ADA).await;
    store.set_pending(ada.id, subject.clone(), Effects::default()).await.unwrap();
    let mut browser = stage.world.browser(ADA).await;
    let linked = store.user(ada.id).await.unwrap().unwrap();
    assert_eq!((linked.link_status, linked.external_subject), (Some(LinkStatus::Linked), Some(subject)));
    stage.meets(&mut browser, "/x", (200, None)).await;
    let looked_up = stage.keygen.heard().iter().filter(|heard| heard.target.contains("/users/")).count();
    assert_eq!(looked_up, 1, "in the sign-in; afterwards the subject is known");
}
