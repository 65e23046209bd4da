//! `license forget`: so that what lies in the place of the license file counts, however old it is.

use doorward_core::{
    audit::EventKind,
    effects::Effects,
    license::{Holder, LicenseState},
    revocation::Scope,
};
use doorward_gate::clock::Clock;
use doorward_store::Store;
use serde_json::{Value, json};

use crate::{
    cli::{
        Failure, Out,
        output::printable,
        users::{event, revocation},
    },
    config::{Config, Provider},
};

pub(super) async fn run(store: &Store, config: &Config, clock: &Clock, out: &mut Out<'_>) -> Result<(), Failure> {
    if config.license.provider != Provider::File {
        let what = "only the license of an installation (`license.provider = \"file\"`) can be forgotten; other providers \
                    are asked for each user's, and their answers are never older than what is known";
        return Err(Failure::Wrong(what.to_owned()));
    }
    let holder = Holder::Installation;
    let known = store.license(holder).await?.map(|row| row.known.observation);
    let name = known.as_ref().and_then(|known| known.license_id.clone());
    let at = clock.now().wall;
    let mut changed = event(EventKind::LicenseChanged, at);
    let more = &mut changed.detail.more;
    more.insert("holder".to_owned(), holder.to_string().into());
    more.insert("old".to_owned(), known.as_ref().map(|known| LicenseState::as_str(known.state)).into());
    more.insert("new".to_owned(), Value::Null);
    more.insert("license_id".to_owned(), name.clone().into());
    // Running servers forget it too.
    let effects = Effects::audited(changed).with_revocation(revocation(Scope::License { holder }, at, "license"));
    let is_forgotten = known.is_some() && store.forget_license(holder, effects).await?;
    let shown = json!({ "forgotten": is_forgotten, "license_id": name });
    let text = match (is_forgotten, &name) {
        (false, _) => "nothing is known of a license".to_owned(),
        (true, None) => "forgot the license; what lies in its place counts now".to_owned(),
        (true, Some(name)) => format!("forgot the license {}; what lies in its place counts now", printable(name)),
    };
    out.say(&shown, &text)
}
