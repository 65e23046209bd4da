use doorward_core::time::Timestamp;
use futures_util::FutureExt as _;

use super::*;

const RIGHT: &str = "correct horse battery staple";

/// What other implementations wrote: python's bcrypt 5 and argon2-cffi 25 (the reference implementation in C).
const OTHERS: &[(&str, &str)] = &[
    (RIGHT, "$2b$04$V4vBBZ6hxGgWIpDOwQu9COCZPxvEroo1AzvgwIVkfUquU1ikFus/y"),
    ("pässwörd", "$2a$04$qJuZLp1TL1ggi8Gvb./LXueBJdIbKM.GSyJ6bsofgrYkWiuKTkEVi"),
    (RIGHT, "$argon2id$v=19$m=64,t=2,p=2$MDEyMzQ1Njc4OWFiY2RlZg$ZU7BdSwuAT2NJbDWfJmIGFAdzu32uX5r6jw2TuRMaj4"),
    (RIGHT, "$argon2i$v=19$m=64,t=2,p=2$MDEyMzQ1Njc4OWFiY2RlZg$I6c1fG8YRnuN4w3JpmUgBaKgwjVLtRP1vPujJs7gtHs"),
    (RIGHT, "$argon2d$v=19$m=64,t=2,p=2$MDEyMzQ1Njc4OWFiY2RlZg$l9FFa3ZSnVgMXTDqIc3kui/DUh9J0pEF5KFsnMkfT8s"),
    (RIGHT, "$argon2i$v=16$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$duLE/+QCsbwbdjUHdgTxWbuFAdTp7rTK"),
    ("a\0b", "$argon2id$v=19$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$Cf2/5wA510ZAHos28gR2FMZjfSbyh1rH"),
];
/// bcrypt of 72 times `a`.
const LONGEST: &str = "$2b$04$LHa8kpKWM0oN2qlUSnTmLOY.u2xa5zqdvUEJ/jYXfZV5rVdRPIX/a";

fn passwords(at_once: usize) -> Passwords {
    Passwords::at_once(&Clock::manual(Timestamp::EPOCH), at_once)
}

fn hash(text: &str) -> Option<PasswordHash> {
    Some(PasswordHash::parse(text).unwrap())
}

fn secret(text: &str) -> Secret<Vec<u8>> {
    Secret::new(text.as_bytes().to_vec())
}

#[tokio::test]
async fn hashes_that_others_wrote_admit_their_password_and_no_other() {
    let passwords = passwords(2);
    for (right, text) in OTHERS {
        assert_eq!(passwords.check(hash(text), "", secret(right)).await, Ok(true), "{text}");
        for wrong in ["", "correct horse battery stapl", "Correct horse battery staple", "a", "a\0c", "-"] {
            assert_eq!(passwords.check(hash(text), "", secret(wrong)).await, Ok(false), "{text} {wrong}");
        }
    }
}

#[tokio::test]
async fn bcrypt_takes_no_password_for_another_that_only_begins_like_it() {
    let passwords = passwords(2);
    let longest = "a".repeat(72);
    assert_eq!(passwords.check(hash(LONGEST), "", secret(&longest)).await, Ok(true));
    for wrong in [format!("{longest}a"), format!("{longest}\0"), "a".repeat(71), "a".repeat(100_000)] {
        assert_eq!(passwords.check(hash(LONGEST), "", secret(&wrong)).await, Ok(false), "{} bytes", wrong.len());
    }
    let nul = format!("{RIGHT}\0x");
    assert_eq!(passwords.check(hash(OTHERS[0].1), "", secret(&nul)).await, Ok(false));
}

#[tokio::test]
async fn nobody_is_checked_against_a_stand_in_of_the_same_kind_and_is_never_right() {
    let passwords = passwords(2);
    let argon2 = hash(OTHERS[2].1).unwrap().cost;
    assert_eq!(passwords.stand_in("a@example.com").cost, USUAL);
    passwords.use_costs(vec![argon2]);
    assert_eq!(passwords.stand_in("a@example.com").cost, argon2);
    for wrong in ["", "-", RIGHT] {
        assert_eq!(passwords.check(None, "a@example.com", secret(wrong)).await, Ok(false));
    }
    // Shared out as the hashes are, and always the same for one address.
    passwords.use_costs(vec![argon2, argon2, argon2, USUAL]);
    let costs: Vec<Cost> = (0..4000).map(|n| passwords.stand_in(&format!("{n}@example.com")).cost).collect();
    let usual = costs.iter().filter(|cost| **cost == USUAL).count();
    assert!((800..1200).contains(&usual), "{usual} of 4000");
    assert_eq!(passwords.stand_in("7@example.com").cost, costs[7]);
    passwords.use_costs(Vec::new());
    assert_eq!(passwords.stand_in("7@example.com").cost, USUAL);
}

#[tokio::test]
async fn more_checks_than_may_wait_are_turned_away_and_the_rest_is_done() {
    let passwords = passwords(1);
    let all = 100;
    let checks = (0..all).map(|_| {
        let passwords = passwords.clone();
        tokio::spawn(async move { passwords.check(hash(OTHERS[0].1), "", secret(RIGHT)).await })
    });
    let (mut done, mut turned_away) = (0, 0);
    for check in checks.collect::<Vec<_>>() {
        match check.await.unwrap() {
            Ok(is_right) => {
                assert!(is_right);
                done += 1;
            }
            Err(denial) => {
                assert_eq!((denial.reason, denial.retry_after()), (Reason::RateLimited, Some(COME_BACK)));
                turned_away += 1;
            }
        }
    }
    assert_eq!(done + turned_away, all);
    assert!(done > MOST_WAITING && turned_away > 0, "{done} done, {turned_away} turned away");
    assert_eq!(passwords.inside(), 0);
}

#[tokio::test]
async fn a_check_that_nobody_waits_for_still_counts_until_it_is_done() {
    let passwords = passwords(1);
    // A tenth of a second of work, so that it goes on while this thread looks.
    let slow = hash(&OTHERS[0].1.replace("$04$", "$11$")).unwrap();
    let mut check = Box::pin(passwords.check(Some(slow), "", secret(RIGHT)));
    assert!(check.as_mut().now_or_never().is_none(), "it has begun");
    drop(check);
    assert_eq!(passwords.inside(), 1);
    assert_eq!(passwords.check(hash(OTHERS[0].1), "", secret(RIGHT)).await, Ok(true));
    assert_eq!(passwords.inside(), 0);
}
