//! Mail: how it leaves. A request never waits for it; mails go into the outbox with the change that
//! they belong to, and [`Outbox`](outbox::Outbox) sends them.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use doorward_core::time::Timestamp;
use doorward_store::Mail;
use tokio::sync::watch;

mod http;
pub mod outbox;
mod smtp;

pub use http::HttpMailer;
pub use smtp::SmtpMailer;

/// Longest time for one mail, connecting included.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// The mail settings do not work: which key, what is wrong, what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mail.{key}: {problem}; {remedy}")]
pub struct MailConfigError {
    /// `url`, `from` or `api_key`.
    pub key: &'static str,
    /// What is wrong. Never repeats the URL or the key, which may be secret.
    pub problem: String,
    /// What to write.
    pub remedy: &'static str,
}

/// Why a mail did not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendError {
    /// Whether trying again is pointless: the server refused this mail for good.
    pub is_permanent: bool,
    /// What happened, for the operator.
    pub note: String,
    /// How long the server asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl SendError {
    /// Worth another try.
    fn temporary(note: String) -> Self {
        Self { is_permanent: false, note, retry_after: None }
    }

    /// Pointless to try again.
    fn permanent(note: String) -> Self {
        Self { is_permanent: true, note, retry_after: None }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.note)
    }
}

impl std::error::Error for SendError {}

/// What takes our mails.
#[derive(Clone, Debug)]
pub enum Mailer {
    /// A mail server.
    Smtp(SmtpMailer),
    /// A mail API.
    Http(HttpMailer),
    /// A mailbox in memory: `demo` and tests.
    Memory(Mailbox),
}

impl Mailer {
    /// Hands one mail over.
    ///
    /// # Errors
    /// [`SendError`]; the mail may have arrived all the same if the connection broke after the server took it.
    pub async fn send(&self, mail: &Mail, now: Timestamp) -> Result<(), SendError> {
        match self {
            Self::Smtp(smtp) => smtp.send(mail).await,
            Self::Http(http) => http.send(mail, now).await,
            Self::Memory(mailbox) => {
                mailbox.deliver(mail.clone());
                Ok(())
            }
        }
    }

    /// Whether `other` was made from the same settings: what failed with the one is in no better hands with the other.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Smtp(one), Self::Smtp(other)) => one.is_same(other),
            (Self::Http(one), Self::Http(other)) => one.is_same(other),
            (Self::Memory(one), Self::Memory(other)) => Arc::ptr_eq(&one.mails, &other.mails),
            _ => false,
        }
    }

    /// Whether a mail could leave now; for the doctor.
    ///
    /// # Errors
    /// What the mail server says, with the remedy where it is known.
    pub async fn ping(&self) -> Result<(), SendError> {
        match self {
            Self::Smtp(smtp) => smtp.ping().await,
            Self::Http(http) => http.ping().await,
            Self::Memory(_) => Ok(()),
        }
    }
}

/// The mails of a demo or a test, the latest [`Mailbox::CAPACITY`] of them.
#[derive(Clone, Debug)]
pub struct Mailbox {
    mails: Arc<Mutex<VecDeque<Mail>>>,
    count: watch::Sender<usize>,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self { mails: Arc::default(), count: watch::Sender::new(0) }
    }
}

impl Mailbox {
    /// Most mails kept; the oldest goes first.
    pub const CAPACITY: usize = 200;

    /// An empty mailbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts one mail in. A mail that is there already (a repeated delivery) is not put in twice.
    pub fn deliver(&self, mail: Mail) {
        {
            let mut mails = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
            if mails.iter().any(|known| known.id == mail.id) {
                return;
            }
            if mails.len() == Self::CAPACITY {
                mails.pop_front();
            }
            mails.push_back(mail);
        }
        self.count.send_modify(|count| *count += 1);
    }

    /// The mails, oldest first.
    pub fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Waits until `count` mails have been put in since the mailbox was made. Waits for ever if they do not come.
    pub async fn arrived(&self, count: usize) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.count.subscribe().wait_for(|seen| *seen >= count).await;
    }
}
