//! Provider `jwt`: a hub that answers with license JWTs, verified with the keys of an `[[issuers]]` entry.

use std::sync::Arc;

use doorward_core::{
    effects::Effects,
    license::{Holder, LicenseState, Observation},
    time::Timestamp,
};
use doorward_gate::clock::Clock;
use doorward_testkit::{
    issuer::{Fault as IssuerFault, Issuer},
    license::{ACCOUNT, LicenseServer, PRODUCT, PRODUCT_TOKEN},
};
use serde_json::json;

use crate::world::{NOW, Setup, World, outcome};

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
            let now = theirs.now().wall.as_secs();
            let status = if license.is_suspended { "SUSPENDED" } else { "ACTIVE" };
            let claims = json!({
                "iss": issuer.url(), "aud": PRODUCT, "sub": owner?.id, "iat": now, "exp": now + 40 * 86_400, "status": status,
            });
            Some(issuer.mint_with(&json!({"typ": "JWT"}), &claims))
        });
        let setup = Setup::of(&format!("{RULES}\n{license}")).issuers(&table).clock(clock);
        Self { hub, world: setup.start().await }
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
    stage.world.advance(std::time::Duration::from_secs(360)).await;
    assert_eq!(outcome(&ada.get("/x").await), (200, None));
    assert_eq!(stage.hub.hits(), hits + 1, "one question: the key itself is enough");

    stage.hub.suspend(&license);
    stage.world.advance(std::time::Duration::from_secs(360)).await;
    assert_eq!(outcome(&ada.get("/x").await), (402, Some("license_suspended")));
    stage.hub.revoke(&license);
    stage.world.advance(std::time::Duration::from_secs(360)).await;
    assert_eq!(outcome(&ada.get("/x").await), (402, Some("license_none")), "what is revoked is turned off");
}
