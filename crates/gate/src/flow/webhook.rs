//! Webhooks about licenses: from a signed message to what is known (B59, B60).
//!
//! Two kinds, and what they say counts differently. A hub's webhook, under a shared secret, says what the state *is*:
//! it is an observation with the time at which it was signed. Keygen's says that something *happened*, in any order
//! and as old as the event: it is a hint, noted in the store before it is acknowledged, and then the provider is asked.
//! What a hub's leaves open is noted in the same way before it counts: whoever sent it may hang up at any moment, and does
//! not send it again once it was taken.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use doorward_core::{
    decision::Denial,
    keygen::{AccountKeys, Message, Notice, Problem, verify_message},
    license::{Holder, Known, LicenseState, Observation},
    reason::Reason,
    time::{Now, Timestamp},
    user::User,
    webhook::{self, LicenseEvent, WebhookSecrets},
};
use doorward_store::{LicenseEventMark, NoteHint};
use http::HeaderMap;
use tokio::sync::Semaphore;

use crate::{
    gate::Gate,
    license::{Applied, Licenses, RefreshError},
    rate::{Limit, Limits},
};

/// Questions that webhooks cause at once; what is noted beyond that waits for the job that reads the notes.
const ASKING: usize = 32;

/// What webhooks are verified with.
#[derive(Debug, Default)]
pub struct WebhookConfig {
    /// Secrets of the hub's; none: switched off.
    pub secrets: WebhookSecrets,
    /// Keygen's; `None`: switched off.
    pub keygen: Option<KeygenHook>,
}

/// What Keygen's webhooks are verified with.
#[derive(Clone, Debug)]
pub struct KeygenHook {
    /// Keys of the account, pinned.
    pub keys: AccountKeys,
    /// Account that signs.
    pub account: String,
    /// Host of the URL that Keygen calls, without port.
    pub host: String,
    /// Path of that URL. Its query is that of the request: it is part of what is signed.
    pub path: String,
}

/// What became of a webhook that is genuine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It counts.
    Done,
    /// It changes nothing; why, in a word.
    Noop(&'static str),
}

/// The flow, as a handle that is cheap to clone.
#[derive(Clone, Debug)]
pub struct LicenseWebhooks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    gate: Gate,
    limits: Arc<dyn Limits>,
    config: ArcSwap<WebhookConfig>,
    asking: Arc<Semaphore>,
}

impl LicenseWebhooks {
    /// Webhooks for the licenses of `gate`.
    pub fn new(gate: Gate, limits: Arc<dyn Limits>, config: WebhookConfig) -> Self {
        let asking = Arc::new(Semaphore::new(ASKING));
        Self(Arc::new(Inner { gate, limits, config: ArcSwap::from_pointee(config), asking }))
    }

    /// Verifies with these from now on.
    pub fn configure(&self, config: WebhookConfig) {
        self.0.config.store(Arc::new(config));
    }

    /// Takes a hub's webhook, `body` byte for byte.
    ///
    /// It is taken once: by its id, by its number among those of its subject, or by its bytes where it has no id. One
    /// that was signed before the newest that is known changes nothing.
    ///
    /// # Errors
    /// In this order: `webhook_disabled` (no secret, or licenses are not users'), `rate_limited` (this client sent
    /// too many bad ones), those of [`webhook::verify`], `webhook_bad_payload`, `store_unavailable`.
    pub async fn hub(&self, headers: &HeaderMap, body: &[u8], client: IpAddr, now: Now) -> Result<Taken, Denial> {
        let config = self.0.config.load_full();
        let licenses = self.licenses()?;
        if config.secrets.is_empty() {
            return Err(Reason::WebhookDisabled.into());
        }
        self.may_try(client).await?;
        let at = self.counted(client, webhook::verify(&config.secrets, headers, body, now.wall)).await?;
        let event = LicenseEvent::parse(body)?;
        let Some(user) = self.user(&licenses, &event.subject).await? else {
            return Ok(Taken::Noop("unknown_subject"));
        };
        let holder = Holder::User(user.id);
        let known = self.0.gate.store().license(holder).await?.map(|row| row.known);
        let said = Said::of(&event, known.as_ref(), at, now.wall);
        let id = event.id.as_ref().map_or_else(|| format!("hub/{}", hash(at, body)), |id| format!("hub:{id}"));
        // When it ends and what it allows is more than the webhook says; and a clock that is wrong may take an old one for
        // one of now.
        licenses.judged_at().await?;
        let leaves_open = said.is_partial || licenses.time().is_behind();
        if leaves_open {
            // Under a name for each delivery: what the first one noted may have been settled before the event counts.
            let note = format!("ask/{id}/{}", now.wall.as_millis());
            self.0.gate.store().note_license_hint(note, vec![holder], now.wall).await?;
        }
        let mark = LicenseEventMark { id: Some(id), seq: event.seq };
        match licenses.observe(holder, said.observation, Some(mark)).await? {
            Applied::Repeated => return Ok(Taken::Noop("repeated")),
            Applied::Older => {
                // Our own stamp says when we asked, by a clock that need not agree with the hub's.
                if known.as_ref().is_some_and(Known::is_by_own_clock) {
                    self.ask(&licenses, [holder], now.wall);
                }
                return Ok(Taken::Noop("older"));
            }
            Applied::Confirmed | Applied::Changed { .. } => {}
        }
        if leaves_open {
            self.ask(&licenses, [holder], now.wall);
        }
        Ok(Taken::Done)
    }

    /// Takes a webhook of Keygen's, `body` byte for byte, `query` as it came.
    ///
    /// # Errors
    /// In this order: `webhook_disabled`, `rate_limited`, `webhook_missing_signature`, `webhook_bad_timestamp`,
    /// `webhook_bad_signature` (also: another account, another URL, another body), `webhook_stale`,
    /// `webhook_bad_payload`, `store_unavailable`. None of them is 410 or 530, at which Keygen drops its subscriptions.
    pub async fn keygen(
        &self,
        query: Option<&str>,
        headers: &HeaderMap,
        body: &[u8],
        client: IpAddr,
        now: Now,
    ) -> Result<Taken, Denial> {
        let config = self.0.config.load_full();
        let licenses = self.licenses()?;
        let hook = config.keygen.as_ref().ok_or(Reason::WebhookDisabled)?;
        self.may_try(client).await?;
        let target = query.map_or_else(|| hook.path.clone(), |query| format!("{}?{query}", hook.path));
        let message = Message { method: "POST", target: &target, host: &hook.host, headers, body };
        let verified = verify_message(&message, &hook.keys, &hook.account, webhook::WINDOW, now.wall)
            .map_err(|problem| refusal(&problem));
        self.counted(client, verified).await?;
        let notice = Notice::read(body)
            .map_err(|problem| Denial::from(Reason::WebhookBadPayload).with_note(problem.to_string()))?;
        let holders = self.holders(&licenses, &notice).await?;
        let store = self.0.gate.store();
        let event = format!("keygen:{}", notice.token);
        if store.note_license_hint(event, holders.clone(), now.wall).await? == NoteHint::Repeated {
            return Ok(Taken::Noop("repeated"));
        }
        tracing::debug!(
            event = notice.event,
            holders = holders.len(),
            "the license server says that something happened"
        );
        if holders.is_empty() {
            return Ok(Taken::Noop("unknown_license"));
        }
        self.ask(&licenses, holders, now.wall);
        Ok(Taken::Done)
    }

    /// Webhooks are about licenses of users.
    fn licenses(&self) -> Result<Licenses, Denial> {
        let licenses = self.0.gate.licenses().filter(Licenses::is_per_user);
        licenses.ok_or_else(|| Reason::WebhookDisabled.into())
    }

    async fn may_try(&self, client: IpAddr) -> Result<(), Denial> {
        let looked = self.0.limits.look(Limit::WebhookPerClient, Limit::client(client)).await;
        looked.map(drop).map_err(Denial::limited)
    }

    /// Counts what is not genuine, by client.
    async fn counted<T>(&self, client: IpAddr, verified: Result<T, Denial>) -> Result<T, Denial> {
        if verified.is_err() {
            // The refusal at hand is told, whatever the limit says of the next one.
            let _ = self.0.limits.take(Limit::WebhookPerClient, Limit::client(client)).await;
        }
        verified
    }

    /// The user whom the provider calls `subject`.
    async fn user(&self, licenses: &Licenses, subject: &str) -> Result<Option<User>, Denial> {
        let store = self.0.gate.store();
        if let Some(user) = store.user_by_subject(subject.to_owned()).await? {
            return Ok(Some(user));
        }
        match licenses.issuer() {
            Some(issuer) => Ok(store.user_by_identity(issuer.to_owned(), subject.to_owned()).await?),
            None => Ok(None),
        }
    }

    async fn holders(&self, licenses: &Licenses, notice: &Notice) -> Result<Vec<Holder>, Denial> {
        let store = self.0.gate.store();
        let mut holders = Vec::new();
        for id in &notice.licenses {
            holders.extend(store.licenses_named(id.clone()).await?.into_iter().map(|row| row.holder));
        }
        for subject in &notice.users {
            holders.extend(self.user(licenses, subject).await?.map(|user| Holder::User(user.id)));
        }
        holders.sort_unstable();
        holders.dedup();
        Ok(holders)
    }

    /// Asks the provider about `holders`, in the background.
    fn ask(&self, licenses: &Licenses, holders: impl IntoIterator<Item = Holder>, noted_at: Timestamp) {
        for holder in holders {
            let Ok(seat) = Arc::clone(&self.0.asking).try_acquire_owned() else { return };
            let (gate, licenses) = (self.0.gate.clone(), licenses.clone());
            tokio::spawn(async move {
                // A fault is counted and logged where it happens; the note stays for another try.
                let _ = settle(&gate, &licenses, holder, noted_at).await;
                drop(seat);
            });
        }
    }
}

/// Asks the provider about the license of `holder`, and forgets the note of `noted_at` that this was to be done.
///
/// # Errors
/// [`RefreshError`]; the note stays.
pub async fn settle(gate: &Gate, licenses: &Licenses, holder: Holder, noted_at: Timestamp) -> Result<(), RefreshError> {
    licenses.refresh(holder).await?;
    gate.store().settle_license_hint(holder, noted_at).await?;
    Ok(())
}

/// What an event says, together with what it leaves out and is known.
struct Said {
    observation: Observation,
    /// Whether something is missing that only the provider can say.
    is_partial: bool,
}

impl Said {
    fn of(event: &LicenseEvent, known: Option<&Known>, at: Timestamp, now: Timestamp) -> Self {
        // It was signed within a second of which only the beginning is known; an answer from the same second that we
        // have already is not newer than what is sent afterwards.
        let observed_at = now.clamp(at, at.plus(Duration::from_millis(999)));
        let is_same = |known: &&Known| {
            let (known, said) = (&known.observation.license_id, &event.license_id);
            known.is_none() || said.is_none() || known == said
        };
        let kept = known.filter(is_same).map(|known| &known.observation);
        let is_usable = event.state == LicenseState::Active;
        let mut expires_at = kept.and_then(|kept| kept.expires_at);
        if is_usable && expires_at.is_some_and(|end| end <= observed_at) {
            // It goes on beyond the end that we know: that end is no longer right.
            expires_at = None;
        }
        let is_partial = is_usable && expires_at.is_none();
        let entitlements = kept.map(|kept| kept.entitlements.clone()).unwrap_or_default();
        let license_id = event.license_id.clone();
        let observation = Observation { state: event.state, license_id, expires_at, entitlements, observed_at };
        Self { observation, is_partial }
    }
}

/// A name for a webhook that has none: what was signed.
fn hash(at: Timestamp, body: &[u8]) -> String {
    let signed = [at.as_secs().to_string().as_bytes(), b".", body].concat();
    digest(&SHA256, &signed).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn refusal(problem: &Problem) -> Denial {
    let reason = match problem {
        Problem::Unsigned => Reason::WebhookMissingSignature,
        Problem::Malformed("Date") => Reason::WebhookBadTimestamp,
        Problem::Stale => Reason::WebhookStale,
        Problem::EmptySignature
        | Problem::Malformed(_)
        | Problem::OtherAccount
        | Problem::AlgorithmNotAllowed
        | Problem::NoKey(_)
        | Problem::BadDigest
        | Problem::BadSignature
        | Problem::NotOpened => Reason::WebhookBadSignature,
    };
    Denial::from(reason).with_note(problem.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const DAY: Duration = Duration::from_hours(24);

    fn event(state: LicenseState, license_id: Option<&str>) -> LicenseEvent {
        let license_id = license_id.map(str::to_owned);
        LicenseEvent { subject: "s".to_owned(), state, license_id, id: None, seq: None }
    }

    fn known(expires_at: Option<Timestamp>) -> Known {
        let observation = Observation {
            state: LicenseState::Active,
            license_id: Some("l1".to_owned()),
            expires_at,
            entitlements: BTreeSet::from(["sso".to_owned()]),
            observed_at: NOW.minus(DAY),
        };
        Known { observation, confirmed_at: NOW }
    }

    #[test]
    fn what_an_event_leaves_out_stays_as_it_is_known_and_another_license_brings_nothing_along() {
        use LicenseState as S;
        let (ahead, past) = (Some(NOW.plus(DAY)), Some(NOW.minus(DAY)));
        for (state, id, end, kept_end, is_partial) in [
            (S::Suspended, None, ahead, ahead, false),
            (S::Suspended, Some("l1"), ahead, ahead, false),
            (S::Active, None, ahead, ahead, false),
            (S::Active, None, None, None, true),
            (S::Active, None, past, None, true),
            (S::Expired, None, past, past, false),
            (S::Active, Some("l2"), ahead, None, true),
            (S::Suspended, Some("l2"), ahead, None, false),
        ] {
            let known = known(end);
            let said = Said::of(&event(state, id), Some(&known), NOW, NOW);
            assert_eq!((said.observation.expires_at, said.is_partial), (kept_end, is_partial), "{state:?} {id:?}");
            assert_eq!(said.observation.entitlements.is_empty(), id == Some("l2"), "{state:?} {id:?}");
            assert_eq!(said.observation.license_id.as_deref(), id);
        }
        assert!(Said::of(&event(S::Active, Some("l1")), None, NOW, NOW).is_partial);
    }

    #[test]
    fn an_event_is_not_older_than_an_answer_of_the_same_second() {
        let at = |now: Timestamp| Said::of(&event(LicenseState::Active, None), None, NOW, now).observation.observed_at;
        assert_eq!(at(NOW.plus(Duration::from_millis(700))), NOW.plus(Duration::from_millis(700)));
        assert_eq!(at(NOW.plus(Duration::from_secs(9))), NOW.plus(Duration::from_millis(999)));
        assert_eq!(at(NOW.minus(Duration::from_secs(9))), NOW);
    }
}
