use std::time::Duration;

use proptest::prelude::*;

use super::{Day, Schedule, Timestamp};

/// 2027-01-15 08:00:00, a Friday.
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn of(text: &str) -> Schedule {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    text.parse::<Schedule>().expect_err(text).to_string()
}

/// `2027-01-15 08:00`.
fn shown(at: Timestamp) -> String {
    let minute = at.as_secs().div_euclid(60).rem_euclid(1_440);
    assert_eq!(at.as_millis() % 60_000, 0, "a slot is a whole minute");
    format!("{} {:02}:{:02}", Day::of(at), minute / 60, minute % 60)
}

#[test]
fn the_next_and_the_last_slot_of_usual_schedules() {
    for (text, last, next) in [
        ("* * * * *", "2027-01-15 08:00", "2027-01-15 08:01"),
        ("*/10 * * * *", "2027-01-15 08:00", "2027-01-15 08:10"),
        ("5 * * * *", "2027-01-15 07:05", "2027-01-15 08:05"),
        ("30 3 * * *", "2027-01-15 03:30", "2027-01-16 03:30"),
        ("0 8-10,20 * * *", "2027-01-15 08:00", "2027-01-15 09:00"),
        ("0 0 1 * *", "2027-01-01 00:00", "2027-02-01 00:00"),
        ("0 0 * * mon", "2027-01-11 00:00", "2027-01-18 00:00"),
        ("0 0 * * 7", "2027-01-10 00:00", "2027-01-17 00:00"),
        ("0 0 * * SUN", "2027-01-10 00:00", "2027-01-17 00:00"),
        ("0 12 * * 1-5", "2027-01-14 12:00", "2027-01-15 12:00"),
        ("0 0 29 feb *", "2024-02-29 00:00", "2028-02-29 00:00"),
        ("59 23 31 12 *", "2026-12-31 23:59", "2027-12-31 23:59"),
        // Both kinds of day restricted: either will do.
        ("0 0 13 * 5", "2027-01-15 00:00", "2027-01-22 00:00"),
        // One of them begins with `*`: both must match.
        ("0 0 */2 * fri", "2027-01-15 00:00", "2027-01-29 00:00"),
        ("  0   0 1-31/15 * *  ", "2027-01-01 00:00", "2027-01-16 00:00"),
    ] {
        let schedule = of(text);
        assert_eq!(schedule.last(START).map(shown).as_deref(), Some(last), "{text}");
        assert_eq!(schedule.next(START).map(shown).as_deref(), Some(next), "{text}");
    }
    assert_eq!(of(" 0  0 1 * * ").to_string(), "0 0 1 * *");
}

#[test]
fn a_leap_day_is_found_over_a_century_that_has_none() {
    let after = Timestamp::from_secs(Day(46_080).begins().as_secs()); // 2096-02-29
    assert_eq!(Day::of(after).to_string(), "2096-02-29");
    assert_eq!(of("0 0 29 2 *").next(after).map(shown).as_deref(), Some("2104-02-29 00:00"));
}

#[test]
fn a_text_that_is_no_schedule_is_refused_and_says_which_part() {
    for (text, expected) in [
        ("", "a schedule has five fields (minute hour day month weekday), and this has 0"),
        ("* * * *", "a schedule has five fields (minute hour day month weekday), and this has 4"),
        ("0 0 * * * *", "a schedule has five fields (minute hour day month weekday), and this has 6"),
        ("60 * * * *", "`60` is no minute: the number is too small or too large"),
        ("* 24 * * *", "`24` is no hour: the number is too small or too large"),
        ("* * 0 * *", "`0` is no day of the month: the number is too small or too large"),
        ("* * * 13 *", "`13` is no month: the number is too small or too large"),
        ("* * * * 8", "`8` is no day of the week: the number is too small or too large"),
        ("*/0 * * * *", "`*/0` is no minute: a step of nothing"),
        ("5/10 * * * *", "`5/10` is no minute: a step needs a range or `*` before it"),
        ("30-10 * * * *", "`30-10` is no minute: the range ends before it begins"),
        ("1,,2 * * * *", "`` is no minute: neither a number nor a known name"),
        ("-1 * * * *", "`-1` is no minute: neither a number nor a known name"),
        ("+1 * * * *", "`+1` is no minute: neither a number nor a known name"),
        ("* * * janu *", "`janu` is no month: neither a number nor a known name"),
        ("* * * * */99999999999", "`*/99999999999` is no day of the week: neither a number nor a known name"),
        ("@daily", "a schedule has five fields (minute hour day month weekday), and this has 1"),
        ("0 0 30 2 *", "no day of any year matches"),
        ("0 0 31 4,6,9,11 *", "no day of any year matches"),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
    let long = format!("{}0 * * * *", "0,".repeat(200));
    assert!(error(&long).ends_with("a schedule has 256 characters at most"), "{}", error(&long));
}

#[test]
fn moments_at_the_ends_of_time_are_answered() {
    let daily = of("0 0 * * *");
    for at in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX].map(Timestamp::from_millis) {
        assert!(daily.last(at).is_none_or(|slot| slot <= at));
        assert!(daily.next(at).is_none_or(|slot| slot > at));
    }
    assert_eq!(daily.last(Timestamp::from_millis(-1)).map(shown).as_deref(), Some("1969-12-31 00:00"));
}

/// Minutes looked through, one by one.
const MINUTES: u64 = 20 * 1_440;

/// A field of some numbers, and the numbers it means.
fn field(low: u32, high: u32) -> impl Strategy<Value = (String, Vec<u32>)> {
    let part = (low..=high, low..=high, 1_u32..40, 0_u32..4).prop_map(move |(a, b, step, form)| {
        let (from, to) = (a.min(b), a.max(b));
        let stepped = |from: u32, to: u32| (from..=to).step_by(step as usize).collect::<Vec<_>>();
        match form {
            0 => (format!("{a}"), vec![a]),
            1 => (format!("{from}-{to}"), (from..=to).collect()),
            2 => (format!("{from}-{to}/{step}"), stepped(from, to)),
            _ => (format!("*/{step}"), stepped(low, high)),
        }
    });
    prop_oneof![
        2 => Just(("*".to_owned(), (low..=high).collect())),
        5 => prop::collection::vec(part, 1..3).prop_map(|parts| {
            let text: Vec<&str> = parts.iter().map(|(text, _)| text.as_str()).collect();
            (text.join(","), parts.iter().flat_map(|(_, numbers)| numbers.clone()).collect())
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Against the plainest reading of the manual page: every minute of some days, one by one.
    #[test]
    fn slots_are_the_minutes_that_match(
        minute in field(0, 59), hour in field(0, 23), day in field(1, 31), month in field(1, 12),
        weekday in field(0, 6), start in 0_i64..4_000_000_000,
    ) {
        let text = format!("{} {} {} {} {}", minute.0, hour.0, day.0, month.0, weekday.0);
        let Ok(schedule) = text.parse::<Schedule>() else {
            prop_assert_eq!(error(&text), "no day of any year matches");
            return Ok(());
        };
        let is_slot = |at: Timestamp| {
            let of_day = at.as_secs().rem_euclid(86_400);
            let (_, its_month, its_day) = Day::of(at).civil();
            let its_weekday = (Day::of(at).0 + 4).rem_euclid(7);
            let in_list = |list: &[u32], number: i64| list.iter().any(|&one| i64::from(one) == number);
            let days = (in_list(&day.1, its_day), in_list(&weekday.1, its_weekday));
            let either = !day.0.starts_with('*') && !weekday.0.starts_with('*');
            in_list(&minute.1, of_day / 60 % 60)
                && in_list(&hour.1, of_day / 3600)
                && in_list(&month.1, its_month)
                && if either { days.0 || days.1 } else { days.0 && days.1 }
        };
        let begin = Timestamp::from_secs(start - start % 60);
        let expected: Vec<Timestamp> =
            (1..=MINUTES).map(|n| begin.plus(Duration::from_secs(n * 60))).filter(|&at| is_slot(at)).collect();
        let end = begin.plus(Duration::from_secs(MINUTES * 60));
        let ahead = std::iter::successors(schedule.next(begin), |&at| schedule.next(at));
        prop_assert_eq!(&ahead.take_while(|&at| at <= end).collect::<Vec<_>>(), &expected, "{}", text);
        let back = std::iter::successors(schedule.last(end), |&at| schedule.last(at.minus(Duration::from_millis(1))));
        let mut back: Vec<_> = back.take_while(|&at| at > begin).collect();
        back.reverse();
        prop_assert_eq!(back, expected, "{}", text);
    }
}
