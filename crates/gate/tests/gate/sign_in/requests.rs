//! Asking for links: the same answer for everybody, and what happens behind it.

use std::time::Duration;

use doorward_core::{effects::Effects, ring::Purpose};
use doorward_gate::{
    flow::sign_in::{SignIn, SignInConfig},
    mail::Mailbox,
};
use doorward_store::Store;

use super::house::{Browser, CALLBACK, House, START, config, parts, until, within};

const ANNA: &str = "anna@example.com";

crate::on_every_store! {
    async fn strangers_and_banned_people_get_the_same_answer_and_no_mail(store: Store) {
        let house = House::over(store).await;
        house.user(ANNA).await;
        let banned = house.user("banned@example.com").await;
        house.store.set_banned(banned.id, Some(START), Effects::default()).await.unwrap();
        let addresses = ["nobody@example.com", "banned@example.com", "not an address", "a@x.test,b@x.test", ANNA];
        for (n, address) in addresses.into_iter().enumerate() {
            let mut browser = Browser::at(&format!("192.0.2.{n}"));
            browser.ask(&house, address, "/").await;
            assert!(browser.login.is_some(), "{address}");
        }
        within("the one mail", house.mailbox.arrived(1)).await;
        until("the other requests", || {
            let stats = house.sign_in.stats();
            (stats.mailed, stats.unknown, stats.banned, stats.malformed) == (1, 1, 1, 2)
        })
        .await;
        assert_eq!(house.mailbox.mails().len(), 1);
        let rows = house.audited("link.requested").await;
        assert_eq!(rows.len(), 3);
        let strangers: Vec<_> = rows.iter().filter(|row| row.user_id.is_none()).collect();
        assert_eq!(strangers.len(), 2);
        for row in strangers {
            let detail = row.detail.as_deref().unwrap();
            assert!(detail.contains("address_hash") && !detail.contains("@"), "{detail}");
        }
    }

    async fn limits_of_a_client_and_of_an_address_are_apart_and_silent(store: Store) {
        let house = House::over(store).await;
        house.user(ANNA).await;
        house.user("bert@example.com").await;
        let mut flood = Browser::at("198.51.100.1");
        for _ in 0..20 {
            flood.ask(&house, "bert@example.com", "/").await;
        }
        until("the flood", || house.sign_in.stats().limited == 17).await;
        within("three mails", house.mailbox.arrived(3)).await;
        assert_eq!(house.sign_in.stats().mailed, 3, "one client: three a minute");

        for n in 0..20 {
            Browser::at(&format!("203.0.113.{n}")).ask(&house, "bert@example.com", "/").await;
        }
        until("many clients", || house.sign_in.stats().limited == 17 + 18).await;
        within("five mails", house.mailbox.arrived(5)).await;
        assert_eq!(house.mailbox.mails().len(), 5, "one address: five an hour, from wherever");

        house.link(ANNA, &mut Browser::at("192.0.2.1")).await;
        house.clock.advance(Duration::from_secs(12 * 60));
        house.link("bert@example.com", &mut Browser::at("192.0.2.2")).await;
    }

    async fn an_open_door_makes_one_user_of_a_new_address_and_proves_it_by_the_link(store: Store) {
        let house = House::over(store).await;
        house.sign_in.configure(SignInConfig { allow_sign_up: true, ..config() });
        let mut browser = Browser::at("192.0.2.1");
        browser.ask(&house, "new@example.com", "/").await;
        Browser::at("192.0.2.2").ask(&house, "New@example.com", "/").await;
        within("both mails", house.mailbox.arrived(2)).await;
        let users = house.store.users(None, 10).await.unwrap();
        assert_eq!(users.len(), 1);
        assert!(!users[0].admin && !users[0].email_verified);
        assert_eq!(house.audited("user.created").await.len(), 1);
        let signed_in = house.signed_in("new@example.com", &mut browser).await;
        assert_eq!(signed_in.session.user_id, users[0].id);
        assert!(house.store.user(users[0].id).await.unwrap().unwrap().email_verified);
    }

    async fn a_link_leads_to_the_configured_host_and_says_who_asked(store: Store) {
        let house = House::over(store).await;
        house.user(ANNA).await;
        house.link(ANNA, &mut Browser::at("192.0.2.1")).await;
        let mail = house.mailbox.mails().pop().unwrap();
        assert_eq!(mail.subject, "Sign in to app.example.com");
        assert_eq!(mail.kind, "magic_link");
        assert_eq!(mail.give_up_at, START.plus(config().link_ttl));
        for part in [&mail.text, &mail.html] {
            assert!(part.contains(CALLBACK) && part.contains("192.0.2.1") && part.contains("Firefox on Linux"), "{part}");
        }
    }
}

#[tokio::test]
async fn what_was_asked_before_the_stop_is_still_mailed_and_a_full_queue_drops_the_rest() {
    let house = House::over(Store::memory()).await;
    let (sign_in, worker) = SignIn::new(config(), parts(&house.store, &house.ring, &house.clock));
    let house = HouseWithoutWorker { sign_in, house };
    for n in 0..1_030_u32 {
        let email = format!("user{n}@example.com");
        if n % 100 == 0 {
            house.house.user(&email).await;
        }
        house.ask(&format!("2001:db8:{n:x}::1"), &email).await;
    }
    assert_eq!(house.sign_in.stats().dropped, 6);
    within("the worker", worker.run(std::future::ready(()))).await;
    let stats = house.sign_in.stats();
    assert_eq!((stats.mailed, stats.unknown, stats.dropped), (11, 1_013, 6));
    house.ask("192.0.2.1", "late@example.com").await;
    assert_eq!(house.sign_in.stats().dropped, 7, "after the stop nothing pretends to be on its way");
}

struct HouseWithoutWorker {
    sign_in: SignIn,
    house: House,
}

impl HouseWithoutWorker {
    async fn ask(&self, ip: &str, email: &str) {
        let browser = Browser::at(ip);
        let input = doorward_gate::flow::sign_in::LinkInput {
            host: None,
            email: email.to_owned(),
            return_to: "/".into(),
            browser: None,
            known: None,
            asker: browser.asker(),
        };
        self.sign_in.request_link(input).await;
    }
}

#[tokio::test]
async fn a_mailbox_keeps_the_latest_mails_and_takes_each_once() {
    let house = House::over(Store::memory()).await;
    house.user(ANNA).await;
    house.link(ANNA, &mut Browser::at("192.0.2.1")).await;
    let mail = house.mailbox.mails().pop().unwrap();
    let mailbox = Mailbox::new();
    mailbox.deliver(mail.clone());
    mailbox.deliver(mail);
    assert_eq!(mailbox.mails().len(), 1);
    assert!(house.ring.keys(Purpose::Login).is_ok());
}
