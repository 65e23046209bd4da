//! One issuer and one verifier, and what is seen between them.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use super::{
    Score,
    subject::{Launcher, Setup, Subject, Verdict},
};
use crate::{
    folder,
    issuer::{Algorithm, Forgery, Issuer, control::now},
};

/// A token whose key is known waits for nothing. Generous: unoptimised builds.
pub(super) const PROMPT: Duration = Duration::from_millis(1500);
/// How long a verifier may take to say that it cannot say.
pub(super) const AT_LAST: Duration = Duration::from_secs(8);
/// An answer that took longer may have waited for a fetch that came to nothing, and was begun again.
const SLOW: Duration = Duration::from_secs(2);

/// A situation while it is played.
pub struct Stage {
    /// The issuer.
    pub issuer: Issuer,
    launcher: Launcher,
    settings: fn(&mut Setup),
    subject: Option<Subject>,
    findings: Vec<String>,
    /// Whether some of the findings is more than that there was too little time.
    is_wrong: bool,
    /// Whether some answer was slow.
    was_slow: AtomicBool,
    slowest_known: Duration,
    folder: TempDir,
    resident: u64,
}

impl Stage {
    pub(super) async fn new(launcher: Launcher, settings: fn(&mut Setup)) -> Self {
        Self {
            issuer: Issuer::start().await,
            launcher,
            settings,
            subject: None,
            findings: Vec::new(),
            is_wrong: false,
            was_slow: AtomicBool::new(false),
            slowest_known: Duration::ZERO,
            folder: folder::quick(),
            resident: 0,
        }
    }

    pub(super) fn into_score(self, id: String) -> Score {
        let fetches = self.issuer.hits();
        let is_excusable = !self.findings.is_empty() && !self.is_wrong;
        Score { id, findings: self.findings, is_excusable, fetches, slowest_known: self.slowest_known }
    }

    /// Another issuer, with keys of this kind; before the verifier starts.
    pub(super) async fn issue_with(&mut self, algorithm: Algorithm) {
        self.issuer = Issuer::start_with(algorithm).await;
    }

    /// Starts the verifier, which has seen no token yet.
    pub(super) async fn open(&mut self) {
        let mut setup = Setup {
            issuer: self.issuer.url(),
            jwks_url: self.issuer.jwks_url(),
            audience: "app".to_owned(),
            algorithms: vec!["EdDSA", "ES256", "RS256"],
            clock_tolerance: Duration::from_secs(30),
            min_interval: None,
            max_stale: None,
            fresh_for: None,
            state: self.folder.path().to_owned(),
        };
        (self.settings)(&mut setup);
        self.subject = Some(self.launcher.start(&setup).await);
    }

    /// Starts the verifier and shows it a good token; the token.
    pub(super) async fn warm(&mut self) -> String {
        self.open().await;
        let token = self.token();
        self.accepts("the first token", &token).await;
        self.resident = self.memory("VmRSS:");
        token
    }

    /// Ends the verifier and starts it again, with its files.
    pub(super) async fn restart(&mut self) {
        if let Some(subject) = self.subject.take() {
            subject.stop().await;
        }
        self.open().await;
    }

    /// A good token of the newest key, unlike any other.
    pub(super) fn token(&self) -> String {
        self.issuer.mint(&self.claims(&json!({})))
    }

    /// A good token of the newest key with these claims in place of the usual ones; null removes.
    pub(super) fn token_with(&self, claims: &Value) -> String {
        self.issuer.mint(&self.claims(claims))
    }

    /// A good token of an older key.
    pub(super) fn older(&self, age: usize) -> String {
        self.issuer.mint_by(age, &json!({}), &self.claims(&json!({})))
    }

    /// A token that must not be accepted.
    pub(super) fn forged(&self, forgery: &Forgery) -> String {
        self.issuer.forge(forgery, &self.claims(&json!({})))
    }

    fn claims(&self, other: &Value) -> Value {
        let mut claims = self.issuer.claims("app", now());
        // A verdict that was kept must not be taken for one that was found.
        claims["jti"] = json!(format!("{}", self.issuer.minted()));
        for (name, value) in other.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    }

    /// Asks; how long that took.
    #[allow(clippy::disallowed_methods, reason = "measures, does not decide")]
    pub(super) async fn ask(&self, token: &str) -> (Verdict, Duration) {
        let began = Instant::now();
        let verdict = self.subject.as_ref().unwrap().verify(token).await;
        let took = began.elapsed();
        self.was_slow.fetch_or(took > SLOW, Ordering::Relaxed);
        (verdict, took)
    }

    /// Writes a finding down. After something that took too long it may be no more than what followed from that.
    pub(super) fn find(&mut self, what: String) {
        self.is_wrong |= self.findings.is_empty();
        self.note(what);
    }

    /// Writes a wrong verdict down. Who could not say, or said nothing, may have had too little of the machine.
    pub(super) fn find_verdict(&mut self, what: &str, verdict: &Verdict) {
        let finding = format!("{what}: {}", said(verdict));
        match verdict {
            Verdict::Accepted | Verdict::Refused(_) => self.find(finding),
            Verdict::Unavailable(_) | Verdict::Silent => self.find_late(finding),
        }
    }

    /// Writes down that something took too long, which may be the machine's fault.
    pub(super) fn find_late(&mut self, what: String) {
        self.note(what);
    }

    fn note(&mut self, what: String) {
        // One of a kind says it all.
        if self.findings.len() < 4 && !self.findings.contains(&what) {
            self.findings.push(what);
        }
    }

    /// It must be accepted, whatever that takes.
    pub(super) async fn accepts(&mut self, what: &str, token: &str) {
        let (verdict, took) = self.ask(token).await;
        if verdict != Verdict::Accepted {
            self.find_verdict(what, &verdict);
        } else if took > AT_LAST {
            self.find_late(format!("{what}: accepted after {:.1} s", took.as_secs_f64()));
        }
    }

    /// It must be accepted, and at once: its key is known.
    pub(super) async fn knows(&mut self, what: &str, token: &str) {
        let (verdict, took) = self.ask(token).await;
        self.knew(what, &verdict, took);
    }

    pub(super) fn knew(&mut self, what: &str, verdict: &Verdict, took: Duration) {
        self.slowest_known = self.slowest_known.max(took);
        if *verdict != Verdict::Accepted {
            self.find_verdict(what, verdict);
        } else if took > PROMPT {
            self.find_late(format!("{what}: waited {:.1} s", took.as_secs_f64()));
        }
    }

    /// It must be refused.
    pub(super) async fn refuses(&mut self, what: &str, token: &str) {
        let (verdict, took) = self.ask(token).await;
        if !matches!(verdict, Verdict::Refused(_)) {
            self.find_verdict(what, &verdict);
        } else if took > AT_LAST {
            self.find_late(format!("{what}: refused after {:.1} s", took.as_secs_f64()));
        }
    }

    /// It must not be accepted; refused or unavailable are both right.
    pub(super) async fn denies(&mut self, what: &str, token: &str) {
        let (verdict, _) = self.ask(token).await;
        if matches!(verdict, Verdict::Accepted | Verdict::Silent) {
            self.find_verdict(what, &verdict);
        }
    }

    /// It is good, and there is no way to know: it must be told "not now", in time, not "no".
    pub(super) async fn cannot_say(&mut self, what: &str, token: &str) {
        let (verdict, took) = self.ask(token).await;
        self.could_not_say(what, &verdict, took);
    }

    pub(super) fn could_not_say(&mut self, what: &str, verdict: &Verdict, took: Duration) {
        if !matches!(verdict, Verdict::Unavailable(_)) {
            self.find_verdict(what, verdict);
        } else if took > AT_LAST {
            self.find_late(format!("{what}: unavailable after {:.1} s", took.as_secs_f64()));
        }
    }

    /// Good tokens must be accepted again within this time.
    #[allow(clippy::disallowed_methods, reason = "measures, does not decide")]
    pub(super) async fn recovers(&mut self, what: &str, within: Duration) {
        let began = Instant::now();
        loop {
            let token = self.token();
            let (verdict, _) = self.ask(&token).await;
            if verdict == Verdict::Accepted {
                return;
            }
            if began.elapsed() > within {
                self.find_late(format!("{what}: still {} after {:.0} s", said(&verdict), within.as_secs_f64()));
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Since the issuer had given so many answers, at most this many more.
    pub(super) fn fetches_at_most(&mut self, most: u64, since: u64) {
        let fetches = self.issuer.hits() - since;
        if fetches > most {
            let finding = format!("{fetches} fetches, at most {most} needed");
            // One that the machine kept from its end is made up for by another.
            if *self.was_slow.get_mut() { self.find_late(finding) } else { self.find(finding) }
        }
    }

    /// Since the first token, its memory grew by at most so many megabytes, at its highest.
    pub(super) fn grew_at_most(&mut self, megabytes: u64) {
        let grown = self.memory("VmHWM:").saturating_sub(self.resident) / 1024;
        if grown > megabytes {
            self.find(format!("{grown} MB of memory, at most {megabytes} needed"));
        }
    }

    /// KB, as the system counts them.
    fn memory(&self, line: &str) -> u64 {
        let id = self.subject.as_ref().unwrap().process_id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let found = status.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse().ok());
        found.unwrap_or(0)
    }
}

/// In words.
pub(super) fn said(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accepted => "accepted".to_owned(),
        Verdict::Refused(why) => format!("refused ({why})"),
        Verdict::Unavailable(why) => format!("unavailable ({why})"),
        Verdict::Silent => "no answer".to_owned(),
    }
}
