//! What is taken over into memory while the log moves on.

use std::collections::BTreeSet;

use doorward_core::{
    credential::CookieNames,
    csrf::OriginPolicy,
    id::UserId,
    origin::Origin,
    session::SessionLimits,
    user::{Email, User},
};
use doorward_store::Store;

use super::*;
use crate::{
    clock::Clock,
    gate::{Gate, GateParts},
    issuer::Issuers,
    license::{Answering, FaultKind, LicenseParts, LicenseProvider, ProviderFault, Question},
    observe::Unobserved,
    policy::Policy,
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

#[derive(Debug)]
struct Nobody;

impl LicenseProvider for Nobody {
    fn name(&self) -> &'static str {
        "nobody"
    }

    fn ask(&self, _: Question, _: Now) -> Answering {
        Box::pin(async { Err(ProviderFault::new(FaultKind::Unavailable, "nobody is there")) })
    }

    fn is_per_user(&self) -> bool {
        true
    }
}

async fn gate() -> (Gate, Licenses, Holder) {
    let (clock, store) = (Clock::manual(NOW), Store::memory());
    let hour = Duration::from_secs(3600);
    let limits = SessionLimits { idle: hour, absolute: hour, recent_auth: hour };
    let origins = OriginPolicy { own: Origin::parse("https://app.example").unwrap(), allowed: vec![] };
    let (gate, _task) = Gate::new(GateParts {
        clock: clock.clone(),
        store: store.clone(),
        issuers: Issuers::new(Vec::new(), &clock, None).unwrap(),
        policy: Arc::new(Policy::new(1, vec![], vec![], limits, CookieNames::SECURE, origins)),
        observer: Box::new(Unobserved),
        cache_capacity: 10,
    });
    let policy = doorward_core::license::LicensePolicy { trust_for: hour, grace: hour };
    gate.use_licenses(Some(LicenseParts { provider: Arc::new(Nobody), policy, cache_ttl: hour, issuer: None }));
    let user = User::new(UserId::mint(NOW, [7; 10]), Email::parse("ada@example.com").unwrap(), NOW);
    store.create_user(user.clone(), Effects::default()).await.unwrap();
    let licenses = gate.licenses().unwrap();
    (gate, licenses, Holder::User(user.id))
}

fn said(state: LicenseState, at: Timestamp) -> Observation {
    let (license_id, expires_at, entitlements) = (None, None, BTreeSet::new());
    Observation { state, license_id, expires_at, entitlements, observed_at: at }
}

fn state(licenses: &Licenses, holder: Holder) -> Option<LicenseState> {
    Some(licenses.desk.held.entry(holder)?.known.as_ref()?.observation.state)
}

#[tokio::test]
async fn what_was_read_before_a_change_does_not_stay_in_memory_after_it() {
    let (gate, licenses, holder) = gate().await;
    licenses.observe(holder, said(LicenseState::Active, NOW.minus(Duration::from_secs(9))), None).await.unwrap();
    licenses.standing(holder).await.unwrap();
    let (read, seq) = (gate.store().license(holder).await.unwrap().unwrap().known, gate.revocation_seq());
    // Meanwhile another process writes that it is suspended, its entry in the log is read here, and the next request
    // has read the row again.
    licenses.observe(holder, said(LicenseState::Suspended, NOW.minus(Duration::from_secs(5))), None).await.unwrap();
    licenses.standing(holder).await.unwrap();
    assert_eq!(state(&licenses, holder), Some(LicenseState::Suspended));
    // Confirmed at the very same moment by the clock, so their stamps do not tell which is newer.
    licenses.learn(holder, Known { confirmed_at: NOW, ..read.clone() }, None, seq);
    assert_ne!(state(&licenses, holder), Some(LicenseState::Active));
    licenses.standing(holder).await.unwrap();
    licenses.learn(holder, Known { confirmed_at: NOW, ..read }, None, gate.revocation_seq());
    assert_eq!(state(&licenses, holder), Some(LicenseState::Active), "the numbers of the log are what told");
}

#[tokio::test]
async fn a_subject_that_was_read_before_a_change_does_not_stay_in_memory_after_it() {
    let (gate, licenses, holder) = gate().await;
    licenses.standing(holder).await.unwrap();
    let seq = gate.revocation_seq();
    gate.store().link_subject(holder.user().unwrap(), "kg-2".to_owned(), Effects::default()).await.unwrap();
    let entry = NewRevocation { scope: Scope::License { holder }, at: NOW, until: None, why: "test".to_owned() };
    gate.store().append(Effects::default().with_revocation(entry)).await.unwrap();
    gate.follow().await;
    licenses.standing(holder).await.unwrap();
    licenses.learn_subject(holder, Some("kg-1"), seq);
    licenses.standing(holder).await.unwrap();
    assert_eq!(licenses.desk.held.entry(holder).unwrap().subject.as_deref(), Some("kg-2"));
}
