//! The ROCA fingerprint (CVE-2017-15361): moduli made by a broken key generator.

/// The primes whose product the broken generator worked with.
const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Whether `modulus` (big-endian) has the fingerprint: modulo each prime it is a power of 65537.
///
/// A sound modulus shows it with a probability below 2⁻²⁷.
pub(super) fn has_fingerprint(modulus: &[u8]) -> bool {
    PRIMES.iter().all(|prime| is_power_of_65537(remainder(modulus, *prime), *prime))
}

fn remainder(number: &[u8], prime: u32) -> u32 {
    number.iter().fold(0, |rest, byte| ((rest << 8) | u32::from(*byte)) % prime)
}

fn is_power_of_65537(number: u32, prime: u32) -> bool {
    let generator = 65_537 % prime;
    let mut power = 1;
    // The order of an element of the group is below the prime, so this ends.
    for _ in 0..prime {
        if power == number {
            return true;
        }
        power = power * generator % prime;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_65537_have_the_fingerprint_and_their_neighbours_do_not() {
        assert!(has_fingerprint(&[1, 0, 1]));
        assert!(!has_fingerprint(&[1, 0, 2]));
        assert!(!has_fingerprint(&[1, 0, 0]));
    }
}
