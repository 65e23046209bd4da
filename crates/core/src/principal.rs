//! Who is calling.

use std::{collections::BTreeSet, fmt, sync::Arc};

use crate::{
    credential::CredentialKind,
    id::{ApiKeyId, OrgId, SessionId, UserId},
    session::SignInMethod,
    time::Timestamp,
    token::Claims,
    user::Email,
};

/// A subject within an issuer; two issuers may use the same `sub` for different people.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SubjectId {
    /// Name of the issuer in the config; [`SubjectId::LOCAL`] for our own users.
    pub issuer: Arc<str>,
    /// Subject within it.
    pub subject: Arc<str>,
}

impl SubjectId {
    /// Issuer name of our own users.
    pub const LOCAL: &'static str = "local";

    /// The subject of a local user.
    pub fn local(user: UserId) -> Self {
        Self { issuer: Self::LOCAL.into(), subject: user.to_string().into() }
    }

    /// Whether this names a user of ours.
    pub fn is_local(&self) -> bool {
        &*self.issuer == Self::LOCAL
    }
}

/// The form of `X-Doorward-Subject`: the local id alone, or `<issuer name>|<sub>`.
impl fmt::Display for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_local() { f.write_str(&self.subject) } else { write!(f, "{}|{}", self.issuer, self.subject) }
    }
}

/// What kind of caller it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program with an API key.
    Agent,
    /// A program with a token of an issuer.
    Service,
}

/// The credential that authenticated; `X-Doorward-Method`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authenticated {
    /// A session cookie.
    Session {
        /// The session's public name.
        id: SessionId,
        /// How its person last proved who they are.
        method: SignInMethod,
        /// When.
        authenticated_at: Timestamp,
        /// When it began.
        created_at: Timestamp,
    },
    /// A token of an issuer.
    Bearer {
        /// Its verified claims.
        claims: Arc<Claims>,
    },
    /// An API key.
    ApiKey {
        /// The key's public name.
        id: ApiKeyId,
        /// What it may do. Empty means nothing; there is no default-open (G34).
        capabilities: BTreeSet<String>,
    },
    /// A token of the soak window.
    Legacy {
        /// Its verified claims.
        claims: Arc<Claims>,
    },
}

impl Authenticated {
    /// What kind of credential it was.
    pub const fn kind(&self) -> CredentialKind {
        match self {
            Self::Session { .. } => CredentialKind::Session,
            Self::Bearer { .. } => CredentialKind::Bearer,
            Self::ApiKey { .. } => CredentialKind::ApiKey,
            Self::Legacy { .. } => CredentialKind::Legacy,
        }
    }

    /// The word in `X-Doorward-Method`, logs and metrics.
    pub const fn as_str(&self) -> &'static str {
        self.kind().as_str()
    }
}

/// Who is calling, proven by one credential. Whether they may do what they ask is not said yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// What kind of caller.
    pub kind: PrincipalKind,
    /// Their subject.
    pub subject: SubjectId,
    /// The local user behind it, where there is one.
    pub user_id: Option<UserId>,
    /// Their mail address, only if it is verified.
    pub email: Option<Email>,
    /// The organisation the credential is bound to.
    pub org_id: Option<OrgId>,
    /// The credential.
    pub authenticated: Authenticated,
    /// When the credential ends by itself.
    pub expires_at: Option<Timestamp>,
}
