//! A set in Redis that somebody else writes, asked live. It is never the only place of a truth of ours.
//!
//! A dead or slow server must not slow down whoever asks. So one connection is kept, eagerly and by its own task; a
//! question waits for its answer and for nothing else, [`ANSWER`] at most; and the first question that gets none puts
//! the connection down, so that the next ones are told at once until the server answers again.

mod connect;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use redis::{Cmd, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
    time::{sleep, timeout},
};

use self::connect::{Connected, Target};
use crate::StoreConfigError;

/// How long an answer may take.
pub const ANSWER: Duration = Duration::from_millis(250);
/// Questions on their way at once; one more is refused.
pub const QUESTIONS: usize = 1024;
/// How often a connection that nobody needs is tried.
const PROBE: Duration = Duration::from_secs(1);
/// Pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Answered probes after which the pauses begin small again.
const SETTLED: u32 = 10;

/// A set of strings in Redis. Cheap to clone; the connection ends with the last handle.
#[derive(Clone)]
pub struct SharedSet {
    inner: Arc<Inner>,
    _keeper: Arc<Task>,
}

struct Inner {
    target: Target,
    set: String,
    link: ArcSwap<Link>,
    /// Told when a question found the link broken.
    broken: Notify,
    questions: Semaphore,
    generation: AtomicU64,
    asked: AtomicU64,
    members: AtomicU64,
    failed: AtomicU64,
}

enum Link {
    Up { connection: MultiplexedConnection, generation: u64 },
    Down { note: String },
}

/// A task that ends with the value that stands for it.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why the set cannot say: "cannot tell", never "not in it".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{note}")]
pub struct SharedError {
    /// What was met, without a secret.
    pub note: String,
}

impl SharedError {
    fn at(target: &Target, note: &str) -> Self {
        Self { note: format!("{}: {note}", target.name) }
    }
}

/// What has happened since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedStatus {
    /// Why the set cannot be asked; `None` while it can.
    pub problem: Option<String>,
    /// Questions.
    pub asked: u64,
    /// Questions answered with yes.
    pub members: u64,
    /// Questions without an answer.
    pub failed: u64,
}

impl SharedSet {
    /// The set `set` of the Redis at `url` (`redis://` or `rediss://`, with user, password and database).
    ///
    /// Returns at once; connecting goes on in the background until it succeeds. Certificates are verified as the
    /// platform does.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Errors
    /// [`StoreConfigError::BadRedisUrl`].
    pub fn open(url: &str, set: &str) -> Result<Self, StoreConfigError> {
        let inner = Arc::new(Inner {
            target: Target::parse(url)?,
            set: set.to_owned(),
            link: ArcSwap::from_pointee(Link::Down { note: "still connecting".to_owned() }),
            broken: Notify::new(),
            questions: Semaphore::new(QUESTIONS),
            generation: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            members: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let _keeper = Arc::new(Task(tokio::spawn(keep(Arc::clone(&inner)))));
        Ok(Self { inner, _keeper })
    }

    /// Whether [`SharedSet::open`] would take `url`. Nothing is connected.
    ///
    /// # Errors
    /// [`StoreConfigError::BadRedisUrl`].
    pub fn check_url(url: &str) -> Result<(), StoreConfigError> {
        Target::parse(url).map(drop)
    }

    /// Whether `member` is in the set now. A set that does not exist is empty.
    ///
    /// # Errors
    /// [`SharedError`] within [`ANSWER`]: no connection, no answer in time, too many questions, or the server's
    /// refusal.
    pub async fn contains(&self, member: &str) -> Result<bool, SharedError> {
        self.inner.asked.fetch_add(1, Ordering::Relaxed);
        let answer = self.inner.contains(member).await.map_err(|note| SharedError::at(&self.inner.target, &note));
        match &answer {
            Ok(true) => self.inner.members.fetch_add(1, Ordering::Relaxed),
            Ok(false) => 0,
            Err(_) => self.inner.failed.fetch_add(1, Ordering::Relaxed),
        };
        answer
    }

    /// How it stands.
    pub fn status(&self) -> SharedStatus {
        let problem = match &**self.inner.link.load() {
            Link::Up { .. } => None,
            Link::Down { note } => Some(SharedError::at(&self.inner.target, note).note),
        };
        SharedStatus {
            problem,
            asked: self.inner.asked.load(Ordering::Relaxed),
            members: self.inner.members.load(Ordering::Relaxed),
            failed: self.inner.failed.load(Ordering::Relaxed),
        }
    }

    /// Connects once and asks one question, for commands.
    ///
    /// # Errors
    /// [`SharedError`], after a few seconds at most.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn contains_once(url: &str, set: &str, member: &str) -> Result<bool, SharedError> {
        let target = Target::parse(url).map_err(|error| SharedError { note: error.to_string() })?;
        let answer = async {
            let mut connected = target.connect().await?;
            ask(&mut connected.connection, &question(set, member)).await.map_err(Unanswered::into_note)
        };
        answer.await.map_err(|note| SharedError::at(&target, &note))
    }
}

impl fmt::Debug for SharedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSet").field("at", &self.inner.target.name).field("set", &self.inner.set).finish()
    }
}

/// Why a question was not answered.
enum Unanswered {
    /// The server said no: the set is no set, or we may not read it. The connection is good.
    Refused(String),
    /// The connection is of no use any more.
    Broken(String),
}

impl Unanswered {
    fn into_note(self) -> String {
        match self {
            Self::Refused(note) | Self::Broken(note) => note,
        }
    }
}

fn question(set: &str, member: &str) -> Cmd {
    let mut question = redis::cmd("SISMEMBER");
    question.arg(set).arg(member);
    question
}

async fn ask(connection: &mut MultiplexedConnection, question: &Cmd) -> Result<bool, Unanswered> {
    match timeout(ANSWER, connection.send_packed_command(question)).await {
        Ok(Ok(Value::Int(count))) => Ok(count != 0),
        Ok(Ok(Value::ServerError(error))) => Err(Unanswered::Refused(error.to_string())),
        Ok(Ok(_)) => Err(Unanswered::Broken("the answer to SISMEMBER is no number".to_owned())),
        // It answers and refuses: WRONGTYPE, NOPERM, NOAUTH, LOADING.
        Ok(Err(error)) if error.code().is_some() => Err(Unanswered::Refused(error.to_string())),
        Ok(Err(error)) => Err(Unanswered::Broken(error.to_string())),
        Err(_) => Err(Unanswered::Broken(format!("no answer within {ANSWER:?}"))),
    }
}

impl Inner {
    async fn contains(&self, member: &str) -> Result<bool, String> {
        let Ok(_question) = self.questions.try_acquire() else {
            return Err(format!("{QUESTIONS} questions are on their way already"));
        };
        let (mut connection, generation) = match &**self.link.load() {
            Link::Up { connection, generation } => (connection.clone(), *generation),
            Link::Down { note } => return Err(note.clone()),
        };
        match ask(&mut connection, &question(&self.set, member)).await {
            Ok(is_member) => Ok(is_member),
            Err(Unanswered::Refused(note)) => Err(note),
            Err(Unanswered::Broken(note)) => {
                self.put_down(generation, &note);
                Err(note)
            }
        }
    }

    /// Puts the link down unless it is a newer one than the question's.
    fn put_down(&self, generation: u64, note: &str) {
        let down = Arc::new(Link::Down { note: note.to_owned() });
        let before = self.link.rcu(|link| match &**link {
            Link::Up { generation: current, .. } if *current == generation => Arc::clone(&down),
            Link::Up { .. } | Link::Down { .. } => Arc::clone(link),
        });
        if matches!(&*before, Link::Up { generation: current, .. } if *current == generation) {
            self.broken.notify_one();
        }
    }

    fn down(&self, note: String) {
        self.link.store(Arc::new(Link::Down { note }));
    }
}

/// Keeps the link up as well as it can; ends with the last handle.
async fn keep(inner: Arc<Inner>) {
    let mut pause = FIRST_PAUSE;
    loop {
        match connect(&inner).await {
            Ok(connected) => {
                if hold(&inner, connected).await {
                    pause = FIRST_PAUSE;
                }
            }
            Err(note) => {
                tracing::debug!(at = inner.target.name, note, "the shared set cannot be asked");
                inner.down(note);
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A connection over which the very question that will be asked was answered.
async fn connect(inner: &Inner) -> Result<Connected, String> {
    let mut connected = inner.target.connect().await?;
    ask(&mut connected.connection, &question(&inner.set, "")).await.map_err(Unanswered::into_note)?;
    Ok(connected)
}

/// Hands a connection out until it breaks; whether it held for a while.
async fn hold(inner: &Inner, connected: Connected) -> bool {
    let Connected { mut connection, mut driver } = connected;
    let generation = inner.generation.fetch_add(1, Ordering::Relaxed) + 1;
    inner.link.store(Arc::new(Link::Up { connection: connection.clone(), generation }));
    tracing::info!(at = inner.target.name, "the shared set answers");
    let mut answered = 0;
    let note = loop {
        tokio::select! {
            () = inner.broken.notified() => {
                match &**inner.link.load() {
                    // The echo of an older link that broke.
                    Link::Up { .. } => {}
                    Link::Down { note } => break note.clone(),
                }
            }
            _ = &mut driver.0 => break "the server closed the connection".to_owned(),
            () = sleep(PROBE) => match ask(&mut connection, &question(&inner.set, "")).await {
                Ok(_) => answered += 1,
                Err(why) => break why.into_note(),
            },
        }
    };
    drop(driver);
    tracing::warn!(at = inner.target.name, note, "the shared set cannot be asked");
    inner.down(note);
    answered >= SETTLED
}
