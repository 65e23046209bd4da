//! Questions to the provider: one per holder at a time, a bounded number together, apart from the requests that
//! cause them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use doorward_core::license::{Holder, Known, LicenseState, Observation, SaidBy};
use tokio::{runtime::Handle, sync::watch};

use super::{
    ASK_TIMEOUT, Applied, Desk, FLIGHTS, FaultKind, Licenses, ProviderFault, Question, RefreshError, apply::Heard,
};

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
pub(super) struct Flights(Mutex<Board>);

#[derive(Debug, Default)]
struct Board {
    under_way: HashMap<Holder, Record>,
    /// How many have begun.
    begun: u64,
}

#[derive(Debug)]
struct Record {
    landing: Landing,
    number: u64,
    /// The most pressing cause of those who wait for it.
    cause: Cause,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().under_way.len()
    }

    pub(super) fn find(&self, holder: Holder) -> Option<Landing> {
        self.lock().under_way.get(&holder).map(|record| record.landing.clone())
    }

    /// Whether somebody waits for news from the flight of this number.
    fn is_for_news(&self, holder: Holder, number: u64) -> bool {
        let under_way = &self.lock().under_way;
        under_way.get(&holder).is_some_and(|record| record.number == number && record.cause == Cause::News)
    }

    /// Ends the flight of this number unless somebody waits for news; whoever comes afterwards begins another one.
    fn end_unless_news(&self, holder: Holder, number: u64) -> bool {
        let under_way = &mut self.lock().under_way;
        let is_old = under_way.get(&holder).is_some_and(|record| record.number == number && record.cause == Cause::Old);
        if is_old {
            under_way.remove(&holder);
        }
        is_old
    }
}

/// A place among the flights; freed when the question ends, however it does.
struct Flight {
    desk: Arc<Desk>,
    holder: Holder,
    number: u64,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let under_way = &mut self.desk.flights.lock().under_way;
        if under_way.get(&self.holder).is_some_and(|record| record.number == self.number) {
            under_way.remove(&self.holder);
        }
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

    /// Begins a question, or joins the one that is under way. With [`Cause::News`] the provider is asked in any case.
    pub(super) fn fly(&self, holder: Holder, cause: Cause) -> Result<Landing, RefreshError> {
        let mut flights = self.desk.flights.lock();
        if let Some(record) = flights.under_way.get_mut(&holder) {
            if cause == Cause::News {
                record.cause = cause;
            }
            return Ok(record.landing.clone());
        }
        let pause = self.desk.breaker().pause(self.gate.clock().now().mono);
        if !pause.is_zero() {
            return Err(RefreshError::Paused(pause));
        }
        if flights.under_way.len() >= FLIGHTS {
            return Err(RefreshError::Busy);
        }
        let runtime = Handle::try_current().map_err(|_| RefreshError::GivenUp)?;
        let (sender, landing) = watch::channel(None);
        flights.begun += 1;
        let number = flights.begun;
        flights.under_way.insert(holder, Record { landing: landing.clone(), number, cause });
        // A runtime that ends drops the future at once, and that frees the place.
        drop(flights);
        let (licenses, flight) = (self.clone(), Flight { desk: Arc::clone(&self.desk), holder, number });
        runtime.spawn(async move {
            let outcome = licenses.ask(&flight).await;
            // Whoever hears of the outcome and asks again begins a new question.
            drop(flight);
            let _ = sender.send(Some(outcome));
        });
        Ok(landing)
    }

    async fn ask(&self, flight: &Flight) -> Result<Applied, RefreshError> {
        let holder = flight.holder;
        let _seat = self.desk.seats.acquire().await.map_err(|_| RefreshError::GivenUp)?;
        self.load_time().await?;
        let seq = self.gate.revocation_seq();
        let known = self.gate.store().license(holder).await?.map(|row| row.known);
        let time = self.time();
        // Another process over the same store may have asked meanwhile. Nobody can tell by a clock that was set back,
        // nor by a row that a clock wrote which was ahead; and it may not know the news.
        if let Some(known) = &known
            && !time.is_behind()
            && known.confirmed_at <= time.latest()
            && time.latest().since(known.confirmed_at) < self.cache_ttl() / 2
            && self.desk.flights.end_unless_news(holder, flight.number)
        {
            self.learn(holder, known.clone(), None, seq);
            return Ok(Applied::Confirmed);
        }
        let license_id = known.as_ref().and_then(|known| known.observation.license_id.clone());
        let question = self.question(holder, license_id).await;
        if question == Err(RefreshError::HolderGone) {
            self.desk.held.forget_holder(holder);
        }
        let question = question?;
        // A user may have been linked since.
        self.learn_subject(holder, question.subject.as_deref(), seq);
        let heard = self.put(question.clone(), known).await?;
        let is_own = heard.by == SaidBy::OwnClock;
        let applied = self.take(holder, heard).await?;
        if !(is_own && applied == Applied::Older && self.desk.flights.is_for_news(holder, flight.number)) {
            return Ok(applied);
        }
        // Somebody else was heard meanwhile, who may have asked before there was news.
        let known = self.gate.store().license(holder).await?.map(|row| row.known);
        let heard = self.put(question, known).await?;
        Ok(self.take(holder, heard).await?)
    }

    /// What the store knows about a holder.
    async fn question(&self, holder: Holder, license_id: Option<String>) -> Result<Question, RefreshError> {
        let judged_at = self.now();
        let Some(id) = holder.user() else {
            return Ok(Question { holder, license_id, subject: None, email: None, judged_at });
        };
        let user = self.gate.store().user(id).await?.ok_or(RefreshError::HolderGone)?;
        let email = user.email_verified.then_some(user.email);
        Ok(Question { holder, license_id, subject: user.external_subject, email, judged_at })
    }

    /// Puts the question to the provider and keeps the books. `known` is what was known before.
    async fn put(&self, question: Question, known: Option<Known>) -> Result<Heard, RefreshError> {
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
        // Without a time of its own it bears the one at which it was asked for.
        let is_own = |observation: &Observation| observation.observed_at == asked.wall;
        let answer = answer.and_then(|observation| {
            // One wrong moment of one clock would else be written down for everybody.
            let time = self.gate.license_time(asked);
            let is_over = observation.state == LicenseState::Expired && is_own(&observation);
            let is_by_leap = is_over && observation.expires_at.is_none_or(|end| end > time.steady);
            match time.leap() {
                Some(leap) if is_by_leap && self.gate.clock_leaps() => Err(leapt(leap)),
                _ => Ok(observation),
            }
        });
        match answer {
            Ok(observation) => {
                let is_own = is_own(&observation);
                let by = if is_own { SaidBy::OwnClock } else { SaidBy::Provider };
                let was_closed = desk.breaker().succeeded();
                if !was_closed {
                    tracing::info!(provider = self.provider(), "the license provider answers again");
                }
                let mut tally = desk.tally();
                tally.answers += 1;
                tally.answered_at = Some(now.wall);
                let time = self.gate.license_time(asked);
                Ok(Heard { observation, by, now: asked, time, event: None, before: Some(known) })
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

fn leapt(leap: Duration) -> ProviderFault {
    let seconds = leap.as_secs();
    let note = format!("the license is over by this clock alone, which has leapt ahead by {seconds} s");
    ProviderFault::new(FaultKind::Untrusted, note)
}

fn too_slow() -> ProviderFault {
    ProviderFault::new(FaultKind::Unavailable, format!("no answer within {} s", ASK_TIMEOUT.as_secs()))
}
