//! Everything that only others can answer: database, mail server, issuers, apps. All asked at once, each
//! with a limit on time and size.

use std::time::Duration;

use doorward_core::time::Timestamp;
use doorward_gate::{
    clock::Clock,
    issuer::{self, Probe},
    license::RelayProvider,
};
use doorward_store::{Readiness, Store, StoreError, shared::SharedSet};
use futures_util::future::{BoxFuture, join_all};

use super::{super::open_store, Finding, Status, license};
use crate::{
    config::{Config, Issuer, KeySource, Mail, Provider, ResolvedApp, Shared, StoreUrl, Transport, Upstream},
    lifecycle,
};

const STORE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn look(config: &Config, clock: &Clock) -> Vec<Finding> {
    let apps = config.resolved_apps();
    let mut checks: Vec<BoxFuture<'_, Finding>> = vec![Box::pin(store(config, clock))];
    if let Some(url) = config.license.relay_url.as_ref().filter(|_| config.license.provider == Provider::File) {
        checks.push(Box::pin(relay(url)));
    }
    if let Some(settings) = &config.shared {
        checks.push(Box::pin(shared(settings)));
    }
    if let Some(settings) = &config.mail {
        checks.push(Box::pin(mail(settings)));
    }
    for settings in &config.issuers {
        checks.push(Box::pin(issuer(settings, clock)));
    }
    match config.license.provider {
        Provider::Keygen => checks.push(Box::pin(license::keygen(config, clock))),
        Provider::Jwt => checks.push(Box::pin(license::jwt(config, clock))),
        Provider::File | Provider::None => {}
    }
    checks.extend(apps.iter().map(|one| -> BoxFuture<'_, Finding> { Box::pin(app(one)) }));
    join_all(checks).await
}

async fn store(config: &Config, clock: &Clock) -> Finding {
    let name = format!("store {}", config.store.url);
    if let StoreUrl::Sqlite(path) = &config.store.url
        && !config.data_dir.join(path).exists()
    {
        return Finding::ok(name, "made on the first start");
    }
    let Ok(store) = open_store(config, clock) else {
        return Finding::bad(Status::Wrong, name, "the URL cannot be used", "see [store] in `doorward docs config`");
    };
    let answer = first_answer(&store).await;
    let root = lifecycle::check_root(config, &store).await;
    store.close().await;
    match answer {
        Ok(()) => match root {
            Ok(()) => Finding::ok(name, "answers"),
            Err(error) => Finding::bad(
                Status::Wrong,
                name,
                error.to_string(),
                "put the root secret back; no start makes another one while the store holds keys",
            ),
        },
        Err(error) => Finding::bad(
            Status::Down,
            name,
            error.to_string(),
            "start the database, or correct `store.url`; Doorward itself starts without it and keeps trying",
        ),
    }
}

/// What the first attempt met; `Store::wait_ready` would go on trying.
async fn first_answer(store: &Store) -> Result<(), StoreError> {
    let mut ready = store.ready();
    let tried = ready.wait_for(|state| !matches!(state, Readiness::Connecting { note: None }));
    let in_time = tokio::time::timeout(STORE_TIMEOUT, tried).await.is_ok();
    if !in_time {
        return Err(StoreError::Timeout { op: "connecting" });
    }
    store.wait_ready(Duration::ZERO).await?;
    tokio::time::timeout(STORE_TIMEOUT, store.ping()).await.unwrap_or(Err(StoreError::Timeout { op: "ping" }))
}

async fn shared(settings: &Shared) -> Finding {
    let name = format!("shared blocklist {}", settings.url);
    let Some(set) = &settings.blocklist_set else { return Finding::ok(name, "not used") };
    match SharedSet::contains_once(settings.url.0.expose(), set, "").await {
        Ok(_) => Finding::ok(name, format!("answers for `{set}`")),
        Err(error) => Finding::bad(
            Status::Down,
            name,
            error.to_string(),
            "start Redis, or correct `shared.url`; meanwhile bearers pass or get 503 as `on_stale` of their rule says",
        ),
    }
}

async fn mail(settings: &Mail) -> Finding {
    let (what, key) = match settings.transport {
        Transport::Smtp => ("mail server", ""),
        Transport::Http => ("mail API", " and `mail.api_key`"),
    };
    let name = format!("{what} {}", settings.url);
    let mailer = match settings.mailer() {
        Ok(mailer) => mailer,
        Err(error) => return Finding::bad(Status::Wrong, name, error.problem, error.remedy),
    };
    match mailer.ping().await {
        Ok(()) => Finding::ok(name, "answers"),
        Err(error) => {
            let remedy = format!("start the {what}, or correct `mail.url`{key}; mails wait in the outbox meanwhile");
            Finding::bad(Status::Down, name, error.to_string(), remedy)
        }
    }
}

async fn issuer(settings: &Issuer, clock: &Clock) -> Finding {
    let name = format!("issuer {}", settings.name.0);
    let fetched = || probe(&settings.issuer, settings.to_gate().source, settings.keys.fetch_timeout, clock);
    let (set, their_time, from) = match settings.keys.source() {
        KeySource::Given(set) => (set.clone(), None, "the configuration".to_owned()),
        KeySource::Single(_) => return Finding::ok(name, "one key, from the configuration"),
        source @ (KeySource::Url(_) | KeySource::Discovery) => match fetched().await {
            Ok(probe) => {
                let date = probe.date.as_deref().and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
                let date = date.map(|date| Timestamp::from_millis(date.timestamp().as_millisecond()));
                (probe.set, date, probe.url.to_string())
            }
            Err(why) => {
                let (from, key) = match source {
                    KeySource::Url(url) => (url.as_str(), "keys.jwks_url"),
                    _ => (settings.issuer.as_str(), "issuer"),
                };
                let remedy = format!("start the issuer, or correct `{key}`; known keys stay in use for `max_stale`");
                return Finding::bad(Status::Down, name, format!("{from}: {why}"), remedy);
            }
        },
    };
    if set.is_empty() {
        let why: Vec<String> = set.skipped().iter().map(ToString::to_string).collect();
        let detail = format!("{from}: no usable key ({})", why.join("; "));
        return Finding::bad(
            Status::Down,
            name,
            detail,
            "have the issuer publish a signing key that `algorithms` admits",
        );
    }
    let policy = settings.policy();
    if !set.keys().any(|(_, key)| settings.algorithms.iter().any(|one| key.algorithms().contains(*one))) {
        let detail = format!("{from}: no key for the algorithms that are allowed ({:?})", policy.algorithms);
        return Finding::bad(Status::Wrong, name, detail, "name the issuer's algorithm in `algorithms`");
    }
    if let Some(skew) = their_time.map(|at| apart(at, clock.now().wall)).filter(|skew| *skew > settings.clock_tolerance)
    {
        let detail = format!("its clock and ours are {} s apart, more than `clock_tolerance`", skew.as_secs());
        return Finding::bad(Status::Note, name, detail, "set both clocks, for example with NTP");
    }
    if let Some(path) = settings.keys.missing_first() {
        let detail = format!("{} keys from {from}; there is no first set {}", set.len(), path.display());
        let remedy =
            format!("`doorward keys fetch {}` writes it; a start without the issuer needs it", settings.name.0);
        return Finding::bad(Status::Note, name, detail, remedy);
    }
    Finding::ok(name, format!("{} keys from {from}", set.len()))
}

async fn probe(issuer: &str, source: issuer::KeySource, limit: Duration, clock: &Clock) -> Result<Probe, String> {
    let found = issuer::probe(issuer, &source, limit, clock).await.map_err(|error| error.to_string())?;
    found.ok_or_else(|| "nothing to fetch".to_owned())
}

fn apart(one: Timestamp, other: Timestamp) -> Duration {
    one.since(other).max(other.since(one))
}

/// Whether a relay is there; nothing is claimed.
async fn relay(url: &Upstream) -> Finding {
    let name = format!("license relay {url}");
    let health = url.as_url().join("v1/health").map_err(|error| error.to_string());
    let answer = match health {
        Ok(health) => RelayProvider::health(health).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(()) => Finding::ok(name, "answers"),
        Err(what) => Finding::bad(
            Status::Down,
            name,
            what,
            "start keygen-relay, or correct `license.relay_url`; what is known counts for `license.trust_for`",
        ),
    }
}

async fn app(app: &ResolvedApp) -> Finding {
    let name = format!("app {}", app.name);
    let (host, port) = app.app.upstream.host_and_port();
    let limit = app.app.timeout.connect;
    let what = match tokio::time::timeout(limit, tokio::net::TcpStream::connect((host.as_str(), port))).await {
        Ok(Ok(_)) => return Finding::ok(name, format!("{} accepts connections", app.app.upstream)),
        Ok(Err(error)) => format!("{}: {error}", app.app.upstream),
        Err(_) => format!("{}: no connection within {limit:?}", app.app.upstream),
    };
    Finding::bad(Status::Down, name, what, "start the app, or correct its `upstream`")
}
