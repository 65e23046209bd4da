//! Which of several licenses counts.

use std::cmp::Reverse;

use doorward_core::{keygen::License, license::LicenseState, time::Timestamp};

/// How good a state is: 0 opens everything.
pub(super) const fn rank(state: LicenseState) -> u8 {
    match state {
        LicenseState::Active | LicenseState::ActiveBeyondExpiry => 0,
        LicenseState::Expired => 1,
        LicenseState::Suspended => 2,
        LicenseState::Banned => 3,
        LicenseState::Invalid => 4,
        LicenseState::None => 5,
    }
}

/// The order in which licenses are tried: by what the status promises, then the one that lasts longest, then by id,
/// so that two questions choose alike.
pub(super) fn in_order(mut licenses: Vec<License>) -> Vec<License> {
    // The verdict may be another than the status promises; the status only says where to begin.
    licenses.sort_by_cached_key(|license| {
        let promised = rank(license.clone().observe(Timestamp::EPOCH).state);
        let until = license.expires_at.map_or(i64::MAX, Timestamp::as_millis);
        (promised, Reverse(until), license.id.clone())
    });
    licenses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_used_comes_first_and_then_what_lasts() {
        let license = |id: &str, status: &str, end: Option<i64>| License {
            id: id.to_owned(),
            account: None,
            product: None,
            owner: None,
            expires_at: end.map(Timestamp::from_secs),
            status: Some(status.to_owned()),
            entitlements: Default::default(),
        };
        let licenses = vec![
            license("banned", "BANNED", None),
            license("over", "EXPIRED", Some(1)),
            license("short", "EXPIRING", Some(5)),
            license("suspended", "SUSPENDED", None),
            license("b", "INACTIVE", None),
            license("a", "ACTIVE", None),
            license("over later", "EXPIRED", Some(2)),
            license("long", "ACTIVE", Some(9)),
        ];
        let wanted = ["a", "b", "long", "short", "over later", "over", "suspended", "banned"];
        let mut turned = licenses.clone();
        turned.reverse();
        for licenses in [licenses, turned] {
            let order: Vec<String> = in_order(licenses).into_iter().map(|license| license.id).collect();
            assert_eq!(order, wanted);
        }
    }
}
