//! Child processes that end with the test that started them.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tokio::sync::watch;

/// Longest wait for the last lines of a program that has ended.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// A started program. Dropping it kills this process, by its own id, and waits for it.
///
/// Its standard output and error are read line by line from the start, so it never blocks on a full pipe.
pub struct Process {
    name: String,
    child: Child,
    printed: Printed,
    changed: watch::Receiver<()>,
}

/// Lines in the order of arrival, and whether each came on standard error.
type Printed = Arc<Mutex<Vec<(bool, String)>>>;

impl Process {
    /// Starts a program without input; `name` is what failures call it.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error} ({command:?})"));
        let printed = Printed::default();
        let (sender, changed) = watch::channel(());
        collect(child.stdout.take().unwrap(), false, &printed, sender.clone());
        collect(child.stderr.take().unwrap(), true, &printed, sender);
        Self { name: name.to_owned(), child, printed, changed }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed until now, both streams in the order of arrival.
    pub fn output(&self) -> String {
        self.lines(|_| true)
    }

    /// What it has printed on standard error until now: the log.
    pub fn log(&self) -> String {
        self.lines(|is_error| is_error)
    }

    fn lines(&self, wanted: impl Fn(bool) -> bool) -> String {
        let printed = self.printed.lock().unwrap();
        let lines: Vec<&str> =
            printed.iter().filter(|(is_error, _)| wanted(*is_error)).map(|(_, line)| line.as_str()).collect();
        lines.join("\n")
    }

    /// Waits for the first printed line that `wanted` turns into a value; lines printed before the call count.
    ///
    /// # Panics
    /// If no such line comes in time, or the process closes its output without one; the message shows what it printed.
    pub async fn line<T>(&self, within: Duration, wanted: impl Fn(&str) -> Option<T>) -> T {
        let mut changed = self.changed.clone();
        let found = async {
            loop {
                changed.mark_unchanged();
                if let Some(value) = self.printed.lock().unwrap().iter().find_map(|(_, line)| wanted(line)) {
                    return Some(value);
                }
                if changed.changed().await.is_err() {
                    return self.printed.lock().unwrap().iter().find_map(|(_, line)| wanted(line));
                }
            }
        };
        match tokio::time::timeout(within, found).await {
            Ok(Some(value)) => value,
            Ok(None) => panic!("{} ended without the expected line; it printed:\n{}", self.name, self.output()),
            Err(_) => panic!("{} printed no expected line in {within:?}, only:\n{}", self.name, self.output()),
        }
    }

    /// Sends a signal; a process that has ended already is left alone.
    ///
    /// # Panics
    /// If the system refuses the signal.
    pub fn signal(&mut self, signal: Signal) {
        if self.child.try_wait().unwrap().is_some() {
            return; // reaped: its id may belong to somebody else by now
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// If the system cannot tell.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it ends by itself, and until what it printed last is read.
    ///
    /// # Panics
    /// If it still runs after that time; the message shows what it printed.
    pub async fn exit(&mut self, within: Duration) -> ExitStatus {
        let (name, child) = (&self.name, &mut self.child);
        let ended = async {
            loop {
                if let Some(status) = child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let Ok(status) = tokio::time::timeout(within, ended).await else {
            panic!("{name} still runs after {within:?}; it printed:\n{}", self.output());
        };
        // Threads of their own read it, and get their turn when they get it. A child of its own may keep the pipe open, so
        // not for ever.
        let mut changed = self.changed.clone();
        let read = async { while changed.changed().await.is_ok() {} };
        tokio::time::timeout(READ_WITHIN, read).await.ok();
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Reads lines on a thread of its own until the stream ends; the last reader to end closes the channel.
fn collect(stream: impl Read + Send + 'static, is_error: bool, printed: &Printed, changed: watch::Sender<()>) {
    let printed = Arc::clone(printed);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            printed.lock().unwrap().push((is_error, text));
            changed.send_replace(());
            line.clear();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_mins(1);

    fn shell(script: &str) -> Process {
        Process::start("a shell", Command::new("sh").args(["-c", script]))
    }

    #[tokio::test]
    async fn a_line_is_waited_for_and_parsed() {
        let process = shell("echo starting; echo port=4711; exec sleep 60");
        let port: u16 = process.line(WITHIN, |line| line.strip_prefix("port=")?.parse().ok()).await;
        assert_eq!(port, 4711);
    }

    #[tokio::test]
    #[should_panic(expected = "ended without the expected line; it printed:\nno such luck")]
    async fn a_process_that_ends_first_fails_the_wait_and_shows_its_output() {
        shell("echo no such luck >&2").line(WITHIN, |line| line.strip_prefix("ready").map(str::len)).await;
    }

    #[tokio::test]
    async fn a_signal_reaches_the_process_and_its_exit_is_seen() {
        let mut process = shell("trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done");
        process.line(WITHIN, |line| (line == "up").then_some(())).await;
        process.signal(Signal::TERM);
        assert_eq!(process.exit(WITHIN).await.code(), Some(7));
        assert!(!process.is_running());
    }

    #[tokio::test]
    async fn dropping_it_ends_it() {
        let process = shell("echo up; exec sleep 60");
        process.line(WITHIN, |line| (line == "up").then_some(())).await;
        let folder = format!("/proc/{}", process.id());
        assert!(std::path::Path::new(&folder).exists());
        drop(process);
        assert!(!std::path::Path::new(&folder).exists());
    }
}
