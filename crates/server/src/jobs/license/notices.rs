//! Tells people by mail that a license ends: 14 and 3 days before, and when it has ended; once each.
//!
//! What was told is a value in the store, changed together with the mail's row in the outbox: two processes tell it
//! once, and one that dies in the middle tells it later.

use std::{collections::BTreeSet, time::Duration};

use doorward_core::{
    audit::{AuditEvent, EventKind},
    effects::{Effects, NewMail},
    id::MailId,
    license::Holder,
    time::Timestamp,
    user::{Email, User},
};
use doorward_gate::{
    flow::mail_license::{LicenseEndsMail, license_ends},
    gate::Gate,
    license::Licenses,
};
use doorward_store::{LicenseRow, SetState, State, StoreError};
use serde::{Deserialize, Serialize};

use crate::jobs::{parts::Parts, table::Outcome};

const DAY: Duration = Duration::from_hours(24);
/// Days before the end, the most urgent first; 0: it has ended.
const STEPS: [u64; 3] = [0, 3, 14];
/// A license that ended longer ago is no news.
const NEWS: Duration = Duration::from_hours(3 * 24);
/// Rows that are read at once.
const PAGE: u32 = 500;
/// How long such a mail is worth sending.
const WORTH: Duration = Duration::from_hours(3 * 24);
/// Most administrators who are told.
const ADMINS: usize = 100;

/// What was told last of the license of a holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    license: Option<String>,
    expires_at: i64,
    days: u64,
}

/// One run. Gives back what it did, in words.
///
/// # Errors
/// The store, in words; what was told before stays told.
pub(crate) async fn run(parts: Parts) -> Outcome {
    let Some(licenses) = parts.gate.licenses() else { return Ok("there is no license provider".to_owned()) };
    if parts.outbox.is_none() {
        // What is noted as told here would never be told.
        return Ok("there is no [mail] to tell anybody by".to_owned());
    }
    let told = tell(&parts.gate, &licenses, &parts.site).await.map_err(|error| error.to_string())?;
    Ok(format!("told of {told} licenses that end"))
}

async fn tell(gate: &Gate, licenses: &Licenses, site: &str) -> Result<u64, StoreError> {
    let now = licenses.now();
    let (from, until) = (now.minus(NEWS), now.plus(DAY.saturating_mul(14)));
    let (mut told, mut after) = (0, None);
    loop {
        let rows = gate.store().ending_licenses(from, until, after, PAGE).await?;
        let Some(last) = rows.last() else { return Ok(told) };
        after = Some(last.holder);
        for row in rows {
            let counts = (row.holder == Holder::Installation) != licenses.is_per_user();
            if counts && tell_one(gate, licenses, site, &row, now).await? {
                told += 1;
            }
        }
    }
}

/// The step that an end is at, if any: the smallest number of days that is not less than what is left.
fn step(end: Timestamp, now: Timestamp) -> Option<u64> {
    STEPS.into_iter().find(|days| end.since(now) <= DAY.saturating_mul(u32::try_from(*days).unwrap_or(0)))
}

async fn tell_one(
    gate: &Gate,
    licenses: &Licenses,
    site: &str,
    row: &LicenseRow,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let observation = &row.known.observation;
    let Some((end, days)) = observation.expires_at.and_then(|end| Some((end, step(end, now)?))) else {
        return Ok(false);
    };
    let name = format!("license.notice/{}", row.holder);
    let state: Option<State> = gate.store().state(name.clone()).await?;
    let before = state.as_ref().and_then(|state| serde_json::from_str::<Told>(&state.value).ok());
    let tells = Told { license: observation.license_id.clone(), expires_at: end.as_millis(), days };
    let is_told = before.is_some_and(|before| {
        (&before.license, before.expires_at) == (&tells.license, tells.expires_at) && before.days <= days
    });
    if is_told {
        return Ok(false);
    }
    let to = recipients(gate, row.holder).await?;
    if to.is_empty() || !still_ends(gate, row).await? {
        return Ok(false);
    }
    let left = end.since(now).as_millis().div_ceil(DAY.as_millis());
    let text = license_ends(&LicenseEndsMail {
        site,
        is_installation: row.holder == Holder::Installation,
        license: observation.license_id.as_deref(),
        ends: &date(end),
        days: u64::try_from(left).unwrap_or(0),
        grace_days: licenses.policy().grace.as_secs() / DAY.as_secs(),
    });
    let mut event = AuditEvent::new(EventKind::LicenseNoticeSent, now);
    event.user_id = row.holder.user();
    let more = [
        ("holder", row.holder.to_string().into()),
        ("days", days.into()),
        ("expires_at", end.as_secs().into()),
        ("mails", to.len().into()),
    ];
    event.detail.more = crate::telemetry::audit::more(more);
    let mut effects = Effects::audited(event);
    for to in to {
        effects = effects.with_mail(NewMail {
            id: MailId::mint(now, gate.clock().random()),
            to,
            kind: "license_ends",
            subject: text.subject.clone(),
            text: text.text.clone(),
            html: text.html.clone(),
            created_at: now,
            give_up_at: now.plus(WORTH),
        });
    }
    let value = serde_json::to_string(&tells).unwrap_or_default();
    let set = gate.store().set_state(name, state.map_or(0, |state| state.version), value, now, effects).await?;
    // Otherwise another process has told it this moment.
    Ok(set == SetState::Set)
}

/// Whether it still ends as it did when `row` was read, one of many. If it does not, the next run has its say.
async fn still_ends(gate: &Gate, row: &LicenseRow) -> Result<bool, StoreError> {
    let ends = |row: &LicenseRow| {
        let observation = &row.known.observation;
        (observation.state, observation.expires_at, observation.license_id.clone())
    };
    Ok(gate.store().license(row.holder).await?.is_some_and(|known| ends(&known) == ends(row)))
}

/// Whoever the license is of; for the installation everybody who administers it. Proven addresses only.
async fn recipients(gate: &Gate, holder: Holder) -> Result<Vec<Email>, StoreError> {
    let can_read = |user: &User| user.email_verified && user.banned_at.is_none();
    if let Some(id) = holder.user() {
        let user = gate.store().user(id).await?.filter(can_read);
        return Ok(user.into_iter().map(|user| user.email).collect());
    }
    let (mut admins, mut after) = (BTreeSet::new(), None);
    loop {
        let users = gate.store().users(after, 1000).await?;
        let Some(last) = users.last() else { break };
        after = Some(last.id);
        admins.extend(users.into_iter().filter(|user| user.admin && can_read(user)).map(|user| user.email));
        if admins.len() >= ADMINS {
            break;
        }
    }
    Ok(admins.into_iter().take(ADMINS).collect())
}

/// A day and time as people read it, in UTC.
fn date(at: Timestamp) -> String {
    let moment = jiff::Timestamp::from_millisecond(at.as_millis());
    moment.map_or_else(|_| String::new(), |at| at.strftime("%-d %B %Y, %H:%M UTC").to_string())
}

#[cfg(test)]
mod tests;
