//! Scores verifiers of tokens against the evil issuer: what each of some eighty situations should come to, and what it did.
//!
//! A [`Launcher`] starts the verifier under test as a process; a [`Case`] plays one situation with an issuer and a process of
//! its own, and writes down every finding. [`table`] prints several verifiers side by side.

mod cases;
mod gateway;
mod lines;
mod stage;
pub mod subject;
pub mod table;

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};

pub use self::{
    cases::all,
    stage::Stage,
    subject::{Launcher, Setup, Verdict},
};

/// How many situations are played side by side.
const AT_ONCE: usize = 8;
/// How often a situation is played by itself where there seems to have been too little time.
const ALONE: usize = 3;
/// The longest that one of them may take, whatever the verifier does.
const LONGEST: Duration = Duration::from_secs(120);

/// A situation, and what should come of it.
#[derive(Clone)]
pub struct Case {
    /// Which part of the table it stands in.
    pub group: &'static str,
    /// Its name: short, without blanks, stable.
    pub id: String,
    /// What happens.
    pub title: String,
    /// What should come of it.
    pub expected: &'static str,
    /// What the verifier is told beyond the defaults.
    pub settings: fn(&mut Setup),
    /// Whether it takes more than half a minute by itself.
    pub is_slow: bool,
    /// Plays it.
    pub play: Play,
}

/// How a situation is played.
#[derive(Clone)]
pub enum Play {
    /// By itself.
    Plain(for<'a> fn(&'a mut Stage) -> BoxFuture<'a, ()>),
    /// With a fault of the issuer.
    Fault(crate::issuer::Fault, for<'a> fn(&'a mut Stage, crate::issuer::Fault) -> BoxFuture<'a, ()>),
    /// With an unusable key.
    Poison(crate::issuer::Poison, for<'a> fn(&'a mut Stage, crate::issuer::Poison) -> BoxFuture<'a, ()>),
}

/// What came of a situation.
#[derive(Clone, Debug)]
pub struct Score {
    /// Its name.
    pub id: String,
    /// Everything that was not as expected; nothing is a green cell.
    pub findings: Vec<String>,
    /// Whether all of them are that something took too long or could not be said in time, or follow after that.
    pub is_excusable: bool,
    /// How often the issuer's keys were fetched, from the start of the verifier on.
    pub fetches: u64,
    /// The slowest answer to a token whose key was known.
    pub slowest_known: Duration,
}

impl Score {
    /// Whether all was as expected.
    pub fn is_green(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Plays `cases` against processes from `launcher`, several at a time; scores in the order of the cases.
///
/// Where the first finding is that there was too little time, the situation is played again with the machine to itself, and
/// that counts: a verifier that waits for its issuer waits again, and one that waited for a processor does not. Another
/// program may be busy beside it, so it is played so up to [`ALONE`] times.
pub async fn play(cases: &[Case], launcher: &Launcher) -> Vec<Score> {
    let mut queue: Vec<_> = cases.iter().enumerate().collect();
    // The long ones first, beside all the others.
    queue.sort_by_key(|(_, case)| !case.is_slow);
    let played = stream::iter(queue).map(async |(place, case)| (place, play_one(case.clone(), launcher).await));
    let mut scores: Vec<_> = played.buffer_unordered(AT_ONCE).collect().await;
    scores.sort_by_key(|(place, _)| *place);
    for (place, score) in &mut scores {
        for _ in 0..ALONE {
            if !score.is_excusable {
                break;
            }
            let alone = play_one(cases[*place].clone(), launcher).await;
            eprintln!("{}: {}; alone: {:?}", score.id, score.findings.join("; "), alone.findings);
            *score = alone;
        }
    }
    scores.into_iter().map(|(_, score)| score).collect()
}

async fn play_one(case: Case, launcher: &Launcher) -> Score {
    let mut stage = Stage::new(launcher.clone(), case.settings).await;
    let played = async {
        match &case.play {
            Play::Plain(play) => play(&mut stage).await,
            Play::Fault(fault, play) => play(&mut stage, fault.clone()).await,
            Play::Poison(poison, play) => play(&mut stage, *poison).await,
        }
    };
    // A verifier that does not start, or dies, is a finding like any other.
    let end = tokio::time::timeout(LONGEST, AssertUnwindSafe(played).catch_unwind()).await;
    match end {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            stage.find_late(text.unwrap_or_else(|| "it could not be played".to_owned()));
        }
        Err(_) => stage.find_late(format!("not over after {LONGEST:?}")),
    }
    stage.into_score(case.id)
}

#[cfg(test)]
mod tests;
