//! Rate limits in this process: GCRA over a bounded map.

use std::{
    hash::Hash,
    net::IpAddr,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use quick_cache::unsync::Cache;

/// So many events per period; as many at once, then evenly spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Events per period, and the largest burst.
    pub events: NonZeroU32,
    /// The period.
    pub period: Duration,
}

impl Quota {
    /// `events` per minute; zero counts as one.
    pub const fn per_minute(events: u32) -> Self {
        Self::per(events, Duration::from_secs(60))
    }

    /// `events` per hour; zero counts as one.
    pub const fn per_hour(events: u32) -> Self {
        Self::per(events, Duration::from_secs(3600))
    }

    /// `events` per `period`; zero counts as one.
    pub const fn per(events: u32, period: Duration) -> Self {
        let events = match NonZeroU32::new(events) {
            Some(events) => events,
            None => NonZeroU32::MIN,
        };
        Self { events, period }
    }
}

/// Counts events by key with the generic cell rate algorithm (ITU-T I.371).
///
/// Holds at most `capacity` keys; a key that is pushed out starts with a full budget again, so a flood
/// of distinct keys can loosen a limit but never lock anybody out, and never grows the process. Counts
/// are lost on restart and not shared between replicas.
#[derive(Debug)]
pub struct Limiter<K> {
    quota: Quota,
    /// Per key the "theoretical arrival time" on the monotonic clock.
    arrivals: Mutex<Cache<K, Duration>>,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    /// An empty limiter.
    pub fn new(quota: Quota, capacity: usize) -> Self {
        Self { quota, arrivals: Mutex::new(Cache::new(capacity.max(1))) }
    }

    /// Counts one event of `key` at monotonic time `now`. An event that is refused is not counted.
    ///
    /// # Errors
    /// How long to wait until one more fits.
    pub fn check(&self, key: &K, now: Duration) -> Result<(), Duration> {
        let interval = self.quota.period / self.quota.events.get();
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let next = arrivals.get(key).copied().unwrap_or(now).max(now).saturating_add(interval);
        let ahead = next.saturating_sub(now);
        // `interval * events` rather than the period: the division above may have cut a nanosecond.
        let most = interval.saturating_mul(self.quota.events.get());
        if ahead > most {
            return Err(ahead.saturating_sub(most));
        }
        arrivals.insert(key.clone(), next);
        Ok(())
    }

    /// How many keys are held.
    pub fn len(&self) -> usize {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The network that counts as one client: an IPv4 address, or the /64 of an IPv6 address, because a
/// whole /64 commonly belongs to one host (CVE-2026-45364).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientNet(u128);

impl ClientNet {
    /// The network of `address`; an IPv4 address mapped into IPv6 counts as itself.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().to_bits()),
            IpAddr::V6(v6) => Self(v6.to_bits() >> 64 << 64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Duration = Duration::from_secs(1_000);

    #[test]
    fn a_burst_passes_then_one_per_interval() {
        let limiter = Limiter::new(Quota::per_minute(3), 16);
        for n in 0..3 {
            assert_eq!(limiter.check(&"a", T0), Ok(()), "{n}");
        }
        assert_eq!(limiter.check(&"a", T0), Err(Duration::from_secs(20)));
        assert_eq!(limiter.check(&"b", T0), Ok(()), "another key has a budget of its own");
        let later = T0 + Duration::from_secs(20);
        assert_eq!(limiter.check(&"a", later), Ok(()));
        assert!(limiter.check(&"a", later).is_err());
        let much_later = T0 + Duration::from_secs(120);
        for n in 0..3 {
            assert_eq!(limiter.check(&"a", much_later), Ok(()), "{n}");
        }
        assert!(limiter.check(&"a", much_later).is_err(), "waiting saves up no more than one burst");
    }

    #[test]
    fn refused_events_do_not_push_the_end_away() {
        let limiter = Limiter::new(Quota::per_hour(1), 16);
        assert_eq!(limiter.check(&"victim", T0), Ok(()));
        for n in 0..1_000 {
            assert!(limiter.check(&"victim", T0 + Duration::from_secs(n)).is_err());
        }
        assert_eq!(limiter.check(&"victim", T0 + Duration::from_secs(3600)), Ok(()));
    }

    #[test]
    fn a_flood_of_keys_stays_within_its_memory() {
        let limiter = Limiter::new(Quota::per_minute(1), 100);
        for n in 0..100_000 {
            assert_eq!(limiter.check(&n, T0), Ok(()));
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
}
