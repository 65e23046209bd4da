//! A world in which every reason has a place, and the ways to ask it that provoke one.

use std::{sync::Arc, time::Duration};

use doorward_core::{
    api_key::{ApiKey, KeyOwner},
    effects::Effects,
    license::Holder,
    revocation::{NewRevocation, Scope},
};
use doorward_testkit::{issuer::Issuer, port, upstream::RawUpstream, wire::Answer};
use serde_json::{Value, json};

use crate::{
    license::{Book, Vendor},
    webhooks,
    world::{NOW, Request, Setup, World},
};

/// How a reason shows itself.
pub(super) enum Provoked {
    /// The server that refused, which has counted it, and its answer.
    Refused(Box<Stage>, Answer),
    /// Nothing in this release refuses for this reason; the feature that will.
    NotYet(&'static str),
}

/// A world in which every reason has a place, with an issuer whose tokens may be signed in two ways.
pub(super) struct Stage {
    pub(super) world: World,
    pub(super) issuer: Issuer,
    _silent: RawUpstream,
}

const ROUTES: &str = r#"
    [[rules]]
    path = "/api/*"
    methods = ["GET", "POST"]
    allow = ["session", "api_key", "bearer"]
    csrf = "token"
    app = "web"

    [[rules]]
    path = "/recent"
    allow = ["session"]
    require = { recent_auth = true }
    app = "web"

    [[rules]]
    path = "/deploy"
    allow = ["api_key"]
    require = { capability = "deploy" }
    app = "web"

    [[rules]]
    path = "/scoped"
    allow = ["bearer"]
    require = { scopes = ["write"] }
    app = "web"

    [[rules]]
    path = "/claimed"
    allow = ["bearer"]
    require = { claims = { tenant_id = "acme" } }
    app = "web"

    [[rules]]
    path = "/licensed"
    allow = ["bearer", "api_key"]
    license = "active_or_grace_read"
    app = "web"

    [[rules]]
    path = "/with-sso"
    allow = ["api_key"]
    license = "active"
    require = { entitlements = ["sso"] }
    app = "web"

    [[rules]]
    path = "/dead"
    allow = ["public"]
    app = "dead"

    [[rules]]
    path = "/silent"
    allow = ["public"]
    app = "silent"
"#;

impl Stage {
    pub(super) async fn set() -> Self {
        Self::with(|setup| setup).await
    }

    pub(super) async fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let issuer = Issuer::start().await;
        let silent = RawUpstream::with(|mut conversation| async move { conversation.end().await }).await;
        let issuers = format!(
            "[[issuers]]\nname = \"main\"\nissuer = \"{}\"\naudiences = [\"app\"]\nalgorithms = [\"EdDSA\", \"ES256\"]\n\
             keys = {{ jwks_url = \"{}\" }}\n[[issuers]]\nname = \"dead\"\nissuer = \"https://dead.example\"\n\
             audiences = [\"app\"]\nkeys = {{ jwks_url = \"http://127.0.0.1:{}/keys\" }}\n",
            issuer.url(),
            issuer.jwks_url(),
            port::free()
        );
        let rules = format!(
            "{ROUTES}\n[apps.dead]\nupstream = \"http://127.0.0.1:{}\"\n[apps.silent]\nupstream = \"{}\"\n\
             timeout = {{ connect = \"2s\", idle = \"1s\" }}\n",
            port::free(),
            silent.url()
        );
        let world = change(Setup::of(&rules).issuers(&issuers)).start().await;
        Self { world, issuer, _silent: silent }
    }

    pub(super) fn claims(&self) -> Value {
        self.issuer.claims("app", NOW)
    }

    pub(super) fn refused(self, answer: Answer) -> Provoked {
        Provoked::Refused(Box::new(self), answer)
    }

    /// A sign-in with a password of the old system.
    pub(super) async fn with_a_password(self) -> Provoked {
        let body = json!({ "email": "a@b.test", "password": "x" });
        let answer = self.world.visitor().post("/auth/login/password", &body).await;
        self.refused(answer)
    }

    /// One request by nobody.
    pub(super) async fn ask(self, request: Request) -> Provoked {
        let answer = self.world.anonymous().ask(request).await;
        self.refused(answer)
    }

    /// `GET target` with this token or key.
    pub(super) async fn bearer(self, target: &str, token: &str) -> Provoked {
        let answer = self.world.bearer(token).get(target).await;
        self.refused(answer)
    }

    /// `GET /api/x` with a token of these claims.
    pub(super) async fn claiming(self, claims: &Value) -> Provoked {
        let token = self.issuer.mint(claims);
        self.bearer("/api/x", &token).await
    }

    /// The same with one claim other than it should be; null leaves it out.
    pub(super) async fn but(self, claim: &str, value: Value) -> Provoked {
        let mut claims = self.claims();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(claim);
        } else {
            claims[claim] = value;
        }
        self.claiming(&claims).await
    }

    /// `GET /api/x` with a token of this header.
    pub(super) async fn headed(self, header: &Value) -> Provoked {
        let token = self.issuer.mint_with(header, &self.claims());
        self.bearer("/api/x", &token).await
    }

    /// `GET target` with a good token.
    pub(super) async fn with_token(self, target: &str) -> Provoked {
        let token = self.issuer.mint(&self.claims());
        self.bearer(target, &token).await
    }

    /// `GET /api/x` with an API key whose record was changed.
    pub(super) async fn with_key(self, change: impl FnOnce(&mut ApiKey)) -> Provoked {
        let owner = KeyOwner::User(self.world.user("owner@example.com").await.id);
        let key = self.world.api_key(owner, &[], change).await;
        self.bearer("/api/x", &key).await
    }

    /// A signed-in browser asks for `target` after `later`.
    pub(super) async fn in_session(self, target: &str, later: &[Duration]) -> Provoked {
        let mut ada = self.world.browser("ada@example.com").await;
        for &later in later {
            assert_eq!(ada.get("/api/x").await.status, 200, "signed in");
            self.world.advance(later).await;
        }
        let answer = ada.get(target).await;
        self.refused(answer)
    }

    /// A signed-in browser posts, with these headers and its own CSRF token unless they say otherwise.
    pub(super) async fn posting(self, header: (&str, &str)) -> Provoked {
        let mut ada = self.world.browser("ada@example.com").await;
        let token = ada.cookie("__Host-doorward_csrf").unwrap().to_owned();
        let mut request = Request::new("POST", "/api/x").with(header.0, header.1);
        if request.values("x-csrf-token").is_empty() {
            request = request.with("X-CSRF-Token", &token);
        }
        let answer = ada.ask(request).await;
        self.refused(answer)
    }

    /// Writes to the revocation log as a command does, and lets the server read it.
    pub(super) async fn revoke(&self, scope: Scope) {
        let at = self.world.clock.now().wall;
        let entry = NewRevocation { scope, at, until: None, why: "test".to_owned() };
        self.world.store().append(Effects::default().with_revocation(entry)).await.unwrap();
        self.world.gate().follow().await;
    }

    /// Uses a link `times` times, in the browser that asked for it unless `is_elsewhere`, after `later`.
    pub(super) async fn using_a_link(self, times: usize, later: Duration, is_elsewhere: bool) -> Provoked {
        let mut browser = self.world.visitor();
        let token = browser.ask_for_link(&self.world.mailbox, "ada@example.com", "/").await;
        self.world.advance(later).await;
        let mut user = if is_elsewhere { self.world.visitor() } else { browser };
        let mut last = None;
        for _ in 0..times {
            last = Some(user.post("/auth/login/callback", &json!({ "token": token })).await);
        }
        self.refused(last.unwrap())
    }

    /// `method target` with the key of a user of whose license the vendor says `book`. Where `is_blocked`, their subject
    /// at the vendor is on the blocklist.
    pub(super) async fn with_a_license(method: &str, target: &str, book: Book, is_blocked: bool) -> Provoked {
        let vendor = Vendor::default();
        let made = Self::with(|setup| setup.top("license = { issuer = \"main\" }").license(Arc::new(vendor.clone())));
        let stage = made.await;
        let user = stage.world.user("owner@example.com").await.id;
        vendor.book(Holder::User(user), book);
        if is_blocked {
            let subject = "subject-of-owner".to_owned();
            stage.world.store().link_subject(user, subject.clone(), Effects::default()).await.unwrap();
            stage.revoke(Scope::Subject { issuer: "main".to_owned(), subject }).await;
        }
        let key = stage.world.api_key(KeyOwner::User(user), &[], |_| {}).await;
        let answer = stage.world.bearer(&key).ask(Request::new(method, target)).await;
        stage.refused(answer)
    }

    pub(super) async fn sending_a_link(self, sent: Value) -> Provoked {
        let answer = self.world.visitor().post("/auth/login/callback", &sent).await;
        self.refused(answer)
    }
}

/// A stage with licenses of users, and a webhook that tells of them.
pub(super) async fn with_webhooks() -> Stage {
    let secret = format!("license = {{ webhook_secrets = [\"{}\"] }}", webhooks::SECRET);
    Stage::with(|setup| setup.top(&secret).license(Arc::new(webhooks::Told::default()))).await
}
