//! The issuer is not there, or strangers try to make us wear it out.

use std::time::Duration;

use futures_util::{
    StreamExt as _,
    future::{join, join_all},
    stream,
};
use serde_json::json;
use tokio::time::sleep;

use super::{a_second, defaults, plain};
use crate::{
    issuer::{Fault, Forgery, Rotation, control::now},
    scoreboard::{Case, Setup, Stage, Verdict},
};

const GROUP: &str = "Outages and floods";
/// How many forged tokens are a flood.
const FLOOD: usize = 1000;

pub(super) fn cases() -> Vec<Case> {
    let mut past_stale = plain(
        GROUP,
        "outage-past-stale",
        "dead for longer than keys may be relied on (1 minute here)",
        "\"not now\"; accepted within 10 s of its return",
        limited,
        |stage| {
            Box::pin(async move {
                stage.warm().await;
                stage.issuer.die().await;
                sleep(Duration::from_secs(63)).await;
                let token = stage.token();
                stage.cannot_say("keys that nobody confirmed for a minute", &token).await;
                stage.issuer.revive().await;
                stage.recovers("when it is back", Duration::from_secs(10)).await;
            })
        },
    );
    past_stale.is_slow = true;
    vec![
        past_stale,
        plain(
            GROUP,
            "dead-at-boot",
            "dead before the start, back later",
            "starts; \"not now\", then accepted within 10 s, without restart",
            a_second,
            |stage| {
                Box::pin(async move {
                    stage.issuer.die().await;
                    stage.open().await;
                    let token = stage.token();
                    stage.cannot_say("while it is dead", &token).await;
                    stage.issuer.revive().await;
                    stage.recovers("when it is back", Duration::from_secs(10)).await;
                })
            },
        ),
        plain(
            GROUP,
            "silent-at-boot",
            "connections without answer from the start",
            "starts; \"not now\" within 8 s",
            a_second,
            |stage| {
                Box::pin(async move {
                    stage.issuer.fault(Some(Fault::Silent));
                    stage.open().await;
                    let token = stage.token();
                    stage.cannot_say("no answer", &token).await;
                    stage.issuer.fault(None);
                    stage.recovers("when it answers", Duration::from_secs(10)).await;
                })
            },
        ),
        plain(
            GROUP,
            "404-at-boot",
            "404 from the start",
            "starts; \"not now\", then accepted within 10 s",
            a_second,
            |stage| {
                Box::pin(async move {
                    stage.issuer.fault(Some(Fault::Status(404)));
                    stage.open().await;
                    let token = stage.token();
                    stage.cannot_say("404", &token).await;
                    stage.issuer.fault(None);
                    stage.recovers("when it answers", Duration::from_secs(10)).await;
                })
            },
        ),
        plain(
            GROUP,
            "cold-herd",
            "200 tokens at once at the start, answers 0.5 s late",
            "all accepted, 1 fetch",
            defaults,
            |stage| {
                Box::pin(async move {
                    stage.issuer.fault(Some(Fault::Slow(Duration::from_millis(500))));
                    stage.open().await;
                    let tokens: Vec<_> = (0..200).map(|_| stage.token()).collect();
                    for (verdict, _) in join_all(tokens.iter().map(|token| stage.ask(token))).await {
                        if verdict != Verdict::Accepted {
                            stage.find_verdict("one of the herd", &verdict);
                        }
                    }
                    stage.fetches_at_most(1, 0);
                })
            },
        ),
        plain(GROUP, "outage", "dies after the start", "known key at once; new key \"not now\"", a_second, |stage| {
            Box::pin(async move {
                stage.warm().await;
                sleep(Duration::from_millis(1200)).await;
                stage.issuer.die().await;
                for _ in 0..20 {
                    let token = stage.token();
                    stage.knows("a known key", &token).await;
                }
                stage.issuer.rotate(Rotation::Overlap);
                let token = stage.token();
                stage.cannot_say("a new key", &token).await;
                stage.issuer.revive().await;
                stage.recovers("when it is back", Duration::from_secs(10)).await;
            })
        }),
        plain(
            GROUP,
            "outage-past-fresh",
            "dies, and its keys are due for a refresh",
            "known key at once",
            short_lived,
            |stage| {
                Box::pin(async move {
                    stage.issuer.cache_control("max-age=1");
                    stage.warm().await;
                    stage.issuer.die().await;
                    sleep(Duration::from_secs(3)).await;
                    for _ in 0..20 {
                        let token = stage.token();
                        stage.knows("a known key", &token).await;
                    }
                })
            },
        ),
        plain(GROUP, "restart", "dead when the verifier is started again", "known key accepted", defaults, |stage| {
            Box::pin(async move {
                stage.warm().await;
                // It is written behind the answer.
                sleep(Duration::from_secs(2)).await;
                stage.issuer.die().await;
                stage.restart().await;
                stage.recovers("a key of before", Duration::from_secs(3)).await;
            })
        }),
        plain(
            GROUP,
            "kid-flood",
            "1000 tokens of 1000 unknown keys",
            "good tokens at once, at most 2 more fetches",
            defaults,
            |stage| Box::pin(flood(stage, |number| Forgery::Kid(json!(format!("unknown-{number}"))))),
        ),
        plain(
            GROUP,
            "signature-flood",
            "1000 forged signatures under the known kid",
            "good tokens at once, at most 2 more fetches",
            defaults,
            |stage| Box::pin(flood(stage, |_| Forgery::Signature)),
        ),
        plain(
            GROUP,
            "rotation-in-a-flood",
            "a new key, after 20 unknown ones",
            "accepted, or \"not now\"; never refused",
            defaults,
            |stage| {
                Box::pin(async move {
                    stage.warm().await;
                    for number in 0..20 {
                        let forged = stage.forged(&Forgery::Kid(json!(format!("unknown-{number}"))));
                        stage.denies("an unknown key", &forged).await;
                    }
                    stage.issuer.rotate(Rotation::Overlap);
                    let token = stage.token();
                    if let (verdict @ (Verdict::Refused(_) | Verdict::Silent), _) = stage.ask(&token).await {
                        stage.find_verdict("the new key", &verdict);
                    }
                })
            },
        ),
    ]
}

fn short_lived(setup: &mut Setup) {
    a_second(setup);
    setup.fresh_for = Some(Duration::from_secs(1));
}

fn limited(setup: &mut Setup) {
    a_second(setup);
    setup.max_stale = Some(Duration::from_mins(1));
}

async fn flood(stage: &mut Stage, forgery: fn(usize) -> Forgery) {
    stage.warm().await;
    let (since, began) = (stage.issuer.hits(), now());
    let tokens: Vec<_> = (0..FLOOD).map(|number| stage.forged(&forgery(number))).collect();
    let seen: &Stage = stage;
    let flood = stream::iter(tokens).map(|token| async move { seen.ask(&token).await.0 }).buffer_unordered(32);
    let good = async {
        let mut answers = Vec::new();
        for _ in 0..50 {
            let token = seen.token();
            answers.push(seen.ask(&token).await);
            sleep(Duration::from_millis(10)).await;
        }
        answers
    };
    let (forged, good): (Vec<_>, _) = join(flood.collect(), good).await;
    for verdict in forged {
        if matches!(verdict, Verdict::Accepted | Verdict::Silent) {
            stage.find_verdict("a forged token", &verdict);
        }
    }
    for (verdict, took) in good {
        stage.knew("a good token", &verdict, took);
    }
    // Its budget is one in half a minute; the flood takes longer than that on a busy machine.
    let half_minutes = u64::try_from(now() - began).unwrap() / 30;
    stage.fetches_at_most(2 + half_minutes, since);
}
