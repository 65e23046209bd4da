//! A gate with a store behind it, its people and their credentials.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use doorward_core::{
    api_key::{self, ApiKey, KeyOwner},
    credential::{CookieNames, CredentialKind, CredentialSet},
    csrf::{CsrfKey, CsrfKeys, OriginPolicy},
    decision::Decision,
    effects::Effects,
    id::{ApiKeyId, LinkId, SessionId, UserId},
    link::{ConsumeLink, Link, LinkPurpose, Proof},
    origin::Origin,
    reason::Reason,
    request::{RequestFacts, Scheme, is_websocket_upgrade},
    revocation::{NewRevocation, Scope},
    rule::{Access, Rule},
    secret::Secret,
    session::{OpaqueToken, Session, SessionLimits, SignInMethod},
    time::Timestamp,
    user::{Email, User},
};
use doorward_gate::{
    clock::Clock,
    gate::{Checked, Gate, GateParts, GateTask},
    issuer::Issuers,
    observe::{Fault, Observe},
    policy::Policy,
};
use doorward_store::{Consume, CreateUser, Store};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

pub(super) const START: Timestamp = Timestamp::from_secs(1_800_000_000);
pub(super) const IDLE: Duration = Duration::from_secs(3600);
pub(super) const SESSION: CredentialSet = CredentialSet::NONE.with(CredentialKind::Session);
pub(super) const KEY: CredentialSet = CredentialSet::NONE.with(CredentialKind::ApiKey);

/// What was observed.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Outcome and app of every decision.
    pub(super) decisions: Vec<(Option<Reason>, String)>,
    pub(super) faults: Vec<String>,
}

struct Watch(Arc<Mutex<Seen>>);

impl Observe for Watch {
    fn decided(&self, _: &RequestFacts<'_>, decision: &Decision, app: &str) {
        let reason = decision.outcome.as_ref().err().map(|denial| denial.reason);
        self.0.lock().unwrap().decisions.push((reason, app.to_owned()));
    }

    fn fault(&self, fault: Fault<'_>) {
        self.0.lock().unwrap().faults.push(format!("{fault:?}"));
    }
}

pub(super) struct House {
    pub(super) gate: Gate,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) seen: Arc<Mutex<Seen>>,
    pub(super) task: Option<GateTask>,
    next: AtomicU8,
}

/// A rule for `path` that admits `kinds`.
pub(super) fn rule(path: &str, kinds: CredentialSet) -> Rule {
    Rule::new("app.example", path, Access::Credential(kinds)).unwrap()
}

/// A policy over `rules`.
pub(super) fn policy(version: u64, rules: Vec<Rule>) -> Arc<Policy> {
    Arc::new(Policy::new(
        version,
        rules,
        vec![],
        SessionLimits { idle: IDLE, absolute: Duration::from_secs(86_400), recent_auth: Duration::from_secs(300) },
        CookieNames::SECURE,
        OriginPolicy { own: Origin::parse("https://app.example").unwrap(), allowed: vec![] },
    ))
}

pub(super) fn csrf_keys() -> CsrfKeys {
    CsrfKeys { current: CsrfKey::new(&Secret::new([7; 32])), previous: None }
}

impl House {
    /// A gate whose revocation log has been read, with these rules.
    pub(super) async fn of(rules: Vec<Rule>) -> Self {
        let house = Self::unread(Store::memory(), rules);
        house.gate.follow().await;
        house
    }

    /// A gate that has not read the log yet.
    pub(super) fn unread(store: Store, rules: Vec<Rule>) -> Self {
        Self::on(store, Clock::manual(START), rules)
    }

    /// The same, with the clock of another one.
    pub(super) fn on(store: Store, clock: Clock, rules: Vec<Rule>) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let (gate, task) = Gate::new(GateParts {
            clock: clock.clone(),
            store: store.clone(),
            issuers: Issuers::new(Vec::new(), &clock, None).unwrap(),
            policy: policy(1, rules),
            observer: Box::new(Watch(Arc::clone(&seen))),
            cache_capacity: 100,
        });
        gate.use_csrf_keys(csrf_keys());
        Self { gate, store, clock, seen, task: Some(task), next: AtomicU8::new(1) }
    }

    fn bytes(&self) -> [u8; 10] {
        [self.next.fetch_add(1, Ordering::Relaxed); 10]
    }

    /// Moves the clock and reads the log again, as the running gate would.
    pub(super) async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.gate.follow().await;
    }

    pub(super) async fn user(&self, email: &str) -> User {
        let user = User {
            email_verified: true,
            ..User::new(UserId::mint(START, self.bytes()), Email::parse(email).unwrap(), START)
        };
        assert_eq!(self.store.create_user(user.clone(), Effects::default()).await.unwrap(), CreateUser::Created);
        user
    }

    /// Signs `user` in.
    pub(super) async fn signed_in(&self, user: &User) -> (OpaqueToken, Session) {
        let now = self.clock.now().wall;
        let [byte, ..] = self.bytes();
        let token = OpaqueToken::mint([byte; 32]);
        let session = Session {
            id: SessionId::mint(now, self.bytes()),
            hash: token.hash(),
            user_id: user.id,
            org_id: None,
            method: SignInMethod::MagicLink,
            created_at: now,
            authenticated_at: now,
            last_used_at: now,
            expires_at: now.plus(Duration::from_secs(86_400)),
            ip: None,
            user_agent: None,
        };
        // The only way into the store: a link that is consumed.
        let link = Link {
            id: LinkId::mint(now, self.bytes()),
            purpose: LinkPurpose::SignIn,
            user_id: user.id,
            user_version: user.version,
            email: user.email.clone(),
            browser: token.hash(),
            return_to: "/".to_owned(),
            created_at: now,
            expires_at: now.plus(IDLE),
            used_at: None,
            voided_at: None,
            code: None,
        };
        self.store.put_link(link.clone(), Effects::default()).await.unwrap();
        let plan = ConsumeLink {
            link: link.id,
            user_id: user.id,
            user_version: user.version,
            by: Proof::Link,
            promote: None,
            at: now,
            requires: None,
            session: session.clone(),
            replaces: None,
        };
        assert_eq!(self.store.consume_link(plan, Effects::default()).await.unwrap(), Consume::Consumed);
        (token, session)
    }

    /// Makes an API key.
    pub(super) async fn api_key(
        &self,
        owner: KeyOwner,
        capabilities: &[&str],
        change: impl FnOnce(&mut ApiKey),
    ) -> (String, ApiKey) {
        let [byte, ..] = self.bytes();
        let minted = api_key::mint([byte; 32]);
        let mut key = ApiKey {
            id: ApiKeyId::mint(START, self.bytes()),
            hash: minted.hash,
            owner,
            org_id: None,
            name: "ci".to_owned(),
            prefix: minted.prefix,
            capabilities: capabilities.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>(),
            created_at: START,
            expires_at: None,
            revoked_at: None,
            deleted_at: None,
            last_used_at: None,
        };
        change(&mut key);
        self.store.put_api_key(key.clone(), Effects::default()).await.unwrap();
        (minted.text.expose().clone(), key)
    }

    /// Appends to the revocation log, as a command in another process would. Read by nobody yet.
    pub(super) async fn revoke(&self, scope: Scope) {
        self.store.append(Effects::default().with_revocation(self.revocation(scope))).await.unwrap();
    }

    pub(super) fn revocation(&self, scope: Scope) -> NewRevocation {
        NewRevocation { scope, at: self.clock.now().wall, until: None, why: "test".to_owned() }
    }

    /// Bans `user`, as the command does.
    pub(super) async fn ban(&self, user: &User) {
        let entry =
            NewRevocation { why: NewRevocation::BAN.to_owned(), ..self.revocation(Scope::User { id: user.id }) };
        let effects = Effects::default().with_revocation(entry);
        self.store.set_banned(user.id, Some(self.clock.now().wall), effects).await.unwrap();
    }

    pub(super) fn check(&self, request: &Asked) -> Checked {
        self.gate.check(&request.facts())
    }

    /// The verdict; whether it waited does not matter.
    pub(super) async fn decide(&self, request: &Asked) -> Decision {
        self.check(request).decision().await
    }

    /// `Ok` or the reason.
    pub(super) async fn ask(&self, request: &Asked) -> Result<(), Reason> {
        self.decide(request).await.outcome.map(|_| ()).map_err(|denial| denial.reason)
    }
}

/// A request.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    client: IpAddr,
}

impl Asked {
    pub(super) fn get(target: &str) -> Self {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self { method: Method::GET, target: target.to_owned(), headers: HeaderMap::new(), client }
    }

    pub(super) fn from(self, client: &str) -> Self {
        Self { client: client.parse().unwrap(), ..self }
    }

    pub(super) fn post(target: &str) -> Self {
        Self { method: Method::POST, ..Self::get(target) }
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::try_from(value).unwrap());
        self
    }

    pub(super) fn session(self, token: &OpaqueToken) -> Self {
        self.with("cookie", &format!("__Host-doorward_sid={}", token.expose()))
    }

    pub(super) fn bearer(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    pub(super) fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.method,
            scheme: Scheme::Https,
            host: "app.example",
            target: &self.target,
            headers: &self.headers,
            client: self.client,
            is_upgrade: is_websocket_upgrade(&self.method, &self.headers),
            may_leave_http: false,
        }
    }
}
