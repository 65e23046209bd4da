use std::time::Duration;

use doorward_core::{effects::Effects, id::JobRunId, time::Timestamp, user::User};

use super::{START, all_effects, fresh, race, session, stored_user, traces};
use crate::{
    Begin, BeginJob, BeginSession, CountKind, FinishJob, JobOutcome, JobRun, MethodCount, NewJobRun, SetState, State,
    Store,
};

pub async fn a_shared_value_is_set_by_who_has_seen_it(a: Store, b: Store) {
    let set = async |store: &Store, version, value: &str| {
        store.set_state("cutover".to_owned(), version, value.to_owned(), START, all_effects()).await.unwrap()
    };
    let state = async |store: &Store| store.state("cutover".to_owned()).await.unwrap();
    assert_eq!(state(&a).await, None);
    assert_eq!(set(&a, 1, "x").await, SetState::Changed, "there is none yet");
    assert_eq!((state(&b).await, traces(&a).await), (None, (0, 0, 0)));
    assert_eq!(set(&a, 0, "one").await, SetState::Set);
    assert_eq!(state(&b).await, Some(State { value: "one".to_owned(), version: 1, at: START }));
    assert_eq!(set(&b, 0, "x").await, SetState::Changed);
    assert_eq!(set(&b, 1, "two").await, SetState::Set);
    assert_eq!(set(&a, 1, "x").await, SetState::Changed);
    assert_eq!((state(&a).await.unwrap().value.as_str(), traces(&a).await.0), ("two", 2));
    for version in [0, 2] {
        let name = if version == 0 { "new" } else { "cutover" };
        let outcomes = race(20, &a, &b, |store, number| async move {
            store.set_state(name.to_owned(), version, number.to_string(), START, Effects::default()).await.unwrap()
        })
        .await;
        assert_eq!(outcomes.iter().filter(|out| **out == SetState::Set).count(), 1);
        assert_eq!(a.state(name.to_owned()).await.unwrap().unwrap().version, version + 1);
    }
}

pub async fn no_session_that_rests_on_a_shared_value_begins_once_that_was_set_anew(a: Store, b: Store) {
    const NAME: &str = "window";
    async fn begin(store: &Store, user: &User, version: i64) -> Begin {
        let rests_on = Some((NAME.to_owned(), version));
        let plan = BeginSession { session: session(user), user_version: user.version, replaces: None, rests_on };
        store.begin_session(plan, Effects::default()).await.unwrap()
    }
    let user = stored_user(&a).await;
    assert_eq!(begin(&a, &user, 1).await, Begin::StateChanged, "there is none yet");
    assert_eq!(a.sessions_of(user.id).await, Ok(vec![]));
    for version in 0..8 {
        assert_eq!(begin(&b, &user, version).await, Begin::Began);
        let counts = race(16, &a, &b, |store, number| {
            let user = user.clone();
            async move {
                if number > 0 {
                    let begun = begin(&store, &user, version).await;
                    assert!(matches!(begun, Begin::Began | Begin::StateChanged), "{begun:?}");
                    return None;
                }
                let set = store.set_state(NAME.to_owned(), version, String::new(), START, Effects::default()).await;
                assert_eq!(set, Ok(SetState::Set));
                Some(store.sessions_of(user.id).await.unwrap().len())
            }
        })
        .await;
        let when_set = counts.into_iter().flatten().next();
        assert_eq!(Some(a.sessions_of(user.id).await.unwrap().len()), when_set, "none began after the value was set");
        assert_eq!(begin(&b, &user, version).await, Begin::StateChanged);
    }
}

fn count(day: i64, kind: CountKind, method: &str, count: u64) -> MethodCount {
    MethodCount { day, kind, method: method.to_owned(), count }
}

pub async fn method_counts_of_many_processes_add_up(a: Store, b: Store) {
    race(20, &a, &b, |store, number| async move {
        let mut counts = vec![
            count(20_000, CountKind::SignIn, "password", 1),
            count(20_000, CountKind::Request, "legacy", 2),
            count(20_001, CountKind::SignIn, "magic_link", 3),
        ];
        counts.rotate_left(number % 3);
        store.add_counts(counts).await.unwrap();
    })
    .await;
    b.add_counts(Vec::new()).await.unwrap();
    let later = count(20_001, CountKind::SignIn, "magic_link", 60);
    let all = vec![
        count(20_000, CountKind::SignIn, "password", 20),
        count(20_000, CountKind::Request, "legacy", 40),
        later.clone(),
    ];
    assert_eq!(b.counts(0).await, Ok(all));
    assert_eq!(a.counts(20_001).await, Ok(vec![later.clone()]));
    let now = Timestamp::from_secs((20_001 + 90) * 86_400);
    assert_eq!(a.purge(now, Duration::from_hours(1)).await.unwrap().counts, 2);
    assert_eq!(b.counts(0).await, Ok(vec![later]), "90 days stay");
}

fn run(job: &str, scheduled_for: Timestamp) -> NewJobRun {
    NewJobRun {
        id: JobRunId::mint(START, fresh()),
        job: job.to_owned(),
        scheduled_for,
        at: scheduled_for.plus(Duration::from_secs(1)),
        lease_until: scheduled_for.plus(Duration::from_secs(61)),
    }
}

pub async fn two_processes_begin_one_job_once(a: Store, b: Store) {
    assert_eq!(a.last_run("purge".to_owned()).await, Ok(None));
    for round in 0..5 {
        let at = START.plus(Duration::from_secs(3600 * round));
        let outcomes = race(20, &a, &b, |store, _| {
            let run = run("purge", at);
            async move { store.begin_job(run, Effects::default()).await.unwrap() }
        })
        .await;
        let began: Vec<JobRunId> = outcomes
            .iter()
            .filter_map(|out| match out {
                BeginJob::Began(id) => Some(*id),
                BeginJob::Taken => None,
            })
            .collect();
        assert_eq!(began.len(), 1);
        let last = b.last_run("purge".to_owned()).await.unwrap().unwrap();
        let expected = JobRun {
            id: began[0],
            job: "purge".to_owned(),
            scheduled_for: at,
            started_at: at.plus(Duration::from_secs(1)),
            lease_until: at.plus(Duration::from_secs(61)),
            attempts: 1,
            finished_at: None,
            outcome: None,
            error: None,
        };
        assert_eq!(last, expected);
    }
    assert!(
        matches!(a.begin_job(run("outbox", START), Effects::default()).await, Ok(BeginJob::Began(_))),
        "another job"
    );
    assert_eq!(b.job_runs(None, 100).await.unwrap().len(), 6);
    let of_purge = b.job_runs(Some("purge".to_owned()), 2).await.unwrap();
    let hours: Vec<_> = of_purge.iter().map(|run| run.scheduled_for.since(START).as_secs() / 3600).collect();
    assert_eq!(hours, [4, 3]);
}

pub async fn a_run_whose_holder_died_is_begun_again(a: Store, b: Store) {
    let first = run("purge", START);
    assert_eq!(a.begin_job(first.clone(), Effects::default()).await, Ok(BeginJob::Began(first.id)));
    let second = NewJobRun { at: first.lease_until, ..run("purge", START) };
    let early = NewJobRun { at: first.lease_until.minus(Duration::from_millis(1)), ..second.clone() };
    assert_eq!(b.begin_job(early, Effects::default()).await, Ok(BeginJob::Taken));
    assert_eq!(b.begin_job(second.clone(), Effects::default()).await, Ok(BeginJob::Began(second.id)));
    let finish = async |store: &Store, id, outcome, error: Option<&str>| {
        let error = error.map(str::to_owned);
        store.finish_job(id, START.plus(Duration::from_secs(70)), outcome, error, all_effects()).await.unwrap()
    };
    assert_eq!(finish(&a, first.id, JobOutcome::Done, None).await, FinishJob::NotYours);
    assert_eq!(traces(&a).await, (0, 0, 0));
    let noisy = format!("no\0 way {}", "\u{fc}".repeat(500));
    assert_eq!(finish(&b, second.id, JobOutcome::Failed, Some(&noisy)).await, FinishJob::Finished);
    assert_eq!(finish(&b, second.id, JobOutcome::Done, None).await, FinishJob::NotYours, "once");
    let last = a.last_run("purge".to_owned()).await.unwrap().unwrap();
    assert_eq!((last.id, last.attempts, last.outcome), (second.id, 2, Some(JobOutcome::Failed)));
    assert!(last.error.unwrap().starts_with("no way"));
    let third = NewJobRun { at: START.plus(Duration::from_hours(5)), ..run("purge", START) };
    assert_eq!(
        a.begin_job(third, Effects::default()).await,
        Ok(BeginJob::Taken),
        "a finished run is never begun again"
    );
}

pub async fn one_run_of_a_job_is_under_way_at_a_time(a: Store, b: Store) {
    const fn minute(number: u64) -> Duration {
        Duration::from_secs(60 * number)
    }
    async fn begin(store: &Store, at: u64, scheduled_for: u64) -> Option<JobRunId> {
        let [at, until, slot] = [at, at + 5, scheduled_for].map(|number| START.plus(minute(number)));
        let run = NewJobRun { at, lease_until: until, ..run("purge", slot) };
        let began = store.begin_job(run.clone(), all_effects()).await.unwrap();
        (began == BeginJob::Began(run.id)).then_some(run.id)
    }
    let first = begin(&a, 0, 0).await.unwrap();
    assert_eq!(traces(&a).await, (1, 1, 1), "effects are committed with the beginning");
    assert_eq!(begin(&b, 1, 1).await, None, "another slot, but the job is under way");
    assert_eq!(traces(&b).await, (1, 1, 1), "and with nothing else");
    assert!(matches!(
        b.begin_job(run("outbox", START.plus(minute(1))), Effects::default()).await,
        Ok(BeginJob::Began(_))
    ));
    a.finish_job(first, START.plus(minute(1)), JobOutcome::Done, None, Effects::default()).await.unwrap();
    begin(&b, 2, 2).await.unwrap();
    assert!(begin(&a, 7, 7).await.is_some(), "its lease has ended without an outcome");
    // Clocks apart by more than a slot: many processes begin many slots at once.
    let began = race(20, &a, &b, |store, number| async move { begin(&store, 20, 20 + number as u64).await }).await;
    assert_eq!(began.iter().flatten().count(), 1);
}

pub async fn a_purge_keeps_the_newest_run_of_each_job(a: Store, b: Store) {
    for (job, hour) in [("purge", 0), ("purge", 1), ("yearly", 0)] {
        let run = run(job, START.plus(Duration::from_hours(hour)));
        assert!(matches!(a.begin_job(run, Effects::default()).await, Ok(BeginJob::Began(_))));
    }
    let month = Duration::from_hours(30 * 24);
    let idle = Duration::from_hours(1);
    assert_eq!(b.purge(START.plus(month), idle).await.unwrap().job_runs, 0);
    assert_eq!(b.purge(START.plus(month * 2), idle).await.unwrap().job_runs, 1);
    assert_eq!(a.job_runs(None, 10).await.unwrap().len(), 2);
    assert!(a.last_run("yearly".to_owned()).await.unwrap().is_some());
}
