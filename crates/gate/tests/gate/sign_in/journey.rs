//! A link's life: looked at, used, refused.

use std::time::Duration;

use doorward_core::{
    effects::Effects,
    link::{self, Link},
    reason::Reason,
    revocation::Scope,
    ring::Purpose,
    session::SignInMethod,
    user::Email,
};
use doorward_gate::flow::sign_in::Peek;
use doorward_store::Store;

use super::house::{Browser, House, LINK_TTL, START};

const ANNA: &str = "anna@example.com";

crate::on_every_store! {
    async fn a_person_signs_in_by_mail_and_out_again(store: Store) {
        let house = House::over(store).await;
        let user = house.user(ANNA).await;
        let mut browser = Browser::at("192.0.2.1");
        let token = house.link("Anna@Example.com", &mut browser).await;
        assert_eq!(browser.peek(&house, &token).await, Ok(Peek::Here { email: user.email.clone(), user: user.id }));
        house.clock.advance(Duration::from_secs(60));

        let signed_in = browser.confirm(&house, &token).await.unwrap();
        assert_eq!(signed_in.return_to, "/reports?x=1");
        let hash = signed_in.session.hash;
        let (session, found) = house.store.session(hash).await.unwrap().unwrap();
        assert_eq!(session, signed_in.session);
        assert_eq!(session.method, SignInMethod::MagicLink);
        assert_eq!(session.created_at, START.plus(Duration::from_secs(60)));
        assert_eq!(session.ip, Some(browser.ip));
        assert!(found.email_verified, "the mail has proven the address");
        assert_eq!(house.audited("session.created").await[0].user_id, Some(user.id));

        let now = house.clock.now();
        let ended = house.sign_in.sign_out(hash, browser.asker(), now).await.unwrap();
        assert_eq!(ended.map(|session| session.id), Some(session.id));
        assert!(house.store.session(hash).await.unwrap().is_none());
        let log = house.store.revocations_after(0, 100).await.unwrap();
        assert_eq!(log.last().unwrap().entry.scope, Scope::Session { id: session.id });
        assert_eq!(house.audited("session.ended").await.len(), 1);
        assert!(house.sign_in.sign_out(hash, browser.asker(), now).await.unwrap().is_none(), "twice is no error");
    }

    async fn looking_at_a_link_consumes_nothing_whoever_looks(store: Store) {
        let house = House::over(store).await;
        house.user(ANNA).await;
        let mut browser = Browser::at("192.0.2.1");
        let token = house.link(ANNA, &mut browser).await;
        let before = house.audit().await.len();
        for n in 0..20 {
            let scanner = Browser::at(&format!("198.51.100.{}", n % 5));
            assert_eq!(scanner.peek(&house, &token).await, Ok(Peek::Elsewhere));
            assert!(matches!(browser.peek(&house, &token).await, Ok(Peek::Here { .. })));
        }
        assert_eq!(house.audit().await.len(), before, "nothing is written either");
        assert!(browser.confirm(&house, &token).await.is_ok());
    }

    async fn another_browser_never_gets_a_session_and_burns_nothing(store: Store) {
        let house = House::over(store).await;
        let user = house.user(ANNA).await;
        let mut browser = Browser::at("192.0.2.1");
        let token = house.link(ANNA, &mut browser).await;
        let mut stranger = Browser::at("198.51.100.1");
        assert_eq!(stranger.refused(&house, &token).await, Reason::LinkWrongBrowser);
        stranger.ask(&house, "nobody@example.com", "/").await;
        for _ in 0..9 {
            assert_eq!(stranger.refused(&house, &token).await, Reason::LinkWrongBrowser);
        }
        assert_eq!(stranger.refused(&house, &token).await, Reason::RateLimited, "ten a minute for one client");
        assert!(house.store.sessions_of(user.id).await.unwrap().is_empty());
        let refusals = house.audited("link.refused").await;
        assert_eq!(refusals.len(), 3, "written down, but not without end");
        assert_eq!(refusals[0].reason.as_deref(), Some("link_wrong_browser"));
        assert!(browser.confirm(&house, &token).await.is_ok());
    }

    async fn a_link_works_once_and_only_until_it_ends(store: Store) {
        let house = House::over(store).await;
        house.user(ANNA).await;
        let mut browser = Browser::at("192.0.2.1");
        let older = house.link(ANNA, &mut browser).await;
        let mut elsewhere = Browser::at("192.0.2.9");
        let late = house.link(ANNA, &mut elsewhere).await;
        let used = house.link(ANNA, &mut browser).await;
        let void = browser.confirm(&house, &older).await.unwrap_err();
        assert_eq!(void.reason, Reason::LinkInvalid);
        assert!(void.to_string().contains("a newer link was sent"), "{void}");
        assert!(void.detail().unwrap().explanation.unwrap().contains("newer link"));
        assert_eq!(Browser::at("192.0.2.8").refused(&house, &older).await, Reason::LinkWrongBrowser);
        assert!(browser.confirm(&house, &used).await.is_ok());
        assert_eq!(browser.refused(&house, &used).await, Reason::LinkReused);
        assert_eq!(Browser::at("198.51.100.1").refused(&house, &used).await, Reason::LinkReused);
        assert_eq!(browser.peek(&house, &used).await.unwrap_err().reason, Reason::LinkReused);

        house.clock.advance(LINK_TTL - Duration::from_millis(1));
        assert!(elsewhere.peek(&house, &late).await.is_ok(), "another browser's newer link voids nothing");
        house.clock.advance(Duration::from_millis(1));
        assert_eq!(elsewhere.refused(&house, &late).await, Reason::LinkExpired);
        assert_eq!(elsewhere.peek(&house, &late).await.unwrap_err().reason, Reason::LinkExpired);
    }

    async fn fifty_callbacks_at_once_make_exactly_one_session(store: Store) {
        let house = House::over(store.clone()).await;
        let replica = house.replica(store).await;
        let user = house.user(ANNA).await;
        let mut browser = Browser::at("192.0.2.1");
        let token = house.link(ANNA, &mut browser).await;
        let callbacks = (0..50).map(|n| {
            let (mut browser, token) = (browser.clone(), token.clone());
            let house = if n % 2 == 0 { &house } else { &replica };
            async move { browser.confirm(house, &token).await.map(|signed_in| signed_in.session.id) }
        });
        let outcomes = futures_util::future::join_all(callbacks).await;
        let sessions: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!(sessions.len(), 1);
        for denial in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(denial.reason, Reason::LinkReused);
        }
        let stored = house.store.sessions_of(user.id).await.unwrap();
        assert_eq!(stored.iter().map(|session| &session.id).collect::<Vec<_>>(), sessions);
        assert_eq!(house.audited("session.created").await.len(), 1);
    }

    async fn signing_in_replaces_the_session_that_this_browser_had(store: Store) {
        let house = House::over(store).await;
        let (anna, bert) = (house.user(ANNA).await, house.user("bert@example.com").await);
        let mut browser = Browser::at("192.0.2.1");
        let mut phone = Browser::at("192.0.2.2");
        let first = house.signed_in(ANNA, &mut browser).await;
        let elsewhere = house.signed_in(ANNA, &mut phone).await;
        let second = house.signed_in("bert@example.com", &mut browser).await;
        assert_ne!(first.session.hash, second.session.hash);
        assert!(house.store.session(first.session.hash).await.unwrap().is_none());
        assert!(house.store.session(elsewhere.session.hash).await.unwrap().is_some());
        assert_eq!(second.session.user_id, bert.id);
        let log = house.store.revocations_after(0, 100).await.unwrap();
        assert_eq!(log.last().unwrap().entry.scope, Scope::Session { id: first.session.id });
        assert_eq!(house.audited("session.ended").await[0].user_id, Some(anna.id));
    }

    async fn a_ban_or_change_between_mail_and_click_voids_the_link(store: Store) {
        let house = House::over(store).await;
        let user = house.user(ANNA).await;
        let mut browser = Browser::at("192.0.2.1");
        let token = house.link(ANNA, &mut browser).await;
        house.store.set_banned(user.id, Some(START), Effects::default()).await.unwrap();
        assert_eq!(browser.refused(&house, &token).await, Reason::UserBanned);
        assert_eq!(browser.peek(&house, &token).await.unwrap_err().reason, Reason::UserBanned);
        let mut stranger = Browser::at("198.51.100.1");
        assert_eq!(stranger.refused(&house, &token).await, Reason::LinkWrongBrowser, "no stranger hears of a ban");
        house.store.set_banned(user.id, None, Effects::default()).await.unwrap();
        assert_eq!(browser.refused(&house, &token).await, Reason::LinkInvalid, "the ban voided the link for good");
        let fresh = house.link(ANNA, &mut browser).await;
        assert!(browser.confirm(&house, &fresh).await.is_ok());
    }

    async fn a_ban_that_races_a_click_is_a_sign_in_or_a_ban_and_nothing_else(store: Store) {
        let house = House::over(store).await;
        for n in 0..20 {
            let email = format!("user{n}@example.com");
            let user = house.user(&email).await;
            let mut browser = Browser::at(&format!("192.0.2.{n}"));
            let token = house.link(&email, &mut browser).await;
            let ban = async {
                for _ in 0..n {
                    tokio::task::yield_now().await;
                }
                house.store.set_banned(user.id, Some(START), Effects::default()).await.unwrap();
            };
            let (outcome, ()) = tokio::join!(browser.confirm(&house, &token), ban);
            let stored = house.store.sessions_of(user.id).await.unwrap().len();
            match outcome {
                Ok(_) => assert_eq!(stored, 1),
                Err(denial) => assert_eq!((denial.reason, stored), (Reason::UserBanned, 0)),
            }
        }
    }

    async fn junk_and_foreign_tokens_are_invalid_and_no_token_is_missing(store: Store) {
        let house = House::over(store).await;
        house.user(ANNA).await;
        let mut browser = Browser::at("192.0.2.1");
        let token = house.link(ANNA, &mut browser).await;
        assert_eq!(browser.refused(&house, "").await, Reason::MissingToken);
        let session = house.signed_in(ANNA, &mut browser).await;
        for junk in ["x", "a.b.c", &session.token.expose(), &token[1..], &format!("{token} ")] {
            assert_eq!(browser.refused(&house, junk).await, Reason::LinkInvalid, "{junk}");
        }
        let keys = house.ring.keys(Purpose::Link).unwrap();
        let named = link::parse_token(&token, &keys, house.clock.now()).unwrap().link;
        let record = house.store.link(named).await.unwrap().unwrap();
        let forged = Link { email: Email::parse("bert@example.com").unwrap(), ..record };
        let forged = link::mint_token(&forged, &keys).unwrap();
        assert_eq!(browser.refused(&house, &forged).await, Reason::LinkInvalid, "the record decides, not the token");
        let other_house = House::over(Store::memory()).await;
        assert_eq!(browser.refused(&other_house, &token).await, Reason::LinkInvalid);
    }
}
