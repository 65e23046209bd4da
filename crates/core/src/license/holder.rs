//! Whose license it is.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::id::{OrgId, UserId};

/// Who holds a license.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// The installation as a whole: one license for everybody.
    Installation,
    /// A user.
    User(UserId),
    /// An organisation.
    Org(OrgId),
}

impl Holder {
    /// The user, where it is one.
    pub const fn user(self) -> Option<UserId> {
        match self {
            Self::User(user) => Some(user),
            Self::Installation | Self::Org(_) => None,
        }
    }
}

/// `installation`, `user/<id>`, `org/<id>`.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installation => f.write_str("installation"),
            Self::User(user) => write!(f, "user/{user}"),
            Self::Org(org) => write!(f, "org/{org}"),
        }
    }
}

/// The text names no holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHolder;

impl FromStr for Holder {
    type Err = NoHolder;

    fn from_str(text: &str) -> Result<Self, NoHolder> {
        match text.split_once('/') {
            None if text == "installation" => Ok(Self::Installation),
            Some(("user", id)) => id.parse().map(Self::User).map_err(|_| NoHolder),
            Some(("org", id)) => id.parse().map(Self::Org).map_err(|_| NoHolder),
            _ => Err(NoHolder),
        }
    }
}

impl Serialize for Holder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Holder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|NoHolder| D::Error::custom("no holder of a license"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn a_holder_reads_back_from_its_text() {
        let user = Holder::User(UserId::mint(Timestamp::EPOCH, [1; 10]));
        let org = Holder::Org(OrgId::mint(Timestamp::EPOCH, [2; 10]));
        for holder in [Holder::Installation, user, org] {
            assert_eq!(holder.to_string().parse(), Ok(holder));
            let json = serde_json::to_string(&holder).unwrap();
            assert_eq!(json, format!("\"{holder}\""));
            assert_eq!(serde_json::from_str::<Holder>(&json).unwrap(), holder);
        }
        for bad in ["", "user", "user/", "user/x", "installation/x", "team/1"] {
            assert_eq!(bad.parse::<Holder>(), Err(NoHolder), "{bad}");
            assert!(serde_json::from_value::<Holder>(bad.into()).is_err(), "{bad}");
        }
    }
}
