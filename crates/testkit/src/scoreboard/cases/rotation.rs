//! Keys change, in every way in which issuers change them; and unusable keys stand beside good ones.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::sleep;

use super::{a_second, defaults, plain};
use crate::{
    issuer::{Algorithm, Poison, Rotation, control::now},
    scoreboard::{Case, Play, Setup, Verdict},
};

const GROUP: &str = "Keys that change";
/// Callers that arrive at the same time.
const HERD: usize = 200;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        plain(GROUP, "overlap", "a new key, the old one stays", "both accepted, 1 more fetch", defaults, |stage| {
            Box::pin(async move {
                stage.warm().await;
                let since = stage.issuer.hits();
                stage.issuer.rotate(Rotation::Overlap);
                let (new, old) = (stage.token(), stage.older(1));
                stage.accepts("new key", &new).await;
                stage.knows("old key", &old).await;
                stage.fetches_at_most(1, since);
            })
        }),
        plain(
            GROUP,
            "abrupt",
            "a new key, the old one is gone",
            "accepted; the old key no longer; at most 2 more fetches",
            defaults,
            |stage| {
                Box::pin(async move {
                    stage.warm().await;
                    let (since, old) = (stage.issuer.hits(), stage.token());
                    stage.issuer.rotate(Rotation::Abrupt);
                    let new = stage.token();
                    stage.accepts("new key", &new).await;
                    stage.denies("a removed key", &old).await;
                    stage.fetches_at_most(2, since);
                })
            },
        ),
        plain(GROUP, "herd", "200 tokens of a new key at once", "all accepted, 1 more fetch", defaults, |stage| {
            Box::pin(async move {
                stage.warm().await;
                let since = stage.issuer.hits();
                stage.issuer.rotate(Rotation::Abrupt);
                let tokens: Vec<_> = (0..HERD).map(|_| stage.token()).collect();
                let verdicts = join_all(tokens.iter().map(|token| stage.ask(token))).await;
                for (verdict, _) in verdicts {
                    if verdict != Verdict::Accepted {
                        stage.find_verdict("one of the herd", &verdict);
                    }
                }
                stage.fetches_at_most(1, since);
            })
        }),
        plain(
            GROUP,
            "twice",
            "two new keys within a second",
            "accepted, or \"not now\"; never refused",
            defaults,
            |stage| {
                Box::pin(async move {
                    stage.warm().await;
                    let since = stage.issuer.hits();
                    for what in ["first new key", "second new key"] {
                        stage.issuer.rotate(Rotation::Abrupt);
                        let token = stage.token();
                        if let (verdict @ Verdict::Refused(_), _) = stage.ask(&token).await {
                            stage.find_verdict(what, &verdict);
                        }
                    }
                    stage.fetches_at_most(2, since);
                })
            },
        ),
        plain(
            GROUP,
            "early",
            "signs with a key that it publishes 2 s later",
            "accepted within 5 s of publication, at most 1 fetch a second on average",
            a_second,
            |stage| {
                Box::pin(async move {
                    stage.warm().await;
                    let (since, began) = (stage.issuer.hits(), now());
                    stage.issuer.freeze(true);
                    stage.issuer.rotate(Rotation::Overlap);
                    for _ in 0..10 {
                        let token = stage.token();
                        stage.denies("before it is published", &token).await;
                        sleep(Duration::from_millis(200)).await;
                    }
                    stage.issuer.freeze(false);
                    stage.recovers("after it is published", Duration::from_secs(5)).await;
                    let seconds = u64::try_from(now() - began).unwrap();
                    stage.fetches_at_most(seconds + 2, since);
                })
            },
        ),
        plain(
            GROUP,
            "same-kid",
            "new material under the same kid",
            "accepted, 1 more fetch; the old material is refused",
            a_second,
            |stage| {
                Box::pin(async move {
                    stage.warm().await;
                    sleep(Duration::from_millis(1200)).await;
                    let (since, old) = (stage.issuer.hits(), stage.token());
                    stage.issuer.rotate(Rotation::SameId);
                    let new = stage.token();
                    stage.accepts("new material", &new).await;
                    stage.refuses("old material", &old).await;
                    stage.fetches_at_most(2, since);
                })
            },
        ),
        plain(GROUP, "other-kind", "a new key of another algorithm", "accepted, 1 more fetch", defaults, |stage| {
            Box::pin(async move {
                stage.warm().await;
                let since = stage.issuer.hits();
                stage.issuer.add_key(Algorithm::Es256);
                let (new, old) = (stage.token(), stage.older(1));
                stage.accepts("ES256 key", &new).await;
                stage.knows("EdDSA key", &old).await;
                stage.fetches_at_most(1, since);
            })
        }),
        plain(GROUP, "kid-less-one", "no kid, one key", "accepted, or refused by policy", defaults, |stage| {
            Box::pin(async move {
                stage.warm().await;
                let token = stage.issuer.mint_with(&json!({"kid": null}), &stage.issuer.claims("app", now()));
                if let (verdict @ (Verdict::Unavailable(_) | Verdict::Silent), _) = stage.ask(&token).await {
                    stage.find_verdict("no kid", &verdict);
                }
            })
        }),
        plain(
            GROUP,
            "kid-less-two",
            "no kid, two keys that could be meant",
            "refused rather than tried; at most 1 more fetch",
            defaults,
            |stage| {
                Box::pin(async move {
                    stage.issuer.rotate(Rotation::Overlap);
                    stage.warm().await;
                    let since = stage.issuer.hits();
                    let token = stage.issuer.mint_with(&json!({"kid": null}), &stage.issuer.claims("app", now()));
                    stage.denies("no kid", &token).await;
                    stage.fetches_at_most(1, since);
                })
            },
        ),
        plain(
            GROUP,
            "one-kid-two-types",
            "one kid for keys of two types",
            "both accepted (RFC 7517 §4.5)",
            defaults,
            |stage| {
                Box::pin(async move {
                    let id = stage.issuer.key_id();
                    stage.issuer.add_key(Algorithm::Es256);
                    let mut twin = stage.issuer.key_set()["keys"][0].clone();
                    twin["kid"] = json!(id);
                    stage.issuer.publish(twin);
                    stage.warm().await;
                    let old = stage.older(1);
                    stage.accepts("EdDSA", &old).await;
                    let token = stage.issuer.mint_with(&json!({"kid": id}), &stage.issuer.claims("app", now()));
                    stage.accepts("ES256", &token).await;
                })
            },
        ),
        plain(GROUP, "twice-the-same", "the same key published twice", "accepted", defaults, |stage| {
            Box::pin(async move {
                let twin = stage.issuer.key_set()["keys"][0].clone();
                stage.issuer.publish(twin);
                stage.warm().await;
            })
        }),
        plain(GROUP, "duplicate-kid", "another two keys share a kid", "the others work", defaults, |stage| {
            Box::pin(async move {
                for x in ["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "7OF4BKZnPUfhSHSZ8JKFVXQKNV1l_jr-sNs62ISvQos"]
                {
                    stage.issuer.publish(json!({"kty": "OKP", "crv": "Ed25519", "kid": "twice", "x": x}));
                }
                stage.warm().await;
            })
        }),
        plain(GROUP, "many", "300 keys", "accepted", defaults, |stage| {
            Box::pin(async move {
                for number in 0..300 {
                    let mut jwk = stage.issuer.key_set()["keys"][0].clone();
                    jwk["kid"] = json!(format!("more-{number}"));
                    stage.issuer.publish(jwk);
                }
                stage.warm().await;
            })
        }),
    ];
    let mut removed = plain(
        GROUP,
        "removed",
        "a key is taken out, max-age=1, and nothing else happens",
        "refused within 70 s",
        |setup: &mut Setup| setup.fresh_for = Some(Duration::from_secs(1)),
        |stage| {
            Box::pin(async move {
                stage.issuer.cache_control("max-age=1");
                let old = stage.warm().await;
                stage.issuer.rotate(Rotation::Abrupt);
                for _ in 0..35 {
                    sleep(Duration::from_secs(2)).await;
                    if matches!(stage.ask(&old).await.0, Verdict::Refused(_)) {
                        return;
                    }
                }
                stage.find("still accepted after 70 s".to_owned());
            })
        },
    );
    removed.is_slow = true;
    cases.push(removed);
    cases
}

pub(super) fn poisoned() -> Vec<Case> {
    let case = |poison: Poison| Case {
        group: "Unusable keys beside a good one",
        id: format!("poison-{}", format!("{poison:?}").to_lowercase()),
        title: poison.describe().to_owned(),
        expected: "the good key works, 1 fetch",
        settings: defaults,
        is_slow: false,
        play: Play::Poison(poison, |stage, poison| {
            Box::pin(async move {
                stage.issuer.poison(poison);
                stage.warm().await;
                let forged = stage.issuer.mint_with(&json!({"kid": "poison"}), &stage.issuer.claims("app", now()));
                stage.denies("a token that names the unusable key", &forged).await;
                let token = stage.token();
                stage.knows("after that", &token).await;
                stage.fetches_at_most(2, 0);
            })
        }),
    };
    Poison::ALL.map(case).to_vec()
}
