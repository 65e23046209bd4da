//! Signing in by the code from the mail, in the browser that asked for it.
//!
//! Nothing here tells whether there is such a user: without a mail every code is wrong after the same number of
//! tries and with the same words. The caller answers no sooner than its response floor.

use doorward_core::{
    audit::EventKind,
    decision::Denial,
    link::{Asker, Code, Link, Proof, browser},
    reason::Reason,
    ring::{KeySet, Purpose},
    session::{OpaqueToken, TokenHash},
    time::Now,
};
use doorward_store::TryCode;

use super::{
    consume::Presented,
    sign_in::{Inner, SignIn, SignedIn},
};
use crate::rate::{Limit, LimitKey};

/// What comes from the form for the code.
#[derive(Clone, Debug)]
pub struct CodeInput {
    /// The code as it was typed.
    pub code: String,
    /// The login cookie of this browser.
    pub browser: Option<OpaqueToken>,
    /// What this browser keeps of an earlier sign-in.
    pub known: Option<String>,
    /// The session that this browser has; it ends with the sign-in.
    pub replaces: Option<TokenHash>,
    /// Who signs in.
    pub asker: Asker,
}

impl SignIn {
    /// Uses the code from a mail: at most one caller ever gets a session for it.
    ///
    /// A try is counted before the code is compared, by client and by browser here, by link in the store
    /// ([`doorward_core::link::TypedCode::TRIES`]), so trying at once gains nothing.
    ///
    /// # Errors
    /// `code_invalid`; `rate_limited` after five tries in this browser, or ten a minute from this client, the right
    /// code included; `user_banned`, `link_mismatch`; `store_unavailable`, after which the code still works unless its
    /// tries are used up.
    pub async fn code(&self, input: CodeInput, now: Now) -> Result<SignedIn, Denial> {
        let flow = self.inner();
        let asker = &input.asker;
        flow.take(Limit::CodePerClient, Limit::client_of(asker), asker, now).await?;
        let Some(login) = &input.browser else {
            return Err(wrong().with_note("no login cookie"));
        };
        let hash = login.hash();
        flow.take(Limit::CodePerBrowser, hash, asker, now).await?;
        let keys = flow.ring.keys(Purpose::Login)?;
        let code = Code::parse(&input.code);
        let links = flow.store.code_links(hash, now.wall).await?;
        let mut found = None;
        for link in &links {
            if flow.counts_try(link, &keys, input.known.as_deref()).await?
                && let (Some(code), Some(kept)) = (&code, &link.code)
                && code.matches(&keys, link.id, &kept.hash)
            {
                found = Some(link);
                break;
            }
        }
        let Some(link) = found else {
            let denial = wrong();
            for link in &links {
                flow.miss(link, &keys, input.known.as_deref()).await;
                flow.notes.refused(EventKind::CodeRefused, link, asker, &denial, now).await;
            }
            return Err(denial);
        };
        let user = flow.store.user(link.user_id).await?.ok_or_else(|| wrong().with_note("the user is gone"))?;
        let (known, replaces) = (input.known.as_deref(), input.replaces);
        let presented = Presented { by: Proof::Code, browser: Some(login), known, replaces, asker };
        match flow.finish(link, &user, presented, now).await {
            // Two right codes at once: the other one has signed in.
            Err(denial) if denial.reason == Reason::LinkReused => Err(wrong().with_note("the code was used")),
            outcome => outcome,
        }
    }
}

fn wrong() -> Denial {
    Denial::from(Reason::CodeInvalid)
        .with_explanation("Use the code of the latest mail, in the browser that asked for it, or the link beside it.")
}

impl Inner {
    /// Counts one event, or refuses and writes it down.
    pub(super) async fn take(&self, limit: Limit, key: LimitKey, asker: &Asker, now: Now) -> Result<(), Denial> {
        match self.limits.take(limit, key).await {
            Ok(_) => Ok(()),
            Err(budget) => {
                self.notes.limited(limit, key, asker, None, now).await;
                Err(Denial::limited(budget))
            }
        }
    }

    /// Whether this try of `link` counts, and may be compared.
    async fn counts_try(&self, link: &Link, keys: &KeySet, known: Option<&str>) -> Result<bool, Denial> {
        let is_known = is_known(link, keys, known);
        if !is_known && self.limits.look(Limit::CodePerUser, Limit::user(link.user_id)).await.is_err() {
            return Ok(false);
        }
        Ok(matches!(self.store.try_code(link.id).await?, TryCode::Counted { .. }))
    }

    /// Counts a wrong code against its user.
    async fn miss(&self, link: &Link, keys: &KeySet, known: Option<&str>) {
        if !is_known(link, keys, known) {
            // Over the limit nothing is compared any more; that is the whole of the refusal.
            let _ = self.limits.take(Limit::CodePerUser, Limit::user(link.user_id)).await;
        }
    }
}

fn is_known(link: &Link, keys: &KeySet, known: Option<&str>) -> bool {
    known.is_some_and(|text| browser::check(text, &link.email, keys).is_some())
}
