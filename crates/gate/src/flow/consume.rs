//! The end of a sign-in: one transaction for link, promotion and session.

use doorward_core::{
    audit::EventKind,
    decision::Denial,
    effects::Effects,
    id::SessionId,
    link::{self, Asker, Link, NewSession, Promotion, Proof, browser, re_auth},
    reason::Reason,
    ring::Purpose,
    session::{OpaqueToken, TokenHash},
    time::Now,
    user::{LinkStatus, User},
};
use doorward_store::Consume;

use super::{
    directory::PATIENCE,
    doubt,
    sign_in::{Inner, SignedIn},
};

/// Who signs in, and with what.
pub(super) struct Presented<'a> {
    pub(super) by: Proof,
    pub(super) browser: Option<&'a OpaqueToken>,
    /// What the browser keeps of an earlier sign-in.
    pub(super) known: Option<&'a str>,
    pub(super) replaces: Option<TokenHash>,
    pub(super) asker: &'a Asker,
}

impl Inner {
    /// Checks and uses `link`; what is refused is written down.
    pub(super) async fn finish(
        &self,
        link: &Link,
        user: &User,
        presented: Presented<'_>,
        now: Now,
    ) -> Result<SignedIn, Denial> {
        let asker = presented.asker;
        let kind = match presented.by {
            Proof::Link => EventKind::LinkRefused,
            Proof::Code => EventKind::CodeRefused,
        };
        let outcome = self.consume(link, user, presented, now).await;
        if let Err(denial) = &outcome
            && !denial.reason.is_fault()
        {
            self.notes.refused(kind, link, asker, denial, now).await;
        }
        outcome
    }

    async fn consume(&self, link: &Link, user: &User, presented: Presented<'_>, now: Now) -> Result<SignedIn, Denial> {
        let Presented { by, browser, known, replaces, asker } = presented;
        let hash = browser.map(OpaqueToken::hash);
        link::check(link, user, hash.as_ref(), now.wall)?;
        let replaces = match replaces {
            Some(hash) => self.store.session(hash).await?.map(|(session, _)| session),
            None => None,
        };
        let sessions = self.config.load().sessions;
        let again = re_auth::session_of(link, replaces.as_ref(), &sessions, now.wall)?.cloned();
        let found = self.subject_of(user).await;
        let promotion = link::judge_candidate(user, found.as_deref())?;
        let token = OpaqueToken::mint(self.clock.random());
        let new = NewSession {
            id: SessionId::mint(now.wall, self.clock.random()),
            hash: token.hash(),
            method: by.method(),
            absolute: sessions.absolute,
            asker: asker.clone(),
            replaces,
        };
        let (mut plan, mut effects) = link::plan_consume(link, new, now.wall);
        plan.by = by;
        if let Some(old) = &again {
            re_auth::continue_session(&mut plan, &mut effects, old);
        }
        let attempted = found.as_deref().unwrap_or_default();
        let mismatch = || Effects::audited(link::mismatch_event(asker, user, link, attempted, now.wall));
        let is_mismatch = promotion == Some(Promotion::Mismatch);
        if let Some(promotion) = promotion {
            link::promote(&mut plan, &mut effects, promotion);
        }
        if is_mismatch {
            effects = mismatch();
        }
        let session = plan.session.clone();
        let said = self.store.consume_link(plan.clone(), effects).await;
        let mut outcome = doubt::settled(&self.store, &session.hash, said, |_| Consume::Consumed).await?;
        if outcome == Consume::SubjectTaken {
            // The candidate matched and is somebody else's already: a conflict like the other.
            plan.promote = Some(Promotion::Mismatch);
            outcome = self.store.consume_link(plan, mismatch()).await?;
        }
        match outcome {
            Consume::Consumed => {
                tracing::info!(user = %user.id, session = %session.id, method = by.method().as_str(), "signed in");
                Ok(SignedIn {
                    token,
                    session,
                    return_to: link.return_to.clone(),
                    known: self.known_browser(user, known),
                })
            }
            Consume::AlreadyUsed => Err(Reason::LinkReused.into()),
            Consume::Voided => Err(link::voided()),
            Consume::Mismatch | Consume::SubjectTaken => Err(Reason::LinkMismatch.into()),
            Consume::SessionGone => Err(Reason::SessionUnknown.into()),
            Consume::Unknown => Err(Denial::from(Reason::LinkInvalid).with_note("the link is gone")),
            // Between our look and the transaction: say what is so now, a ban above all.
            Consume::UserChanged => Err(match self.store.user(user.id).await? {
                Some(User { banned_at: Some(_), .. }) => Reason::UserBanned.into(),
                _ => Denial::from(Reason::LinkInvalid).with_note("the user changed while signing in"),
            }),
        }
    }

    /// What the provider has for the address of a pending user; `None` where nobody can tell now.
    async fn subject_of(&self, user: &User) -> Option<String> {
        let directory = self.directory.load_full();
        let directory = directory.as_ref().as_ref()?;
        if user.link_status != Some(LinkStatus::PendingVerify) || user.candidate_subject.is_none() {
            return None;
        }
        match tokio::time::timeout(PATIENCE, directory.subject_of(&user.email)).await {
            Ok(Ok(found)) => found,
            Ok(Err(fault)) => {
                tracing::warn!(%fault, user = %user.id, "the subject directory failed; the user stays pending");
                None
            }
            Err(_) => {
                tracing::warn!(user = %user.id, "the subject directory did not answer; the user stays pending");
                None
            }
        }
    }

    /// What the browser keeps to show later that this user has signed in there.
    fn known_browser(&self, user: &User, known: Option<&str>) -> Option<String> {
        let keys = self.ring.keys(Purpose::Login).ok()?;
        let renewed = known.and_then(|text| browser::renew(text, &user.email, &keys));
        Some(renewed.unwrap_or_else(|| browser::mint(&user.email, keys.current(), self.clock.random())))
    }
}
