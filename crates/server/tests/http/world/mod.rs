//! A whole server in this process, with the others around it played by the testkit.
//!
//! ```ignore
//! let world = World::start(r#"
//!     [[rules]]
//!     path = "/*"
//!     allow = ["session", "bearer"]
//!     app = "web"
//! "#).await;
//! let answer = world.anonymous().get("/x").await;            // over a real socket
//! assert_eq!(outcome(&answer), (401, Some("no_credential")));
//! let mut alice = world.browser("alice@example.com").await;  // signed in through the mailbox
//! let seen = Seen::of(&alice.get("/x").await);               // what the app got, byte by byte
//! let token = world.issuer.mint(&world.claims());
//! world.bearer(&token).get("/x").await;
//! world.advance(Duration::from_secs(61 * 60)).await;         // the clock is manual and stands still otherwise
//! ```
//!
//! Every world has: the public URL `https://app.example` (so cookies carry `__Host-`), its routes below
//! `/auth`, SQLite in a folder of its own, an app `web` that answers with the request as it heard it, an
//! issuer `main` for audience `app`, a mailbox. [`Setup`] changes what a test needs otherwise.

mod caller;
mod request;
mod surface;
mod tests;

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use doorward::{
    config::Config,
    lifecycle::{self, Host, Running},
};
use doorward_core::{
    api_key::{self, ApiKey, KeyOwner},
    effects::Effects,
    id::{ApiKeyId, UserId},
    time::Timestamp,
    user::{Email, User},
};
use doorward_gate::{
    clock::Clock,
    flow::{SubjectDirectory, first_admin},
    gate::Gate,
    license::LicenseProvider,
    mail::{Mailbox, Mailer},
};
use doorward_store::{CreateUser, Store};
use doorward_testkit::{folder, issuer::Issuer, upstream::RawUpstream};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use self::{
    caller::Caller,
    request::{Request, Seen, json, outcome, set_cookies},
    surface::{SURFACES, Surface, Verdict},
};
use crate::door::until;

/// What the manual clock shows at the beginning, in seconds since the Unix epoch.
pub(crate) const NOW: i64 = 1_800_000_000;
/// The host of the public URL.
pub(crate) const HOST: &str = "app.example";
/// Longest wait for something that happens in the background.
const PATIENCE: Duration = Duration::from_secs(30);

/// `[jobs]` with these lines; all others are off. A clock that is moved by days would make them do what no test has asked
/// for.
fn jobs(lines: &str) -> String {
    let section = Config::keys().keys.iter().find(|key| key.name == "jobs").and_then(|key| (key.section)()).unwrap();
    let names = section.keys.iter().map(|key| key.name).filter(|name| !lines.contains(&format!("{name} =")));
    names.map(|name| format!("{name} = \"off\"\n")).collect::<String>() + lines + "\n"
}

/// What a test changes of a world.
pub(crate) struct Setup {
    /// `[[rules]]`, and further tables.
    rules: String,
    /// Keys before the first table.
    top: String,
    /// Lines in `[listen]`, `[login]`, `[session]`, `[store]` and `[apps.web]`.
    listen: String,
    login: String,
    session: String,
    store: String,
    app: String,
    jobs: String,
    /// In place of the testkit's issuer.
    issuers: Option<String>,
    upstream: Option<String>,
    directory: Option<Arc<dyn SubjectDirectory>>,
    license: Option<Arc<dyn LicenseProvider>>,
    clock: Clock,
    mail: bool,
}

impl Setup {
    /// With these rules, as TOML; any further table may follow them.
    pub(crate) fn of(rules: &str) -> Self {
        Self {
            rules: rules.to_owned(),
            top: String::new(),
            listen: String::new(),
            login: "allow_sign_up = true\nresponse_floor = \"0s\"\n".to_owned(),
            session: String::new(),
            store: "url = \"sqlite:doorward.db\"\n".to_owned(),
            app: "headers = { email = \"Remote-Email\" }\n".to_owned(),
            jobs: jobs(""),
            issuers: None,
            upstream: None,
            directory: None,
            license: None,
            clock: Clock::manual(Timestamp::from_secs(NOW)),
            mail: true,
        }
    }

    /// Nothing takes mails, and no `[mail]` says what should.
    pub(crate) fn without_mail(mut self) -> Self {
        self.mail = false;
        self
    }

    /// Lines before the first table, such as `compat_paths = true`.
    pub(crate) fn top(mut self, lines: &str) -> Self {
        self.top = format!("{lines}\n");
        self
    }

    /// Lines of `[listen]`, such as `trusted_proxies = []`; without, 127.0.0.1 is trusted.
    pub(crate) fn listen(mut self, lines: &str) -> Self {
        self.listen = format!("{lines}\n");
        self
    }

    /// Lines of `[login]`; they replace `allow_sign_up = true` and `response_floor = "0s"`.
    pub(crate) fn login(mut self, lines: &str) -> Self {
        self.login = format!("{lines}\n");
        self
    }

    /// Lines of `[session]`.
    pub(crate) fn session(mut self, lines: &str) -> Self {
        self.session = format!("{lines}\n");
        self
    }

    /// Lines of `[store]`; they replace SQLite in the folder of the world. Tables may follow them.
    pub(crate) fn store(mut self, lines: &str) -> Self {
        self.store = format!("{lines}\n");
        self
    }

    /// Lines of `[apps.web]` besides its upstream; they replace its one extra header, `Remote-Email`.
    pub(crate) fn app(mut self, lines: &str) -> Self {
        self.app = format!("{lines}\n");
        self
    }

    /// The jobs that run, as lines of `[jobs]` such as `purge = "* * * * *"`; all others are off.
    pub(crate) fn jobs(mut self, lines: &str) -> Self {
        self.jobs = jobs(lines);
        self
    }

    /// `[[issuers]]` in place of the testkit's.
    pub(crate) fn issuers(mut self, tables: &str) -> Self {
        self.issuers = Some(tables.to_owned());
        self
    }

    /// An app of the test's own behind the door.
    pub(crate) fn upstream(mut self, url: impl Into<String>) -> Self {
        self.upstream = Some(url.into());
        self
    }

    /// Somebody who knows the subjects of mail addresses.
    pub(crate) fn directory(mut self, directory: Arc<dyn SubjectDirectory>) -> Self {
        self.directory = Some(directory);
        self
    }

    /// Somebody who knows about licenses.
    pub(crate) fn license(mut self, provider: Arc<dyn LicenseProvider>) -> Self {
        self.license = Some(provider);
        self
    }

    /// Another clock.
    pub(crate) fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Starts the server and waits until its store and key ring are there.
    pub(crate) async fn start(self) -> World {
        let dir = folder::quick();
        let app = raw_echo().await;
        let issuer = Issuer::start().await;
        let text = self.toml(dir.path(), &app, &issuer);
        let file = dir.path().join("doorward.toml");
        let vars = BTreeMap::new();
        let config = Config::parse(&text, &file, &vars).unwrap_or_else(|problems| panic!("{problems}"));
        let mailbox = Mailbox::new();
        let host = Host {
            clock: self.clock.clone(),
            mailer: self.mail.then(|| Mailer::Memory(mailbox.clone())),
            directory: self.directory.clone(),
            license: self.license.clone(),
            vars,
            is_demo: false,
        };
        let running = lifecycle::start(&config, host).await.unwrap();
        running.server.gate.store().wait_ready(PATIENCE).await.unwrap();
        until("the key ring is loaded", || running.server.gate.csrf_keys().is_some()).await;
        running.server.gate.follow().await;
        World { running, app, issuer, mailbox, clock: self.clock, text, license: self.license, dir }
    }

    fn toml(&self, dir: &Path, app: &RawUpstream, issuer: &Issuer) -> String {
        let Self { rules, top, listen, login, session, store, app: web, jobs, .. } = self;
        let upstream = self.upstream.clone().unwrap_or_else(|| app.url());
        // A machine that stands still for as long as a fetch takes by default says nothing about any token.
        let issuers = self.issuers.clone().unwrap_or_else(|| {
            format!(
                "[[issuers]]\nname = \"main\"\nissuer = \"{}\"\naudiences = [\"app\"]\nalgorithms = [\"EdDSA\"]\n\
                 [issuers.keys]\njwks_url = \"{}\"\nfetch_timeout = \"60s\"\n",
                issuer.url(),
                issuer.jwks_url()
            )
        });
        let mail = format!("[mail]\nurl = \"smtp://127.0.0.1:25\"\nfrom = \"Doorward <login@{HOST}>\"\n");
        let mail = if self.mail { mail } else { String::new() };
        format!(
            "public_url = \"https://{HOST}\"\nbase_path = \"/auth\"\ndata_dir = {:?}\n{top}\n\
             [listen]\nhttp = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n{listen}\n\
             [store]\n{store}\n\
             [session]\n{session}\n\
             {mail}\n\
             [login]\n{login}\n\
             [jobs]\n{jobs}\n\
             [apps.web]\nupstream = \"{upstream}\"\n{web}\n\
             {issuers}\n{rules}\n",
            dir.to_str().unwrap()
        )
    }
}

/// An app that answers every request with the request as it heard it, and marks its answers with `X-App`.
async fn raw_echo() -> RawUpstream {
    RawUpstream::with(|mut conversation| async move {
        while let Some(request) = conversation.request().await {
            let body = if request.starts_with("HEAD ") { "" } else { &request };
            let length = request.len();
            conversation.say(format!("HTTP/1.1 200 OK\r\nX-App: web\r\nContent-Length: {length}\r\n\r\n{body}")).await;
        }
    })
    .await
}

/// A running server and what stands around it.
pub(crate) struct World {
    /// The server's own handle.
    pub(crate) running: Running,
    /// The app behind it, if the setup named no other.
    pub(crate) app: RawUpstream,
    /// The issuer `main`, if the setup named no other.
    pub(crate) issuer: Issuer,
    /// The mails that it sent.
    pub(crate) mailbox: Mailbox,
    /// Its clock; move it with [`World::advance`].
    pub(crate) clock: Clock,
    text: String,
    license: Option<Arc<dyn LicenseProvider>>,
    dir: TempDir,
}

impl World {
    /// The usual world with these rules.
    pub(crate) async fn start(rules: &str) -> Self {
        Setup::of(rules).start().await
    }

    /// Where HTTP is served.
    pub(crate) fn address(&self) -> SocketAddr {
        self.running.http
    }

    /// The process's parts.
    pub(crate) fn server(&self) -> &doorward::http::Server {
        &self.running.server
    }

    /// Where it keeps everything.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The gate.
    pub(crate) fn gate(&self) -> &Gate {
        &self.running.server.gate
    }

    /// The store.
    pub(crate) fn store(&self) -> &Store {
        self.gate().store()
    }

    /// Moves the clock. Revocations are read again, so nothing counts as stale afterwards.
    pub(crate) async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.gate().follow().await;
    }

    /// Good claims of the issuer for this server, as of now.
    pub(crate) fn claims(&self) -> Value {
        self.issuer.claims("app", self.clock.now().wall.as_secs())
    }

    /// One more server over the same store, as another process of the same installation; on the same clock.
    pub(crate) async fn replica(&self) -> Running {
        let file = self.dir.path().join("doorward.toml");
        let vars = BTreeMap::new();
        let config = Config::parse(&self.text, &file, &vars).unwrap_or_else(|problems| panic!("{problems}"));
        let host = Host {
            clock: self.clock.clone(),
            mailer: Some(Mailer::Memory(self.mailbox.clone())),
            directory: None,
            license: self.license.clone(),
            vars,
            is_demo: false,
        };
        let running = lifecycle::start(&config, host).await.unwrap();
        running.server.gate.store().wait_ready(PATIENCE).await.unwrap();
        until("the key ring is loaded", || running.server.gate.csrf_keys().is_some()).await;
        running.server.gate.follow().await;
        running
    }

    /// Writes the configuration, as `change` makes it, and has it read as SIGHUP does.
    pub(crate) fn reload(&self, change: impl FnOnce(&str) -> String) {
        std::fs::write(self.dir.path().join("doorward.toml"), change(&self.text)).unwrap();
        self.running.reload().unwrap();
    }

    /// A program without a credential that asks another server.
    pub(crate) fn at(&self, address: SocketAddr) -> Caller {
        Caller::new(address)
    }

    /// A program without a credential.
    pub(crate) fn anonymous(&self) -> Caller {
        Caller::new(self.address())
    }

    /// A program with this token or key in `Authorization: Bearer`.
    pub(crate) fn bearer(&self, token: &str) -> Caller {
        self.anonymous().with("Authorization", &format!("Bearer {token}"))
    }

    /// A browser in which `email` has signed in through the mailbox, with its cookie jar.
    pub(crate) async fn browser(&self, email: &str) -> Caller {
        let mut browser = self.visitor();
        browser.sign_in(&self.mailbox, email).await;
        browser
    }

    /// A browser in which the first administrator has just claimed the installation; needs no mail.
    pub(crate) async fn first_admin(&self, email: &str) -> Caller {
        let token = first_admin::invite(self.store(), &self.clock).await.unwrap().unwrap();
        let claim = serde_json::json!({ "token": token.expose(), "email": email });
        let mut browser = self.visitor();
        let answer = browser.post("/auth/first-admin", &claim).await;
        assert_eq!(outcome(&answer), (200, None), "{answer:?}");
        browser
    }

    /// A browser in which nobody has signed in.
    pub(crate) fn visitor(&self) -> Caller {
        self.anonymous().into_browser()
    }

    /// A user, made as `doorward users add` makes one.
    pub(crate) async fn user(&self, email: &str) -> User {
        let at = self.clock.now().wall;
        let user = User::new(UserId::mint(at, self.clock.random()), Email::parse(email).unwrap(), at);
        let made = self.store().create_user(user.clone(), Effects::default()).await.unwrap();
        assert_eq!(made, CreateUser::Created);
        user
    }

    /// The text of a new API key with these capabilities, owned by `owner`; `change` may alter its record.
    pub(crate) async fn api_key(
        &self,
        owner: KeyOwner,
        capabilities: &[&str],
        change: impl FnOnce(&mut ApiKey),
    ) -> String {
        let at = self.clock.now().wall;
        let minted = api_key::mint(self.clock.random());
        let mut key = ApiKey {
            id: ApiKeyId::mint(at, self.clock.random()),
            hash: minted.hash,
            owner,
            org_id: None,
            name: "test".to_owned(),
            prefix: minted.prefix,
            capabilities: capabilities.iter().map(|&name| name.to_owned()).collect(),
            created_at: at,
            expires_at: None,
            revoked_at: None,
            deleted_at: None,
            last_used_at: None,
        };
        change(&mut key);
        self.store().put_api_key(key, Effects::default()).await.unwrap();
        minted.text.expose().clone()
    }

    /// Stops the server in order and waits for it; a world that is dropped ends with its test's runtime.
    pub(crate) async fn stop(self) {
        self.running.stop().await;
    }
}

/// The latest mail to `email` behind the first `known` ones, once it is there.
pub(crate) async fn mail_to(mailbox: &Mailbox, email: &str, known: usize) -> String {
    let found = || mailbox.mails().into_iter().filter(|mail| mail.to.as_str() == email).map(|mail| mail.text);
    until("the mail arrives", || found().count() > known).await;
    found().next_back().unwrap()
}
