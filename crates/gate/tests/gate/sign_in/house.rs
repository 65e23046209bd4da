//! A gate with its worker, outbox and mailbox, and the people who use it.

use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};

use doorward_core::{
    audit::AuditRow,
    decision::Denial,
    effects::Effects,
    id::UserId,
    link::Asker,
    reason::Reason,
    ring::RootSecret,
    session::{OpaqueToken, SessionLimits, TokenHash},
    time::Timestamp,
    user::{Email, User},
};
use doorward_gate::{
    clock::Clock,
    flow::{
        CodeInput,
        sign_in::{Callback, LinkInput, Peek, SignIn, SignInConfig, SignInParts, SignedIn},
    },
    mail::{Mailbox, Mailer, outbox::Outbox},
    rate::MemoryLimits,
    ring::Ring,
};
use doorward_store::{CreateUser, Store};
use tokio::task::JoinHandle;

pub(super) const START: Timestamp = Timestamp::from_secs(1_800_000_000);
pub(super) const LINK_TTL: Duration = Duration::from_secs(900);
pub(super) const CODE_TTL: Duration = Duration::from_secs(600);
pub(super) const CALLBACK: &str = "https://app.example.com/auth/login/callback";
const PATIENCE: Duration = Duration::from_mins(1);

/// Everything that one process runs for sign-ins.
pub(super) struct House {
    pub(super) clock: Clock,
    pub(super) store: Store,
    pub(super) ring: Ring,
    pub(super) sign_in: SignIn,
    pub(super) mailbox: Mailbox,
    pub(super) outbox: Outbox,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for House {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl House {
    /// Opens the house over `store`, with mails going to a mailbox.
    pub(super) async fn over(store: Store) -> Self {
        let mailbox = Mailbox::new();
        Self::with(store, Clock::manual(START), Mailer::Memory(mailbox.clone()), mailbox).await
    }

    /// A second process over the same store and on the same clock.
    pub(super) async fn replica(&self, store: Store) -> Self {
        let mailbox = self.mailbox.clone();
        Self::with(store, self.clock.clone(), Mailer::Memory(mailbox.clone()), mailbox).await
    }

    pub(super) async fn with(store: Store, clock: Clock, mailer: Mailer, mailbox: Mailbox) -> Self {
        store.wait_ready(PATIENCE).await.unwrap();
        let ring = Ring::new(RootSecret::parse(&[1; 32]).unwrap(), store.clone(), clock.clone());
        ring.load().await.unwrap();
        let parts = parts(&store, &ring, &clock);
        let (sign_in, worker) = SignIn::new(config(), parts);
        let outbox = Outbox::new(store.clone(), mailer, clock.clone());
        let sender = outbox.clone();
        let tasks = vec![
            tokio::spawn(worker.run(std::future::pending())),
            tokio::spawn(async move { sender.run(std::future::pending()).await }),
        ];
        Self { clock, store, ring, sign_in, mailbox, outbox, tasks }
    }

    /// Makes a user.
    pub(super) async fn user(&self, email: &str) -> User {
        let at = self.clock.now().wall;
        let user = User::new(UserId::mint(at, self.clock.random()), Email::parse(email).unwrap(), at);
        assert_eq!(self.store.create_user(user.clone(), Effects::default()).await.unwrap(), CreateUser::Created);
        user
    }

    /// Asks for a link in `browser` and gives back the token that the mail brings.
    pub(super) async fn link(&self, email: &str, browser: &mut Browser) -> String {
        let before = self.mailbox.mails().len();
        browser.ask(self, email, "/reports?x=1").await;
        within("a mail", self.mailbox.arrived(before + 1)).await;
        let mail = self.mailbox.mails().pop().unwrap();
        assert_eq!(mail.to.as_str(), email.to_lowercase());
        token_in(&mail.text)
    }

    /// Signs `email` in.
    pub(super) async fn signed_in(&self, email: &str, browser: &mut Browser) -> SignedIn {
        let token = self.link(email, browser).await;
        browser.confirm(self, &token).await.unwrap()
    }

    /// The audit rows, oldest first.
    pub(super) async fn audit(&self) -> Vec<AuditRow> {
        self.store.audit_tail(0, 1000).await.unwrap()
    }

    /// The audit rows of that kind.
    pub(super) async fn audited(&self, kind: &str) -> Vec<AuditRow> {
        self.audit().await.into_iter().filter(|row| row.kind == kind).collect()
    }
}

/// What a sign-in works with, without a directory.
pub(super) fn parts(store: &Store, ring: &Ring, clock: &Clock) -> SignInParts {
    SignInParts {
        store: store.clone(),
        ring: ring.clone(),
        clock: clock.clone(),
        limits: Arc::new(MemoryLimits::new(clock)),
        directory: None,
    }
}

pub(super) fn config() -> SignInConfig {
    SignInConfig {
        site: "app.example.com".into(),
        callback_url: CALLBACK.into(),
        link_ttl: LINK_TTL,
        code_ttl: CODE_TTL,
        sessions: SessionLimits {
            idle: Duration::from_secs(3600),
            absolute: Duration::from_secs(7 * 86_400),
            recent_auth: Duration::from_secs(300),
        },
        allow_sign_up: false,
    }
}

/// One browser: what it remembers.
#[derive(Clone, Debug)]
pub(super) struct Browser {
    pub(super) ip: IpAddr,
    pub(super) login: Option<OpaqueToken>,
    pub(super) session: Option<TokenHash>,
    pub(super) known: Option<String>,
}

impl Browser {
    pub(super) fn at(ip: &str) -> Self {
        Self { ip: ip.parse().unwrap(), login: None, session: None, known: None }
    }

    pub(super) fn asker(&self) -> Asker {
        Asker::new(Some(self.ip), Some("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"))
    }

    pub(super) async fn ask(&mut self, house: &House, email: &str, return_to: &str) {
        let input = LinkInput {
            host: None,
            email: email.to_owned(),
            return_to: return_to.to_owned(),
            browser: self.login.clone(),
            known: self.known.clone(),
            asker: self.asker(),
        };
        self.login = Some(house.sign_in.request_link(input).await.browser);
    }

    pub(super) async fn peek(&self, house: &House, token: &str) -> Result<Peek, Denial> {
        house.sign_in.peek(token, self.login.as_ref(), house.clock.now()).await
    }

    pub(super) async fn confirm(&mut self, house: &House, token: &str) -> Result<SignedIn, Denial> {
        let input = Callback {
            token: token.to_owned(),
            browser: self.login.clone(),
            known: self.known.clone(),
            replaces: self.session,
            asker: self.asker(),
        };
        let signed_in = house.sign_in.callback(input, house.clock.now()).await?;
        assert_eq!(signed_in.token.hash(), signed_in.session.hash);
        self.session = Some(signed_in.session.hash);
        self.known.clone_from(&signed_in.known);
        Ok(signed_in)
    }

    pub(super) async fn type_code(&mut self, house: &House, code: &str) -> Result<SignedIn, Denial> {
        let input = CodeInput {
            code: code.to_owned(),
            browser: self.login.clone(),
            known: self.known.clone(),
            replaces: self.session,
            asker: self.asker(),
        };
        let signed_in = house.sign_in.code(input, house.clock.now()).await?;
        self.session = Some(signed_in.session.hash);
        self.known.clone_from(&signed_in.known);
        Ok(signed_in)
    }

    pub(super) async fn code_refused(&mut self, house: &House, code: &str) -> Reason {
        self.type_code(house, code).await.unwrap_err().reason
    }

    pub(super) async fn refused(&mut self, house: &House, token: &str) -> Reason {
        self.confirm(house, token).await.unwrap_err().reason
    }
}

/// The token of the one link in a mail.
pub(super) fn token_in(text: &str) -> String {
    let start = format!("{CALLBACK}?token=");
    let mut links = text.split_whitespace().filter_map(|word| word.strip_prefix(&start));
    let token = links.next().unwrap().to_owned();
    assert!(links.next().is_none(), "one link per mail: {text}");
    token
}

/// The code of a mail.
pub(super) fn code_in(text: &str) -> String {
    let is_code = |word: &&str| {
        word.len() == 9 && word.as_bytes()[4] == b'-' && word.bytes().all(|b| b == b'-' || b.is_ascii_alphanumeric())
    };
    text.lines().find(is_code).unwrap_or_else(|| panic!("no code: {text}")).to_owned()
}

/// Waits for something that must come.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come in {PATIENCE:?}"),
    }
}

/// Waits until `is_true`.
pub(super) async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let waiting = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(what, waiting).await;
}
