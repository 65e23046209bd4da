//! Signing in with a password of the old system, in the soak window (B48, G22).
//!
//! Whoever asks, and whether or not there is such a user: the same limits, the same work, the same answer. Whether
//! the window is open when somebody begins is the caller's question ([`crate::gate::Gate::check_window`]); checking a
//! password takes its time, and no session begins once the window was closed meanwhile.

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use doorward_core::{
    audit::{AuditEvent, EventKind},
    cutover::{Ceiling, STATE, Window},
    decision::Denial,
    effects::Effects,
    id::SessionId,
    link::{self, Asker, NewSession},
    password::PasswordHash,
    reason::Reason,
    ring::Purpose,
    secret::Secret,
    session::{OpaqueToken, SignInMethod, TokenHash},
    time::Now,
    user::{Email, User},
};
use doorward_store::{Begin, BeginSession, Store, StoreError};

use super::{doubt, sign_in::SignedIn};
use crate::{
    clock::Clock,
    passwords::Passwords,
    rate::{Limit, LimitKey, Limiter, Limits, Quota},
    ring::Ring,
};

/// How often a sign-in looks at the window anew that was set meanwhile.
const LOOKS: usize = 3;
/// Hashes that are looked at to learn what they cost.
const SAMPLE: u32 = 1000;

/// What a form or program sends.
#[derive(Debug)]
pub struct PasswordInput {
    /// The address as it was typed.
    pub email: String,
    /// The password.
    pub password: Secret<Vec<u8>>,
    /// The session that this browser has; it ends with the sign-in.
    pub replaces: Option<TokenHash>,
    /// Where to go afterwards; already judged to be local or allowed.
    pub return_to: String,
    /// How long the session lives at most.
    pub absolute: Duration,
    /// Who asks.
    pub asker: Asker,
}

/// The flow, as a handle that is cheap to clone.
#[derive(Clone)]
pub struct PasswordSignIn(Arc<Inner>);

struct Inner {
    store: Store,
    ring: Ring,
    clock: Clock,
    passwords: Passwords,
    limits: Arc<dyn Limits>,
    /// How often the refusals of one address are written down.
    refusals: Limiter<LimitKey>,
}

impl fmt::Debug for PasswordSignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordSignIn").field("passwords", &self.0.passwords).finish_non_exhaustive()
    }
}

impl PasswordSignIn {
    /// The flow over these parts.
    pub fn new(store: Store, ring: Ring, clock: Clock, limits: Arc<dyn Limits>) -> Self {
        let passwords = Passwords::new(&clock);
        let refusals = Limiter::new(Quota::per_minute(1), 4096, clock.clone());
        Self(Arc::new(Inner { store, ring, clock, passwords, limits, refusals }))
    }

    /// How many password checks run or wait.
    pub fn inside(&self) -> usize {
        self.0.passwords.inside()
    }

    /// Learns from the hashes in the store what a check costs here, so that one for nobody costs the same. To be
    /// called now and then while the soak window is open.
    ///
    /// # Errors
    /// [`StoreError`]; what was learnt before stays.
    pub async fn learn_costs(&self) -> Result<(), StoreError> {
        let hashes = self.0.store.password_hashes(SAMPLE).await?;
        let costs = hashes.iter().filter_map(|text| PasswordHash::parse(text.expose()).ok()).map(|hash| hash.cost);
        self.0.passwords.use_costs(costs.collect());
        Ok(())
    }

    /// Signs in. The session that the browser had ends with it. `ceiling` is what the file says about the window at the
    /// moment at which it is called.
    ///
    /// # Errors
    /// `rate_limited`, `password_invalid` (whatever was wrong), `user_banned` (the password was right),
    /// `legacy_login_disabled` (the window was closed meanwhile), `store_unavailable`.
    pub async fn sign_in(
        &self,
        input: PasswordInput,
        ceiling: impl Fn() -> Option<Ceiling> + Send + Sync,
        now: Now,
    ) -> Result<SignedIn, Denial> {
        let inner = &*self.0;
        let address = Limit::typed(&input.email);
        if let Some(ip) = input.asker.ip {
            inner.limits.take(Limit::PasswordPerClient, Limit::client(ip)).await.map_err(Denial::limited)?;
        }
        inner.limits.take(Limit::PasswordPerAddress, address).await.map_err(Denial::limited)?;
        let found = match Email::parse(&input.email) {
            Some(email) => inner.store.password(email).await?,
            None => None,
        };
        let (user, hash) = found.map_or((None, None), |(user, hash)| (Some(user), read(&hash)));
        let is_right = inner.passwords.check(hash, &input.email, input.password).await?;
        let Some(user) = user.filter(|_| is_right) else {
            inner.note_refusal(address, &input.email, &input.asker, now).await;
            return Err(Reason::PasswordInvalid.into());
        };
        inner.limits.forget(Limit::PasswordPerAddress, address).await;
        if user.banned_at.is_some() {
            return Err(Reason::UserBanned.into());
        }
        let new = inner.session(input.absolute, input.asker, input.replaces).await?;
        let signed_in = inner.begin(&user, new, input.return_to, &ceiling, now).await?;
        // The file may have been read anew between the last look and the commit.
        if !ceiling().is_some_and(|ceiling| ceiling.allow) {
            let mut event = AuditEvent::new(EventKind::SessionRevoked, now.wall).about(user.id);
            event.detail.more.insert("why".into(), Reason::LegacyLoginDisabled.code().into());
            inner.store.end_session(signed_in.session.hash, Effects::audited(event)).await?;
            return Err(Reason::LegacyLoginDisabled.into());
        }
        Ok(signed_in)
    }
}

/// A hash from the store. One that is out of bounds is as good as none: it costs what a stand-in does.
fn read(text: &Secret<String>) -> Option<PasswordHash> {
    PasswordHash::parse(text.expose())
        .inspect_err(|error| tracing::warn!(%error, "a password hash in the store cannot be used"))
        .ok()
}

/// A session to be, and its token.
struct New {
    token: OpaqueToken,
    session: NewSession,
}

impl Inner {
    async fn session(&self, absolute: Duration, asker: Asker, replaces: Option<TokenHash>) -> Result<New, Denial> {
        let replaces = match replaces {
            Some(hash) => self.store.session(hash).await?.map(|(session, _)| session),
            None => None,
        };
        let token = OpaqueToken::mint(self.clock.random());
        let session = NewSession {
            id: SessionId::mint(self.clock.now().wall, self.clock.random()),
            hash: token.hash(),
            method: SignInMethod::Password,
            absolute,
            asker,
            replaces,
        };
        Ok(New { token, session })
    }

    async fn begin(
        &self,
        user: &User,
        new: New,
        return_to: String,
        ceiling: &(impl Fn() -> Option<Ceiling> + Sync),
        now: Now,
    ) -> Result<SignedIn, Denial> {
        let New { token, session } = new;
        let replaces = session.replaces.as_ref().map(|old| old.hash);
        let mut event = session.asker.event(EventKind::LegacySignIn, now.wall).about(user.id);
        event.detail.more.insert("method".into(), SignInMethod::Password.as_str().into());
        let (session, mut effects) = link::plan_session(user.id, session, now.wall);
        effects.audit.push(event);
        for _ in 0..LOOKS {
            let version = self.open_window(ceiling().as_ref()).await?;
            let plan = BeginSession {
                session: session.clone(),
                user_version: user.version,
                replaces,
                rests_on: Some((STATE.to_owned(), version)),
            };
            let said = self.store.begin_session(plan, effects.clone()).await;
            match doubt::settled(&self.store, &session.hash, said, |_| Begin::Began).await? {
                Begin::Began => {
                    tracing::info!(user = %user.id, session = %session.id, "signed in by a password");
                    return Ok(SignedIn { token, session, return_to, known: None });
                }
                // Between our look and the transaction: say what is so now, a ban above all.
                Begin::UserChanged => {
                    return Err(match self.store.user(user.id).await? {
                        Some(User { banned_at: Some(_), .. }) => Reason::UserBanned.into(),
                        _ => Denial::from(Reason::PasswordInvalid).with_note("the user changed while signing in"),
                    });
                }
                Begin::StateChanged => {}
            }
        }
        Err(Denial::from(Reason::StoreUnavailable).with_note("the soak window changed all the time"))
    }

    /// The version of the state by which the window is open.
    ///
    /// # Errors
    /// `legacy_login_disabled`; `store_unavailable` where nobody can tell.
    async fn open_window(&self, ceiling: Option<&Ceiling>) -> Result<i64, Denial> {
        let ceiling = ceiling.ok_or(Reason::LegacyLoginDisabled)?;
        let state = self.store.state(STATE.to_owned()).await?;
        let stored = state.as_ref().map(|state| state.value.parse::<Window>()).transpose();
        let stored = stored.map_err(|_| {
            Denial::from(Reason::StoreUnavailable).with_note("the state of the soak window cannot be read")
        })?;
        match Window::in_force(stored.as_ref(), ceiling).is_open(ceiling) {
            true => Ok(state.map_or(0, |state| state.version)),
            false => Err(Reason::LegacyLoginDisabled.into()),
        }
    }

    /// Writes a refusal down, at most one a minute for what was typed as an address. Known or not, the address goes
    /// in as a keyed hash: it may be a stranger's, or a password in the wrong field.
    async fn note_refusal(&self, address: LimitKey, typed: &str, asker: &Asker, now: Now) {
        if self.refusals.check(&address).is_err() {
            return;
        }
        let mut event = asker.event(EventKind::LegacyRefused, now.wall);
        event.reason = Some(Reason::PasswordInvalid);
        event.detail.more.insert("method".into(), SignInMethod::Password.as_str().into());
        if let Ok(keys) = self.ring.keys(Purpose::Login) {
            let key = hmac::Key::new(hmac::HMAC_SHA256, keys.current().expose());
            let typed = Email::parse(typed).map_or_else(|| typed.to_owned(), |email| email.to_string());
            let tag = hmac::sign(&key, format!("audit address\0{typed}").as_bytes());
            let hash: String = tag.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            event.detail.more.insert("address_hash".into(), hash.into());
        }
        if let Err(error) = self.store.append(Effects::audited(event)).await {
            tracing::warn!(%error, "a refused password is not in the audit log");
        }
    }
}
