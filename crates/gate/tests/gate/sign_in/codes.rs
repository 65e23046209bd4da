//! Codes over every store.

use doorward_core::{link::Link, reason::Reason, session::SignInMethod};
use doorward_store::Store;

use super::house::{Browser, CODE_TTL, House, code_in};

const ANNA: &str = "anna@example.com";
const WRONG: &str = "0000-0000";

fn code(house: &House) -> String {
    code_in(&house.mailbox.mails().pop().unwrap().text)
}

async fn stored(house: &House, browser: &Browser) -> Vec<Link> {
    house.store.code_links(browser.login.as_ref().unwrap().hash(), house.clock.now().wall).await.unwrap()
}

crate::on_every_store! {
    async fn a_code_begins_one_session_in_the_browser_that_asked(store: Store) {
        let house = House::over(store).await;
        house.user(ANNA).await;
        let mut browser = Browser::at("192.0.2.1");
        let token = house.link(ANNA, &mut browser).await;
        let code = code(&house);
        let at_rest = stored(&house, &browser).await;
        assert_eq!(at_rest.len(), 1);
        assert!(!format!("{at_rest:?}").contains(&code), "only its hash is kept");
        assert_eq!(Browser::at("198.51.100.1").code_refused(&house, &code).await, Reason::CodeInvalid);
        let racers = (0..4).map(|n| {
            let mut browser = Browser { ip: format!("192.0.2.{n}").parse().unwrap(), ..browser.clone() };
            let (house, code) = (&house, code.clone());
            async move { browser.type_code(house, &code).await }
        });
        let outcomes = futures_util::future::join_all(racers).await;
        let done: Vec<_> = outcomes.iter().flatten().collect();
        assert_eq!(done.len(), 1);
        assert_eq!(done[0].session.method, SignInMethod::Code);
        assert!(outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).all(|denial| denial.reason == Reason::CodeInvalid));
        assert_eq!(browser.refused(&house, &token).await, Reason::LinkReused);
    }

    async fn five_tries_are_all_that_a_code_has(store: Store) {
        let house = House::over(store).await;
        let user = house.user(ANNA).await;
        let mut browser = Browser::at("192.0.2.1");
        let token = house.link(ANNA, &mut browser).await;
        let right = code(&house);
        for _ in 0..5 {
            assert_eq!(browser.code_refused(&house, WRONG).await, Reason::CodeInvalid);
        }
        assert_eq!(browser.code_refused(&house, &right).await, Reason::RateLimited);
        house.clock.advance(CODE_TTL / 2);
        assert_eq!(browser.code_refused(&house, &right).await, Reason::CodeInvalid, "by the store's own count");
        let refused = house.audited("code.refused").await;
        assert_eq!(refused.len(), 3, "throttled");
        assert_eq!(refused[0].user_id, Some(user.id));
        assert!(browser.confirm(&house, &token).await.is_ok(), "the link beside it still works");
    }
}
