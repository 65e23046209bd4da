//! From `[license]` to whoever is asked about licenses.

use std::sync::Arc;

use anyhow::bail;
use doorward_core::license::LicensePolicy;
use doorward_gate::{
    issuer::Issuers,
    license::{LicenseParts, LicenseProvider},
};

use crate::{
    config::{Config, Provider},
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
        None => match provider(config, issuers, local)? {
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
    _issuers: &Issuers,
    local: Option<&LocalLicense>,
) -> Result<Option<Arc<dyn LicenseProvider>>, anyhow::Error> {
    match config.license.provider {
        Provider::None => Ok(None),
        // Reading refuses these; each goes with the release that brings it.
        Provider::Keygen => bail!("license.provider: keygen is not available in this release"),
        Provider::Jwt => bail!("license.provider: jwt is not available in this release"),
        // Made before: a job looks after it besides.
        Provider::File => Ok(local.map(LocalLicense::provider)),
    }
}
