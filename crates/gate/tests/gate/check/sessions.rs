use std::time::Duration;

use doorward_core::{
    csrf,
    effects::Effects,
    id::SessionId,
    link::Asker,
    reason::Reason,
    revocation::Scope,
    rule::{CsrfMode, OnStale, Rule},
    session::{OpaqueToken, Session, TokenHash},
};
use doorward_gate::{flow::sessions::revoke_others, gate::Checked};
use doorward_store::{Begin, BeginSession, LISTED_SESSIONS, Which};

use super::house::{Asked, House, IDLE, SESSION, START, csrf_keys, rule};

async fn house() -> House {
    House::of(vec![rule("/*", SESSION)]).await
}

#[tokio::test]
async fn a_session_is_read_once_and_then_admitted_from_memory() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let (token, _) = house.signed_in(&ada).await;
    let request = Asked::get("/x").session(&token);
    let first = house.check(&request);
    assert!(matches!(first, Checked::Pending(_)));
    let decision = first.decision().await;
    assert_eq!(decision.caller.unwrap().email.as_ref(), Some(&ada.email));
    house.store.close().await;
    let Checked::Ready(again) = house.check(&request) else { panic!("asked the store again") };
    assert!(again.outcome.is_ok());
}

#[tokio::test]
async fn what_was_never_minted_is_refused_without_a_question_to_the_store() {
    let house = house().await;
    house.store.close().await;
    let garbage = Asked::get("/x").with("cookie", "__Host-doorward_sid=garbage");
    let Checked::Ready(decision) = house.check(&garbage) else { panic!("asked the store") };
    assert_eq!(decision.outcome.unwrap_err().reason, Reason::SessionUnknown);
    assert_eq!(house.ask(&Asked::get("/x").session(&OpaqueToken::mint([9; 32]))).await, Err(Reason::StoreUnavailable));
}

#[tokio::test]
async fn an_idle_limit_counts_from_a_use_in_another_process() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let (token, session) = house.signed_in(&ada).await;
    let request = Asked::get("/x").session(&token);
    assert_eq!(house.ask(&request).await, Ok(()));
    house.advance(IDLE - Duration::from_secs(60)).await;
    let used = house.clock.now().wall;
    house.store.touch_sessions(vec![(session.hash, used)]).await.unwrap();
    house.advance(Duration::from_secs(60)).await;
    // By the copy in memory it is over; the store knows better.
    assert!(matches!(house.check(&request), Checked::Pending(_)));
    assert_eq!(house.ask(&request).await, Ok(()));
    house.advance(IDLE).await;
    assert_eq!(house.ask(&request).await, Err(Reason::SessionIdle));
}

#[tokio::test]
async fn a_refusal_by_memory_alone_is_never_given() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let (token, _) = house.signed_in(&ada).await;
    let request = Asked::get("/x").session(&token);
    assert_eq!(house.ask(&request).await, Ok(()));
    house.advance(IDLE).await;
    house.store.close().await;
    assert_eq!(house.ask(&request).await, Err(Reason::StoreUnavailable), "cannot tell is not idle");
}

#[tokio::test]
async fn a_session_in_use_is_written_as_used_once_a_minute_and_lives_on() {
    let mut house = house().await;
    let ada = house.user("ada@example.com").await;
    let (token, session) = house.signed_in(&ada).await;
    let request = Asked::get("/x").session(&token);
    for _ in 0..3 {
        house.advance(IDLE / 2).await;
        assert_eq!(house.ask(&request).await, Ok(()));
    }
    let used = house.clock.now().wall;
    let task = house.task.take().unwrap();
    house.gate.run(task, std::future::ready(())).await;
    let (stored, _) = house.store.session(session.hash).await.unwrap().unwrap();
    assert_eq!(stored.last_used_at, used);
}

#[tokio::test]
async fn more_touches_than_one_batch_are_all_written() {
    let mut house = house().await;
    let ada = house.user("ada@example.com").await;
    // Two sessions, touched a minute apart: each touch is one entry of the queue, and a batch has 2048.
    let (one, two) = (house.signed_in(&ada).await, house.signed_in(&ada).await);
    for _ in 0..1_200 {
        house.advance(Duration::from_secs(60)).await;
        for (token, _) in [&one, &two] {
            assert_eq!(house.ask(&Asked::get("/x").session(token)).await, Ok(()));
        }
    }
    let used = house.clock.now().wall;
    let task = house.task.take().unwrap();
    house.gate.run(task, std::future::ready(())).await;
    for (_, session) in [one, two] {
        assert_eq!(house.store.session(session.hash).await.unwrap().unwrap().0.last_used_at, used);
    }
    assert!(house.seen.lock().unwrap().faults.is_empty());
}

#[tokio::test]
async fn a_ban_in_another_process_counts_as_soon_as_the_log_is_read() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let (token, _) = house.signed_in(&ada).await;
    let request = Asked::get("/x").session(&token);
    assert_eq!(house.ask(&request).await, Ok(()));
    house.ban(&ada).await;
    house.gate.follow().await;
    assert_eq!(house.ask(&request).await, Err(Reason::UserBanned));
    let effects = Effects::default().with_revocation(house.revocation(Scope::User { id: ada.id }));
    house.store.set_banned(ada.id, None, effects).await.unwrap();
    assert_eq!(house.ask(&request).await, Ok(()), "a refusal is never from memory");
}

#[tokio::test]
async fn sessions_ended_elsewhere_are_over_here() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let (token, session) = house.signed_in(&ada).await;
    let (other, _) = house.signed_in(&ada).await;
    let (one, two) = (Asked::get("/x").session(&token), Asked::get("/x").session(&other));
    assert_eq!((house.ask(&one).await, house.ask(&two).await), (Ok(()), Ok(())));
    let effects = Effects::default().with_revocation(house.revocation(Scope::Session { id: session.id }));
    house.store.end_session(session.hash, effects).await.unwrap();
    house.gate.follow().await;
    assert_eq!((house.ask(&one).await, house.ask(&two).await), (Err(Reason::SessionUnknown), Ok(())));
    let effects = Effects::default().with_revocation(house.revocation(Scope::UserSessions { id: ada.id }));
    house.store.end_sessions(Which::User(ada.id), effects).await.unwrap();
    house.gate.follow().await;
    assert_eq!(house.ask(&two).await, Err(Reason::SessionUnknown));
    house.advance(Duration::from_secs(1)).await;
    let (later, _) = house.signed_in(&ada).await;
    assert_eq!(house.ask(&Asked::get("/x").session(&later)).await, Ok(()));
}

#[tokio::test]
async fn a_store_that_is_down_shuts_nobody_out_where_the_rule_admits_old_state() {
    let lax = Rule { on_stale: OnStale::Allow, ..rule("/lax/*", SESSION) };
    let house = House::of(vec![lax, rule("/*", SESSION)]).await;
    let ada = house.user("ada@example.com").await;
    let (token, _) = house.signed_in(&ada).await;
    assert_eq!(house.ask(&Asked::get("/x").session(&token)).await, Ok(()));
    house.store.close().await;
    house.clock.advance(Duration::from_secs(3));
    assert_eq!(house.ask(&Asked::get("/x").session(&token)).await, Err(Reason::StoreUnavailable));
    let decision = house.decide(&Asked::get("/lax/x").session(&token)).await;
    assert!(decision.outcome.unwrap().is_stale);
    let unknown = Asked::get("/lax/x").session(&OpaqueToken::mint([9; 32]));
    assert_eq!(house.ask(&unknown).await, Err(Reason::StoreUnavailable));
    house.clock.advance(IDLE);
    assert_eq!(house.ask(&Asked::get("/lax/x").session(&token)).await, Err(Reason::StoreUnavailable));
}

#[tokio::test]
async fn each_csrf_mode_asks_for_its_proof() {
    let with = |path, csrf| Rule { csrf, ..rule(path, SESSION) };
    let rules = vec![with("/token", CsrfMode::Token), with("/origin", CsrfMode::Origin), with("/off", CsrfMode::Off)];
    let house = House::of(rules).await;
    let ada = house.user("ada@example.com").await;
    let (token, session) = house.signed_in(&ada).await;
    let post = |path| Asked::post(path).session(&token);
    let foreign = |path| post(path).with("origin", "https://evil.example");
    assert_eq!(house.ask(&foreign("/off")).await, Ok(()));
    assert_eq!(house.ask(&foreign("/origin")).await, Err(Reason::CrossSite));
    assert_eq!(house.ask(&post("/origin").with("origin", "https://app.example")).await, Ok(()));
    assert_eq!(house.ask(&post("/token").with("origin", "https://app.example")).await, Err(Reason::CsrfMissing));
    let value = csrf::mint(&csrf_keys(), &session.hash);
    assert_eq!(house.ask(&post("/token").with("x-csrf-token", &value)).await, Ok(()));
    assert_eq!(house.ask(&foreign("/token").with("x-csrf-token", &value)).await, Err(Reason::CrossSite));
    let (other, _) = house.signed_in(&ada).await;
    let stolen = Asked::post("/token").session(&other).with("x-csrf-token", &value);
    assert_eq!(house.ask(&stolen).await, Err(Reason::CsrfMismatch));
    assert_eq!(house.ask(&Asked::get("/token").session(&token)).await, Ok(()), "reading needs none");
}

#[tokio::test]
async fn a_record_is_found_also_where_memory_has_forgotten_it() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let (_, session) = house.signed_in(&ada).await;
    assert_eq!(house.gate.session_record(session.hash).await.unwrap().unwrap().session.id, session.id);
    house.gate.forget_session(&session.hash);
    assert!(house.gate.session_record(session.hash).await.unwrap().is_some());
    house.store.end_session(session.hash, Effects::default()).await.unwrap();
    house.gate.forget_session(&session.hash);
    assert!(house.gate.session_record(session.hash).await.unwrap().is_none());
}

/// A session cookie that nobody was ever given.
fn made_up(n: u16) -> OpaqueToken {
    let [high, low] = n.to_be_bytes();
    OpaqueToken::mint(std::array::from_fn(|at| [high, low][at % 2]))
}

#[tokio::test]
async fn cookies_made_up_by_one_client_cost_the_store_a_bounded_number_of_questions() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let (token, _) = house.signed_in(&ada).await;
    let ask = |n: u16, client: &str| Asked::get("/x").session(&made_up(n)).from(client);
    assert_eq!(house.ask(&Asked::get("/x").session(&token).from("2001:db8:1:2::1")).await, Ok(()));
    let mut seen = std::collections::BTreeMap::new();
    for n in 0..500 {
        // A host that has a whole /64 is one client.
        let verdict = house.ask(&ask(n, &format!("2001:db8:1:2::{n:x}"))).await.unwrap_err();
        *seen.entry(verdict.code()).or_insert(0) += 1;
    }
    assert_eq!(seen, [("rate_limited", 380), ("session_unknown", 120)].into());

    let over = house.decide(&ask(500, "2001:db8:1:2::9")).await.outcome.unwrap_err();
    let budget = over.detail().unwrap().budget.unwrap();
    assert_eq!((budget.policy, budget.remaining, over.retry_after()), ("unknown-credential", 0, Some(1)));
    assert_eq!(house.ask(&ask(500, "192.0.2.1")).await, Err(Reason::SessionUnknown), "others are not held back");
    let known = Asked::get("/x").session(&token).from("2001:db8:1:2::1");
    assert_eq!(house.ask(&known).await, Ok(()), "nor is whoever is known, behind the same address");
    house.advance(Duration::from_secs(3)).await;
    house.store.close().await;
    let client = ask(501, "2001:db8:1:2::1");
    for _ in 0..6 {
        assert_eq!(house.ask(&client).await, Err(Reason::StoreUnavailable), "a fault costs nobody a look-up");
    }
}

#[tokio::test]
async fn a_dead_session_is_confirmed_a_bounded_number_of_times() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let (token, _) = house.signed_in(&ada).await;
    let request = Asked::get("/x").session(&token);
    assert_eq!(house.ask(&request).await, Ok(()));
    house.advance(IDLE).await;
    for n in 0..120 {
        assert_eq!(house.ask(&request).await, Err(Reason::SessionIdle), "{n}");
    }
    assert_eq!(house.ask(&request).await, Err(Reason::RateLimited));
    house.advance(Duration::from_secs(1)).await;
    assert_eq!(house.ask(&request).await, Err(Reason::SessionIdle), "and again as time passes");
}

#[tokio::test]
async fn a_session_that_was_over_stays_over_when_the_clock_goes_back() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let ((token, session), (unused, _)) = (house.signed_in(&ada).await, house.signed_in(&ada).await);
    let request = Asked::get("/x").session(&token);
    assert_eq!(house.ask(&request).await, Ok(()));
    house.advance(IDLE).await;
    assert_eq!(house.ask(&request).await, Err(Reason::SessionIdle));
    house.clock.set_wall(START.plus(Duration::from_secs(10)));
    for _ in 0..3 {
        assert_eq!(house.ask(&request).await, Err(Reason::SessionIdle));
        // Also where somebody had its record looked up meanwhile.
        assert!(house.gate.session_record(session.hash).await.unwrap().is_some());
    }
    assert_eq!(house.ask(&Asked::get("/x").session(&unused)).await, Ok(()), "nobody was told that this one is over");
    // Another process knew it in use all the time.
    let used = START.plus(Duration::from_secs(5));
    house.store.touch_sessions(vec![(session.hash, used)]).await.unwrap();
    house.gate.forget_session(&session.hash);
    assert_eq!(house.ask(&request).await, Ok(()));
    // Past its absolute end no use counts.
    house.clock.set_wall(session.expires_at);
    assert_eq!(house.ask(&request).await, Err(Reason::SessionExpiredAbsolute));
    house.clock.set_wall(START.plus(Duration::from_secs(20)));
    house.store.touch_sessions(vec![(session.hash, START.plus(Duration::from_secs(15)))]).await.unwrap();
    assert_eq!(house.ask(&request).await, Err(Reason::SessionExpiredAbsolute));
}

#[tokio::test]
async fn the_other_sessions_of_a_person_end_also_behind_a_thousand_that_began_later() {
    let house = house().await;
    let ada = house.user("ada@example.com").await;
    let ((_, own), (_, other)) = (house.signed_in(&ada).await, house.signed_in(&ada).await);
    // By the clock of another process, which is ahead.
    let later = house.clock.now().wall.plus(IDLE);
    for number in 0..LISTED_SESSIONS as u64 + 10 {
        let mut bytes = [0xff; 10];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        let session = Session {
            id: SessionId::mint(later, bytes),
            hash: TokenHash::of(&bytes),
            created_at: later,
            authenticated_at: later,
            ..own.clone()
        };
        let plan = BeginSession { session, user_version: ada.version, replaces: None, rests_on: None };
        assert_eq!(house.store.begin_session(plan, Effects::default()).await, Ok(Begin::Began));
    }
    let ended = revoke_others(&house.gate, ada.id, own.id, &Asker::new(None, None), house.clock.now()).await;
    assert_eq!(ended.unwrap(), 1);
    assert_eq!(house.store.session_of(ada.id, other.id).await, Ok(None));
    assert!(house.store.session_of(ada.id, own.id).await.unwrap().is_some(), "the one that asked goes on");
    assert_eq!(house.store.sessions_of(ada.id).await.unwrap().len(), LISTED_SESSIONS, "those were not meant");
}
