//! The key set's address misbehaves after the verifier has seen it well, and a new key appears meanwhile.

use std::time::Duration;

use futures_util::{FutureExt as _, future::join};
use tokio::time::sleep;

use super::{a_second, plain};
use crate::{
    issuer::{Etag, Fault, Issuer, Rotation, control::now},
    scoreboard::{Case, Play, Stage, Verdict},
};

const GROUP: &str = "Answers that are wrong";
/// More memory than a fetch of the largest sensible set may take.
const MEGABYTES: u64 = 48;

pub(super) fn cases() -> Vec<Case> {
    let hidden: [(&str, &str, Fault); 14] = [
        ("404", "404", Fault::Status(404)),
        ("500", "500", Fault::Status(500)),
        ("429", "429", Fault::Status(429)),
        ("html", "a page for people, 200", Fault::Html),
        ("garbage", "half a document", Fault::Garbage),
        ("not-a-set", "JSON that is not a set", Fault::NotASet),
        ("empty", "an empty set", Fault::Empty),
        ("cut-off", "a connection that breaks in the document", Fault::CutOff),
        ("silent", "no answer for ever", Fault::Silent),
        ("drip", "one byte a second", Fault::Drip),
        ("large", "a document of 2 MB", Fault::Large(2 << 20)),
        ("endless", "a document without end", Fault::Endless),
        ("redirect-loop", "a redirect to itself", Fault::RedirectLoop),
        ("not-modified", "304 to an unconditional question", Fault::NotModified),
    ];
    let mut cases: Vec<Case> = hidden
        .into_iter()
        .map(|(id, title, fault)| Case {
            group: GROUP,
            id: id.to_owned(),
            title: title.to_owned(),
            expected: "known key at once; new key \"not now\" in 8 s, accepted 10 s after the end; bounded fetches and memory",
            settings: a_second,
            is_slow: false,
            play: Play::Fault(fault, |stage, fault| hide(stage, fault).boxed()),
        })
        .collect();
    cases.extend([
        plain(GROUP, "slow", "every answer 2 s late", "known key at once; new key accepted", a_second, |stage| {
            Box::pin(async move {
                stage.warm().await;
                settle().await;
                stage.issuer.fault(Some(Fault::Slow(Duration::from_secs(2))));
                stage.issuer.rotate(Rotation::Overlap);
                let since = stage.issuer.hits();
                let new = stage.token();
                let ((verdict, _), known) = join(stage.ask(&new), meanwhile(stage)).await;
                for (verdict, took) in known {
                    stage.knew("a known key meanwhile", &verdict, took);
                }
                if verdict != Verdict::Accepted {
                    stage.find_verdict("new key", &verdict);
                }
                stage.fetches_at_most(2, since);
            })
        }),
        plain(GROUP, "wrong-type", "the right set as text/plain", "accepted", a_second, |stage| {
            Box::pin(new_key_behind(stage, Fault::WrongType))
        }),
        plain(
            GROUP,
            "moved",
            "a redirect within the origin",
            "new key accepted, or \"not now\" for who follows none; never refused",
            a_second,
            |stage| {
                Box::pin(async move {
                    stage.warm().await;
                    settle().await;
                    stage.issuer.fault(Some(Fault::Moved));
                    stage.issuer.rotate(Rotation::Overlap);
                    let new = stage.token();
                    if let (verdict @ (Verdict::Refused(_) | Verdict::Silent), _) = stage.ask(&new).await {
                        stage.find_verdict("new key", &verdict);
                    }
                })
            },
        ),
        plain(
            GROUP,
            "gzip-bomb",
            "400 KB that unpack to 64 MB",
            "known key at once; bounded memory",
            a_second,
            |stage| {
                Box::pin(async move {
                    stage.warm().await;
                    settle().await;
                    stage.issuer.fault(Some(Fault::GzipBomb));
                    stage.issuer.rotate(Rotation::Overlap);
                    let new = stage.token();
                    let (_, known) = join(stage.ask(&new), meanwhile(stage)).await;
                    for (verdict, took) in known {
                        stage.knew("a known key meanwhile", &verdict, took);
                    }
                    stage.grew_at_most(MEGABYTES);
                })
            },
        ),
        plain(
            GROUP,
            "redirect-away",
            "a redirect to another origin with other keys",
            "not followed",
            a_second,
            |stage| {
                Box::pin(async move {
                    let attacker = Issuer::start().await;
                    stage.warm().await;
                    settle().await;
                    stage.issuer.fault(Some(Fault::Redirect(attacker.jwks_url())));
                    // The attacker signs in the issuer's name, with a key that only its own set has.
                    attacker.rotate(Rotation::Overlap);
                    let mut claims = stage.issuer.claims("app", now());
                    claims["sub"] = "admin".into();
                    stage.denies("the attacker's token", &attacker.mint(&claims)).await;
                    if attacker.hits() > 0 {
                        stage.find(format!("asked the other origin {} times", attacker.hits()));
                    }
                    let old = stage.token();
                    stage.knows("a known key", &old).await;
                })
            },
        ),
        plain(
            GROUP,
            "stale-cdn",
            "the old set again, from a cache on the way",
            "the new key stays accepted, or \"not now\"",
            a_second,
            |stage| {
                Box::pin(async move {
                    stage.warm().await;
                    settle().await;
                    stage.issuer.rotate(Rotation::Abrupt);
                    let new = stage.token();
                    stage.accepts("new key", &new).await;
                    settle().await;
                    stage.issuer.fault(Some(Fault::Stale));
                    // Something that makes it ask again.
                    let unknown = stage.forged(&crate::issuer::Forgery::Kid("nobody".into()));
                    stage.denies("an unknown key", &unknown).await;
                    for _ in 0..5 {
                        let token = stage.token();
                        if let (verdict @ Verdict::Refused(_), _) = stage.ask(&token).await {
                            stage.find_verdict("the new key, under the old set", &verdict);
                        }
                        sleep(Duration::from_millis(300)).await;
                    }
                    stage.issuer.fault(None);
                    stage.recovers("after the cache", Duration::from_secs(10)).await;
                })
            },
        ),
        plain(
            GROUP,
            "lying-etag",
            "304 to every condition, though the set has changed",
            "the new key is accepted",
            a_second,
            |stage| {
                Box::pin(async move {
                    stage.issuer.etag(Etag::Lying);
                    stage.warm().await;
                    settle().await;
                    stage.issuer.rotate(Rotation::Overlap);
                    stage.recovers("new key", Duration::from_secs(5)).await;
                })
            },
        ),
        plain(
            GROUP,
            "honest-etag",
            "304 while nothing has changed",
            "known keys stay, the new key is accepted",
            a_second,
            |stage| {
                Box::pin(async move {
                    stage.issuer.etag(Etag::Honest);
                    stage.warm().await;
                    settle().await;
                    let unknown = stage.forged(&crate::issuer::Forgery::Kid("nobody".into()));
                    stage.denies("an unknown key", &unknown).await;
                    let known = stage.token();
                    stage.knows("a known key", &known).await;
                    settle().await;
                    stage.issuer.rotate(Rotation::Overlap);
                    let new = stage.token();
                    stage.accepts("new key", &new).await;
                })
            },
        ),
    ]);
    cases
}

/// Past the pause that keys of a moment ago impose.
async fn settle() {
    sleep(Duration::from_millis(1200)).await;
}

/// Twenty tokens of the key that is known, spread over two seconds.
async fn meanwhile(stage: &Stage) -> Vec<(Verdict, Duration)> {
    let mut answers = Vec::new();
    for _ in 0..20 {
        sleep(Duration::from_millis(100)).await;
        let token = stage.older(1);
        answers.push(stage.ask(&token).await);
    }
    answers
}

async fn hide(stage: &mut Stage, fault: Fault) {
    stage.warm().await;
    settle().await;
    let (since, began) = (stage.issuer.hits(), now());
    let is_followed = matches!(fault, Fault::RedirectLoop);
    stage.issuer.fault(Some(fault));
    stage.issuer.rotate(Rotation::Overlap);
    let new = stage.token();
    let ((verdict, took), known) = join(stage.ask(&new), meanwhile(stage)).await;
    for (verdict, took) in known {
        stage.knew("a known key meanwhile", &verdict, took);
    }
    stage.could_not_say("the new key", &verdict, took);
    stage.grew_at_most(MEGABYTES);
    stage.issuer.fault(None);
    stage.recovers("after the end", Duration::from_secs(10)).await;
    // One a second on average, and a redirect may be followed a few times for each.
    let seconds = u64::try_from(now() - began).unwrap();
    stage.fetches_at_most(if is_followed { (4 * (seconds + 2)).max(24) } else { seconds + 3 }, since);
}

async fn new_key_behind(stage: &mut Stage, fault: Fault) {
    stage.warm().await;
    settle().await;
    stage.issuer.fault(Some(fault));
    stage.issuer.rotate(Rotation::Overlap);
    let new = stage.token();
    stage.accepts("new key", &new).await;
}
