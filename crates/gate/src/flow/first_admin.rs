//! The first administrator: a one-time address that the server prints while it has none (CVE-2026-42221: a first-run
//! page that anybody may open gives the installation away).

use std::time::Duration;

use doorward_core::{
    decision::Denial,
    effects::Effects,
    id::{SessionId, UserId},
    link::{Asker, NewSession},
    one_time::{self, Claiming, OneTime, OneTimePurpose},
    reason::Reason,
    session::{OpaqueToken, SignInMethod, TokenHash},
    time::Now,
    user::{Email, User},
};
use doorward_store::{ClaimAdmin, Store, StoreError};

use super::{doubt, sign_in::SignedIn};
use crate::clock::Clock;

/// How long the address works.
pub const LIFE: Duration = Duration::from_secs(86_400);
/// How often a claim is planned again because its user changed meanwhile.
const ROUNDS: usize = 3;

/// Makes a one-time token, if there is no administrator.
///
/// # Errors
/// [`StoreError`].
pub async fn invite(store: &Store, clock: &Clock) -> Result<Option<OpaqueToken>, StoreError> {
    if store.has_admin().await? {
        return Ok(None);
    }
    let token = OpaqueToken::mint(clock.random());
    let now = clock.now().wall;
    let record = OneTime {
        hash: token.hash(),
        purpose: OneTimePurpose::FirstAdmin,
        created_at: now,
        expires_at: now.plus(LIFE),
        used_at: None,
    };
    store.put_one_time(record, Effects::default()).await?;
    Ok(Some(token))
}

/// Looks at a token for the page behind it; consumes and writes nothing. Gives back its hash.
///
/// # Errors
/// `missing_token`, `link_invalid`, `link_expired`, `link_reused` (also once there is an administrator),
/// `store_unavailable`.
pub async fn peek(store: &Store, token: &str, now: Now) -> Result<TokenHash, Denial> {
    if token.is_empty() {
        return Err(Reason::MissingToken.into());
    }
    let hash = OpaqueToken::parse(token).ok_or(Reason::LinkInvalid)?.hash();
    let record = store.one_time(hash).await?.ok_or(Reason::LinkInvalid)?;
    one_time::check(&record, OneTimePurpose::FirstAdmin, now.wall)?;
    if store.has_admin().await? {
        return Err(Denial::from(Reason::LinkReused).with_note("there is an administrator"));
    }
    Ok(hash)
}

/// What comes back from the page.
#[derive(Clone, Debug)]
pub struct ClaimInput {
    /// The token.
    pub token: String,
    /// The administrator's address, as it was typed.
    pub email: String,
    /// How long the session lives at most.
    pub absolute: Duration,
    /// Where to go afterwards; a path of our own.
    pub return_to: String,
    /// The session that this browser has; it ends.
    pub replaces: Option<TokenHash>,
    /// Who claims.
    pub asker: Asker,
}

/// Makes the first administrator and signs them in. Of any number of callers one gets through.
///
/// # Errors
/// Those of [`peek`]; `request_malformed` (not a mail address), `user_banned`.
pub async fn claim(store: &Store, clock: &Clock, input: ClaimInput, now: Now) -> Result<SignedIn, Denial> {
    let hash = peek(store, &input.token, now).await?;
    let not_an_address = || Denial::from(Reason::RequestMalformed).with_explanation("That is not a mail address.");
    let email = Email::parse(&input.email).ok_or_else(not_an_address)?;
    for _ in 0..ROUNDS {
        let claimant = match store.user_by_email(email.clone()).await? {
            Some(user) => Claiming::Known(user),
            None => Claiming::New(User::new(UserId::mint(now.wall, clock.random()), email.clone(), now.wall)),
        };
        let replaces = match input.replaces {
            Some(hash) => store.session(hash).await?.map(|(session, _)| session),
            None => None,
        };
        let token = OpaqueToken::mint(clock.random());
        let new = NewSession {
            id: SessionId::mint(now.wall, clock.random()),
            hash: token.hash(),
            method: SignInMethod::MagicLink,
            absolute: input.absolute,
            asker: input.asker.clone(),
            replaces,
        };
        let (plan, effects) = one_time::plan_claim(hash, &claimant, new, now.wall)?;
        let session = plan.session.clone();
        let said = store.claim_first_admin(plan, effects).await;
        match doubt::settled(store, &session.hash, said, ClaimAdmin::Claimed).await? {
            ClaimAdmin::Claimed(admin) => {
                tracing::info!(user = %admin.id, session = %session.id, "the first administrator was claimed");
                return Ok(SignedIn { token, session, return_to: input.return_to, known: None });
            }
            ClaimAdmin::AdminExists | ClaimAdmin::AlreadyUsed => return Err(Reason::LinkReused.into()),
            ClaimAdmin::Unknown => return Err(Reason::LinkInvalid.into()),
            ClaimAdmin::Expired => return Err(Reason::LinkExpired.into()),
            ClaimAdmin::UserChanged => {}
        }
    }
    Err(Denial::from(Reason::StoreUnavailable).with_note("the user changed all the time"))
}
