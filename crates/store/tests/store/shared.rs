//! The shared set against a real Redis: what it answers, and that it never makes anybody wait for long.

use std::{future::Future, time::Duration};

use doorward_store::shared::{ANSWER, QUESTIONS, SharedSet};
use doorward_testkit::redis::{self, Redis};
use futures_util::future::join_all;

const SET: &str = "titanium:blocklist";
/// Tries of which one has to succeed: a fault would spoil them all.
const TRIES: usize = 10;

fn open(redis: &Redis) -> SharedSet {
    SharedSet::open(&redis.url(), SET).unwrap()
}

/// Waits for a condition that the background task brings about.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn until_up(set: &SharedSet) {
    until("the set can be asked", async || set.status().problem.is_none()).await;
}

async fn until_down(set: &SharedSet) {
    until("the set is known to be down", async || set.status().problem.is_some()).await;
}

/// How long a question took, in wall time, and its answer.
#[allow(clippy::disallowed_methods, reason = "measures a bound on real time")]
async fn timed(set: &SharedSet, member: &str) -> (Duration, Option<bool>) {
    let start = std::time::Instant::now();
    let answer = set.contains(member).await.ok();
    (start.elapsed(), answer)
}

/// Longer than any wait for an answer, and far shorter than a server that hangs or is not there would make anybody wait.
const BOUNDED: Duration = Duration::from_secs(25);

/// Whether it is a member, once the set can tell: a server that got no processor for [`ANSWER`] counts as one that is
/// down, and is asked again a little later.
async fn told(set: &SharedSet, member: &str) -> bool {
    for _ in 0..600 {
        match set.contains(member).await {
            Ok(is_member) => return is_member,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("the set cannot be asked: {:?}", set.status());
}

#[tokio::test]
async fn a_member_is_found_from_the_moment_it_is_written_until_it_is_gone() {
    let Some(redis) = redis::start(&[]).await else { return };
    let set = open(&redis);
    until_up(&set).await;
    assert!(!told(&set, "ada").await, "a set that does not exist is empty");
    redis.command(&["SADD", SET, "ada", "b\r\n*1"]);
    assert!(told(&set, "ada").await);
    assert!(told(&set, "b\r\n*1").await);
    assert!(!told(&set, "Ada").await);
    redis.command(&["SREM", SET, "ada"]);
    assert!(!told(&set, "ada").await);
    redis.command(&["FLUSHALL"]);
    assert!(!told(&set, "b\r\n*1").await);
}

#[tokio::test]
async fn the_first_questions_after_the_connection_is_there_are_all_answered() {
    let Some(redis) = redis::start(&[]).await else { return };
    redis.command(&["SADD", SET, "ada"]);
    // On a machine that is busy with something else an answer may come too late; a fault would spoil every try.
    let mut unanswered = Vec::new();
    for _ in 0..TRIES {
        let set = open(&redis);
        until_up(&set).await;
        let answers = join_all((0..200).map(|_| set.contains("ada"))).await;
        assert!(!answers.contains(&Ok(false)), "{answers:?}");
        if answers.iter().all(Result::is_ok) {
            assert_eq!(set.status().members, 200);
            return;
        }
        unanswered.push(answers.into_iter().find_map(Result::err));
    }
    panic!("in every try: {unanswered:?}");
}

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_used_once_it_is_there() {
    let Some(mut redis) = redis::prepare(&[]) else { return };
    let set = open(&redis);
    let (took, answer) = timed(&set, "ada").await;
    assert_eq!(answer, None);
    assert!(took < BOUNDED, "{took:?}");
    redis.revive().await;
    redis.command(&["SADD", SET, "ada"]);
    until_up(&set).await;
    assert!(told(&set, "ada").await);
}

#[tokio::test]
async fn a_server_that_dies_is_known_to_be_down_and_used_again_when_it_returns() {
    let Some(mut redis) = redis::start(&[]).await else { return };
    let set = open(&redis);
    until_up(&set).await;
    redis.crash().await;
    assert!(set.contains("ada").await.is_err());
    until_down(&set).await;
    assert!(set.contains("ada").await.unwrap_err().note.contains(&redis.port().to_string()));
    redis.revive().await;
    until_up(&set).await;
    assert!(!told(&set, "ada").await);
}

#[tokio::test]
async fn a_slow_server_costs_the_first_questions_the_bound_and_the_next_ones_nothing() {
    let Some(mut redis) = redis::start(&[]).await else { return };
    redis.command(&["SADD", SET, "ada"]);
    let set = open(&redis);
    until_up(&set).await;
    // As slow as can be: whoever comes back at all was bounded.
    redis.hang();
    let first = join_all((0..50).map(|_| timed(&set, "ada"))).await;
    for (took, answer) in first {
        assert_eq!(answer, None);
        assert!(took < BOUNDED, "a question waited {took:?}");
    }
    // It goes on hanging; nobody waits any more.
    assert!(set.status().problem.is_some());
    let mut waited = 0;
    for _ in 0..100 {
        let (took, answer) = timed(&set, "ada").await;
        assert_eq!(answer, None);
        waited += usize::from(took >= ANSWER);
    }
    assert!(waited < 50, "{waited} of a hundred waited for a server that is known to be slow");
    redis.resume();
    until_up(&set).await;
    assert!(told(&set, "ada").await);
}

#[tokio::test]
async fn a_server_that_hangs_is_noticed_before_anybody_asks() {
    let Some(mut redis) = redis::start(&[]).await else { return };
    let set = open(&redis);
    until_up(&set).await;
    redis.hang();
    until_down(&set).await;
    assert_eq!(set.status().asked, 0);
    let (took, answer) = timed(&set, "ada").await;
    assert_eq!(answer, None);
    assert!(took < BOUNDED, "{took:?}");
    redis.resume();
    until_up(&set).await;
    assert!(!told(&set, "ada").await);
}

#[tokio::test]
async fn questions_beyond_the_bound_are_refused_at_once() {
    let Some(mut redis) = redis::start(&[]).await else { return };
    let set = open(&redis);
    until_up(&set).await;
    redis.hang();
    let answers = join_all((0..QUESTIONS + 76).map(|_| set.contains("ada"))).await;
    let refused =
        answers.iter().filter(|answer| answer.as_ref().is_err_and(|error| error.note.contains("on their way already")));
    assert_eq!(refused.count(), 76);
    redis.resume();
    until_up(&set).await;
    assert!(!told(&set, "ada").await, "permits are free again");
}

#[tokio::test]
async fn a_password_is_asked_for_and_given() {
    let Some(redis) = redis::start(&["--requirepass", "h/unter2"]).await else { return };
    let url = |password: &str| format!("redis://:{password}@127.0.0.1:{}/1", redis.port());
    let once = async || SharedSet::contains_once(&url("h%2Funter2"), SET, "ada").await;
    until("it is asked once", async || once().await.is_ok_and(|is_member| !is_member)).await;
    for bad in [url("wrong-hunter"), redis.url()] {
        let error = SharedSet::contains_once(&bad, SET, "ada").await.unwrap_err();
        assert!(!error.note.contains("hunter"), "{error}");
    }
    let set = SharedSet::open(&url("h%2Funter2"), SET).unwrap();
    until_up(&set).await;
    assert!(!told(&set, "ada").await);
    assert!(!format!("{set:?}").contains("unter2"));
}

#[tokio::test]
async fn a_key_that_is_no_set_is_said_to_be_none() {
    let Some(redis) = redis::start(&[]).await else { return };
    let set = open(&redis);
    until_up(&set).await;
    redis.command(&["SET", SET, "a string"]);
    until("it is said to be no set", async || {
        let error = set.contains("ada").await.unwrap_err();
        error.note.contains("WRONGTYPE") || error.note.contains("wrong kind")
    })
    .await;
    redis.command(&["DEL", SET]);
    until("the answer comes again", async || set.contains("ada").await == Ok(false)).await;
}

#[tokio::test]
async fn the_connection_ends_with_the_last_handle() {
    let Some(redis) = redis::start(&[]).await else { return };
    // The length of the list; a client more is a line of more than 100 characters.
    let clients = || redis.command(&["CLIENT", "LIST", "TYPE", "NORMAL"]).parse::<usize>().unwrap();
    let lonely = clients();
    let set = open(&redis);
    until_up(&set).await;
    drop(set.clone());
    assert!(!told(&set, "ada").await);
    assert!(clients() > lonely + 100);
    drop(set);
    until("the server has lost the client", async || clients() < lonely + 50).await;
}
