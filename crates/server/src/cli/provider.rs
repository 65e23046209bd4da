//! The license provider, asked by a command.

use doorward_core::{
    license::{Holder, Observation},
    secret::Secret,
    user::Email,
};
use doorward_gate::{
    clock::Clock,
    issuer::Issuers,
    license::{
        FaultKind, LicenseProvider as _, Question,
        jwt::JwtProvider,
        keygen::{Enrolled, KeygenProvider, LicenseName},
        trouble::Trouble,
    },
};
use serde_json::Map;

use super::Failure;
use crate::{
    config::{self, Config, is_uuid},
    license,
};

/// A provider that is asked over the network.
pub(super) enum Provider {
    /// A Keygen server.
    Keygen(KeygenProvider),
    /// A hub with license JWTs.
    Jwt(JwtProvider, Clock),
}

impl Provider {
    /// The one of `[license]`. `instead` says what to do where there is none that could be asked.
    pub(super) fn of(config: &Config, clock: &Clock, instead: &str) -> Result<Self, Failure> {
        let wrong = |error: anyhow::Error| Failure::Wrong(error.to_string());
        match config.license.provider {
            config::Provider::Keygen => Ok(Self::Keygen(license::keygen(&config.license, clock).map_err(wrong)?)),
            config::Provider::Jwt => {
                let issuers = config.issuers.iter().map(config::Issuer::to_gate).collect();
                let issuers = Issuers::new(issuers, clock, None).map_err(|error| Failure::Wrong(error.to_string()))?;
                issuers.start();
                Ok(Self::Jwt(license::jwt(&config.license, &issuers, clock).map_err(wrong)?, clock.clone()))
            }
            config::Provider::File | config::Provider::None => Err(Failure::Wrong(format!(
                "license.provider is neither `keygen` nor `jwt`, so nobody can be asked; {instead}"
            ))),
        }
    }

    /// What it says of the license with this key or id, whosever it is.
    pub(super) async fn validate(&self, name: &str) -> Result<Observation, Failure> {
        match self {
            Self::Keygen(keygen) => {
                let name = match is_uuid(name) {
                    true => LicenseName::Id(name.to_owned()),
                    false => LicenseName::Key(Secret::new(name.to_owned())),
                };
                keygen.validate(&name).await.map_err(|trouble| troubled(&trouble))
            }
            Self::Jwt(hub, clock) => {
                let license_id = Some(name.to_owned());
                let now = clock.now();
                let (holder, judged_at) = (Holder::Installation, now.wall);
                let question = Question { holder, license_id, subject: None, email: None, judged_at };
                hub.ask(question, now).await.map_err(|fault| failed(fault.kind, &fault.note))
            }
        }
    }

    /// The user with this mail address there, made if nobody has it.
    pub(super) async fn enroll(&self, email: &Email) -> Result<Enrolled, Failure> {
        let enrolled = match self {
            Self::Keygen(keygen) => keygen.create_user(email, Map::new()).await,
            Self::Jwt(hub, _) => hub.create_user(email, Map::new()).await,
        };
        enrolled.map_err(|trouble| troubled(&trouble))
    }
}

fn troubled(trouble: &Trouble) -> Failure {
    failed(trouble.kind(), &format!("{trouble}; {}", trouble.remedy()))
}

/// As `check` sees it: what is down is exit code 1, what is wrong here is 2.
fn failed(kind: FaultKind, note: &str) -> Failure {
    let text = format!("the license provider gave no answer: {note}");
    match kind {
        FaultKind::Unavailable => Failure::Failed(text),
        FaultKind::Untrusted | FaultKind::Misconfigured => Failure::Wrong(text),
    }
}
