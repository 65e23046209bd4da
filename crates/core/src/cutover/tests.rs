use proptest::prelude::*;

use super::*;

const TODAY: Day = Day(20_000);

fn ceiling() -> Ceiling {
    let week = Duration::from_secs(7 * 86_400);
    Ceiling { allow: true, cutover_on: TODAY, threshold: 0.05, extend_by: week }
}

fn count(day: i64, kind: Counted, method: &str, count: u64) -> Count<'_> {
    Count { day: TODAY.plus(day), kind, method, count }
}

fn of_file() -> Window {
    Window::in_force(None, &ceiling())
}

fn at(day: i64) -> Timestamp {
    TODAY.plus(day).begins().plus(Duration::from_secs(3600))
}

#[test]
fn days_are_those_of_the_calendar() {
    for (day, text) in [
        (0, "1970-01-01"),
        (-1, "1969-12-31"),
        (59, "1970-03-01"),
        (11_016, "2000-02-29"),
        (11_017, "2000-03-01"),
        (20_818, "2026-12-31"),
        (20_819, "2027-01-01"),
        (47_540, "2100-02-28"),
        (47_541, "2100-03-01"),
    ] {
        assert_eq!(Day(day).to_string(), text);
    }
    assert_eq!(Day::of(Timestamp::from_millis(-1)), Day(-1));
    assert_eq!(Day::of(Day(20_818).begins()), Day(20_818));
}

#[test]
fn the_share_is_of_sign_ins_and_bearer_requests_of_the_seven_days_before() {
    let counts = [
        count(-1, Counted::SignIn, "magic_link", 10),
        count(-2, Counted::SignIn, "password", 3),
        count(-7, Counted::Request, "legacy", 4),
        count(-3, Counted::Request, "bearer", 83),
        // None of these counts.
        count(0, Counted::SignIn, "password", 1000),
        count(-8, Counted::Request, "legacy", 1000),
        count(-1, Counted::Request, "session", 1000),
        count(-1, Counted::Request, "api_key", 1000),
    ];
    assert_eq!(share(counts, TODAY), Share { legacy: 7, total: 100 });
}

#[test]
fn nothing_happens_before_the_day_and_nothing_in_a_closed_window() {
    let legacy = [count(-1, Counted::Request, "legacy", 1)];
    assert_eq!(plan(&of_file(), legacy, &ceiling(), at(-1)), Plan::Stay);
    let closed = Window { open: false, ..of_file() };
    assert_eq!(plan(&closed, legacy, &ceiling(), at(0)), Plan::Stay);
    assert_eq!(plan(&of_file(), legacy, &Ceiling { allow: false, ..ceiling() }, at(0)), Plan::Stay);
}

#[test]
fn below_the_threshold_it_closes_and_at_the_threshold_it_is_extended() {
    let day =
        |legacy| [count(-1, Counted::SignIn, "password", legacy), count(-1, Counted::SignIn, "code", 100 - legacy)];
    let Plan::Close(step) = plan(&of_file(), day(4), &ceiling(), at(0)) else { panic!() };
    assert!(!step.window.open);
    assert_eq!(step.window.why, "the legacy share of the last 7 days is 4.00 % (4 of 100), below 5.00 %");
    assert_eq!(step.effects.audit[0].kind, EventKind::CutoverClosed);
    assert_eq!(step.effects.audit[0].detail.more["legacy"], 4);
    let Plan::Extend(step) = plan(&of_file(), day(5), &ceiling(), at(0)) else { panic!() };
    assert_eq!((step.window.open, step.window.closes_on), (true, TODAY.plus(7)));
    assert_eq!(step.effects.audit[0].kind, EventKind::CutoverExtended);
    assert_eq!(step.window.why, "the legacy share of the last 7 days is 5.00 % (5 of 100), not below 5.00 %");
}

#[test]
fn where_nothing_legacy_happened_it_closes_whatever_the_threshold() {
    let strict = Ceiling { threshold: 0.0, ..ceiling() };
    let modern = [count(-1, Counted::SignIn, "code", 5)];
    assert!(matches!(plan(&of_file(), modern, &strict, at(0)), Plan::Close(_)));
    assert!(matches!(plan(&of_file(), [], &strict, at(0)), Plan::Close(_)));
    let one = [count(-1, Counted::SignIn, "code", 1_000_000), count(-1, Counted::SignIn, "password", 1)];
    assert!(matches!(plan(&of_file(), one, &strict, at(0)), Plan::Extend(_)));
}

#[test]
fn a_server_that_was_off_decides_once() {
    let legacy = [count(29, Counted::SignIn, "password", 1)];
    let Plan::Extend(step) = plan(&of_file(), legacy, &ceiling(), at(30)) else { panic!() };
    assert_eq!(step.window.closes_on, TODAY.plus(37));
}

#[test]
fn the_operator_extends_an_open_window_and_takes_a_cutover_back() {
    let step = plan_extend(&of_file(), &ceiling(), 3, at(-10)).unwrap();
    assert_eq!((step.window.closes_on, step.window.by), (TODAY.plus(3), By::Operator));
    assert!(plan_rollback(&of_file(), &ceiling(), at(0)).is_err());
    let closed = Window { open: false, ..of_file() };
    assert!(plan_extend(&closed, &ceiling(), 3, at(0)).is_err());
    let back = plan_rollback(&closed, &ceiling(), at(5)).unwrap();
    assert_eq!((back.window.open, back.window.closes_on), (true, TODAY.plus(12)));
    assert_eq!(back.effects.audit[0].kind, EventKind::CutoverRolledBack);
    let forbidden = Ceiling { allow: false, ..ceiling() };
    assert!(
        plan_extend(&of_file(), &forbidden, 3, at(0)).is_err() && plan_rollback(&closed, &forbidden, at(0)).is_err()
    );
}

#[test]
fn another_date_in_the_file_replaces_an_extension_and_opens_nothing() {
    let Plan::Extend(step) = plan(&of_file(), [count(-1, Counted::SignIn, "password", 1)], &ceiling(), at(0)) else {
        panic!()
    };
    let text = step.window.to_text().unwrap();
    let stored: Window = text.parse().unwrap();
    assert_eq!(stored, step.window);
    assert_eq!(Window::in_force(Some(&stored), &ceiling()), stored);
    let earlier = Ceiling { cutover_on: TODAY.plus(1), ..ceiling() };
    assert_eq!(Window::in_force(Some(&stored), &earlier).closes_on, TODAY.plus(1));
    let closed = Window { open: false, ..stored };
    assert_eq!(Window::in_force(Some(&closed), &earlier), closed);
}

proptest! {
    /// Day by day, with any traffic: what the file forbids is never open, a window never closes while its share is
    /// at the threshold or above it, and every decision lies ahead of the last.
    #[test]
    fn a_window_closes_only_below_the_threshold_and_is_never_open_past_the_file(
        traffic in prop::collection::vec((0_u64..50, 0_u64..200), 60),
        threshold in 0.0_f64..=1.0,
        extend in 1_u64..20,
        allowed_until in 0_usize..80,
    ) {
        let week = Duration::from_secs(extend * 86_400);
        let mut window = Window::in_force(None, &ceiling());
        for today in 0..60 {
            let ceiling = Ceiling { allow: today < allowed_until, threshold, extend_by: week, ..ceiling() };
            let day = i64::try_from(today).unwrap();
            let counts = traffic.iter().take(today).enumerate().flat_map(|(past, (legacy, modern))| {
                let past = i64::try_from(past).unwrap();
                [count(past, Counted::SignIn, "password", *legacy), count(past, Counted::SignIn, "code", *modern)]
            });
            let counts: Vec<_> = counts.collect();
            let share = share(counts.clone(), TODAY.plus(day));
            match plan(&window, counts, &ceiling, at(day)) {
                Plan::Stay => prop_assert!(!window.is_open(&ceiling) || window.closes_on > TODAY.plus(day)),
                Plan::Close(step) => {
                    prop_assert!(window.is_open(&ceiling));
                    prop_assert!(share.legacy == 0 || share.ratio() < threshold);
                    prop_assert!(!step.window.is_open(&ceiling));
                    window = step.window;
                }
                Plan::Extend(step) => {
                    prop_assert!(share.legacy > 0 && share.ratio() >= threshold);
                    prop_assert!(step.window.closes_on > TODAY.plus(day));
                    prop_assert_eq!(step.effects.audit.len(), 1);
                    window = step.window;
                }
            }
            prop_assert!(ceiling.allow || !window.is_open(&ceiling));
        }
    }
}
