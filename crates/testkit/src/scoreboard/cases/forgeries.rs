//! Tokens with claims that do not hold, and tokens that nobody signed.

use futures_util::FutureExt as _;
use serde_json::{Value, json};

use super::{defaults, plain};
use crate::{
    issuer::{Algorithm, Forgery, Issuer, control::now},
    scoreboard::{Case, Stage},
};

const CLAIMS: &str = "Claims and clocks";
const GROUP: &str = "Forgeries";
const REFUSED: &str = "refused, no fetch";

pub(super) fn claims() -> Vec<Case> {
    let case = |id, title, play| plain(CLAIMS, id, title, REFUSED, defaults, play);
    vec![
        plain(
            CLAIMS,
            "ahead",
            "the issuer's clock is 20 s ahead (30 s are tolerated)",
            "accepted",
            defaults,
            |stage| {
                Box::pin(async move {
                    stage.issuer.skew(20);
                    stage.warm().await;
                    let token = stage.token_with(&json!({"nbf": now() + 20}));
                    stage.knows("nbf 20 s ahead", &token).await;
                })
            },
        ),
        case("not-yet", "nbf 5 minutes ahead", |stage| claim(stage, json!({"nbf": now() + 300})).boxed()),
        case("expired", "exp 5 minutes ago", |stage| {
            claim(stage, json!({"iat": now() - 900, "exp": now() - 300})).boxed()
        }),
        case("no-exp", "no exp", |stage| claim(stage, json!({"exp": null})).boxed()),
        case("text-exp", "exp as text", |stage| claim(stage, json!({"exp": "9999999999"})).boxed()),
        case("wrong-issuer", "another iss", |stage| claim(stage, json!({"iss": "https://elsewhere.example"})).boxed()),
        case("no-issuer", "no iss", |stage| claim(stage, json!({"iss": null})).boxed()),
        case("wrong-audience", "another aud", |stage| claim(stage, json!({"aud": "another-app"})).boxed()),
        case("no-audience", "no aud", |stage| claim(stage, json!({"aud": null})).boxed()),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let case = |id, title, play| plain(GROUP, id, title, "refused, at most 1 fetch", defaults, play);
    vec![
        case("none", "alg none", |stage| forged(stage, Algorithm::EdDsa, vec![Forgery::None]).boxed()),
        case("none-mixed", "alg NoNe", |stage| forged(stage, Algorithm::EdDsa, vec![Forgery::NoneInMixedCase]).boxed()),
        case("hmac", "HS256 with the public key as secret: PEM, DER, JWK member", |stage| {
            let kinds = vec![Forgery::HmacWithPem, Forgery::HmacWithDer, Forgery::HmacWithMember];
            forged(stage, Algorithm::Rs256, kinds).boxed()
        }),
        case("hmac-ed25519", "HS256 with an Ed25519 key as secret", |stage| {
            forged(stage, Algorithm::EdDsa, vec![Forgery::HmacWithMember, Forgery::HmacWithPem]).boxed()
        }),
        case("ec-as-rsa", "an EC key under RS256", |stage| {
            forged(stage, Algorithm::Es256, vec![Forgery::Relabelled("RS256".to_owned())]).boxed()
        }),
        case("rsa-as-pss", "an RS256 signature called PS256", |stage| {
            forged(stage, Algorithm::Rs256, vec![Forgery::Relabelled("PS256".to_owned())]).boxed()
        }),
        case("embedded-key", "the attacker's key in jwk", |stage| {
            forged(stage, Algorithm::EdDsa, vec![Forgery::EmbeddedKey]).boxed()
        }),
        case("jku", "the attacker's key set in jku, certificate in x5u", |stage| {
            async move {
                let attacker = Issuer::start().await;
                let kinds = vec![Forgery::Jku(attacker.jwks_url()), Forgery::X5u(attacker.jwks_url())];
                forged(stage, Algorithm::EdDsa, kinds).await;
                if attacker.hits() > 0 {
                    stage.find(format!("asked the attacker {} times", attacker.hits()));
                }
            }
            .boxed()
        }),
        case("kid-path", "kid as path, URL, SQL, with a zero byte", |stage| {
            let kids = ["../../../../dev/null", "file:///dev/null", "x' OR '1'='1", "k1\0", "", "__proto__"];
            let kinds = kids.iter().map(|kid| Forgery::Kid(json!(kid))).collect();
            forged(stage, Algorithm::EdDsa, kinds).boxed()
        }),
        case("kid-type", "kid as number, object, null", |stage| {
            let kinds = [json!(1), json!({"k": 1}), Value::Null].map(Forgery::Kid).to_vec();
            forged(stage, Algorithm::EdDsa, kinds).boxed()
        }),
        case("long-kid", "a kid of 6 KB", |stage| {
            forged(stage, Algorithm::EdDsa, vec![Forgery::LongKid(6 * 1024)]).boxed()
        }),
        case("signature", "another key's signature, and none", |stage| {
            forged(stage, Algorithm::EdDsa, vec![Forgery::Signature, Forgery::NoSignature]).boxed()
        }),
        case("critical", "an unknown critical extension", |stage| {
            forged(stage, Algorithm::EdDsa, vec![Forgery::Critical]).boxed()
        }),
        case("unencoded", "b64=false", |stage| forged(stage, Algorithm::EdDsa, vec![Forgery::Unencoded]).boxed()),
    ]
}

async fn claim(stage: &mut Stage, claims: Value) {
    stage.warm().await;
    let since = stage.issuer.hits();
    let token = stage.token_with(&claims);
    stage.refuses("the token", &token).await;
    stage.fetches_at_most(0, since);
}

async fn forged(stage: &mut Stage, algorithm: Algorithm, forgeries: Vec<Forgery>) {
    if algorithm != Algorithm::EdDsa {
        stage.issue_with(algorithm).await;
    }
    stage.warm().await;
    let since = stage.issuer.hits();
    for forgery in forgeries {
        let token = stage.forged(&forgery);
        // A kid that nobody knows may be that of a new key: "not now" is right as well, once the fetches are spent.
        if matches!(forgery, Forgery::Kid(Value::String(_)) | Forgery::LongKid(_) | Forgery::Jku(_)) {
            stage.denies(&format!("{forgery:?}"), &token).await;
        } else {
            stage.refuses(&format!("{forgery:?}"), &token).await;
        }
    }
    let token = stage.token();
    stage.knows("a good token after that", &token).await;
    stage.fetches_at_most(1, since);
}
