//! From a configuration to a running server and back: bind first, warm later, drain at the end.

mod fixed;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use doorward_core::{
    audit::{AuditEvent, EventKind},
    cutover::Day,
    ring::RootSecret,
    secret::Secret,
};
use doorward_gate::{
    clock::Clock,
    flow::{
        LinkWorker, SubjectDirectory, email_change::EmailChanges, password::PasswordSignIn, re_auth::ReAuth,
        webhook::LicenseWebhooks,
    },
    gate::{Gate, GateParts, GateTask},
    issuer::Listener as IssuerListener,
    license::{FileListener, LicenseProvider},
    mail::{Mailer, outbox::Outbox},
    rate::{Limits, MemoryLimits},
    ring::{self, Ring},
};
use doorward_store::{Store, StoreOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::fixed::Fixed;
use crate::{
    assemble,
    config::{self, Config, Problems},
    http::{
        Server,
        entry::{self, Entry},
        webhooks,
    },
    jobs, license,
    listener::{Listener, ListenerOptions, Tls},
    local_license::{self, LocalLicense},
    proxy::Proxy,
    shared::Shared,
    telemetry::{
        self, Methods, Metrics, Observer,
        audit::{AuditJob, AuditQueue},
    },
};

/// How long requests under way may take once shutdown began.
const DRAIN: Duration = Duration::from_secs(20);
/// How long jobs may take to write what they hold.
const FLUSH: Duration = Duration::from_secs(5);
/// How long a start without a root secret waits for the store, which may hold keys that need the missing one.
const ROOT_WAIT: Duration = Duration::from_secs(20);
/// Sessions and API keys kept in memory, each.
const CACHE: usize = 100_000;

/// What the host decides rather than the file.
#[derive(Clone, Debug)]
pub struct Host {
    /// Time and randomness.
    pub clock: Clock,
    /// Sends mail in place of what the file says; the demo's mailbox.
    pub mailer: Option<Mailer>,
    /// Confirms the candidate subjects of pending users; without it they stay pending.
    pub directory: Option<Arc<dyn SubjectDirectory>>,
    /// Is asked about licenses in place of what the file says.
    pub license: Option<Arc<dyn LicenseProvider>>,
    /// Environment, for reading the file again on SIGHUP.
    pub vars: BTreeMap<String, String>,
    /// Whether this is `demo`.
    pub is_demo: bool,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("{key}: {error}; stop what uses the address, or choose another one")]
    Bind {
        /// Key of the configuration.
        key: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is wrong in a way that shows only when things are opened.
    #[error("{0}")]
    Misconfigured(String),
}

impl StartError {
    /// Exit code: 2 for misconfiguration, 1 for everything else.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Bind { .. } => 1,
            Self::Misconfigured(_) => 2,
        }
    }
}

/// Why a changed file was not taken; the old configuration stays.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// What is wrong in the file.
    #[error("{0}")]
    Problems(#[from] Problems),
    /// What shows only when its parts are built.
    #[error("{0}")]
    Assemble(anyhow::Error),
}

/// A running server.
#[derive(Debug)]
pub struct Running {
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Where HTTPS is served.
    pub https: Option<SocketAddr>,
    /// Where metrics and deep health are served.
    pub admin: SocketAddr,
    /// The process's parts.
    pub server: Arc<Server>,
    host: Host,
    audit: Arc<AuditQueue>,
    listener: IssuerListener,
    license_listener: FileListener,
    file: PathBuf,
    outbox: Option<Outbox>,
    fixed: Fixed,
    /// Ends the listeners.
    draining: CancellationToken,
    /// Ends the jobs.
    stopping: CancellationToken,
    listeners: TaskTracker,
    jobs: TaskTracker,
}

/// Binds, then warms in the background. Returns as soon as the ports are open; no neighbour is waited for.
///
/// # Errors
/// [`StartError`]; a neighbour that is down is none.
pub async fn start(config: &Config, host: Host) -> Result<Running, StartError> {
    let http = bind(config.listen.http, "listen.http").await?;
    let https = match (config.listen.https, &config.listen.tls) {
        (Some(address), Some(tls)) => {
            let tls = Tls::load(&tls.cert_file, &tls.key_file).map_err(|error| misconfigured(&error))?;
            Some(bind(address, "listen.https").await?.with_tls(tls))
        }
        _ => None,
    };
    let admin = bind(config.listen.admin, "listen.admin").await?;

    std::fs::create_dir_all(&config.data_dir).map_err(|error| {
        misconfigured(&format!("data_dir: cannot make {}: {error}; make it writable", config.data_dir.display()))
    })?;
    let options = StoreOptions::new(&config.data_dir, host.clock.random());
    let store = Store::open(&config.store.url.expose(), options).map_err(|error| misconfigured(&error))?;
    check_root(config, &store).await?;
    let root = root_secret(config, &host.clock)?;
    let metrics = Arc::new(Metrics::new());
    let (audit, audit_job) = AuditQueue::new(Arc::clone(&metrics), host.clock.clone());
    let methods = Arc::new(Methods::new(&metrics, Day::of(host.clock.now().wall)));
    let listener = telemetry::issuers::listener(&metrics, &audit);
    let assembled =
        assemble::assemble(config, 1, &store, &host, listener.clone(), None).map_err(|error| misconfigured(&error))?;
    let (gate, gate_task) = Gate::new(GateParts {
        clock: host.clock.clone(),
        store: store.clone(),
        issuers: assembled.issuers,
        policy: assembled.policy,
        observer: Box::new(Observer::new(
            Arc::clone(&metrics),
            Arc::clone(&audit),
            Arc::clone(&methods),
            host.clock.clone(),
        )),
        cache_capacity: CACHE,
    });
    let license_listener = local_license::listener(&metrics, &audit, &host.clock);
    let local = LocalLicense::from_config(&config.license, license_listener.clone(), None);
    let local = local.map_err(|error| misconfigured(&error))?;
    let licenses = license::parts(config, &host, &gate.issuers(), local.as_ref());
    gate.use_licenses(licenses.map_err(|error| misconfigured(&error))?);
    let ring = Ring::new(root.clone(), store.clone(), host.clock.clone());
    let outbox = mailer(config, &host)?.map(|mailer| Outbox::new(store.clone(), mailer, host.clock.clone()));
    let directory = license::directory(config, &host, &gate.issuers()).map_err(|error| misconfigured(&error))?;
    let (sign_in, link_worker) = assemble::sign_in(config, &store, &ring, &host, directory);
    let limits: Arc<dyn Limits> = Arc::new(MemoryLimits::new(&host.clock));
    let parts = || (store.clone(), ring.clone(), host.clock.clone(), Arc::clone(&limits));
    let (kept, keys, clock, counters) = parts();
    let re_auth = ReAuth::new(assemble::sign_in_config(config), kept, keys, clock, counters);
    let (kept, keys, clock, counters) = parts();
    let passwords = PasswordSignIn::new(kept, keys, clock, counters);
    let (kept, keys, clock, counters) = parts();
    let emails = EmailChanges::new(kept, keys, clock, counters);
    let webhooks = LicenseWebhooks::new(gate.clone(), limits, webhooks::settings(config));
    let server = Arc::new(Server {
        emails,
        webhooks,
        admin_token: ArcSwapOption::from_pointee(admin_token(config)),
        local_license: ArcSwapOption::from_pointee(local),
        assertions: doorward_gate::assertion::Assertions::new(config.public_url.origin()),
        gate,
        sign_in,
        re_auth,
        passwords,
        methods,
        proxy: Proxy::new(),
        shared: Shared::default(),
        metrics,
        sites: arc_swap::ArcSwap::from_pointee(assembled.site),
        can_mail: outbox.is_some(),
        is_draining: false.into(),
        store_is_up: false.into(),
        ring_is_settled: false.into(),
    });
    server.shared.take(config, &server.gate).map_err(|error| misconfigured(&format!("shared.url: {error}")))?;
    let running = Running {
        http: http.local_addr(),
        https: https.as_ref().map(Listener::local_addr),
        admin: admin.local_addr(),
        server,
        host,
        audit,
        listener,
        license_listener,
        file: config.file.clone(),
        outbox: outbox.clone(),
        fixed: Fixed::new(config, root),
        draining: CancellationToken::new(),
        stopping: CancellationToken::new(),
        listeners: TaskTracker::new(),
        jobs: TaskTracker::new(),
    };
    running.listen(http, https, admin);
    running.spawn_jobs(gate_task, audit_job, link_worker, outbox, ring);
    running.note(EventKind::ServerStarted);
    tracing::info!(http = %running.http, admin = %running.admin, "listening");
    Ok(running)
}

impl Running {
    /// Notes something about this process in the audit log.
    fn note(&self, kind: EventKind) {
        let mut event = AuditEvent::new(kind, self.host.clock.now().wall);
        event.detail.more = telemetry::audit::more([
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("policy", self.server.gate.policy().version.into()),
        ]);
        self.audit.push(event);
    }

    fn listen(&self, http: Listener, https: Option<Listener>, admin: Listener) {
        let refuse = entry::refuse(&self.server);
        for listener in [Some(http), https].into_iter().flatten() {
            let entry = Entry::Public(Arc::clone(&self.server));
            self.listeners.spawn(listener.serve(entry, Arc::clone(&refuse), self.draining.clone()));
        }
        let entry = Entry::Admin(Arc::clone(&self.server));
        // Metrics are wanted most while draining, so the admin listener stays until the jobs end.
        self.jobs.spawn(admin.serve(entry, refuse, self.stopping.clone()));
    }

    fn spawn_jobs(&self, gate_task: GateTask, audit: AuditJob, links: LinkWorker, outbox: Option<Outbox>, ring: Ring) {
        let server = || Arc::clone(&self.server);
        let stop = || self.stopping.clone();
        let store = self.server.gate.store().clone();
        let gate = self.server.gate.clone();
        let stopped = stop().cancelled_owned();
        self.jobs.spawn(async move { gate.run(gate_task, stopped).await });
        self.jobs.spawn(audit.run(store, stop().cancelled_owned()));
        self.jobs.spawn(links.run(stop().cancelled_owned()));
        if let Some(outbox) = outbox.clone() {
            let stopped = stop().cancelled_owned();
            self.jobs.spawn(async move { outbox.run(stopped).await });
        }
        self.server.gate.issuers().start();
        self.jobs.spawn(jobs::watch_store(server(), stop()));
        self.jobs.spawn(jobs::read_gauges(server(), outbox.clone(), stop()));
        self.jobs.spawn(jobs::license::follow(server(), stop()));
        self.jobs.spawn(jobs::cutover::follow(server(), stop()));
        self.jobs.spawn(jobs::cutover::count(server(), stop()));
        self.jobs.spawn(jobs::checkpoint::at_the_end(server(), ring.clone(), stop()));
        self.jobs.spawn(jobs::schedule::keep(server(), ring.clone(), outbox, stop()));
        self.jobs.spawn(jobs::keep_ring(server(), ring, stop()));
    }

    /// Reads the file again and swaps the policy whole; a bad file keeps the old one.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn reload(&self) -> Result<u64, ReloadError> {
        let config = Config::load(&self.file, &self.host.vars)?;
        let version = self.server.gate.policy().version + 1;
        let store = self.server.gate.store();
        let old = self.server.gate.issuers();
        let assembled = assemble::assemble(&config, version, store, &self.host, self.listener.clone(), Some(&old))
            .map_err(ReloadError::Assemble)?;
        let old = self.server.local_license.load_full();
        let local = LocalLicense::from_config(&config.license, self.license_listener.clone(), old.as_deref());
        let local = local.map_err(|error| ReloadError::Assemble(anyhow::anyhow!(error)))?;
        let licenses = license::parts(&config, &self.host, &assembled.issuers, local.as_ref());
        let licenses = licenses.map_err(ReloadError::Assemble)?;
        let directory = license::directory(&config, &self.host, &assembled.issuers).map_err(ReloadError::Assemble)?;
        let mailer = mailer(&config, &self.host).map_err(|error| ReloadError::Assemble(anyhow::anyhow!(error)))?;
        let shared = self.server.shared.take(&config, &self.server.gate);
        shared.map_err(|error| ReloadError::Assemble(anyhow::anyhow!("shared.url: {error}")))?;
        assembled.issuers.start();
        self.server.sites.store(Arc::new(assembled.site));
        self.server.gate.swap(assembled.policy, assembled.issuers);
        self.server.gate.use_licenses(licenses);
        self.server.local_license.store(local.map(Arc::new));
        self.server.webhooks.configure(webhooks::settings(&config));
        let sign_in = assemble::sign_in_config(&config);
        self.server.re_auth.configure(sign_in.clone());
        self.server.sign_in.configure(sign_in);
        self.server.sign_in.use_directory(directory);
        let is_other_mail = match (&self.outbox, mailer) {
            (Some(outbox), Some(mailer)) => {
                outbox.use_mailer(mailer);
                false
            }
            (old, new) => old.is_some() != new.is_some(),
        };
        let takes_token = self.server.use_admin_token(admin_token(&config), self.admin.ip());
        let waits = [(!takes_token).then_some("listen.admin_token"), is_other_mail.then_some("mail")];
        for key in self.fixed.changed(&config).into_iter().chain(waits.into_iter().flatten()) {
            tracing::warn!(key, "this part of the configuration takes effect with the next start");
        }
        self.note(EventKind::PolicyChanged);
        tracing::info!(version, "took the new configuration");
        Ok(version)
    }

    /// Stops taking requests, lets those under way finish, writes what is queued, ends.
    pub async fn stop(self) {
        tracing::info!("draining");
        self.server.is_draining.store(true, Ordering::Relaxed);
        self.draining.cancel();
        self.listeners.close();
        let drained = tokio::time::timeout(DRAIN, async {
            self.server.proxy.close_sockets().await;
            self.listeners.wait().await;
        });
        if drained.await.is_err() {
            tracing::warn!("requests still under way after {DRAIN:?} were cut off");
        }
        self.note(EventKind::ServerStopped);
        self.stopping.cancel();
        self.jobs.close();
        if tokio::time::timeout(FLUSH, self.jobs.wait()).await.is_err() {
            tracing::warn!("jobs did not end within {FLUSH:?}");
        }
        self.server.gate.store().close().await;
        tracing::info!("stopped");
    }
}

/// The signals that a server listens to. Made before the start: one that comes while things are being opened
/// is kept until [`serve`] looks, where the system's own answer to it would be to end the process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// Those of the system.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Serves until SIGTERM or SIGINT; SIGHUP reads the file again.
pub async fn serve(running: Running, mut signals: Signals) {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hangup.recv() => {
                if let Err(error) = running.reload() {
                    tracing::error!("the configuration was not taken, the old one stays:\n{error}");
                }
            }
        }
    }
    running.stop().await;
}

async fn bind(address: SocketAddr, key: &'static str) -> Result<Listener, StartError> {
    let options = ListenerOptions { drain: DRAIN, ..ListenerOptions::default() };
    Listener::bind(address, options).await.map_err(|error| StartError::Bind { key, error })
}

fn misconfigured(error: &dyn std::fmt::Display) -> StartError {
    StartError::Misconfigured(error.to_string())
}

/// Makes sure that no root secret is invented where keys wait for the one that is missing: none of them would open, and
/// nobody could sign in any more.
///
/// # Errors
/// The file is missing and the store holds keys, or cannot be looked into.
pub(crate) async fn check_root(config: &Config, store: &Store) -> Result<(), StartError> {
    let config::RootSecret::MakeAt(path) = &config.root_secret else { return Ok(()) };
    let file = path.display();
    let is_there =
        || path.try_exists().map_err(|error| StartError::Misconfigured(format!("secrets.root_file: {file}: {error}")));
    // Another process may have made it since the configuration was read.
    if is_there()? {
        return Ok(());
    }
    let has_keys = async {
        store.wait_ready(ROOT_WAIT).await?;
        ring::has_keys(store).await
    };
    match has_keys.await {
        Ok(false) => Ok(()),
        // Another that starts for the first time makes the file and then the keys.
        Ok(true) if is_there()? => Ok(()),
        Ok(true) => Err(StartError::Misconfigured(format!(
            "secrets.root_file: {file} does not exist, and the keys in the store were made with it; put it back from a \
             backup. If it is lost for good, delete the rows of the table `key_ring`: then everybody signs in again, and \
             links that were mailed no longer work"
        ))),
        Err(error) => Err(StartError::Misconfigured(format!(
            "secrets.root_file: {file} does not exist, and whether the store holds keys that were made with it cannot be \
             told: {error}; put the file back, or make the store work"
        ))),
    }
}

/// The root secret that was given, or the one in the file, which is made if it is not there; see [`check_root`].
pub(crate) fn root_secret(config: &Config, clock: &Clock) -> Result<RootSecret, StartError> {
    match &config.root_secret {
        config::RootSecret::Given(root) => Ok(root.clone()),
        config::RootSecret::MakeAt(path) => ring::load_root(path, true, clock).map_err(|error| misconfigured(&error)),
    }
}

fn admin_token(config: &Config) -> Option<Secret<String>> {
    config.listen.admin_token.as_ref().map(|token| token.0.clone())
}

pub(crate) fn mailer(config: &Config, host: &Host) -> Result<Option<Mailer>, StartError> {
    if let Some(mailer) = &host.mailer {
        return Ok(Some(mailer.clone()));
    }
    let Some(mail) = &config.mail else { return Ok(None) };
    mail.mailer().map(Some).map_err(|error| misconfigured(&error))
}

#[cfg(test)]
mod tests;
