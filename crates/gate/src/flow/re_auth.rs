//! Step-up: whoever has a session proves again who they are, by a mail to the session's own address.
//!
//! The link and the code of that mail are used like those of a sign-in ([`super::sign_in`]), in the browser that
//! asked and while its session lives; then the session goes on under a new name and token.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use doorward_core::{
    decision::Denial,
    effects::NewMail,
    id::{LinkId, MailId, SessionId, UserId},
    link::{self, Asker, Code, LinkRequest, TypedCode, re_auth},
    reason::Reason,
    ring::Purpose,
    session::OpaqueToken,
    time::Now,
};
use doorward_store::Store;

use super::{
    re_auth_mail::{self, ReAuthMail},
    sign_in::{LinkAsked, SignInConfig},
};
use crate::{
    clock::Clock,
    rate::{Limit, Limits},
    ring::Ring,
};

/// Who asks for the mail.
#[derive(Clone, Debug)]
pub struct ReAuthInput {
    /// Whose session it is.
    pub user: UserId,
    /// The session that goes on.
    pub session: SessionId,
    /// The host that was asked, as in [`super::sign_in::LinkInput`].
    pub host: Option<String>,
    /// Where to go afterwards; already judged to be local or allowed.
    pub return_to: String,
    /// The login cookie of this browser, if it has one.
    pub browser: Option<OpaqueToken>,
    /// Who asks.
    pub asker: Asker,
}

/// The flow.
pub struct ReAuth {
    config: ArcSwap<SignInConfig>,
    store: Store,
    ring: Ring,
    clock: Clock,
    limits: Arc<dyn Limits>,
}

impl fmt::Debug for ReAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReAuth").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl ReAuth {
    /// The flow over the same store and keys as the sign-in.
    pub fn new(config: SignInConfig, store: Store, ring: Ring, clock: Clock, limits: Arc<dyn Limits>) -> Self {
        Self { config: ArcSwap::from_pointee(config), store, ring, clock, limits }
    }

    /// Takes new settings.
    pub fn configure(&self, config: SignInConfig) {
        self.config.store(Arc::new(config));
    }

    /// Puts a mail with a link and a code into the outbox, to the address of the session's own user.
    ///
    /// # Errors
    /// `rate_limited` after five in ten minutes; `user_banned`; `session_unknown` for a user who is gone;
    /// `store_unavailable`.
    pub async fn request(&self, input: ReAuthInput, now: Now) -> Result<LinkAsked, Denial> {
        self.limits.take(Limit::ReAuthPerUser, Limit::user(input.user)).await.map_err(Denial::limited)?;
        let keys = self.ring.keys(Purpose::Link)?;
        let codes = self.ring.keys(Purpose::Login)?;
        let user = self.store.user(input.user).await?.ok_or(Reason::SessionUnknown)?;
        let browser = input.browser.unwrap_or_else(|| OpaqueToken::mint(self.clock.random()));
        let config = self.config.load_full();
        let id = LinkId::mint(now.wall, self.clock.random());
        let code = Code::mint(self.clock.random());
        let request = LinkRequest {
            id,
            browser: browser.hash(),
            return_to: input.return_to,
            ttl: config.link_ttl,
            asker: input.asker.clone(),
        };
        let (link, effects) = link::plan_request(&user, request, now.wall)?;
        let (mut link, effects) = re_auth::bind(link, effects, input.session);
        let code_ends = link.expires_at.min(now.wall.plus(config.code_ttl));
        link.code = Some(TypedCode { hash: code.hash(codes.current(), id), expires_at: code_ends, tries: 0 });
        let token = link::mint_token(&link, &keys)?;
        let (site, callback_url) = config.at(input.host.as_deref());
        let text = re_auth_mail::text(&ReAuthMail {
            site: &site,
            url: &format!("{callback_url}?token={token}"),
            valid_for: config.link_ttl,
            code: &code.expose(),
            code_valid_for: config.code_ttl.min(config.link_ttl),
            ip: input.asker.ip,
            user_agent: input.asker.user_agent(),
        });
        let mail = NewMail {
            id: MailId::mint(now.wall, self.clock.random()),
            to: link.email.clone(),
            kind: "re_auth",
            subject: text.subject,
            text: text.text,
            html: text.html,
            created_at: now.wall,
            give_up_at: link.expires_at,
        };
        self.store.put_link(link, effects.with_mail(mail)).await?;
        Ok(LinkAsked { browser })
    }
}
