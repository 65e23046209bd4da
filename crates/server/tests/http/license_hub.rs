//! Provider `jwt`: a hub that answers with license JWTs, verified with the keys of an `[[issuers]]` entry.

use std::{sync::Arc, time::Duration};

use doorward_core::{
    effects::Effects,
    license::{Holder, LicenseState, Observation},
    time::Timestamp,
};
use doorward_gate::clock::Clock;
use doorward_testkit::{
    issuer::{Fault as IssuerFault, Issuer},
    license::{ACCOUNT, LicenseServer, PRODUCT, PRODUCT_TOKEN, hub},
};
use serde_json::json;

use crate::{
    door::until,
    world::{Caller, NOW, Setup, World, json as body, outcome},
};

const ADA: &str = "ada@example.com";
const RULES: &str = "[[rules]]\npath = \"/*\"\nallow = [\"session\"]\napp = \"web\"\n";

/// A hub whose key set is not to be had (A6, A7): its key is in the configuration.
struct Stage {
    hub: LicenseServer,
    world: World,
}

impl Stage {
    async fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_secs(NOW));
        let issuer = Arc::new(Issuer::start().await);
        issuer.fault(Some(IssuerFault::Status(404)));
        let theirs = clock.clone();
        let hub = LicenseServer::start(move || theirs.now().wall.as_millis()).await;
        let keys = issuer.key_set()["keys"][0].clone();
        let table = format!(
            "[[issuers]]\nname = \"titanium\"\nissuer = \"{}\"\naudiences = [\"{PRODUCT}\"]\nalgorithms = [\"EdDSA\"]\n\
             [issuers.keys]\njwks = {{ keys = [{{ kty = \"OKP\", crv = \"Ed25519\", x = {}, kid = {} }}] }}\n",
            issuer.url(),
            keys["x"],
            keys["kid"]
        );
        let license = format!(
            "[license]\nprovider = \"jwt\"\napi_url = \"{}\"\naccount = \"{ACCOUNT}\"\nproduct = \"{PRODUCT}\"\n\
             token = \"{PRODUCT_TOKEN}\"\nissuer = \"titanium\"\n",
            hub.url()
        );
        let theirs = clock.clone();
        hub.be_hub(move |license, owner| {
            let claims = hub::claims(&issuer.url(), license, owner, theirs.now().wall.as_secs())?;
            Some(issuer.mint_with(&json!({"typ": "JWT"}), &claims))
        });
        let setup = Setup::of(&format!("{RULES}\n{license}")).issuers(&table).clock(clock);
        // Nobody is to be signed out in the days that pass here.
        let setup = setup.session("idle = \"60d\"\nabsolute = \"60d\"");
        Self { hub, world: setup.start().await }
    }

    /// Ada, signed in and linked, with a license that the hub's webhook has named; browser and license.
    async fn ada(&self) -> (Caller, String) {
        let subject = self.hub.user(ADA);
        let license = self.hub.license(&subject);
        let ada = self.world.browser(ADA).await;
        let user = self.world.store().users(None, 10).await.unwrap().remove(0);
        self.world.store().link_subject(user.id, subject, Effects::default()).await.unwrap();
        let told = Observation {
            state: LicenseState::Active,
            license_id: Some(license.clone()),
            expires_at: None,
            entitlements: Default::default(),
            observed_at: self.world.clock.now().wall,
        };
        self.world.gate().licenses().unwrap().observe(Holder::User(user.id), told, None).await.unwrap();
        (ada, license)
    }

    /// How many changes of a license are in the audit log.
    async fn changes(&self) -> usize {
        let rows = self.world.store().audit_tail(0, 1000).await.unwrap();
        rows.iter().filter(|row| row.kind == "license.changed").count()
    }
}

#[tokio::test]
async fn the_license_that_the_hub_named_once_is_asked_about_and_its_jwt_believed() {
    let stage = Stage::new().await;
    let subject = stage.hub.user(ADA);
    let license = stage.hub.license(&subject);
    let user = stage.world.user(ADA).await;
    let store = stage.world.store();
    store.set_pending(user.id, subject.clone(), Effects::default()).await.unwrap();
    let mut ada = stage.world.browser(ADA).await;
    let linked = store.user(user.id).await.unwrap().unwrap();
    assert_eq!(linked.external_subject, Some(subject), "by the list of users");

    assert_eq!(outcome(&ada.get("/x").await), (402, Some("license_none")), "nobody named a license yet");
    let licenses = stage.world.gate().licenses().unwrap();
    let told = Observation {
        state: LicenseState::Active,
        license_id: Some(license.clone()),
        expires_at: None,
        entitlements: Default::default(),
        observed_at: stage.world.clock.now().wall,
    };
    licenses.observe(Holder::User(user.id), told, None).await.unwrap();
    assert_eq!(outcome(&ada.get("/x").await), (200, None));
    let hits = stage.hub.hits();
    stage.world.advance(Duration::from_secs(360)).await;
    assert_eq!(outcome(&ada.get("/x").await), (200, None));
    until("it is asked", || stage.hub.hits() > hits).await;
    assert_eq!(stage.hub.hits(), hits + 1, "one question: the key itself is enough");

    stage.hub.suspend(&license);
    stage.world.advance(Duration::from_secs(360)).await;
    ada.until_outcome("/x", (402, Some("license_suspended"))).await;
    stage.hub.revoke(&license);
    stage.world.advance(Duration::from_secs(360)).await;
    // What is revoked is turned off.
    ada.until_outcome("/x", (402, Some("license_none"))).await;
}

#[tokio::test]
async fn tokens_of_an_hour_leave_no_row_at_a_refresh_and_an_outage_is_lived_through_as_long_as_answers_are_trusted() {
    let stage = Stage::new().await;
    let (mut ada, license) = stage.ada().await;
    stage.hub.ends_in(&license, 40 * 86_400);
    stage.world.advance(Duration::from_secs(360)).await;
    assert_eq!(outcome(&ada.get("/x").await), (200, None));
    // A request waits a second for an answer at most; on a slow machine it comes afterwards.
    let mut ends = json!(null);
    for _ in 0..1000 {
        ends = body(&ada.get("/auth/profile/license").await)["expires_at"].clone();
        if !ends.is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ends, "2027-02-24T08:00:00Z", "not the token's");
    let (known, hits) = (stage.changes().await, stage.hub.hits());
    for refresh in 1..=20 {
        stage.world.advance(Duration::from_secs(360)).await;
        assert_eq!(outcome(&ada.get("/x").await), (200, None));
        until("it is asked again", || stage.hub.hits() >= hits + refresh).await;
    }
    assert_eq!(stage.changes().await, known, "nothing changed, so nothing is written down");

    stage.hub.die().await;
    for hours in [1, 1, 2, 19] {
        stage.world.advance(Duration::from_hours(hours)).await;
        for answer in [ada.get("/x").await, ada.post_form("/x", "a=b").await] {
            assert_eq!((outcome(&answer), answer.header("x-license-grace")), ((200, None), None), "{hours} h more");
        }
    }
    stage.world.advance(Duration::from_hours(2)).await;
    assert_eq!(outcome(&ada.get("/x").await), (200, None), "past `trust_for` one can read");
    assert_eq!(outcome(&ada.post_form("/x", "a=b").await), (503, Some("license_unknown")));
    stage.hub.revive().await;
    stage.world.advance(Duration::from_secs(120)).await;
    assert_eq!(outcome(&ada.post_form("/x", "a=b").await), (200, None));
    assert_eq!(stage.changes().await, known, "an outage is no change of a license");
}

#[tokio::test]
async fn a_license_ends_when_its_claim_says_so_with_the_hub_there_or_not() {
    for is_there in [true, false] {
        let stage = Stage::new().await;
        let (mut ada, license) = stage.ada().await;
        stage.hub.ends_in(&license, 7200);
        stage.world.advance(Duration::from_secs(360)).await;
        assert_eq!(outcome(&ada.post_form("/x", "a=b").await), (200, None));
        if !is_there {
            stage.hub.die().await;
        }
        stage.world.advance(Duration::from_secs(7200)).await;
        let read = ada.get("/x").await;
        assert_eq!((outcome(&read), read.header("x-license-grace")), ((200, None), Some("7")), "{is_there}: {read:?}");
        assert_eq!(outcome(&ada.post_form("/x", "a=b").await), (402, Some("license_expired_grace")), "{is_there}");
    }
}
