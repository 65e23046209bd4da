//! `explain --url`: which rule decides, and what it asks for.

mod license;

use std::sync::Arc;

use doorward_core::{
    credential::{CredentialKind, CredentialSet},
    decision::{Action, Denial, Freshness, Snapshot, authorize},
    id::SessionId,
    license::Licensed,
    principal::{Authenticated, Principal, PrincipalKind, SubjectId},
    reason::Reason,
    request::{Host, RequestPath},
    rule::{Access, CsrfMode, LicenseMode, OnStale, Rule, RuleSet, RuleVerdict},
    session::SignInMethod,
    time::Timestamp,
    user::{Email, User},
};
use doorward_gate::clock::Clock;
use doorward_store::Store;
use http::Method;
use serde_json::{Value, json};

use super::super::{Failure, Out, STORE_WAIT, open_store, output::printable, users};
use crate::config::Config;

/// Routes of our own outside `base_path`.
const ROOT_ROUTES: [&str; 2] = ["/healthz", "/readyz"];

/// A request as far as rules look at it.
struct Asked {
    authority: String,
    target: String,
}

/// What comes of it.
struct Explained {
    verdicts: Vec<RuleVerdict>,
    outcome: Outcome,
}

enum Outcome {
    /// One of our own routes; rules are not asked.
    Own,
    /// This rule decides.
    Rule(usize),
    /// Refused before or by the rules.
    Denied(Denial),
}

pub(super) async fn run(
    config: &Config,
    clock: &Clock,
    url: &str,
    method: &Method,
    as_user: Option<&Email>,
    out: &mut Out<'_>,
) -> Result<(), Failure> {
    let asked = parse(url, config).map_err(Failure::Wrong)?;
    let rules = RuleSet::new(config.core_rules());
    let explained = explain(config, &rules, &asked, method);
    let now = clock.now().wall;
    let found = match as_user {
        None => None,
        Some(email) => {
            let store = open_store(config, clock)?;
            let found = find_user(config, &store, email, now).await;
            store.close().await;
            Some(found?)
        }
    };
    let (user, license) = found.map_or((None, None), |(user, license)| (Some(user), license));
    let verdict = match (&explained.outcome, &user) {
        (Outcome::Rule(rule), Some(user)) => {
            Some(judge(config, &rules.rules()[*rule], method, user, license.as_ref(), now))
        }
        _ => None,
    };
    let report =
        Report { config, rules: &rules, asked: &asked, method, explained: &explained, license: license.as_ref(), now };
    if out.json { out.json(&report.to_json(verdict.as_ref())) } else { report.print(verdict.as_ref(), as_user, out) }
}

/// The user, and the license that counts for them where there is a provider.
async fn find_user(
    config: &Config,
    store: &Store,
    email: &Email,
    now: Timestamp,
) -> Result<(User, Option<Licensed>), Failure> {
    store.wait_ready(STORE_WAIT).await?;
    let user = users::find(store, email).await?;
    let license = license::of(&config.license, store, &user, now).await?;
    Ok((user, license))
}

/// Takes a URL apart without correcting it: what is judged must be what a client would send.
fn parse(text: &str, config: &Config) -> Result<Asked, String> {
    let (authority, rest) = if text.starts_with('/') {
        (config.public_url.authority().to_owned(), text)
    } else {
        let rest = ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let rest = rest.ok_or("give a URL that begins with http:// or https://, or a path that begins with /")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        (rest[..end].to_owned(), &rest[end..])
    };
    // Browsers keep the fragment to themselves.
    let target = rest.split_once('#').map_or(rest, |(target, _)| target);
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    Ok(Asked { authority, target })
}

fn explain(config: &Config, rules: &RuleSet, asked: &Asked, method: &Method) -> Explained {
    let nothing = |denial: Denial| Explained { verdicts: Vec::new(), outcome: Outcome::Denied(denial) };
    let host = match Host::parse(&asked.authority) {
        Ok(host) => host,
        Err(denial) => return nothing(denial),
    };
    if !config.hosts().contains(host.name()) {
        let known: Vec<String> = config.hosts().into_iter().collect();
        return nothing(Denial::from(Reason::HostUnknown).with_note(format!("known hosts: {}", known.join(", "))));
    }
    let path = match RequestPath::parse(&asked.target, rules.path_mode()) {
        Ok(path) => path,
        Err(denial) => return nothing(denial),
    };
    let is_own = host.name() == config.public_url.host()
        && (ROOT_ROUTES.contains(&path.raw())
            || path
                .raw()
                .strip_prefix(config.base_path.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    if is_own {
        return Explained { verdicts: Vec::new(), outcome: Outcome::Own };
    }
    let verdicts = rules.explain(&asked.authority, &path, method);
    let outcome = rules.find(&asked.authority, &path, method).map_or_else(Outcome::Denied, Outcome::Rule);
    Explained { verdicts, outcome }
}

/// Judges the request as `user` with a session that began now.
fn judge(
    config: &Config,
    rule: &Rule,
    method: &Method,
    user: &User,
    license: Option<&Licensed>,
    now: Timestamp,
) -> Result<(), Denial> {
    if rule.access == Access::Public {
        return Ok(());
    }
    let principal = Principal {
        kind: PrincipalKind::User,
        subject: SubjectId::local(user.id),
        user_id: Some(user.id),
        email: user.email_verified.then(|| user.email.clone()),
        org_id: None,
        authenticated: Authenticated::Session {
            id: SessionId::from_uuid(uuid::Uuid::nil()),
            method: SignInMethod::MagicLink,
            authenticated_at: now,
            created_at: now,
        },
        expires_at: None,
    };
    let action = Action { rule, recent_auth: config.session.recent_auth, reads: Action::is_read(method, false) };
    let revoked = user.banned_at.map(|_| Reason::UserBanned);
    let snapshot = Snapshot { freshness: Freshness::Fresh, revoked, license };
    authorize(Arc::new(principal), &action, &snapshot, now).map(drop)
}

struct Report<'a> {
    config: &'a Config,
    rules: &'a RuleSet,
    asked: &'a Asked,
    method: &'a Method,
    explained: &'a Explained,
    license: Option<&'a Licensed>,
    now: Timestamp,
}

impl Report<'_> {
    fn print(
        &self,
        verdict: Option<&Result<(), Denial>>,
        user: Option<&Email>,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let Asked { authority, target } = self.asked;
        out.line(format!("{} {} at {}", self.method, printable(target), printable(authority)))?;
        if !self.explained.verdicts.is_empty() {
            let rows = self.explained.verdicts.iter().map(|verdict| {
                let name = &self.rules.rules()[verdict.rule].name;
                vec![verdict.outcome.as_str().to_owned(), name.to_string(), verdict.why.clone()]
            });
            out.table(&["", "RULE", "WHY"], &rows.collect::<Vec<_>>())?;
        }
        match &self.explained.outcome {
            Outcome::Own => out.line("one of Doorward's own routes: the rules are not asked")?,
            Outcome::Denied(denial) => out.line(format!("denied: {}", sentence(denial)))?,
            Outcome::Rule(index) => {
                let rule = &self.rules.rules()[*index];
                out.line(format!("{} decides", rule.name))?;
                for (name, value) in self.demands(rule) {
                    out.line(format!("  {name:<9} {value}"))?;
                }
            }
        }
        if let Some(license) = self.license {
            for (name, value) in license::lines(license, self.now) {
                out.line(format!("  {name:<9} {value}"))?;
            }
        }
        match (verdict, user) {
            (Some(Ok(())), Some(user)) => out.line(format!("as {user}, freshly signed in: let through")),
            (Some(Err(denial)), Some(user)) => {
                out.line(format!("as {user}, freshly signed in: denied: {}", sentence(denial)))
            }
            _ => Ok(()),
        }
    }

    /// What a rule asks for and where it leads, for people.
    fn demands(&self, rule: &Rule) -> Vec<(&'static str, String)> {
        let require = &rule.require;
        let mut demands = vec![
            ("admits", admits(rule)),
            (
                "csrf",
                match rule.csrf {
                    CsrfMode::Off => "off".to_owned(),
                    CsrfMode::Origin => "Sec-Fetch-Site and Origin".to_owned(),
                    CsrfMode::Token => "Sec-Fetch-Site, Origin and X-CSRF-Token".to_owned(),
                },
            ),
            (
                "license",
                match rule.license {
                    LicenseMode::None => "not asked for".to_owned(),
                    LicenseMode::Active => "active".to_owned(),
                    LicenseMode::ActiveOrGraceRead => "active, or in grace for reading".to_owned(),
                },
            ),
            (
                "on stale",
                match rule.on_stale {
                    OnStale::Deny => "denied".to_owned(),
                    OnStale::Allow => "let through".to_owned(),
                },
            ),
        ];
        let mut needs: Vec<String> = Vec::new();
        needs.extend(require.capability.iter().map(|capability| format!("capability {capability}")));
        needs.extend(require.scopes.iter().map(|scope| format!("scope {scope}")));
        needs.extend(require.claims.iter().map(|(name, value)| format!("claim {name} = {value}")));
        needs.extend(require.entitlements.iter().map(|entitlement| format!("entitlement {entitlement}")));
        needs.extend(require.recent_auth.then(|| "a recent sign-in".to_owned()));
        if !needs.is_empty() {
            demands.push(("requires", needs.join(", ")));
        }
        if let Some(app) = self.config.resolved_apps().get(rule.app) {
            demands.push(("app", format!("{} at {}", app.name, app.app.upstream)));
        }
        demands
    }

    fn to_json(&self, verdict: Option<&Result<(), Denial>>) -> Value {
        let rules = self.explained.verdicts.iter().map(|verdict| {
            let name = &*self.rules.rules()[verdict.rule].name;
            json!({ "index": verdict.rule, "name": name, "outcome": verdict.outcome.as_str(), "why": verdict.why })
        });
        let mut value = json!({
            "method": self.method.as_str(), "host": self.asked.authority, "target": self.asked.target,
            "rules": rules.collect::<Vec<_>>(),
        });
        value["outcome"] = match &self.explained.outcome {
            Outcome::Own => json!({ "kind": "own_route" }),
            Outcome::Denied(denial) => refusal(denial),
            Outcome::Rule(index) => {
                let rule = &self.rules.rules()[*index];
                let apps = self.config.resolved_apps();
                let app = apps.get(rule.app).map(|app| &*app.name);
                json!({ "kind": "rule", "rule": index, "admits": admits(rule), "app": app })
            }
        };
        if let Some(license) = self.license {
            value["license"] = license::to_json(license);
        }
        match verdict {
            None => {}
            Some(Ok(())) => value["as"] = json!({ "kind": "allowed" }),
            Some(Err(denial)) => value["as"] = refusal(denial),
        }
        value
    }
}

fn admits(rule: &Rule) -> String {
    let Access::Credential(kinds) = rule.access else { return "everybody".to_owned() };
    let names = [
        (CredentialKind::Session, "session"),
        (CredentialKind::ApiKey, "api_key"),
        (CredentialKind::Bearer, "bearer"),
        (CredentialKind::Legacy, "legacy"),
    ];
    let is_in =
        |kinds: CredentialSet| names.iter().filter(move |(kind, _)| kinds.contains(*kind)).map(|(_, name)| *name);
    is_in(kinds).collect::<Vec<_>>().join(", ")
}

/// A denial with everything that is known about it, in one line.
pub(super) fn sentence(denial: &Denial) -> String {
    let mut text = format!("{} {} {}", denial.reason.status(), denial.reason.code(), denial.reason.text());
    if let Some(detail) = denial.detail() {
        if let Some(required) = &detail.required {
            text.push_str(&format!(" Required: {required}."));
        }
        if let Some(note) = &detail.note {
            text.push_str(&format!(" ({note})"));
        }
    }
    printable(&text)
}

fn refusal(denial: &Denial) -> Value {
    let detail = denial.detail();
    json!({
        "kind": "denied", "reason": denial.reason.code(), "status": denial.reason.status(), "text": denial.reason.text(),
        "required": detail.and_then(|detail| detail.required.as_deref()),
        "note": detail.and_then(|detail| detail.note.as_deref()),
    })
}

#[cfg(test)]
mod tests;
