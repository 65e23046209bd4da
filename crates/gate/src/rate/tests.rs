use doorward_core::time::Timestamp;

use super::*;

fn clock() -> Clock {
    Clock::manual(Timestamp::from_secs(1_800_000_000))
}

#[test]
fn a_burst_passes_then_one_per_interval() {
    let clock = clock();
    let limiter = Limiter::new(Quota::per_minute(3), 16, clock.clone());
    for left in [2, 1, 0] {
        assert_eq!(limiter.check(&"a"), Ok(left));
    }
    assert_eq!(limiter.check(&"a"), Err(Duration::from_secs(20)));
    assert_eq!(limiter.check(&"b"), Ok(2), "another key has a budget of its own");
    clock.advance(Duration::from_secs(20));
    assert_eq!(limiter.check(&"a"), Ok(0));
    assert!(limiter.check(&"a").is_err());
    clock.advance(Duration::from_secs(100));
    for n in 0..3 {
        assert!(limiter.check(&"a").is_ok(), "{n}");
    }
    assert!(limiter.check(&"a").is_err(), "waiting saves up no more than one burst");
}

#[test]
fn refused_events_do_not_push_the_end_away() {
    let clock = clock();
    let limiter = Limiter::new(Quota::per_hour(1), 16, clock.clone());
    assert!(limiter.check(&"victim").is_ok());
    for n in 1..1_000 {
        clock.advance(Duration::from_secs(1));
        assert_eq!(limiter.check(&"victim"), Err(Duration::from_secs(3600 - n)));
    }
    clock.advance(Duration::from_secs(3600 - 999));
    assert!(limiter.check(&"victim").is_ok());
}

#[test]
fn looking_counts_nothing_and_forgetting_starts_anew() {
    let limiter = Limiter::new(Quota::per_minute(2), 16, clock());
    for _ in 0..10 {
        assert!(limiter.has_room(&"a").is_ok());
    }
    assert_eq!((limiter.check(&"a"), limiter.check(&"a")), (Ok(1), Ok(0)));
    assert_eq!(limiter.has_room(&"a"), Err(Duration::from_secs(30)));
    limiter.forget(&"a");
    assert!(limiter.has_room(&"a").is_ok());
}

#[test]
fn a_clock_set_back_loosens_and_tightens_nothing() {
    let clock = clock();
    let limiter = Limiter::new(Quota::per_minute(1), 16, clock.clone());
    assert!(limiter.check(&"a").is_ok());
    clock.set_wall(Timestamp::from_secs(1_000));
    assert_eq!(limiter.check(&"a"), Err(Duration::from_secs(60)));
}

#[test]
fn callers_at_once_get_no_more_than_the_quota() {
    let limiter = Limiter::new(Quota::per_minute(5), 16, clock());
    let passed = std::thread::scope(|scope| {
        let racers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| (0..50).filter(|_| limiter.check(&"a").is_ok()).count())).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).sum::<usize>()
    });
    assert_eq!(passed, 5);
}

#[test]
fn a_flood_of_keys_stays_within_its_memory() {
    let limiter = Limiter::new(Quota::per_minute(1), 100, clock());
    for n in 0..100_000 {
        assert!(limiter.check(&n).is_ok());
    }
    assert!(limiter.len() <= 101, "{}", limiter.len());
}

#[test]
fn a_slash_64_is_one_client_and_a_mapped_address_is_itself() {
    let net = |text: &str| ClientNet::of(text.parse().unwrap());
    assert_eq!(net("2001:db8:1:2::1"), net("2001:db8:1:2:ffff::9"));
    assert_ne!(net("2001:db8:1:2::1"), net("2001:db8:1:3::1"));
    assert_eq!(net("::ffff:192.0.2.1"), net("192.0.2.1"));
    assert_ne!(net("192.0.2.1"), net("192.0.2.2"));
}

#[tokio::test]
async fn a_named_limit_tells_what_is_left_and_how_long_to_wait() {
    let clock = clock();
    let limits = MemoryLimits::new(&clock);
    let client = Limit::client("192.0.2.1".parse().unwrap());
    let first = limits.take(Limit::CallbackPerClient, client).await.unwrap();
    assert_eq!(first, RateBudget { policy: "callback", quota: 10, window: 60, remaining: 9, reset: 6 });
    for _ in 0..9 {
        assert!(limits.take(Limit::CallbackPerClient, client).await.is_ok());
    }
    clock.advance(Duration::from_millis(500));
    let spent = limits.take(Limit::CallbackPerClient, client).await.unwrap_err();
    assert_eq!((spent.remaining, spent.reset), (0, 6), "rounded up");
    assert!(limits.take(Limit::CodePerClient, client).await.is_ok(), "each limit counts for itself");
    limits.forget(Limit::CallbackPerClient, client).await;
    assert!(limits.look(Limit::CallbackPerClient, client).await.is_ok());
}

#[test]
fn every_limit_has_a_name_of_its_own_that_fits_a_structured_field() {
    let names: std::collections::HashSet<_> = Limit::ALL.iter().map(|limit| limit.as_str()).collect();
    assert_eq!(names.len(), Limit::ALL.len());
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
    for (at, limit) in Limit::ALL.iter().enumerate() {
        assert_eq!(*limit as usize, at, "MemoryLimits counts on it");
    }
}
