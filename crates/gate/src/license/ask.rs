//! Questions to the provider: one per holder at a time, a bounded number together, apart from the requests that
//! cause them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use doorward_core::license::{Holder, Observation};
use tokio::{runtime::Handle, sync::watch};

use super::{ASK_TIMEOUT, Applied, Desk, FLIGHTS, FaultKind, Licenses, ProviderFault, Question, RefreshError};

/// Why a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// What is known is old; somebody else may have asked already.
    Old,
    /// Somebody would be refused, or somebody said that there is news.
    News,
}

/// Where the outcome of a question appears.
pub(super) type Landing = watch::Receiver<Option<Result<Applied, RefreshError>>>;

/// Questions that are under way or wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Holder, Landing>>);

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Holder, Landing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn find(&self, holder: Holder) -> Option<Landing> {
        self.lock().get(&holder).cloned()
    }
}

/// A place among the flights; freed when the question ends, however it does.
struct Flight {
    desk: Arc<Desk>,
    holder: Holder,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.desk.flights.lock().remove(&self.holder);
    }
}

/// Waits for the outcome of a question.
pub(super) async fn landed(mut landing: Landing) -> Result<Applied, RefreshError> {
    match landing.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or(Err(RefreshError::GivenUp)),
        Err(_) => Err(RefreshError::GivenUp),
    }
}

impl Licenses {
    /// Asks the provider about a holder's license and writes down what it says. The question begins after this is
    /// called: one that is under way already is let land first.
    ///
    /// Bounded by [`ASK_TIMEOUT`] for each question, and by the turns of others.
    ///
    /// # Errors
    /// [`RefreshError`]; what is known stays.
    pub async fn refresh(&self, holder: Holder) -> Result<Applied, RefreshError> {
        if let Some(under_way) = self.desk.flights.find(holder) {
            let _ = landed(under_way).await;
        }
        landed(self.fly(holder, Cause::News)?).await
    }

    /// Begins a question, or joins the one that is under way.
    pub(super) fn fly(&self, holder: Holder, cause: Cause) -> Result<Landing, RefreshError> {
        let mut flights = self.desk.flights.lock();
        if let Some(landing) = flights.get(&holder) {
            return Ok(landing.clone());
        }
        let pause = self.desk.breaker().pause(self.gate.clock().now().mono);
        if !pause.is_zero() {
            return Err(RefreshError::Paused(pause));
        }
        if flights.len() >= FLIGHTS {
            return Err(RefreshError::Busy);
        }
        let runtime = Handle::try_current().map_err(|_| RefreshError::GivenUp)?;
        let (sender, landing) = watch::channel(None);
        flights.insert(holder, landing.clone());
        // A runtime that ends drops the future at once, and that frees the place.
        drop(flights);
        let (licenses, flight) = (self.clone(), Flight { desk: Arc::clone(&self.desk), holder });
        runtime.spawn(async move {
            let outcome = licenses.ask(holder, cause).await;
            // Whoever hears of the outcome and asks again begins a new question.
            drop(flight);
            let _ = sender.send(Some(outcome));
        });
        Ok(landing)
    }

    async fn ask(&self, holder: Holder, cause: Cause) -> Result<Applied, RefreshError> {
        let _seat = self.desk.seats.acquire().await.map_err(|_| RefreshError::GivenUp)?;
        let known = self.gate.store().license(holder).await?.map(|row| row.known);
        let (now, wall) = (self.now(), self.gate.clock().now().wall);
        // Another process over the same store may have asked meanwhile. Nobody can tell by a clock that was set back,
        // nor by a row that a clock wrote which was ahead.
        if let Some(known) = &known
            && cause == Cause::Old
            && wall >= now
            && known.confirmed_at <= now
            && now.since(known.confirmed_at) < self.cache_ttl() / 2
        {
            self.desk.learn(holder, known.clone(), self.gate.clock().now().mono);
            return Ok(Applied::Confirmed);
        }
        let question = self.question(holder, known.and_then(|known| known.observation.license_id)).await;
        if question == Err(RefreshError::HolderGone) {
            self.desk.held.forget_holder(holder);
        }
        let question = question?;
        // A user may have been linked since.
        self.desk.learn_subject(holder, question.subject.as_deref());
        let observation = self.put(question).await?;
        Ok(self.observe(holder, observation, None).await?)
    }

    /// What the store knows about a holder.
    async fn question(&self, holder: Holder, license_id: Option<String>) -> Result<Question, RefreshError> {
        let Some(id) = holder.user() else {
            return Ok(Question { holder, license_id, subject: None, email: None });
        };
        let user = self.gate.store().user(id).await?.ok_or(RefreshError::HolderGone)?;
        let email = user.email_verified.then_some(user.email);
        Ok(Question { holder, license_id, subject: user.external_subject, email })
    }

    /// Puts the question to the provider and keeps the books.
    async fn put(&self, question: Question) -> Result<Observation, RefreshError> {
        let (desk, clock, holder) = (&self.desk, self.gate.clock(), question.holder);
        let asked = clock.now();
        {
            let mut breaker = desk.breaker();
            if !breaker.admits(asked.mono) {
                return Err(RefreshError::Paused(breaker.pause(asked.mono)));
            }
        }
        // Every question counts for its holder, whoever caused it.
        let _ = desk.asked.check(&holder);
        desk.tally().questions += 1;
        let answer = tokio::time::timeout(ASK_TIMEOUT, desk.parts.provider.ask(question, asked)).await;
        let answer = answer.unwrap_or_else(|_| Err(too_slow()));
        let now = clock.now();
        match answer {
            Ok(mut observation) => {
                // Without a time of its own it counts by the time that licenses are judged by: where our clock was
                // ahead once, what was said then keeps it not out.
                if observation.observed_at == asked.wall {
                    observation.observed_at = self.gate.license_time(asked.wall);
                }
                let was_closed = desk.breaker().succeeded();
                if !was_closed {
                    tracing::info!(provider = self.provider(), "the license provider answers again");
                }
                let mut tally = desk.tally();
                tally.answers += 1;
                tally.answered_at = Some(now.wall);
                Ok(observation)
            }
            Err(fault) => {
                let [jitter] = clock.random();
                let was_closed = {
                    let mut breaker = desk.breaker();
                    let was_closed = breaker.is_closed();
                    breaker.failed(&fault, asked.mono, now.mono, jitter);
                    was_closed
                };
                if was_closed {
                    tracing::warn!(provider = self.provider(), %holder, %fault, "the license provider gave no answer");
                } else {
                    tracing::debug!(provider = self.provider(), %holder, %fault, "the license provider gave no answer");
                }
                desk.tally().failed(now.wall, &fault);
                Err(RefreshError::Provider(fault))
            }
        }
    }
}

fn too_slow() -> ProviderFault {
    ProviderFault::new(FaultKind::Unavailable, format!("no answer within {} s", ASK_TIMEOUT.as_secs()))
}
