//! What this machine alone can answer: files, folders, the clock, and advice about the configuration.

use std::{fs, path::Path, time::Duration};

use doorward_core::{rule::RuleSet, time::Timestamp};
use doorward_gate::{clock::Clock, license};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use super::{Finding, Status};
use crate::{
    config::{Config, Legacy, Provider, RootSecret, Tls},
    local_license,
};

/// A moment before which this release did not exist: a clock that says less is wrong.
const RELEASED: Timestamp = Timestamp::from_secs(1_767_225_600); // 2026-01-01

pub(super) fn look(config: &Config, clock: &Clock) -> Vec<Finding> {
    let mut findings = vec![self::clock(clock), data_dir(&config.data_dir), root_secret(config)];
    findings.extend(config.listen.tls.as_ref().map(tls));
    findings.extend(license_file(config, clock.now().wall));
    findings.extend(advice(config));
    findings
}

fn clock(clock: &Clock) -> Finding {
    let now = clock.now().wall;
    let shown = super::super::output::time(now);
    if now < RELEASED {
        return Finding::bad(
            Status::Wrong,
            "clock",
            format!("{shown}: this lies before the release that is running"),
            "set the clock, for example with NTP; tokens and sessions are judged by it",
        );
    }
    Finding::ok("clock", shown)
}

/// Whether files can be made where the data goes; makes one and takes it away again.
fn data_dir(dir: &Path) -> Finding {
    let name = format!("data_dir {}", dir.display());
    let remedy = "make the folder writable for the user that Doorward runs as, or set `data_dir`";
    // A folder that is missing is made on the first start, below the nearest one that is there.
    let Some(there) = dir
        .ancestors()
        .map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir })
        .find(|dir| dir.exists())
    else {
        return Finding::bad(Status::Wrong, name, "no folder above it exists", remedy);
    };
    if !there.is_dir() {
        return Finding::bad(Status::Wrong, name, format!("{} is not a folder", there.display()), remedy);
    }
    let probe = there.join(format!(".doorward-check-{}", std::process::id()));
    let made = fs::OpenOptions::new().write(true).create_new(true).open(&probe).and_then(|_| fs::remove_file(&probe));
    match made {
        Ok(()) if there == dir => Finding::ok(name, "writable"),
        Ok(()) => Finding::ok(name, "made on the first start"),
        Err(error) => Finding::bad(Status::Wrong, name, format!("not writable: {error}"), remedy),
    }
}

/// What lies in the place of the license file, with provider `file`.
fn license_file(config: &Config, now: Timestamp) -> Option<Finding> {
    let license = &config.license;
    let path = license.path.as_ref().filter(|_| license.provider == Provider::File && license.relay_url.is_none())?;
    let name = format!("license {}", path.display());
    let place = license::read_place(path, &local_license::expected(license, license.account_keys()), now);
    let refused = place.problems.join("; ");
    let remedy = "check a license file out anew for this account, product and machine, and put it in its place; \
                  `doorward license verify FILE` says more about one";
    Some(match place.best {
        None if refused.is_empty() => Finding::bad(Status::Wrong, name, "there is no license file", remedy),
        None => Finding::bad(Status::Wrong, name, refused, remedy),
        Some((paper, file)) if paper.is_over(now) => {
            Finding::bad(Status::Wrong, name, format!("{file}: the file has ended"), remedy)
        }
        Some((paper, file)) if paper.is_bare() => {
            let detail = format!("{file} is a genuine key that names no license, product or end: it counts for ever");
            let remedy = "set `license.account` and `license.product`: then only what names them counts; or use a license \
                          file";
            Finding::bad(Status::Note, name, detail, remedy)
        }
        Some(_) if !refused.is_empty() => Finding::bad(Status::Note, name, format!("not taken: {refused}"), remedy),
        Some((paper, file)) => {
            let end = [paper.observation.expires_at, paper.ends_at].into_iter().flatten().min();
            let until = end.map_or_else(String::new, |end| format!(", until {}", super::super::output::time(end)));
            Finding::ok(name, format!("{file} is genuine{until}"))
        }
    })
}

fn root_secret(config: &Config) -> Finding {
    match &config.root_secret {
        RootSecret::MakeAt(path) => Finding::ok(
            "root secret",
            format!("{} is made on the first start, unless keys wait for it", path.display()),
        ),
        RootSecret::Given(_) => {
            let path = config.secrets.root_file.clone().unwrap_or_else(|| config.data_dir.join("root.key"));
            if config.secrets.root.is_none() && is_open(&path) {
                return Finding::bad(
                    Status::Note,
                    "root secret",
                    format!("{} can be read by other users of this machine", path.display()),
                    format!("chmod 600 {}", path.display()),
                );
            }
            Finding::ok("root secret", "there")
        }
    }
}

/// Whether others than the owner may read a file.
fn is_open(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o077 != 0)
}

fn tls(tls: &Tls) -> Finding {
    match load(tls) {
        Ok(count) => Finding::ok("TLS certificate", format!("{count} certificates, and the key is the first one's")),
        Err(what) => Finding::bad(
            Status::Wrong,
            "TLS certificate",
            what,
            "give the certificate chain and the private key of its first certificate, both PEM",
        ),
    }
}

/// Loads chain and key as the listener does; the number of certificates.
fn load(tls: &Tls) -> Result<usize, String> {
    let shown = tls.cert_file.display();
    let chain = CertificateDer::pem_file_iter(&tls.cert_file).map_err(|error| format!("{shown}: {error}"))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| format!("{shown}: {error}"))?;
    if chain.is_empty() {
        return Err(format!("{shown} holds no certificate"));
    }
    let count = chain.len();
    let key =
        PrivateKeyDer::from_pem_file(&tls.key_file).map_err(|error| format!("{}: {error}", tls.key_file.display()))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| error.to_string())?;
    Ok(count)
}

/// What works and may still not be what was meant.
/// What a `[legacy]` section means. What the store holds below it is for `cutover status`.
fn soak_window(legacy: &Legacy) -> Vec<(String, String, &'static str)> {
    let ceiling = legacy.ceiling();
    if !ceiling.allow {
        return vec![(
            "legacy.allow".into(),
            "closed: nothing of the old system is accepted".into(),
            "remove [legacy]",
        )];
    }
    let what = match legacy.hs256_secret {
        Some(_) => "tokens and passwords of the old system are accepted",
        None => "passwords of the old system are accepted, its tokens are not: there is no legacy.hs256_secret",
    };
    let detail = format!(
        "{what}, until on {} or on a later day their share of a week is below {} %",
        ceiling.cutover_on,
        ceiling.threshold * 100.0
    );
    vec![("legacy".into(), detail, "`doorward cutover status` says how it stands")]
}

fn advice(config: &Config) -> Vec<Finding> {
    let mut notes: Vec<(String, String, &str)> = Vec::new();
    if config.login.link_ttl > Duration::from_secs(600) {
        notes.push((
            "login.link_ttl".into(),
            "longer than the 10 minutes that OWASP ASVS asks for".into(),
            "set it to 10m where people read their mail at once",
        ));
    }
    if let Some(legacy) = &config.legacy {
        notes.extend(soak_window(legacy));
    }
    if config.mail.is_none() {
        notes.push(("mail".into(), "no mail server, so nobody can sign in by mail".into(), "add [mail]"));
    }
    if config.rules.is_empty() {
        notes.push(("rules".into(), "no rule, so every request to an app is denied".into(), "add [[rules]]"));
    }
    let rules = RuleSet::new(config.core_rules());
    for (later, earlier) in rules.unreachable() {
        notes.push((
            format!("rules[{later}]"),
            format!("never decides: rules[{earlier}] matches all of its paths first, whatever the method"),
            "put the narrower path first, or remove the rule",
        ));
    }
    for (i, rule) in config.rules.iter().enumerate() {
        if config.license.provider == Provider::None
            && rule.license.is_some_and(|license| license != doorward_core::rule::LicenseMode::None)
        {
            notes.push((
                format!("rules[{i}].license"),
                "asks for a license, and there is no provider that could say who has one: it denies everybody".into(),
                "set [license] provider, or remove `license` from the rule",
            ));
        }
    }
    notes.into_iter().map(|(name, detail, remedy)| Finding::bad(Status::Note, name, detail, remedy)).collect()
}
