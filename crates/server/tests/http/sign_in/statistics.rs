//! Whether two series of measurements come from one distribution, robust on a busy machine.

/// The chance that a value of `a` is larger than one of `b` (ties count half): the statistic of Mann and Whitney over
/// the number of pairs. 0.5 where nobody can tell them apart.
pub(super) fn superiority(a: &[f64], b: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> =
        a.iter().map(|&value| (value, true)).chain(b.iter().map(|&value| (value, false))).collect();
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut ranks = 0.0;
    let mut at = 0;
    while at < all.len() {
        let end = at + all[at..].iter().take_while(|entry| entry.0 == all[at].0).count();
        // Ranks count from 1; those that are equal share their middle.
        let shared = (at + 1 + end) as f64 / 2.0;
        ranks += all[at..end].iter().filter(|entry| entry.1).count() as f64 * shared;
        at = end;
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    (ranks - n * (n + 1.0) / 2.0) / (n * m)
}

/// How many standard deviations `superiority` is away from 0.5 if both are the same.
pub(super) fn z(superiority: f64, n: usize, m: usize) -> f64 {
    let (n, m) = (n as f64, m as f64);
    (superiority - 0.5) / ((n + m + 1.0) / (12.0 * n * m)).sqrt()
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The standard deviation of a normal distribution whose middle half is as wide as that of `values`: single ones far
/// away, which a busy machine makes, count for nothing.
pub(super) fn spread(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let quarter = values.len() / 4;
    (values[values.len() - 1 - quarter] - values[quarter]) / 1.349
}

#[test]
fn a_small_shift_under_much_noise_is_seen_and_no_shift_is_not() {
    // A fixed sequence that looks like delays with long tails.
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = (state >> 33) as f64 / f64::from(1_u32 << 31);
        1.0 - (1.0 - uniform).max(1e-9).ln()
    };
    let a: Vec<f64> = (0..1000).map(|_| noise()).collect();
    let b: Vec<f64> = (0..1000).map(|_| noise()).collect();
    let shifted: Vec<f64> = b.iter().map(|value| value + 0.25).collect();
    assert!(z(superiority(&a, &b), 1000, 1000).abs() < 4.0);
    assert!(z(superiority(&shifted, &a), 1000, 1000) > 6.0);
    assert_eq!(superiority(&[1.0, 2.0], &[1.0, 2.0]), 0.5);
    assert_eq!(superiority(&[3.0, 4.0], &[1.0, 2.0]), 1.0);
}

#[test]
fn the_spread_is_that_of_the_middle_and_sees_two_humps() {
    let even: Vec<f64> = (0..20).map(f64::from).collect();
    let mut outlier = even.clone();
    outlier[19] = 1e6;
    assert_eq!(spread(&even), spread(&outlier));
    let humps: Vec<f64> = (0..20).map(|n| if n % 2 == 0 { 250.0 } else { 350.0 }).collect();
    assert!(spread(&humps) > 70.0);
}
