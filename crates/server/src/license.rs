//! From `[license]` to whoever is asked about licenses.

use std::sync::Arc;

use anyhow::anyhow;
use doorward_core::license::LicensePolicy;
use doorward_gate::{
    clock::Clock,
    flow::SubjectDirectory,
    issuer::Issuers,
    license::{
        Endpoint, LicenseParts, LicenseProvider,
        jwt::{JwtConfig, JwtProvider},
        keygen::{KeygenConfig, KeygenProvider},
    },
};

use crate::{
    config::{Config, HostName, License, Provider},
    lifecycle::Host,
    local_license::LocalLicense,
};

/// Who is asked, and how long an answer carries; `None` where nobody is. Nothing is opened or asked yet.
///
/// `issuers` and `local` are those of this very configuration.
///
/// # Errors
/// What only shows when parts are built, in words for the operator.
pub(crate) fn parts(
    config: &Config,
    host: &Host,
    issuers: &Issuers,
    local: Option<&LocalLicense>,
) -> Result<Option<LicenseParts>, anyhow::Error> {
    let license = &config.license;
    let provider = match &host.license {
        Some(provider) => Arc::clone(provider),
        None => match provider(config, host, issuers, local)? {
            Some(provider) => provider,
            None => return Ok(None),
        },
    };
    Ok(Some(LicenseParts {
        provider,
        policy: LicensePolicy { trust_for: license.trust_for, grace: license.grace },
        cache_ttl: license.cache_ttl,
        issuer: license.issuer.as_deref().map(Arc::from),
    }))
}

/// The provider that the file names.
fn provider(
    config: &Config,
    host: &Host,
    issuers: &Issuers,
    local: Option<&LocalLicense>,
) -> Result<Option<Arc<dyn LicenseProvider>>, anyhow::Error> {
    Ok(match config.license.provider {
        Provider::None => None,
        Provider::Keygen => Some(Arc::new(keygen(&config.license, &host.clock)?)),
        Provider::Jwt => Some(Arc::new(jwt(&config.license, issuers, &host.clock)?)),
        // Made before: a job looks after it besides.
        Provider::File => local.map(LocalLicense::provider),
    })
}

/// Who knows the subjects of mail addresses: the host's directory, or the provider, if it has one.
///
/// # Errors
/// As [`parts`].
pub(crate) fn directory(
    config: &Config,
    host: &Host,
    issuers: &Issuers,
) -> Result<Option<Arc<dyn SubjectDirectory>>, anyhow::Error> {
    if let Some(directory) = &host.directory {
        return Ok(Some(Arc::clone(directory)));
    }
    Ok(match config.license.provider {
        Provider::Keygen => Some(Arc::new(keygen(&config.license, &host.clock)?)),
        Provider::Jwt => Some(Arc::new(jwt(&config.license, issuers, &host.clock)?)),
        Provider::File | Provider::None => None,
    })
}

/// The provider `keygen`.
///
/// # Errors
/// What no HTTP client can be made of.
pub(crate) fn keygen(license: &License, clock: &Clock) -> Result<KeygenProvider, anyhow::Error> {
    let config = KeygenConfig {
        endpoint: endpoint(license)?,
        account: needed(license.account.as_ref(), "account")?.clone(),
        product: needed(license.product.as_ref(), "product")?.clone(),
        keys: license.account_keys(),
    };
    Ok(KeygenProvider::new(config, clock.clone())?)
}

/// The provider `jwt`, with the issuers of the same configuration.
///
/// # Errors
/// What no HTTP client can be made of.
pub(crate) fn jwt(license: &License, issuers: &Issuers, clock: &Clock) -> Result<JwtProvider, anyhow::Error> {
    let config = JwtConfig {
        endpoint: endpoint(license)?,
        account: needed(license.account.as_ref(), "account")?.clone(),
        product: license.product.clone(),
        issuer: needed(license.issuer.as_ref(), "issuer")?.clone(),
        end_claim: license.end_claim.clone(),
        issuers: issuers.clone(),
    };
    Ok(JwtProvider::new(config, clock.clone())?)
}

fn endpoint(license: &License) -> Result<Endpoint, anyhow::Error> {
    Ok(Endpoint {
        url: needed(license.api_url.as_ref(), "api_url")?.as_url().clone(),
        host: license.host.as_ref().map(HostName::as_str).map(str::to_owned),
        token: needed(license.token.as_ref(), "token")?.0.clone(),
    })
}

/// Reading refused a file without it.
fn needed<'a, T>(value: Option<&'a T>, key: &str) -> Result<&'a T, anyhow::Error> {
    value.ok_or_else(|| anyhow!("license.{key} is missing"))
}
