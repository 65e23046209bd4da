use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::reason::Reason;

const DAY: u64 = 86_400;
const T0: Timestamp = Timestamp::from_secs(1_800_000_000);
const POLICY: LicensePolicy =
    LicensePolicy { trust_for: Duration::from_secs(DAY), grace: Duration::from_secs(7 * DAY) };

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(T0.as_millis() + secs * 1000)
}

fn days(days: i64) -> Timestamp {
    at(days * DAY as i64)
}

fn observed(state: LicenseState, expires_at: Option<Timestamp>) -> Known {
    let observation = Observation {
        state,
        license_id: Some("lic".to_owned()),
        expires_at,
        entitlements: BTreeSet::new(),
        observed_at: T0,
    };
    Known { observation, confirmed_at: T0 }
}

/// The standing at `now`, confirmed that very moment.
fn fresh(state: LicenseState, expires_at: Option<Timestamp>, now: Timestamp) -> Standing {
    let known = Known { confirmed_at: now, ..observed(state, expires_at) };
    derive(Some(&known), &POLICY, now, now)
}

/// Weighs what a provider said with its own time, while the clock is right.
fn weigh(known: Option<&Known>, observation: Observation, now: Timestamp) -> Plan {
    plan(known, observation, SaidBy::Provider, &LicenseTime::at(now))
}

#[test]
fn every_state_has_its_verdict() {
    use LicenseState as S;
    let deny = |reason| Verdict::Deny { reason };
    let grace = Verdict::ReadOnly { reason: Reason::LicenseExpiredGrace };
    let far = Some(days(100));
    for (state, expires_at, now, verdict, status) in [
        (S::Active, None, days(0), Verdict::Allow, "active"),
        (S::Active, far, days(0), Verdict::Allow, "active"),
        (S::Active, far, days(86), Verdict::Allow, "expiring"),
        (S::Active, far, days(100), grace, "expired"),
        (S::Active, far, days(106), grace, "expired"),
        (S::Active, far, days(107), deny(Reason::LicenseExpired), "expired"),
        (S::ActiveBeyondExpiry, far, days(1000), Verdict::Allow, "active"),
        (S::Expired, Some(days(-1)), days(0), grace, "expired"),
        (S::Expired, Some(days(-7)), days(0), deny(Reason::LicenseExpired), "expired"),
        (S::Expired, Some(days(0)), days(6), grace, "expired"),
        (S::Expired, Some(days(0)), days(7), deny(Reason::LicenseExpired), "expired"),
        (S::Expired, None, days(0), deny(Reason::LicenseExpired), "expired"),
        (S::Suspended, far, days(0), deny(Reason::LicenseSuspended), "suspended"),
        (S::Banned, far, days(0), deny(Reason::LicenseBanned), "banned"),
        (S::None, None, days(0), deny(Reason::LicenseNone), "none"),
        (S::Invalid, far, days(0), deny(Reason::LicenseInvalid), "unknown"),
    ] {
        let standing = fresh(state, expires_at, now);
        assert_eq!((standing.verdict, standing.status), (verdict, status), "{state:?} {expires_at:?} {now:?}");
    }
}

#[test]
fn a_silent_provider_means_reading_only_and_then_not_knowing_and_never_a_verdict() {
    let read_only = Verdict::ReadOnly { reason: Reason::LicenseUnknown };
    let unknown = Verdict::Deny { reason: Reason::LicenseUnknown };
    let known = observed(LicenseState::Active, None);
    for (now, verdict, until) in [
        (at(0), Verdict::Allow, Some(days(1))),
        (at(DAY as i64 - 1), Verdict::Allow, Some(days(1))),
        (days(1), read_only, Some(days(8))),
        (days(7), read_only, Some(days(8))),
        (days(8), unknown, None),
    ] {
        let standing = derive(Some(&known), &POLICY, now, now);
        assert_eq!((standing.verdict, standing.until), (verdict, until), "{now:?}");
    }
    assert_eq!(derive(None, &POLICY, T0, T0).verdict, unknown);
    for state in [LicenseState::Suspended, LicenseState::Banned, LicenseState::None, LicenseState::Invalid] {
        let verdict = derive(Some(&observed(state, None)), &POLICY, days(2), days(2)).verdict;
        assert_eq!(verdict, unknown, "{state:?}: not knowing makes nothing better");
    }
}

#[test]
fn a_clock_that_was_moved_back_brings_nothing_back() {
    let known = Known { confirmed_at: days(10), ..observed(LicenseState::Active, Some(days(1))) };
    let expired = Verdict::Deny { reason: Reason::LicenseExpired };
    assert_eq!(derive(Some(&known), &POLICY, days(0), days(10)).verdict, expired);
}

#[test]
fn a_license_said_to_be_over_before_its_end_was_over_when_that_was_said_first() {
    let said =
        |day| Observation { observed_at: days(day), ..observed(LicenseState::Expired, Some(days(100))).observation };
    let mut known = None;
    for day in 0..107 {
        let (Plan::Confirmed(new) | Plan::Changed { new, .. }) = weigh(known.as_ref(), said(day), days(day)) else {
            panic!("nothing older comes")
        };
        assert_eq!(new.observation.expires_at, Some(days(0)), "day {day}");
        let rank = derive(Some(&new), &POLICY, days(day), days(day)).verdict.rank();
        assert_eq!(rank, u8::from(day < 7), "day {day}");
        known = Some(new);
    }
    // Renewed, it has its new end and, should it be taken away again, a grace of its own.
    let active = Observation { state: LicenseState::Active, ..said(110) };
    let Plan::Changed { new, .. } = weigh(known.as_ref(), active, days(110)) else { panic!("that is news") };
    assert_eq!(new.observation.expires_at, Some(days(100)));
}

#[test]
fn a_license_that_ended_while_nothing_ran_has_its_whole_grace() {
    // Nothing ran for ten days, and the steady time is still that of before.
    let time = LicenseTime { wall: days(10), steady: days(0) };
    let said = observed(LicenseState::Expired, Some(days(9))).observation;
    let Plan::Changed { new, .. } = plan(None, said.clone(), SaidBy::OwnClock, &time) else {
        panic!("it is the first")
    };
    assert_eq!((new.observation.expires_at, new.confirmed_at), (Some(days(9)), days(0)));
    // Confirmed when the clock is believed.
    let later = LicenseTime::at(days(11));
    let Plan::Confirmed(new) = plan(Some(&new), said, SaidBy::OwnClock, &later) else { panic!("nothing else is said") };
    for (day, rank) in [(11, 1), (15, 1), (16, 0)] {
        let known = Known { confirmed_at: days(day), ..new.clone() };
        assert_eq!(derive(Some(&known), &POLICY, days(day), days(day)).verdict.rank(), rank, "day {day}");
    }
}

#[test]
fn what_a_clock_that_was_ahead_wrote_down_keeps_nothing_newer_out() {
    let mut ahead = Known { confirmed_at: days(365), ..observed(LicenseState::None, None) };
    ahead.observation.observed_at = days(365);
    let bought = Observation { observed_at: days(1), ..observed(LicenseState::Active, None).observation };
    let Plan::Changed { new, .. } = weigh(Some(&ahead), bought.clone(), at(DAY as i64 + 1)) else {
        panic!("it is not older")
    };
    assert_eq!((new.observation, new.confirmed_at), (bought.clone(), at(DAY as i64 + 1)));
    assert_eq!(weigh(Some(&ahead), bought, days(365)), Plan::Older, "while that time counts, so does what it wrote");
}

#[test]
fn a_clock_that_leaps_ends_a_license_and_makes_no_confirmation_older() {
    let dated = observed(LicenseState::Active, Some(days(30)));
    let leapt = |known: &Known| derive(Some(known), &POLICY, days(365), days(0));
    assert_eq!(leapt(&dated).verdict, Verdict::Deny { reason: Reason::LicenseExpired });
    let undated = leapt(&observed(LicenseState::Active, None));
    assert_eq!((undated.verdict, undated.until), (Verdict::Allow, Some(days(366))), "a day by whatever ages it");
}

#[test]
fn an_answer_without_a_time_of_its_own_is_newer_than_what_was_known_when_it_was_asked_for() {
    let said = |state| Observation { observed_at: days(-300), ..observed(state, None).observation };
    let known = observed(LicenseState::Active, None);
    for time in [
        LicenseTime::at(days(1)),
        LicenseTime { wall: days(-365), steady: days(0) },
        LicenseTime { wall: days(365), steady: days(0) },
        // Another server's clock is ahead of this one by a little.
        LicenseTime::at(at(-400)),
    ] {
        let planned = plan(Some(&known), said(LicenseState::Suspended), SaidBy::OwnClock, &time);
        let Plan::Changed { new, .. } = planned else { panic!("it is not older: {time:?}") };
        let later = T0.plus(Duration::from_millis(1));
        assert!(new.is_by_own_clock() && new.confirmed_at == time.steady.max(later), "{time:?}: told apart");
    }
}

#[test]
fn a_provider_that_agrees_with_the_clock_is_heard_although_the_highest_time_is_ahead() {
    // For a while the clock was an hour ahead, and was believed; then it was set right.
    let time = LicenseTime { wall: at(500), steady: at(500 + 3600) };
    let asked = LicenseTime::at(at(3600));
    let none = observed(LicenseState::None, None).observation;
    let Plan::Changed { new: known, .. } = plan(None, none, SaidBy::OwnClock, &asked) else {
        panic!("it is the first")
    };
    let said_at = |secs| Observation { observed_at: at(secs), ..observed(LicenseState::Active, None).observation };
    let Plan::Changed { new, .. } = plan(Some(&known), said_at(499), SaidBy::Provider, &time) else {
        panic!("it was signed after the hour, by the clock")
    };
    assert_eq!(new.observation.observed_at, at(499));
    assert_eq!(plan(Some(&known), said_at(-1), SaidBy::Provider, &time), Plan::Older, "that was before");
    // One that does not agree with the clock says nothing of which is wrong.
    let back = LicenseTime { wall: days(-30), steady: at(3601) };
    assert_eq!(plan(Some(&known), said_at(499), SaidBy::Provider, &back), Plan::Older);
    // What a provider signed is never moved.
    assert_eq!(plan(Some(&new), said_at(498), SaidBy::Provider, &time), Plan::Older);
}

#[test]
fn that_there_was_no_license_to_ask_about_keeps_none_out_that_was_signed_shortly_before() {
    let none = |license_id: Option<&str>| {
        let license_id = license_id.map(str::to_owned);
        let said = Observation { license_id, ..observed(LicenseState::None, None).observation };
        let Plan::Changed { new, .. } = plan(None, said, SaidBy::OwnClock, &LicenseTime::at(at(2))) else {
            panic!("it is the first")
        };
        new
    };
    let bought = Observation { observed_at: at(1), ..observed(LicenseState::Active, None).observation };
    let Plan::Changed { new, .. } = weigh(Some(&none(None)), bought.clone(), at(3)) else { panic!("nobody was asked") };
    assert_eq!(new.observation, bought);
    assert_eq!(weigh(Some(&none(Some("lic"))), bought, at(3)), Plan::Older, "somebody was asked, and says no");
}

#[test]
fn what_a_provider_signed_is_told_apart_from_what_bears_our_own_time() {
    let now = LicenseTime::at(T0);
    let said = observed(LicenseState::Active, None).observation;
    for (by, is_own) in [(SaidBy::Provider, false), (SaidBy::OwnClock, true)] {
        let Plan::Changed { new, .. } = plan(None, said.clone(), by, &now) else { panic!("it is the first") };
        assert_eq!((new.is_by_own_clock(), new.observation.observed_at), (is_own, T0), "{by:?}");
    }
}

#[test]
fn a_confirmation_that_names_no_license_is_a_confirmation() {
    let known = observed(LicenseState::None, None);
    let same = Observation { license_id: None, observed_at: days(1), ..known.observation.clone() };
    let Plan::Confirmed(new) = weigh(Some(&known), same, days(1)) else { panic!("nothing else is said") };
    assert_eq!(new.observation.license_id.as_deref(), Some("lic"));
}

#[test]
fn days_of_grace_count_down_and_are_gone_with_it() {
    let known = |confirmed_at| Known { confirmed_at, ..observed(LicenseState::Active, Some(days(0))) };
    for (now, left) in
        [(at(0), Some(7)), (at(1), Some(7)), (days(1), Some(6)), (at(7 * 86_400 - 1), Some(1)), (days(7), None)]
    {
        assert_eq!(derive(Some(&known(now)), &POLICY, now, now).grace_days(now), left, "{now:?}");
    }
    assert_eq!(fresh(LicenseState::Active, None, T0).grace_days(T0), None);
}

#[test]
fn a_state_is_read_back_from_its_word() {
    for state in LicenseState::ALL {
        assert_eq!(LicenseState::parse(state.as_str()), Some(*state));
    }
    assert_eq!(LicenseState::parse("ACTIVE"), None);
}

fn observations() -> impl Strategy<Value = Observation> {
    let entitlements =
        prop::collection::btree_set(prop::sample::select(vec!["sso".to_owned(), "api".to_owned()]), 0..3);
    (
        prop::sample::select(LicenseState::ALL.to_vec()),
        prop::option::of(-20_i64..40),
        entitlements,
        0_i64..40,
        prop::option::of(Just("lic".to_owned())),
    )
        .prop_map(|(state, end, entitlements, seen, license_id)| Observation {
            state,
            license_id,
            expires_at: end.map(days),
            entitlements,
            observed_at: days(seen),
        })
}

proptest! {
    #[test]
    fn time_alone_never_gives_more(observation in observations(), confirmed in 0_i64..40, mut times in prop::collection::vec(-10_i64..90, 2..12)) {
        let known = Known { observation, confirmed_at: days(confirmed) };
        times.sort_unstable();
        let ranks: Vec<u8> = times.iter().map(|at| derive(Some(&known), &POLICY, days(*at), days(*at)).verdict.rank()).collect();
        prop_assert!(ranks.is_sorted_by(|a, b| a >= b), "{ranks:?}");
    }

    #[test]
    fn until_is_when_it_gets_less(observation in observations(), confirmed in 0_i64..40, now in 0_i64..60) {
        let known = Known { observation, confirmed_at: days(confirmed) };
        let standing = |now| derive(Some(&known), &POLICY, now, now);
        let here = standing(days(now));
        if let Some(until) = here.until {
            prop_assert!(until > days(now));
            let before = Timestamp::from_millis(until.as_millis() - 1);
            prop_assert_eq!(standing(before).verdict.rank(), here.verdict.rank());
            prop_assert!(standing(until).verdict.rank() < here.verdict.rank());
        } else {
            prop_assert_eq!(here.verdict.rank(), 0);
        }
    }

    #[test]
    fn whatever_the_order_of_arrival_the_newest_observation_stands(seen in prop::collection::vec(observations(), 1..8), shuffle in any::<prop::sample::Index>()) {
        let mut known: Option<Known> = None;
        let start = shuffle.index(seen.len());
        for (step, observation) in seen.iter().cycle().skip(start).take(seen.len()).enumerate() {
            match weigh(known.as_ref(), observation.clone(), days(40 + step as i64)) {
                Plan::Older => prop_assert!(known.as_ref().is_some_and(|known| known.observation.observed_at > observation.observed_at)),
                Plan::Confirmed(new) | Plan::Changed { new, .. } => {
                    prop_assert!(known.as_ref().and_then(|known| known.observation.license_id.as_ref()).is_none() || new.observation.license_id.is_some());
                    known = Some(new);
                }
            }
        }
        let newest = seen.iter().map(|observation| observation.observed_at).max();
        prop_assert_eq!(known.map(|known| known.observation.observed_at), newest);
    }
}
