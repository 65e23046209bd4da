//! Provider `file`: one signed license file or key for the whole installation. Asks nobody, so it works without a
//! network.
//!
//! What lies at the path is read again when it changes. What was read last and is genuine stays in use until
//! something genuine takes its place: a file that is half copied, forged or for somebody else changes nothing. Nor does
//! one that was issued before what is known, so that an old copy brings no suspended license back; that holds for the
//! file of another license too, since nobody can tell here which of two licenses is meant. Whoever put it there is told,
//! and what to do: check it out again, or say that what is known is to be forgotten.

use std::{
    fmt,
    fs::{self, File, Metadata},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use doorward_core::{
    keygen::MAX_FILE_BYTES,
    license::Observation,
    time::{Now, Timestamp},
};
use futures_util::FutureExt as _;

use super::{
    paper::{Expected, Paper},
    provider::{Answering, FaultKind, LicenseProvider, ProviderFault, Question},
};

/// Most files of a folder that are looked at.
const MAX_FILES: usize = 64;

/// Something that happened to the license file; for the audit log. It is in the log already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileNews {
    /// It is in use from now on.
    Taken {
        /// Its name.
        file: String,
        /// The provider's name of the license.
        license_id: Option<String>,
        /// When the file ends.
        ends_at: Option<Timestamp>,
    },
    /// It is not taken; what was in use stays in use.
    Refused {
        /// What is wrong, with the name of the file.
        why: String,
    },
}

/// Hears of news; must not block. Cheap to clone.
#[derive(Clone)]
pub struct FileListener(Arc<dyn Fn(FileNews) + Send + Sync>);

impl FileListener {
    /// Calls `hear` for each piece of news.
    pub fn new(hear: impl Fn(FileNews) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }
}

impl fmt::Debug for FileListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileListener")
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct FileProvider(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    expected: Expected,
    listener: FileListener,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How the place looked when it was last read.
    seen: Option<Vec<Seen>>,
    /// What is in use.
    held: Option<(Paper, String)>,
    /// What is wrong with what lies there.
    problem: Option<String>,
    /// A genuine one lies there that is older than what is known.
    is_older: bool,
    /// Nobody has compared what is in use with what is known yet.
    is_to_be_compared: bool,
}

/// A file as far as it can be told without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    len: u64,
    inode: u64,
    changed: (i64, i64, i64, i64),
}

impl Seen {
    fn new(path: PathBuf, about: &Metadata) -> Self {
        let changed = (about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec());
        Self { path, len: about.len(), inode: about.ino(), changed }
    }

    fn name(&self) -> String {
        self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }
}

/// The files at `path`: itself, or those of the folder that it is but hidden and unfinished ones, in the order of
/// their names. Nothing there is an empty list.
fn look(path: &Path) -> Vec<Seen> {
    let file = |path: PathBuf| {
        let about = fs::metadata(&path).ok().filter(Metadata::is_file)?;
        Some(Seen::new(path, &about))
    };
    let Ok(folder) = fs::read_dir(path) else { return file(path.to_owned()).into_iter().collect() };
    let is_candidate = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        !name.starts_with('.') && ![".tmp", ".part", "~"].iter().any(|end| name.ends_with(end))
    };
    let paths = folder.filter_map(|entry| Some(entry.ok()?.path())).filter(is_candidate);
    let mut found: Vec<Seen> = paths.filter_map(file).take(MAX_FILES).collect();
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Reads a text of at most [`MAX_FILE_BYTES`].
fn read(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() > MAX_FILE_BYTES { Err(format!("longer than {MAX_FILE_BYTES} bytes")) } else { Ok(text) }
}

/// What lies at a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The genuine license that was issued last, and the name of its file.
    pub best: Option<(Paper, String)>,
    /// What is wrong with the others, each with the name of its file.
    pub problems: Vec<String>,
}

/// Reads all that lies at `path`, a file or a folder; blocks.
pub fn read_place(path: &Path, expected: &Expected, now: Timestamp) -> Place {
    judge(&look(path), expected, now)
}

fn judge(files: &[Seen], expected: &Expected, now: Timestamp) -> Place {
    let mut place = Place::default();
    for file in files {
        let name = file.name();
        let paper = read(&file.path)
            .and_then(|text| Paper::read(&text, expected, now).map_err(|unusable| unusable.to_string()));
        match paper {
            Ok(paper) => {
                let is_newer = place
                    .best
                    .as_ref()
                    .is_none_or(|(best, _)| paper.observation.observed_at > best.observation.observed_at);
                if is_newer {
                    place.best = Some((paper, name));
                }
            }
            Err(why) => place.problems.push(format!("{name}: {why}")),
        }
    }
    place
}

/// How a file provider fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// The file in use.
    pub file: Option<String>,
    /// When the file in use ends; the license may end before.
    pub ends_at: Option<Timestamp>,
    /// What is wrong with what lies at the path, if anything.
    pub problem: Option<String>,
}

impl FileProvider {
    /// A provider for what lies at `path`, now or later: a file, or a folder of them of which the genuine one issued
    /// last counts.
    pub fn new(path: PathBuf, expected: Expected, listener: FileListener) -> Self {
        Self(Arc::new(Inner { path, expected, listener, state: Mutex::default() }))
    }

    /// As [`FileProvider::new`], in place of an `old` one, which goes on if it is for the same: what was read last and is
    /// genuine stays in use, and is not told again.
    pub fn following(path: PathBuf, expected: Expected, listener: FileListener, old: Option<&Self>) -> Self {
        match old.filter(|old| old.0.path == path && old.0.expected.is_same(&expected)) {
            Some(same) => {
                // What was refused is read again: a clock that was wrong may have been set.
                let mut state = same.0.state();
                if state.problem.is_some() && !state.is_older {
                    state.seen = None;
                }
                drop(state);
                same.clone()
            }
            None => Self::new(path, expected, listener),
        }
    }

    /// Reads what lies at the path, if it changed, and says what counts at `judged_at`, the time by which licenses end.
    /// Asks nobody.
    ///
    /// # Errors
    /// [`ProviderFault`], where nothing counts.
    pub async fn read(&self, judged_at: Timestamp) -> Result<Observation, ProviderFault> {
        let inner = Arc::clone(&self.0);
        let answer = tokio::task::spawn_blocking(move || inner.answer(judged_at)).await;
        answer.unwrap_or_else(|error| Err(ProviderFault::new(FaultKind::Unavailable, error.to_string())))
    }

    /// Whether what lies at the path is not what was read last. Blocks for a look at the folder; reads no file.
    pub fn has_changed(&self) -> bool {
        let seen = look(&self.0.path);
        self.0.state().seen.as_ref() != Some(&seen)
    }

    /// Whether nobody has said yet how what is in use compares with what is known: a question may have read it, and does
    /// not say.
    pub fn is_to_be_compared(&self) -> bool {
        self.0.state().is_to_be_compared
    }

    /// Takes note that `read`, which was read here, is not older than what is known. What was read since then is still to be
    /// compared.
    pub fn compared(&self, read: &Observation) {
        let mut state = self.0.state();
        if state.held.as_ref().is_some_and(|(paper, _)| paper.observation == *read) {
            state.is_to_be_compared = false;
        }
    }

    /// Takes note that `read`, which was read here, is older than `known`, which the store holds: it is not in use, and
    /// that is told. What was read since then stays.
    pub fn passed_over(&self, read: &Observation, known: &Observation) {
        let mut state = self.0.state();
        if let Some((paper, name)) = state.held.take_if(|(paper, _)| paper.observation == *read) {
            state.is_older = true;
            let problem = older(&name, &paper, known);
            self.0.tell(&mut state, &[problem]);
        }
    }

    /// Whether something genuine lies there that is not taken because it is older than what is known.
    pub fn is_passed_over(&self) -> bool {
        self.0.state().is_older
    }

    /// Forgets what was read, because nothing is known any more that could be newer.
    pub fn start_over(&self) {
        *self.0.state() = State::default();
    }

    /// How it fares.
    pub fn status(&self) -> FileStatus {
        let state = self.0.state();
        let held = state.held.as_ref();
        FileStatus {
            file: held.map(|(_, name)| name.clone()),
            ends_at: held.and_then(|(paper, _)| paper.ends_at),
            problem: state.problem.clone(),
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what lies there and says what counts; blocks.
    fn answer(&self, now: Timestamp) -> Result<Observation, ProviderFault> {
        // Looked at by one after the other: an older listing that came last would take back what a newer one brought.
        let mut state = self.state();
        let seen = look(&self.path);
        if state.seen.as_ref() != Some(&seen) {
            let place = judge(&seen, &self.expected, now);
            self.take(&mut state, place, seen);
        }
        match &state.held {
            Some((paper, name)) if paper.is_over(now) => {
                let note = format!("{name}: the file has ended; check out a new one and put it in its place");
                Err(ProviderFault::new(FaultKind::Untrusted, note))
            }
            Some((paper, _)) => Ok(paper.observation.clone()),
            None => {
                let note = state.problem.clone().unwrap_or_default();
                Err(ProviderFault::new(FaultKind::Misconfigured, note))
            }
        }
    }

    fn take(&self, state: &mut State, place: Place, seen: Vec<Seen>) {
        let is_empty = seen.is_empty();
        state.seen = Some(seen);
        state.is_older = false;
        let mut problems = place.problems;
        if let Some((paper, name)) = place.best {
            let held = state.held.as_ref().map(|(held, _)| held);
            if let Some(held) = held.filter(|held| paper.observation.observed_at < held.observation.observed_at) {
                problems.push(older(&name, &paper, &held.observation));
                state.is_older = true;
            } else if held.is_none_or(|held| *held != paper) {
                let license_id = paper.observation.license_id.clone();
                let ends_at = paper.ends_at;
                tracing::info!(file = name, license = license_id, "took the license file");
                state.held = Some((paper, name.clone()));
                state.is_to_be_compared = true;
                (self.listener.0)(FileNews::Taken { file: name, license_id, ends_at });
            }
        }
        if is_empty {
            // Somebody took it away: that is no copying in progress.
            state.held = None;
            problems.push(format!("there is no license file at {}", self.path.display()));
        }
        self.tell(state, &problems);
    }

    /// Takes the problems over, and tells of them unless they are those of before.
    fn tell(&self, state: &mut State, problems: &[String]) {
        let problem = (!problems.is_empty()).then(|| problems.join("; "));
        if let Some(why) = problem.clone().filter(|_| problem != state.problem) {
            tracing::warn!(problem = why, goes_on = state.held.is_some(), "a license file is not taken");
            (self.listener.0)(FileNews::Refused { why });
        }
        state.problem = problem;
    }
}

/// Why a genuine paper is not taken that was issued before `known`, and what to do.
fn older(name: &str, paper: &Paper, known: &Observation) -> String {
    let id = |observation: &Observation| observation.license_id.clone().unwrap_or_else(|| "without a name".to_owned());
    let (found, used) = (id(&paper.observation), id(known));
    let what = if paper.observation.observed_at == Timestamp::EPOCH {
        format!(
            "it does not say when the license {found} was issued, and something newer is known of the license {used}"
        )
    } else if found == used {
        format!(
            "it was issued before the one in use, and is of the same license, {used}: an old copy takes nothing back"
        )
    } else {
        format!("the license {found} in it was issued before the one in use, {used}, so it does not take its place")
    };
    format!(
        "{name}: {what}; check the license out again, which makes a newer file, or let this one count as it is with \
         `doorward license forget`"
    )
}

impl LicenseProvider for FileProvider {
    fn name(&self) -> &'static str {
        "file"
    }

    fn ask(&self, question: Question, _: Now) -> Answering {
        let provider = self.clone();
        async move { provider.read(question.judged_at).await }.boxed()
    }

    fn is_per_user(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use doorward_core::keygen::{AccountKeys, Scheme};
    use doorward_testkit::paper::{Account, Paper as Written};

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    /// The letter for what a thread does; `S`: it waits.
    fn doing(thread: &Path) -> Option<char> {
        let about = fs::read_to_string(thread.join("stat")).unwrap();
        about.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
    }

    #[test]
    fn whoever_waits_for_their_turn_sees_what_was_put_there_meanwhile() {
        let account = Account::generate();
        let expected = Expected {
            keys: AccountKeys::parse(&[account.public_key()]).unwrap(),
            scheme: Scheme::Ed25519Sign,
            account: None,
            product: None,
            license_key: None,
            fingerprint: None,
            max_age: Duration::from_hours(24),
        };
        let (folder, news) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (path, heard) = (folder.path().join("license.lic"), Arc::clone(&news));
        let listener = FileListener::new(move |news| heard.lock().unwrap().push(news));
        let provider = FileProvider::new(path.clone(), expected, listener);

        let turn = provider.0.state();
        let (inner, (sender, threads)) = (Arc::clone(&provider.0), mpsc::channel());
        let asking = thread::spawn(move || {
            sender.send(Path::new("/proc").join(fs::read_link("/proc/thread-self").unwrap())).unwrap();
            inner.answer(NOW)
        });
        let thread = threads.recv().unwrap();
        while doing(&thread) != Some('S') {
            thread::yield_now();
        }
        fs::write(&path, account.file(&Written::new("l1", NOW.as_millis()))).unwrap();
        drop(turn);
        let answer = asking.join().unwrap();
        assert_eq!(answer.map(|said| said.license_id), Ok(Some("l1".to_owned())));
        let heard = news.lock().unwrap();
        assert!(matches!(&heard[..], [FileNews::Taken { .. }]), "{heard:?}");
    }
}
