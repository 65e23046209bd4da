use std::{path::Path, sync::Arc};

use doorward_core::{
    id::UserId,
    license::{LicensePolicy, LicenseState, Observation},
    time::Now,
};
use doorward_gate::{
    clock::Clock,
    license::{Answering, LicenseParts, LicenseProvider, Question},
};
use doorward_store::{CreateUser, Store};
use futures_util::FutureExt as _;

use super::*;
use crate::config::Config;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

#[test]
fn a_license_is_at_the_most_urgent_step_that_fits() {
    let at = |hours: i64| step(Timestamp::from_secs(NOW.as_secs() + hours * 3600), NOW);
    assert_eq!([at(14 * 24 + 1), at(14 * 24), at(3 * 24 + 1)], [None, Some(14), Some(14)]);
    assert_eq!([at(3 * 24), at(1), at(0), at(-1)], [Some(3), Some(3), Some(0), Some(0)]);
    assert_eq!(date(NOW), "15 January 2027, 08:00 UTC");
}

fn ends(at: Timestamp, observed_at: Timestamp) -> Observation {
    Observation {
        state: LicenseState::Active,
        license_id: Some("lic-1".to_owned()),
        expires_at: Some(at),
        entitlements: Default::default(),
        observed_at,
    }
}

/// Somebody who has a license for every user, and is asked by nobody here.
#[derive(Debug)]
struct Silent;

impl LicenseProvider for Silent {
    fn name(&self) -> &'static str {
        "silent"
    }

    fn ask(&self, _: Question, now: Now) -> Answering {
        async move { Ok(ends(now.wall, now.wall)) }.boxed()
    }

    fn is_per_user(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_license_that_was_renewed_after_its_row_was_read_is_not_told_to_have_ended() {
    let (store, clock) = (Store::memory(), Clock::manual(NOW));
    let text = "public_url = \"http://127.0.0.1\"\n[secrets]\nroot = \"only for this test, only for this test\"\n";
    let config = Config::parse(text, Path::new("doorward.toml"), &Default::default()).unwrap();
    let gate = Parts::without_server(&store, &config, &clock).unwrap().gate;
    gate.use_licenses(Some(LicenseParts {
        provider: Arc::new(Silent),
        policy: LicensePolicy { trust_for: DAY, grace: DAY },
        cache_ttl: DAY,
        issuer: None,
    }));
    let mut user = User::new(UserId::mint(NOW, clock.random()), Email::parse("ada@example.com").unwrap(), NOW);
    user.email_verified = true;
    let holder = Holder::User(user.id);
    assert_eq!(store.create_user(user, Effects::default()).await, Ok(CreateUser::Created));
    let licenses = gate.licenses().unwrap();
    let hour = Duration::from_hours(1);
    licenses.observe(holder, ends(NOW.minus(hour), NOW.minus(DAY)), None).await.unwrap();
    let row = store.license(holder).await.unwrap().unwrap();

    licenses.observe(holder, ends(NOW.plus(DAY * 300), NOW), None).await.unwrap();
    assert_eq!(tell_one(&gate, &licenses, "app.example", &row, NOW).await, Ok(false));
    assert_eq!(store.state(format!("license.notice/{holder}")).await, Ok(None), "nor is it noted as told");
    // One that was only confirmed since, as a license in use is all the time, ends as before.
    licenses.observe(holder, ends(NOW.plus(hour), NOW.plus(hour)), None).await.unwrap();
    let row = store.license(holder).await.unwrap().unwrap();
    licenses.observe(holder, ends(NOW.plus(hour), NOW.plus(hour * 2)), None).await.unwrap();
    assert_eq!(tell_one(&gate, &licenses, "app.example", &row, NOW).await, Ok(true));
}
