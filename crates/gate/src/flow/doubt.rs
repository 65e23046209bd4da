//! A sign-in whose commit got no answer: whether it was made is seen by its session.

use std::time::Duration;

use doorward_core::{session::TokenHash, user::User};
use doorward_store::{Store, StoreError};

/// Pauses before each look for the session. Whoever signs in has waited for the store's deadline before.
const LOOKS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];
/// All of them together, also where each look has to wait.
const WITHIN: Duration = Duration::from_secs(6);

/// What the store `said` of a plan that begins the session with this hash; where it did not say in time, what was `made`
/// if the session is there. To refuse then would burn the link and end the session of before for nothing: nobody else
/// has the token. The hash is of 32 fresh bytes, so a row with it was made by that very plan.
///
/// # Errors
/// Those of the store; [`StoreError::Timeout`] where the session is not seen either. The plan may still come true then.
pub(super) async fn settled<T>(
    store: &Store,
    session: &TokenHash,
    said: Result<T, StoreError>,
    made: impl FnOnce(User) -> T,
) -> Result<T, StoreError> {
    let Err(doubt @ StoreError::Timeout { .. }) = said else { return said };
    let look = async {
        for pause in LOOKS {
            tokio::time::sleep(pause).await;
            if let Ok(Some((_, user))) = store.session(*session).await {
                return Some(user);
            }
        }
        None
    };
    let Ok(Some(user)) = tokio::time::timeout(WITHIN, look).await else { return Err(doubt) };
    tracing::info!(user = %user.id, "a sign-in whose commit got no answer was made");
    Ok(made(user))
}
