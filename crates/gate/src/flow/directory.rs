//! Who a mail address is at the license provider.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use doorward_core::user::Email;

/// Longest wait for the directory inside a sign-in.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Why the directory did not answer, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryFault(pub String);

impl fmt::Display for DirectoryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DirectoryFault {}

/// The answer on its way.
pub type SubjectAnswer<'a> = Pin<Box<dyn Future<Output = Result<Option<String>, DirectoryFault>> + Send + 'a>>;

/// Says which subject the license provider has for a mail address (B33).
///
/// Asked once in the sign-in of a user who is pending, for two seconds at most. A directory that is down, or knows
/// nobody by that address, holds nobody up: the sign-in goes on and the user stays pending.
pub trait SubjectDirectory: fmt::Debug + Send + Sync + 'static {
    /// The subject with that address, `None` where there is none.
    fn subject_of<'a>(&'a self, email: &'a Email) -> SubjectAnswer<'a>;
}
