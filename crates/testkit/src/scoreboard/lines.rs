//! A library under test, in a program that answers line by line.

use std::{
    collections::HashMap,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin},
    sync::{Mutex as AsyncMutex, oneshot},
    time::timeout,
};

use super::subject::{PATIENCE, START, Verdict};

type Open = Arc<Mutex<HashMap<u64, oneshot::Sender<Verdict>>>>;

/// The running program.
pub(super) struct Lines {
    child: Child,
    input: AsyncMutex<ChildStdin>,
    open: Open,
    next: Mutex<u64>,
}

impl Lines {
    pub(super) async fn start(command: Command) -> Self {
        let mut command = tokio::process::Command::from(command);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("it does not start: {error} ({command:?})"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = timeout(START, async {
            while let Ok(Some(line)) = lines.next_line().await {
                if line == "ready" {
                    return true;
                }
            }
            false
        });
        assert_eq!(ready.await, Ok(true), "it did not get ready");
        let open = Open::default();
        let answered = Arc::clone(&open);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let Some((id, verdict)) = parse(&line) else { continue };
                if let Some(waiting) = answered.lock().unwrap().remove(&id) {
                    waiting.send(verdict).ok();
                }
            }
            // The process is gone: nobody waits for nothing.
            answered.lock().unwrap().clear();
        });
        let input = AsyncMutex::new(child.stdin.take().unwrap());
        Self { child, input, open, next: Mutex::new(0) }
    }

    pub(super) async fn verify(&self, token: &str) -> Verdict {
        let id = {
            let mut next = self.next.lock().unwrap();
            *next += 1;
            *next
        };
        let (sender, answer) = oneshot::channel();
        self.open.lock().unwrap().insert(id, sender);
        let asked = async {
            self.input.lock().await.write_all(format!("{id} {token}\n").as_bytes()).await.ok()?;
            answer.await.ok()
        };
        timeout(PATIENCE, asked).await.ok().flatten().unwrap_or(Verdict::Silent)
    }

    pub(super) fn process_id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }
}

fn parse(line: &str) -> Option<(u64, Verdict)> {
    let mut words = line.splitn(3, ' ');
    let id = words.next()?.parse().ok()?;
    let (verdict, why) = (words.next()?, words.next().unwrap_or_default().to_owned());
    Some((
        id,
        match verdict {
            "accept" => Verdict::Accepted,
            "refuse" => Verdict::Refused(why),
            "unavailable" => Verdict::Unavailable(why),
            _ => return None,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_find_their_questions_in_any_order() {
        let script = r#"echo ready; read -r one _; read -r two _; echo "$two refuse because of this"; echo "$one accept"; read -r _"#;
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let lines = Lines::start(command).await;
        let (one, two) = tokio::join!(lines.verify("first"), lines.verify("second"));
        assert_eq!((one, two), (Verdict::Accepted, Verdict::Refused("because of this".to_owned())));
        assert_eq!(lines.verify("third").await, Verdict::Silent);
    }
}
